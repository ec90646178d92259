//! A drop folder and a state directory, without a daemon.
//!
//! ```text
//! <root>/
//! ├── inbox/    packages that are dropped later
//! ├── drop/     done/, rejected/
//! └── state/
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::audit::{self, Log};
use crate::base::{Chain, Clock as _, Digest, SystemClock};
use crate::catalog::{Catalog, PackageRecord};
use crate::ingest::{self, AfterReady, Folder, Ingest, Notes};
use crate::package::Limits;
use crate::store::Store;
use crate::sys::disk::{Alarm, Marks};
use crate::sys::fs as durable;
use crate::sys::watch::Watcher;
use crate::task::{Activator, Task as _};
use crate::verify::{KeyringFiles, Policy, Requirements};

/// Runs of ingest until it must be done with everything: one that takes the files in, and one that finds none.
const RUNS_MAX: usize = 3;

/// No disk is too full.
const NO_MARKS: Marks = Marks {
    low_bytes: 0,
    critical_bytes: 0,
};

/// Where things are below a folder.
#[derive(Clone, Debug)]
pub(super) struct Site {
    root: PathBuf,
}

/// What is open while a process lives.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) store: Store,
    pub(super) catalog: Catalog,
    pub(super) audit: Log,
}

impl Site {
    pub(super) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Makes the folders, with packages by name in the drop folder and in the inbox.
    pub(super) fn prepare(&self, dropped: &[(&str, &[u8])], later: &[(&str, &[u8])]) {
        for folder in ["inbox", "drop", "drop/done", "drop/rejected"] {
            durable::ensure_dir(&self.path(folder)).unwrap();
        }
        for (folder, packages) in [("drop", dropped), ("inbox", later)] {
            for (name, content) in packages {
                let path = self.path(folder).join(name);
                durable::replace_file(&path, content, 0o600).unwrap();
            }
        }
    }

