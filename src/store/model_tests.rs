//! The store against a map that should behave the same.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{listed, staged_files};
use super::*;

/// What the model test does to the store. Contents are chosen from a few, so that they meet again.
#[derive(Clone, Debug)]
enum Op {
    Stage {
        content: u8,
        expected: Expected,
        /// Bytes that are left out at the end.
        cut: usize,
    },
    Retain {
        below: u8,
    },
    Commit,
    Drop,
    Reopen,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Nothing,
    Itself,
    Other,
}

const CONTENTS: u8 = 6;

fn content_of(number: u8) -> Vec<u8> {
    vec![number; usize::from(number) * 300]
}

fn any_op() -> impl Strategy<Value = Op> {
    let expected = prop_oneof![
        1 => Just(Expected::Nothing),
        4 => Just(Expected::Itself),
        1 => Just(Expected::Other),
    ];
    prop_oneof![
        8 => (0..CONTENTS, expected, prop_oneof![4 => Just(0), 1 => 1..400_usize])
            .prop_map(|(content, expected, cut)| Op::Stage { content, expected, cut }),
        1 => (0..CONTENTS).prop_map(|below| Op::Retain { below }),
        2 => Just(Op::Commit),
        1 => Just(Op::Drop),
        1 => Just(Op::Reopen),
    ]
}

/// What the store should hold, and the batch in progress.
#[derive(Default)]
struct Model {
    stored: BTreeMap<Digest, Vec<u8>>,
    staged: BTreeMap<Digest, Vec<u8>>,
}

impl Model {
    fn stage(&mut self, batch: &mut Batch, op: (u8, Expected, usize)) {
        let (number, expected, cut) = op;
        let whole = content_of(number);
        let limit_bytes = whole.len() as u64;
        let sent = &whole[..whole.len().saturating_sub(cut)];
        let expected = match expected {
            Expected::Nothing => None,
            Expected::Itself => Some(Digest::of(&whole)),
            Expected::Other => Some(Digest::of(b"other")),
        };
        let digest = Digest::of(sent);
        let mut writer = batch.writer(expected, limit_bytes).unwrap();
        for chunk in sent.chunks(128) {
            writer.write(chunk).unwrap();
        }
        let result = batch.stage(writer);
        if expected.is_some_and(|expected| expected != digest) {
            assert!(matches!(result, Err(Error::DigestMismatch { found, .. }) if found == digest));
            return;
        }
        let is_new = !self.stored.contains_key(&digest) && !self.staged.contains_key(&digest);
        let size_bytes = sent.len() as u64;
        assert_eq!(
            result.unwrap(),
            Staged {
                digest,
                size_bytes,
                is_new
            }
        );
        self.staged.insert(digest, sent.to_vec());
    }

    fn commit(&mut self, batch: Batch) {
        let mut expected = Committed::default();
        for (digest, content) in std::mem::take(&mut self.staged) {
            let size_bytes = content.len() as u64;
            if self.stored.insert(digest, content).is_none() {
                expected.new_blobs += 1;
                expected.new_bytes += size_bytes;
            } else {
                expected.known_blobs += 1;
                expected.known_bytes += size_bytes;
            }
        }
        assert_eq!(batch.commit().unwrap().0, expected);
    }

    fn check(&self, root: &Path, store: &Store, batch: &Batch) {
        let sizes = |(digest, content): (&Digest, &Vec<u8>)| (*digest, content.len() as u64);
        assert_eq!(
            listed(store),
            self.stored.iter().map(sizes).collect::<Vec<_>>()
        );
        for (digest, content) in &self.stored {
            assert_eq!(store.read(digest, u64::MAX).unwrap(), *content);
        }
        for number in 0..CONTENTS {
            let digest = Digest::of(&content_of(number));
            let content = self.staged.get(&digest).or(self.stored.get(&digest));
            let size_bytes = content.map(|content| content.len() as u64);
            assert_eq!(batch.find(&digest).unwrap(), size_bytes);
            assert_eq!(batch.read(&digest, u64::MAX).ok().as_ref(), content);
        }
        let new = self
            .staged
            .keys()
            .filter(|digest| !self.stored.contains_key(digest));
        assert_eq!(staged_files(root), new.count());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_map(ops in vec(any_op(), 1..30)) {
        let root = tempfile::tempdir().unwrap();
        let mut store = Store::open(root.path()).unwrap();
        let mut batch = store.begin();
        let mut model = Model::default();
        for op in ops {
            match op {
                Op::Stage { content, expected, cut } => model.stage(&mut batch, (content, expected, cut)),
                Op::Retain { below } => {
                    let kept: Vec<Digest> = (0..below).map(|number| Digest::of(&content_of(number))).collect();
                    batch.retain(|digest| kept.contains(digest));
                    model.staged.retain(|digest, _| kept.contains(digest));
                }
                Op::Commit => model.commit(std::mem::replace(&mut batch, store.begin())),
                Op::Drop => {
                    batch = store.begin();
                    model.staged.clear();
                }
                Op::Reopen => {
                    drop(batch);
                    store = Store::open(root.path()).unwrap();
                    batch = store.begin();
                    model.staged.clear();
                }
            }
            model.check(root.path(), &store, &batch);
        }
    }
}
