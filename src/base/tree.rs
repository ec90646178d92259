//! Everything that an image consists of, in the order in which it can be sent.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::Digest;
use super::oci::{Descriptor, Manifest, ParseManifestError};

/// How deep indexes may nest. Real ones are one level deep; the bound keeps hostile input from using up the stack.
pub const DEPTH_MAX: usize = 8;

/// The manifests and blobs of one image, each digest once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Manifests, children before parents; the last one is the image itself.
    pub manifests: Vec<Descriptor>,
    /// The round in which each of [`Self::manifests`] can be put, from 0: it names nothing but manifests of earlier rounds. What it is
    /// about is in an earlier round, too, where it comes first. The image itself is alone in the last one.
    pub rounds: Vec<u32>,
    /// Configurations and layers, in the order of the manifests that name them.
    pub blobs: Vec<Blob>,
    /// Foreign layers, none of which is among the blobs: no part of it unless they are [taken in](Self::take_in).
    pub foreign: BTreeMap<Digest, Blob>,
    /// Manifests that its indexes name and that were left out on purpose: no part of it.
    pub omitted: BTreeSet<Digest>,
    /// What its manifests are about, apart from one another: it is a referrer of these.
    pub subjects: BTreeSet<Digest>,
}

/// A blob and the manifest that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The configuration or layer.
    pub descriptor: Descriptor,
    /// The manifest that names it first.
    pub parent: Digest,
}

/// Why a tree cannot be read.
#[derive(Debug, Error)]
pub enum TreeError<E> {
    /// A manifest cannot be read from where it is kept.
    #[error("failed to read manifest {digest}")]
    Read {
        /// The manifest.
        digest: Digest,
        /// What the reader said.
        source: E,
    },
    /// A manifest is kept, but is none.
    #[error("failed to parse manifest {digest}")]
    Parse {
        /// The manifest.
        digest: Digest,
        /// What is wrong with it.
        source: ParseManifestError,
    },
    /// Indexes nest deeper than [`DEPTH_MAX`].
    #[error("expected at most {DEPTH_MAX} levels of manifests below {root}")]
    TooDeep {
        /// The image.
        root: Digest,
    },
    /// The image itself was left out.
    #[error("expected image {root}, found that it was left out")]
    RootOmitted {
        /// The image.
        root: Digest,
    },
}

impl Tree {
    /// Reads the tree below `root`; `read` returns the bytes of a manifest, or `None` where it was left out on purpose.
    pub fn read<E: std::error::Error + 'static>(
        root: &Descriptor,
        read: impl FnMut(&Descriptor) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Self, TreeError<E>> {
        let tree = Self {
            manifests: Vec::new(),
            rounds: Vec::new(),
            blobs: Vec::new(),
            foreign: BTreeMap::new(),
            omitted: BTreeSet::new(),
            subjects: BTreeSet::new(),
        };
        let mut visitor = Visitor {
            tree,
            seen: BTreeSet::new(),
            rounds: BTreeMap::new(),
            read,
        };
        visitor
            .visit(root, DEPTH_MAX)
            .map_err(|error| error.unwrap_or(TreeError::TooDeep { root: root.digest }))?;
        let Visitor { mut tree, seen, .. } = visitor;
        if tree.manifests.is_empty() {
            return Err(TreeError::RootOmitted { root: root.digest });
        }
        for manifest in &tree.manifests {
            tree.subjects.remove(&manifest.digest);
        }
        // What is foreign to one image may be a layer like others of the next one.
        tree.foreign.retain(|digest, _| !seen.contains(digest));
        Ok(tree)
    }

    /// Makes those foreign layers blobs like others whose content is at hand.
    pub fn take_in(&mut self, is_at_hand: impl Fn(&Digest) -> bool) {
        let foreign = std::mem::take(&mut self.foreign);
        let (taken, left): (BTreeMap<_, _>, BTreeMap<_, _>) = foreign
            .into_iter()
            .partition(|(digest, _)| is_at_hand(digest));
        self.blobs.extend(taken.into_values());
        self.foreign = left;
    }

    /// Returns the bytes of all manifests and blobs together.
    pub fn content_bytes(&self) -> u64 {
        let manifests = self.manifests.iter().map(|manifest| manifest.size_bytes);
        let blobs = self.blobs.iter().map(|blob| blob.descriptor.size_bytes);
        manifests.chain(blobs).fold(0, u64::saturating_add)
    }
}

/// Reads a tree.
struct Visitor<R> {
    /// What was read so far.
    tree: Tree,
    /// Every digest that has occurred.
    seen: BTreeSet<Digest>,
    /// The rounds of the manifests in [`Self::tree`].
    rounds: BTreeMap<Digest, u32>,
    read: R,
}