    /// Makes the folders, and takes packages by name in.
    pub(super) fn prepare_ready(&self, packages: &[(&str, &[u8])]) {
        self.prepare(packages, &[]);
        let open = self.open().unwrap();
        self.ingest(&open).unwrap();
        drop(open);
        self.assert_done(packages, "before anything happens");
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Opens everything in the order in which the daemon does.
    pub(super) fn open(&self) -> Result<Open, String> {
        let state = self.state();
        let store = Store::open(&state).map_err(|error| words(&error))?;
        let catalog = Catalog::open(&state).map_err(|error| words(&error))?;
        let options = audit::Options::new(state.join(audit::DIR));
        let audit = Log::open(options, SystemClock.now()).map_err(|error| words(&error))?;
        Ok(Open {
            store,
            catalog,
            audit,
        })
    }

    /// Drops what is in the inbox.
    pub(super) fn deliver(&self) -> Result<(), String> {
        for name in names(&self.path("inbox")) {
            let to = self.path("drop").join(&name);
            durable::move_file(&self.path("inbox").join(name), &to)
                .map_err(|error| words(&error))?;
        }
        Ok(())
    }

    /// Takes in what is in the drop folder. An error says why something is still there.
    pub(super) fn ingest(&self, open: &Open) -> Result<(), String> {
        let parts = ingest::Parts {
            store: open.store.clone(),
            catalog: open.catalog.clone(),
            audit: open.audit.clone(),
            disk: Arc::new(Alarm::new(&self.root, NO_MARKS)),
            clock: Arc::new(SystemClock),
            watcher: Watcher::start([], Arc::default()).map_err(|error| words(&error))?,
            on_ready: vec![Activator::default()],
        };
        let (mut task, notes, _) = Ingest::new(self.options(), parts);
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let mut outcome = Ok(String::new());
        for _ in 0..RUNS_MAX {
            let finished = runtime.block_on(task.run(&CancellationToken::new()));
            outcome = finished.outcome;
            if self.dropped().is_empty() {
                break;
            }
        }
        let waits: &Notes = &notes.borrow();
        match outcome {
            Err(reason) => Err(reason),
            Ok(_) if self.dropped().is_empty() => Ok(()),
            Ok(_) => Err(format!("{:?}: {waits:?}", self.dropped())),
        }
    }

    fn options(&self) -> ingest::Options {
        let requirements = Requirements::new(Policy::None);
        let folder = Folder {
            path: self.path("drop"),
            keyring: Arc::new(KeyringFiles::new(Vec::new(), requirements.clone())),
            requirements,
            settle: Duration::ZERO,
            sidecar_wait: Duration::ZERO,
            after_ready: AfterReady::Move,
            done: self.path("drop/done"),
            rejected: self.path("drop/rejected"),
            requests: self.path("drop/requests"),
        };
        ingest::Options {
            folders: vec![folder],
            limits: Limits::default(),
            rescan: Duration::from_secs(1),
        }
    }

    /// Returns the files in the drop folder.
    pub(super) fn dropped(&self) -> Vec<String> {
        let mut names = names(&self.path("drop"));
        names.retain(|name| self.path("drop").join(name).is_file());
        names
    }

    /// Fails the test unless what is there is sound: it opens, every blob is what its name says, every package of the
    /// catalog is there with all that it keeps, a file is somewhere, and if it is done, its package is in the catalog.
    /// Returns the packages.
    pub(super) fn assert_sound(&self, files: &[(&str, &[u8])], what: &str) -> Vec<PackageRecord> {
        let Open { store, catalog, .. } = self.open().unwrap_or_else(|error| {
            panic!("{what}: {error}");
        });
        let mut whole = BTreeSet::new();
        for blob in store.list() {
            let (digest, size_bytes) = blob.unwrap();
            let read = store.read(&digest, size_bytes);
            assert!(read.is_ok(), "{what}: {digest}: {read:?}");
            whole.insert((digest, size_bytes));
        }
        let packages = catalog.list_packages().unwrap();
        for package in &packages {
            let content = catalog.find_content(&package.digest).unwrap();
            let content = content.unwrap_or_else(|| panic!("{what}: no content of {package:?}"));
            assert!(!content.entries().is_empty(), "{what}: {package:?}");
            for entry in content.entries() {
                assert!(whole.contains(entry), "{what}: {entry:?} of {package:?}");
            }
        }
        assert_eq!(names(&self.state().join("ingest")).len(), 0, "{what}");
        for (name, content) in files {
            let holds = |folder: &str| {
                let found = std::fs::read(self.path(folder).join(name));
                found.is_ok_and(|found| found == *content)
            };
            let waits = holds("drop") || holds("inbox");
            let digest = Digest::of(content);
            let is_ready = packages.iter().any(|package| package.digest == digest);
            assert!(waits || holds("drop/done"), "{what}: {name} is nowhere");
            assert!(waits || is_ready, "{what}: {name} is done and not ready");
        }
        packages
    }

    /// Fails the test unless the files are done and nothing else, their packages are there, and the audit record is
    /// unbroken.
    pub(super) fn assert_done(&self, files: &[(&str, &[u8])], what: &str) {
        let packages = self.assert_sound(files, what);
        let ready: BTreeSet<Digest> = packages.iter().map(|package| package.digest).collect();
        let expected = files.iter().map(|(_, content)| Digest::of(content));
        assert_eq!(ready, expected.collect::<BTreeSet<Digest>>(), "{what}");
        // A file whose move was cut off between its two names is done twice, under a number the second time.
        let is_of = |done: &str, name: &str| {
            done.strip_prefix(name).is_some_and(|rest| {
                rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit())
                    .is_empty()
            })
        };
        let done = names(&self.path("drop/done"));
        for (name, _) in files {
            assert!(done.iter().any(|it| it == name), "{what}: {done:?}");
        }
        let is_known = |it: &String| files.iter().any(|(name, _)| is_of(it, name));
        assert!(done.iter().all(is_known), "{what}: {done:?}");
        assert_eq!(self.dropped(), Vec::<String>::new(), "{what}");
        assert_eq!(names(&self.path("drop/rejected")).len(), 0, "{what}");
        assert_eq!(names(&self.state().join("quarantine")).len(), 0, "{what}");
        let findings = audit::check(&self.state().join(audit::DIR), |_, _| {}).unwrap();
        assert!(findings.breaks.is_empty(), "{what}: {findings:?}");
    }
}

/// Returns the names in a folder, sorted; none where there is no folder.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Returns an error in words, with what has caused it.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    Chain(error).to_string()
}
