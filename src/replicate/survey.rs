//! From what was found on a target to the plan: reads what images consist of, one after the other, and lets go of it.
//!
//! Only what is behind is read, with two exceptions: an image that is in place and of which nothing was known yet, because what it
//! consists of need not be sent; and images that others may be about. So a run that has one image to bring does not read the
//! ten thousand that are there. Those are read, too, that bring foreign layers to a target which is to have them.

use std::collections::{BTreeSet, HashMap};

use super::held::{Held, Known, Recall};
use super::plan::{Conflict, Found, Knowledge, Plan, Standing, TreeId};
use super::planner::Planner;
use super::uploads::Ledger;
use super::wanted::{Reference, WantedImage};
use crate::base::oci::MANIFEST_BYTES_MAX;
use crate::base::{Chain, Digest, Tree, TreeError};
use crate::store::{self, Lease, Store};

/// Why an image that is behind cannot be planned, by its index.
pub(super) type Unread = Vec<(usize, TreeError<store::Error>)>;

/// A plan in the making.
pub(super) struct Survey<'w> {
    images: &'w [WantedImage],
    held: &'w Held<'w>,
    planner: Planner,
    standings: Vec<Standing>,
}

impl<'w> Survey<'w> {
    /// Begins with what was found at the place of each of `images`; `placed` says what we put to one last, where
    /// this is there now.
    pub(super) fn new<E>(
        images: &'w [WantedImage],
        held: &'w Held<'w>,
        found: &[Found],
        placed: impl Fn(&WantedImage, &Found) -> Result<Option<Digest>, E>,
    ) -> Result<Self, E> {
        let mut standings = Vec::with_capacity(images.len());
        let mut recall = held.recall();
        for (image, found) in images.iter().zip(found) {
            let is_there = *found == Found::Image(image.root.digest);
            let placed = if is_there {
                None
            } else {
                placed(image, found)?
            };
            if *found == Found::Nothing && is_lost(image, placed, &mut recall) {
                // Whoever removed it may have removed what it consists of; what is known is from before.
                standings.push(Standing::Lost);
                continue;
            }
            standings.push(Standing::new(image, *found, placed));
        }
        Ok(Self {
            images,
            held,
            planner: Planner::default(),
            standings,
        })
    }

    /// Adds the images that are behind, without those that are left out. Returns those that cannot be read. Blocking.
    pub(super) fn add_behind(
        &mut self,
        store: &Store,
        lease: &Lease,
        left_out: &BTreeSet<usize>,
    ) -> Unread {
        let mut reader = TreeReader::new(|digest: &Digest| read(store, lease, digest));
        let mut unread = Unread::new();
        for (index, image) in self.images.iter().enumerate() {
            if left_out.contains(&index) {
                continue;
            }
            let replaces = match self.standings[index] {
                Standing::Behind { replaces } => replaces,
                Standing::Lost => None,
                Standing::Conflict { found } => {
                    self.planner.add_conflict(Conflict { index, found });
                    continue;
                }
                Standing::InPlace | Standing::Unknown => continue,
            };
            match reader.read(image, &mut self.planner) {
                Ok(tree) => {
                    if self.standings[index] == Standing::Lost {
                        let all = self.planner.digests_of(tree);
                        self.held.forget(&image.place.repository, all);
                    }
                    self.planner.add_behind(index, image, tree, replaces);
                }
                Err(error) => {
                    self.standings[index] = Standing::Unknown;
                    unread.push((index, error));
                }
            }
        }
        unread
    }

    /// Plans, when all that is behind was added. Blocking.
    pub(super) fn finish(
        mut self,
        (store, lease): (&Store, &Lease),
        uploads: &Ledger<'_>,
        left_out: &BTreeSet<usize>,
    ) -> Plan {
        // What was forgotten is not known any more.
        self.held.flush();
        self.learn(store, lease);
        self.add_bystanders(store, lease, left_out);
        let held = self.held.recall();
        self.planner.finish(&mut Known { held, uploads })
    }

