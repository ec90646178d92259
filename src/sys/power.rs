//! What a power cut may leave: a model of a file system that has seen every operation below one folder.
//!
//! # Model
//!
//! A name, or its absence, survives once its folder was synced after it came; content survives once its file was synced
//! after it was written. Everything else may survive or not, each for itself and in any order, with one exception: a file
//! that was renamed is at its old place, at its new one or at both, and never at neither. That is less than journalling
//! file systems promise, and about what POSIX does.
//!
//! What changes is found by looking at the whole folder after each operation that goes through
//! [`attempt`](super::fs::attempt), so that changes by others are noticed, too: libraries, destructors, the test itself.
//! What a sync makes durable is what was there before it began.
//!
//! The files of the database are not modelled, because its own operations are not seen. They are taken by their contract:
//! a cut leaves the database as it was when the last synced write returned, or as its files are at that moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::fault::Faults;
use super::fs;

/// A file or a folder, whatever its name is. Numbers are used again, so the time of birth is part of it.
type Id = (u64, Option<SystemTime>);
type Names = BTreeMap<OsString, Id>;
type Content = Arc<Vec<u8>>;
type Files = BTreeMap<OsString, Content>;

/// Folders with the names in them, and files with their content.
#[derive(Clone, Debug, Default, PartialEq)]
struct World {
    folders: BTreeMap<Id, Names>,
    files: BTreeMap<Id, Content>,
}

/// Sees the operations below a folder.
#[derive(Debug)]
pub(super) struct Recording {
    root: PathBuf,
    database: PathBuf,
    root_id: Id,
    /// What would survive.
    synced: World,
    /// The database when its last write returned.
    acknowledged: Option<Files>,
    /// Content by file, size and time of the last change, so that it is read once.
    known: HashMap<(Id, u64, SystemTime), Content>,
    cuts: Vec<Cut>,
}

/// What was there before an operation began.
#[derive(Debug)]
pub(super) enum Before {
    /// It is no sync.
    Nothing,
    Folder(Id, Names),
    File(Id, Content),
}

/// A moment between two operations.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    /// The operation before it.
    pub(crate) what: String,
    /// The path that it was about.
    pub(super) path: PathBuf,
    root: Id,
    database_name: OsString,
    live: World,
    synced: World,
    acknowledged: Option<Files>,
    database: Option<Files>,
}

/// What survives a cut of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    /// Nothing.
    Synced,
    /// Everything.
    Everything,
    /// Names, but not the content of files: they are empty, or as they were.
    Names,
    /// Some of it, by this seed.
    Mixed(u64),
}

/// Records every moment at which the power may be cut, until it is finished.
#[derive(Debug)]
pub(crate) struct Recorder {
    faults: Faults,
    recording: Arc<Mutex<Recording>>,
}

impl Recorder {
    /// Takes all that is below `root` for durable, and records from now on. `database` is the folder of the database.
    pub(crate) fn start(root: &Path, database: &Path) -> Self {
        let mut recording = Recording {
            root: root.to_owned(),
            database: database.to_owned(),
            root_id: id_of(&root.metadata().unwrap()),
            synced: World::default(),
            acknowledged: None,
            known: HashMap::new(),
            cuts: Vec::new(),
        };
        recording.synced = recording.look();
        recording.acknowledged = recording.read_database();
        let recording = Arc::new(Mutex::new(recording));
        let faults = Faults::show(root, Arc::clone(&recording));
        Self { faults, recording }
    }

    /// Returns the moments that differ, in their order.
    pub(crate) fn finish(self) -> Vec<Cut> {
        drop(self.faults);
        let mut recording = self.recording.lock().unwrap();
        std::mem::take(&mut recording.cuts)
    }
}

impl Recording {
    pub(super) fn before(&mut self, verb: &str, path: &Path) -> Before {
        let Some(metadata) = path.metadata().ok().filter(|_| verb == "sync") else {
            return Before::Nothing;
        };
        let id = id_of(&metadata);
        if metadata.is_dir() {
            let mut names = names_in(path);
            names.retain(|name, _| path.join(name) != self.database);
            Before::Folder(id, names)
        } else {
            Before::File(id, self.read(path, &metadata).unwrap_or_default())
        }
    }