impl<R> Visitor<R> {
    /// Adds `descriptor` and what is below it. The error is `None` where the depth is used up.
    fn visit<E>(
        &mut self,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<(), Option<TreeError<E>>>
    where
        R: FnMut(&Descriptor) -> Result<Option<Vec<u8>>, E>,
    {
        let digest = descriptor.digest;
        if !self.seen.insert(digest) {
            return Ok(());
        }
        let depth = depth.checked_sub(1).ok_or(None)?;
        let read = (self.read)(descriptor);
        let Some(bytes) = read.map_err(|source| TreeError::Read { digest, source })? else {
            self.tree.omitted.insert(digest);
            return Ok(());
        };
        let (manifest, media_type) =
            Manifest::parse(&bytes).map_err(|source| TreeError::Parse { digest, source })?;
        for child in manifest.children() {
            self.visit(child, depth)?;
        }
        self.add(digest, &manifest);
        self.tree.manifests.push(Descriptor {
            media_type,
            ..descriptor.clone()
        });
        Ok(())
    }

    /// Adds what a manifest names, and the round that follows from it.
    fn add(&mut self, digest: Digest, manifest: &Manifest) {
        let subject = manifest.subject();
        self.tree.subjects.extend(subject.map(|it| it.digest));
        for blob in manifest.blobs() {
            if self.seen.insert(blob.digest) {
                self.tree.blobs.push(Blob {
                    descriptor: blob.clone(),
                    parent: digest,
                });
            }
        }
        for layer in manifest.foreign_layers() {
            let foreign = self.tree.foreign.entry(layer.digest);
            foreign.or_insert_with(|| Blob {
                descriptor: layer.clone(),
                parent: digest,
            });
        }
        let named = manifest.children().chain(subject);
        let before = named.filter_map(|it| self.rounds.get(&it.digest));
        let round = before.max().map_or(0, |last| last + 1);
        self.rounds.insert(digest, round);
        self.tree.rounds.push(round);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A bag of manifests by digest.
    #[derive(Default)]
    struct Bag(BTreeMap<Digest, Vec<u8>>);

    impl Bag {
        fn add(&mut self, text: &str) -> Descriptor {
            let descriptor = Descriptor::of("", text.as_bytes());
            self.0.insert(descriptor.digest, text.as_bytes().to_vec());
            descriptor
        }

        fn tree(&self, root: &Descriptor) -> Result<Tree, TreeError<io::Error>> {
            Tree::read(root, |descriptor| {
                let found = self.0.get(&descriptor.digest).cloned();
                found
                    .map(Some)
                    .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
            })
        }
    }

    fn pointer(descriptor: &Descriptor) -> String {
        let Descriptor {
            digest, size_bytes, ..
        } = descriptor;
        format!(r#"{{"mediaType":"x","digest":"{digest}","size":{size_bytes}}}"#)
    }

    fn image(layer: &str) -> String {
        let layer = Digest::of(layer.as_bytes());
        format!(
            r#"{{"config":{{"mediaType":"c","digest":"{}","size":1}},
                "layers":[{{"mediaType":"l","digest":"{layer}","size":10}}]}}"#,
            Digest::of(b"config")
        )
    }

    #[test]
    fn children_come_before_parents_and_each_digest_once() {
        let mut bag = Bag::default();
        let one = bag.add(&image("one"));
        let two = bag.add(&image("two"));
        let (a, b) = (pointer(&one), pointer(&two));
        let root = bag.add(&format!(r#"{{"manifests":[{a},{b},{a}]}}"#));
        let tree = bag.tree(&root).unwrap();
        let order: Vec<Digest> = tree.manifests.iter().map(|m| m.digest).collect();
        assert_eq!(order, [one.digest, two.digest, root.digest]);
        assert_eq!(tree.blobs.len(), 3, "the shared configuration counts once");
        let manifests = one.size_bytes + two.size_bytes + root.size_bytes;
        assert_eq!(tree.content_bytes(), manifests + 1 + 10 + 10);
    }

    #[test]
    fn a_manifest_is_in_a_round_after_all_that_it_names_and_the_image_alone_in_the_last() {
        let mut bag = Bag::default();
        let [one, two, lone] = ["one", "two", "three"].map(|layer| bag.add(&image(layer)));
        let index = |children: &[&Descriptor]| {
            let children: Vec<String> = children.iter().map(|it| pointer(it)).collect();
            format!(r#"{{"manifests":[{}]}}"#, children.join(","))
        };
        let inner = bag.add(&index(&[&one, &two]));
        let outer = bag.add(&index(&[&inner, &lone]));
        let rest = image("signature");
        let about = pointer(&lone);
        let about = format!(r#"{{"subject":{about},{}"#, rest.strip_prefix('{').unwrap());
        let signature = bag.add(&about);
        // What is named twice, at different depths, comes before both.
        let root = bag.add(&index(&[&outer, &inner, &one, &signature]));
        let tree = bag.tree(&root).unwrap();
        let order: Vec<Digest> = tree.manifests.iter().map(|it| it.digest).collect();
        let expected = [&one, &two, &inner, &lone, &outer, &signature, &root];
        assert_eq!(order, expected.map(|it| it.digest));
        assert_eq!(tree.rounds, [0, 0, 1, 0, 2, 1, 3]);
    }

    #[test]
    fn deep_and_incomplete_trees_are_errors() {
        let mut bag = Bag::default();
        let mut root = bag.add(&image("one"));
        for _ in 0..DEPTH_MAX {
            root = bag.add(&format!(r#"{{"manifests":[{}]}}"#, pointer(&root)));
        }
        assert!(matches!(bag.tree(&root), Err(TreeError::TooDeep { .. })));
        bag.0.remove(&root.digest);
        assert!(matches!(bag.tree(&root), Err(TreeError::Read { .. })));
    }
    #[test]
    fn what_was_left_out_is_no_part_of_the_tree() {
        let mut bag = Bag::default();
        let (one, two) = (bag.add(&image("one")), bag.add(&image("two")));
        let root = bag.add(&format!(
            r#"{{"manifests":[{},{}]}}"#,
            pointer(&one),
            pointer(&two)
        ));
        let read = |left_out: Digest| {
            Tree::read(&root, |descriptor| {
                let is_there = descriptor.digest != left_out;
                Ok::<_, io::Error>(is_there.then(|| bag.0[&descriptor.digest].clone()))
            })
        };
        let tree = read(two.digest).unwrap();
        let order: Vec<Digest> = tree.manifests.iter().map(|m| m.digest).collect();
        assert_eq!(order, [one.digest, root.digest]);
        assert_eq!(tree.blobs.len(), 2);
        assert_eq!(tree.omitted, BTreeSet::from([two.digest]));
        assert!(matches!(
            read(root.digest),
            Err(TreeError::RootOmitted { .. })
        ));
    }

    #[test]
    fn foreign_layers_are_no_part_of_the_tree_until_they_are_taken_in() {
        let mut bag = Bag::default();
        let layer = |text: &str, rest: &str| {
            let digest = Digest::of(text.as_bytes());
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":"{digest}","size":10{rest}}}"#
            )
        };
        let image = |layers: &[String]| {
            let config = Digest::of(b"config");
            format!(
                r#"{{"config":{{"mediaType":"c","digest":"{config}","size":1}},"layers":[{}]}}"#,
                layers.join(",")
            )
        };
        let foreign = |text| layer(text, r#","urls":["https://layers.example"]"#);
        let one = bag.add(&image(&[foreign("base"), foreign("both"), foreign("lost")]));
        let two = bag.add(&image(&[foreign("base"), layer("both", "")]));
        let root = format!(r#"{{"manifests":[{},{}]}}"#, pointer(&one), pointer(&two));
        let root = bag.add(&root);
        let mut tree = bag.tree(&root).unwrap();
        let digests = |names: &[&str]| -> BTreeSet<Digest> {
            names
                .iter()
                .map(|name| Digest::of(name.as_bytes()))
                .collect()
        };
        let blobs = |tree: &Tree| -> BTreeSet<Digest> {
            tree.blobs
                .iter()
                .map(|blob| blob.descriptor.digest)
                .collect()
        };
        assert_eq!(blobs(&tree), digests(&["config", "both"]));
        let foreign: BTreeSet<Digest> = tree.foreign.keys().copied().collect();
        assert_eq!(foreign, digests(&["base", "lost"]));
        let before = tree.content_bytes();
        let base = Digest::of(b"base");
        tree.take_in(|digest| *digest == base);
        assert_eq!(blobs(&tree), digests(&["config", "both", "base"]));
        assert_eq!(tree.foreign.len(), 1);
        assert_eq!(tree.content_bytes(), before + 10);
    }

    #[test]
    fn subjects_are_what_a_tree_is_about_and_does_not_hold() {
        let mut bag = Bag::default();
        let subject = bag.add(&image("one"));
        let about = |subject: &Descriptor, layer: &str| {
            let image = image(layer);
            let rest = image.strip_prefix('{').unwrap();
            format!(r#"{{"subject":{},{rest}"#, pointer(subject))
        };
        let signature = bag.add(&about(&subject, "signature"));
        let countersignature = bag.add(&about(&signature, "countersignature"));
        let root = bag.add(&format!(
            r#"{{"manifests":[{},{}]}}"#,
            pointer(&signature),
            pointer(&countersignature)
        ));
        let tree = bag.tree(&root).unwrap();
        assert_eq!(tree.subjects, BTreeSet::from([subject.digest]));
        assert_eq!(tree.manifests.len(), 3, "a subject is no part of the tree");
        assert!(bag.tree(&subject).unwrap().subjects.is_empty());
    }
}