    /// Notes what images consist of that are in place and were not known. One that cannot be read is there all the same.
    fn learn(&self, store: &Store, lease: &Lease) {
        let mut implied = self.held.imply();
        for index in self.list_unknown() {
            let image = &self.images[index];
            match read_needed(image, |digest| read(store, lease, digest)) {
                Ok(tree) => implied.add(&image.place.repository, &tree),
                Err(error) => tracing::debug!(
                    image = %image.place,
                    reason = %Chain(&error),
                    "image that is in place cannot be read"
                ),
            }
        }
        implied.write();
    }

    /// Lists the images that are in place and were not known, by index.
    fn list_unknown(&self) -> Vec<usize> {
        let standings = self.standings.iter().enumerate();
        let in_place = standings.filter(|(_, standing)| **standing == Standing::InPlace);
        let mut list: Vec<usize> = in_place.map(|(index, _)| index).collect();
        let parts = |index: usize| {
            let image = &self.images[index];
            (&image.root.digest, &image.place.repository)
        };
        list.sort_unstable_by(|one, other| parts(*one).cmp(&parts(*other)));
        let mut recall = self.held.recall();
        list.retain(|index| {
            let (digest, repository) = parts(*index);
            !recall.was_there(repository, digest)
        });
        list
    }

    /// Adds images that are not behind where others may be about them.
    fn add_bystanders(&mut self, store: &Store, lease: &Lease, left_out: &BTreeSet<usize>) {
        let is_bystander = |(index, standing): &(usize, Standing)| {
            let is_behind = matches!(standing, Standing::Behind { .. } | Standing::Lost);
            !is_behind && !left_out.contains(index)
        };
        let standings = self.standings.iter().copied().enumerate();
        let bystanders: Vec<(usize, Standing)> = standings.filter(is_bystander).collect();
        for (index, standing) in &bystanders {
            let image = &self.images[*index];
            let root = [&image.root.digest];
            self.planner.add_bystander(*index, image, root, *standing);
        }
        let seeking = self.planner.seeking();
        for (index, standing) in bystanders {
            let image = &self.images[index];
            if !seeking.contains(&image.place.repository) {
                continue;
            }
            // Where it cannot be read, only its outermost manifest is known.
            if let Ok(tree) = read_tree(image, |digest| read(store, lease, digest)) {
                let manifests = tree.manifests.iter().map(|manifest| &manifest.digest);
                self.planner
                    .add_bystander(index, image, manifests, standing);
            }
        }
    }
}

/// Returns whether an image at whose place nothing is was there before.
fn is_lost(image: &WantedImage, placed: Option<Digest>, recall: &mut Recall<'_>) -> bool {
    match &image.place.reference {
        Reference::Tag(_) => placed == Some(image.root.digest),
        Reference::Digest(digest) => recall.was_there(&image.place.repository, digest),
    }
}

/// Reads a manifest that is pushed, or may be.
fn read(store: &Store, lease: &Lease, digest: &Digest) -> Result<Vec<u8>, store::Error> {
    lease.add(*digest);
    let content = store.read(digest, MANIFEST_BYTES_MAX);
    content.inspect_err(|error| store.suspect_after(*digest, error))
}

/// Returns whether an image that is in place lacks foreign layers that are wanted there, as far as is known: registries take it
/// without them. One that cannot be read is there all the same. Blocking.
pub(super) fn is_incomplete(
    image: &WantedImage,
    (store, lease): (&Store, &Lease),
    known: &mut impl Knowledge,
) -> bool {
    if image.foreign.is_empty() {
        return false;
    }
    let repository = &image.place.repository;
    let tree = read_needed(image, |digest| read(store, lease, digest));
    tree.is_ok_and(|tree| {
        let mut wanted = tree.foreign.keys().filter(|it| image.foreign.contains(*it));
        wanted.any(|digest| !known.holds(repository, digest))
    })
}