    pub(super) fn after(&mut self, verb: &str, path: &Path, before: Before, is_done: bool) {
        if is_done && path == self.database {
            self.acknowledged = self.read_database();
        }
        match before {
            Before::Folder(id, names) if is_done => {
                self.synced.folders.insert(id, names);
            }
            Before::File(id, content) if is_done => {
                self.synced.files.insert(id, content);
            }
            Before::Nothing | Before::Folder(..) | Before::File(..) => {}
        }
        let live = self.look();
        for folder in live.folders.keys() {
            // A name that survives is that of a folder still, also where what was in it has become the database.
            self.synced.folders.entry(*folder).or_default();
        }
        let place = path.strip_prefix(&self.root).unwrap_or(path);
        let cut = Cut {
            what: format!("{verb} {}", place.display()),
            path: path.to_owned(),
            root: self.root_id,
            database_name: self.database.strip_prefix(&self.root).unwrap().into(),
            live,
            synced: self.synced.clone(),
            acknowledged: self.acknowledged.clone(),
            database: self.read_database(),
        };
        match self.cuts.last_mut() {
            // Nothing has changed since: what is acknowledged now was so at no other state.
            Some(last) if last.is_same(&cut) => *last = cut,
            Some(_) | None => self.cuts.push(cut),
        }
    }

    /// Looks at everything but the database.
    fn look(&mut self) -> World {
        let mut world = World::default();
        let mut dirs = vec![self.root.clone()];
        while let Some(dir) = dirs.pop() {
            let Ok(metadata) = dir.metadata() else {
                continue;
            };
            let mut names = names_in(&dir);
            names.retain(|name, id| {
                let path = dir.join(name);
                let Ok(metadata) = path.symlink_metadata() else {
                    return false;
                };
                *id = id_of(&metadata);
                if path == self.database {
                    return false;
                }
                if metadata.is_dir() {
                    dirs.push(path);
                } else if let Some(content) = self.read(&path, &metadata) {
                    world.files.insert(*id, content);
                }
                true
            });
            world.folders.insert(id_of(&metadata), names);
        }
        world
    }

    fn read(&mut self, path: &Path, metadata: &Metadata) -> Option<Content> {
        let key = (
            id_of(metadata),
            metadata.len(),
            metadata.modified().unwrap(),
        );
        if let Some(known) = self.known.get(&key) {
            return Some(Arc::clone(known));
        }
        let content = Arc::new(std::fs::read(path).ok()?);
        self.known.insert(key, Arc::clone(&content));
        Some(content)
    }

    /// Returns the files of the database, without its lock and what it says of itself.
    fn read_database(&mut self) -> Option<Files> {
        let database = self.database.clone();
        let names = database.is_dir().then(|| names_in(&database))?;
        let mut files = Files::new();
        for name in names.into_keys() {
            let path = database.join(&name);
            let is_chatter = name.to_string_lossy().starts_with("LO");
            // They come and go by themselves.
            if let Some(metadata) = path.metadata().ok().filter(|_| !is_chatter)
                && let Some(content) = self.read(&path, &metadata)
            {
                files.insert(name, content);
            }
        }
        Some(files)
    }
}

impl Cut {
    fn is_same(&self, other: &Self) -> bool {
        self.live == other.live
            && self.synced == other.synced
            && self.acknowledged == other.acknowledged
            && self.database == other.database
    }

