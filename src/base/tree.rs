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
        mut read: impl FnMut(&Descriptor) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Self, TreeError<E>> {
        let mut tree = Self {
            manifests: Vec::new(),
            blobs: Vec::new(),
            foreign: BTreeMap::new(),
            omitted: BTreeSet::new(),
            subjects: BTreeSet::new(),
        };
        let mut seen = BTreeSet::new();
        tree.visit(root, DEPTH_MAX, &mut seen, &mut read)
            .map_err(|error| error.unwrap_or(TreeError::TooDeep { root: root.digest }))?;
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

    /// Adds `descriptor` and what is below it. The error is `None` where the depth is used up.
    fn visit<E>(
        &mut self,
        descriptor: &Descriptor,
        depth: usize,
        seen: &mut BTreeSet<Digest>,
        read: &mut impl FnMut(&Descriptor) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<(), Option<TreeError<E>>> {
        let digest = descriptor.digest;
        if !seen.insert(digest) {
            return Ok(());
        }
        let depth = depth.checked_sub(1).ok_or(None)?;
        let Some(bytes) = read(descriptor).map_err(|source| TreeError::Read { digest, source })?
        else {
            self.omitted.insert(digest);
            return Ok(());
        };
        let (manifest, media_type) =
            Manifest::parse(&bytes).map_err(|source| TreeError::Parse { digest, source })?;
        self.subjects
            .extend(manifest.subject().map(|subject| subject.digest));
        for child in manifest.children() {
            self.visit(child, depth, seen, read)?;
        }
        for blob in manifest.blobs() {
            if seen.insert(blob.digest) {
                self.blobs.push(Blob {
                    descriptor: blob.clone(),
                    parent: digest,
                });
            }
        }
        for layer in manifest.foreign_layers() {
            self.foreign.entry(layer.digest).or_insert_with(|| Blob {
                descriptor: layer.clone(),
                parent: digest,
            });
        }
        self.manifests.push(Descriptor {
            media_type,
            ..descriptor.clone()
        });
        Ok(())
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