/// Reads what an image consists of, with foreign layers that are wanted.
fn read_tree<E: std::error::Error + 'static>(
    image: &WantedImage,
    read: impl FnMut(&Digest) -> Result<Vec<u8>, E>,
) -> Result<Tree, TreeError<E>> {
    let mut tree = read_needed(image, read)?;
    tree.take_in(|digest| image.foreign.contains(digest));
    Ok(tree)
}

/// Reads what an image cannot do without.
fn read_needed<E: std::error::Error + 'static>(
    image: &WantedImage,
    mut read: impl FnMut(&Digest) -> Result<Vec<u8>, E>,
) -> Result<Tree, TreeError<E>> {
    Tree::read(&image.root, |manifest| {
        if image.omitted.contains(&manifest.digest) {
            return Ok(None);
        }
        read(&manifest.digest).map(Some)
    })
}

/// What was left out of an image and which foreign layers are wanted, which may differ from package to package, and what it
/// consists of then.
type Read<'w> = (&'w BTreeSet<Digest>, &'w BTreeSet<Digest>, TreeId);

/// Reads what images consist of, once for each: thousands of names may stand for one large index.
struct TreeReader<'w, F> {
    read: F,
    known: HashMap<Digest, Vec<Read<'w>>>,
}

impl<'w, F, E> TreeReader<'w, F>
where
    F: FnMut(&Digest) -> Result<Vec<u8>, E>,
    E: std::error::Error + 'static,
{
    fn new(read: F) -> Self {
        Self {
            read,
            known: HashMap::new(),
        }
    }

    fn read(
        &mut self,
        image: &'w WantedImage,
        planner: &mut Planner,
    ) -> Result<TreeId, TreeError<E>> {
        let known = self.known.entry(image.root.digest).or_default();
        let is_same = |(omitted, foreign, _): &&Read<'_>| {
            **omitted == image.omitted && **foreign == *image.foreign
        };
        if let Some((_, _, tree)) = known.iter().find(is_same) {
            return Ok(*tree);
        }
        let tree = read_tree(image, &mut self.read)?;
        let tree = planner.add_tree(&tree);
        known.push((&image.omitted, &image.foreign, tree));
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::wanted::Place;
    use super::*;
    use crate::base::oci::Descriptor;

    #[test]
    fn an_image_of_several_names_is_read_once_unless_other_parts_were_left_out() {
        let blob = |content: &str| {
            let (digest, size) = (Digest::of(content.as_bytes()), content.len());
            format!(r#"{{"mediaType":"m","digest":"{digest}","size":{size}}}"#)
        };
        let child = format!(r#"{{"config":{},"layers":[]}}"#, blob("config"));
        let index = format!(r#"{{"manifests":[{}]}}"#, blob(&child));
        let child_digest = Digest::of(child.as_bytes());
        let image = |tag: &str, omitted: BTreeSet<Digest>| WantedImage {
            place: Place {
                repository: "a".parse().unwrap(),
                reference: Reference::Tag(tag.parse().unwrap()),
            },
            root: Descriptor::of("m", index.as_bytes()),
            earlier: Vec::new(),
            omitted,
            foreign: Arc::default(),
        };
        let mut images: Vec<WantedImage> = ["v1", "v2", "v3"]
            .map(|tag| image(tag, BTreeSet::new()))
            .into();
        images.push(image("v4", BTreeSet::from([child_digest])));
        let mut reads = Vec::new();
        let mut reader = TreeReader::new(|digest: &Digest| {
            reads.push(*digest);
            let content = if *digest == child_digest {
                &child
            } else {
                &index
            };
            Ok::<_, std::convert::Infallible>(content.clone().into_bytes())
        });
        let mut planner = Planner::default();
        let trees: Vec<usize> = images
            .iter()
            .map(|image| {
                let tree = reader.read(image, &mut planner).unwrap();
                planner.digests_of(tree).len()
            })
            .collect();
        assert_eq!(trees, [3, 3, 3, 1], "index, manifest and configuration");
        let root = images[0].root.digest;
        assert_eq!(reads, [root, child_digest, root]);
    }
}