    /// Makes in the empty folder `root` what the cut leaves.
    pub(crate) fn restore(&self, survival: Survival, root: &Path) {
        let mut random = Random(match survival {
            Survival::Mixed(seed) => seed,
            Survival::Synced | Survival::Everything | Survival::Names => 0,
        });
        let folders = match survival {
            Survival::Synced => self.synced.folders.clone(),
            Survival::Everything | Survival::Names => self.live.folders.clone(),
            Survival::Mixed(_) => self.mixed_folders(&mut random),
        };
        let mut dirs = vec![(self.root, root.to_owned())];
        while let Some((id, dir)) = dirs.pop() {
            for (name, child) in folders.get(&id).into_iter().flatten() {
                let path = dir.join(name);
                if self.is_folder(child) {
                    fs::ensure_dir(&path).unwrap();
                    dirs.push((*child, path));
                } else {
                    let content = self.content_of(child, survival, &mut random);
                    write(&path, &content);
                }
            }
        }
        let database = match survival {
            Survival::Everything => &self.database,
            Survival::Mixed(_) if random.flips() => &self.database,
            Survival::Synced | Survival::Names | Survival::Mixed(_) => &self.acknowledged,
        };
        if let Some(files) = database {
            let dir = root.join(&self.database_name);
            fs::ensure_dir_all(&dir).unwrap();
            for (name, content) in files {
                write(&dir.join(name), content);
            }
        }
    }

    fn is_folder(&self, id: &Id) -> bool {
        self.live.folders.contains_key(id) || self.synced.folders.contains_key(id)
    }

    fn content_of(&self, file: &Id, survival: Survival, random: &mut Random) -> Vec<u8> {
        let synced = self.synced.files.get(file).cloned().unwrap_or_default();
        let live = self.live.files.get(file).unwrap_or(&synced);
        match survival {
            Survival::Synced | Survival::Names => synced.to_vec(),
            Survival::Everything => live.to_vec(),
            // Nothing was written since.
            Survival::Mixed(_) if *live == synced => synced.to_vec(),
            Survival::Mixed(_) => match random.below(4) {
                0 => synced.to_vec(),
                1 => live.to_vec(),
                2 => live[..random.below(live.len() + 1)].to_vec(),
                // The size survived, and the blocks did not. What was synced before did.
                _ => {
                    let mut content = synced.to_vec();
                    content.resize(live.len().max(content.len()), 0);
                    content
                }
            },
        }
    }

    /// Lets each change of a name survive or not.
    fn mixed_folders(&self, random: &mut Random) -> BTreeMap<Id, Names> {
        let nothing = Names::new();
        let mut folders = self.synced.folders.clone();
        let mut survived = Vec::new();
        for (folder, live) in &self.live.folders {
            let synced = self.synced.folders.get(folder).unwrap_or(&nothing);
            let names: BTreeSet<&OsString> = live.keys().chain(synced.keys()).collect();
            for name in names {
                let (old, new) = (synced.get(name), live.get(name));
                if old == new || random.flips() {
                    continue;
                }
                put(&mut folders, *folder, name, new);
                survived.extend(old.map(|old| (*folder, name, *old)));
            }
        }
        // A rename takes the old name away no sooner than the new one is there.
        loop {
            let reachable = self.reachable(&folders);
            let is_lost = |(_, _, old): &(Id, &OsString, Id)| {
                self.live.files.contains_key(old) && !reachable.contains(old)
            };
            let Some(position) = survived.iter().position(is_lost) else {
                return folders;
            };
            let (folder, name, old) = survived.swap_remove(position);
            put(&mut folders, folder, name, Some(&old));
        }
    }

    fn reachable(&self, folders: &BTreeMap<Id, Names>) -> BTreeSet<Id> {
        let mut reachable = BTreeSet::new();
        let mut left = vec![self.root];
        while let Some(id) = left.pop() {
            if reachable.insert(id) {
                left.extend(folders.get(&id).into_iter().flat_map(BTreeMap::values));
            }
        }
        reachable
    }
}

/// Numbers that look random and are the same for the same seed (`SplitMix64`, Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn flips(&mut self) -> bool {
        self.below(2) == 1
    }
}

fn put(folders: &mut BTreeMap<Id, Names>, folder: Id, name: &OsString, id: Option<&Id>) {
    let names = folders.entry(folder).or_default();
    match id {
        Some(id) => names.insert(name.clone(), *id),
        None => names.remove(name),
    };
}

fn id_of(metadata: &Metadata) -> Id {
    (metadata.ino(), metadata.created().ok())
}

fn names_in(dir: &Path) -> Names {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name(), id_of(&entry.metadata().ok()?)))
        })
        .collect()
}

fn write(path: &Path, content: &[u8]) {
    File::create(path).unwrap().write_all(content).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns which states a file may be in after the power was cut at some moment of `work`: none, or its content.
    fn outcomes(work: impl Fn(&Path)) -> BTreeSet<Option<String>> {
        let dir = tempfile::tempdir().unwrap();
        let (root, path) = (dir.path(), dir.path().join("x"));
        fs::replace_file(&path, b"old", 0o600).unwrap();
        let recorder = Recorder::start(root, &root.join("database"));
        work(&path);
        let mut outcomes = BTreeSet::new();
        for cut in recorder.finish() {
            let mixed = (0..20).map(Survival::Mixed);
            let sure = [Survival::Synced, Survival::Everything, Survival::Names];
            for survival in sure.into_iter().chain(mixed) {
                let copy = tempfile::tempdir().unwrap();
                cut.restore(survival, copy.path());
                outcomes.insert(std::fs::read_to_string(copy.path().join("x")).ok());
            }
        }
        outcomes
    }

    fn both() -> BTreeSet<Option<String>> {
        ["old", "new"].map(|text| Some(text.to_owned())).into()
    }

    #[test]
    fn a_file_that_is_replaced_durably_is_the_old_or_the_new_one() {
        assert_eq!(
            outcomes(|path| fs::replace_file(path, b"new", 0o600).unwrap()),
            both()
        );
    }

    #[test]
    fn a_file_that_is_renamed_before_it_is_synced_may_be_anything() {
        let outcomes = outcomes(|path| {
            let mut temp = fs::create_temp(path.parent().unwrap(), 0o600).unwrap();
            temp.write_all(b"new").unwrap();
            fs::publish_synced(temp, path).unwrap();
            fs::sync_dir(path.parent().unwrap()).unwrap();
        });
        assert!(outcomes.is_superset(&both()), "{outcomes:?}");
        assert!(outcomes.contains(&Some(String::new())), "{outcomes:?}");
        assert!(
            outcomes.contains(&Some("\0\0\0".to_owned())),
            "{outcomes:?}"
        );
    }

    #[test]
    fn a_file_that_moves_is_never_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["a", "b"] {
            fs::ensure_dir(&root.join(name)).unwrap();
        }
        let (from, to) = (root.join("a/x"), root.join("b/x"));
        fs::replace_file(&from, b"x", 0o600).unwrap();
        let recorder = Recorder::start(root, &root.join("database"));
        fs::move_file(&from, &to).unwrap();
        let mut seen = BTreeSet::new();
        for (cut, seed) in recorder.finish().iter().flat_map(|cut| {
            let seeds = 0..40;
            seeds.map(move |seed| (cut, seed))
        }) {
            let copy = tempfile::tempdir().unwrap();
            cut.restore(Survival::Mixed(seed), copy.path());
            let is_there = |name: &str| copy.path().join(name).exists();
            seen.insert((is_there("a/x"), is_there("b/x")));
        }
        assert_eq!(seen, [(true, false), (true, true), (false, true)].into());
    }

    #[test]
    fn the_absence_of_a_file_survives_where_it_was_synced() {
        let last = |remove: fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x");
            fs::replace_file(&path, b"x", 0o600).unwrap();
            let recorder = Recorder::start(dir.path(), &dir.path().join("database"));
            remove(&path);
            let copy = tempfile::tempdir().unwrap();
            let cuts = recorder.finish();
            cuts.last().unwrap().restore(Survival::Synced, copy.path());
            copy.path().join("x").exists()
        };
        assert!(last(|path| fs::remove_unsynced(path).unwrap()));
        assert!(!last(|path| fs::remove_file(path).unwrap()));
    }
}
