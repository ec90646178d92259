//! A damaged blob is found, put aside and brought back from a package file that was kept.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Open, Site, names, package_of, words};
use crate::base::{Digest, SystemClock};
use crate::catalog::JobRecord;
use crate::package::Limits;
use crate::retain::job::Work as _;
use crate::retain::repair::{KeptFile, PackageFiles, Repairer};
use crate::retain::scrub::{Options, Parts, Repairs, Request, Scrub, State};
use crate::sys::fs as durable;
use crate::sys::trial::{self, Scenario};

const NAMES: [&str; 2] = ["first.tgz", "second.tgz"];
/// The layer that is damaged, and what is in its place.
const LAYER: &str = "shared";
const DAMAGED: &[u8] = b"sharee";

struct Damage;

/// The files in the folder for those that are done.
#[derive(Debug)]
struct Done(PathBuf);

impl PackageFiles for Done {
    fn list(&self) -> Vec<KeptFile> {
        let files = names(&self.0).into_iter().map(|name| {
            let path = self.0.join(&name);
            let size_bytes = path.metadata().unwrap().len();
            KeptFile {
                path,
                name,
                size_bytes,
            }
        });
        files.collect()
    }

    fn open(&self, file: &KeptFile) -> io::Result<Box<dyn Read + Send + Sync>> {
        Ok(Box::new(std::fs::File::open(&file.path)?))
    }
}

impl Damage {
    fn packages() -> [Vec<u8>; 2] {
        [
            package_of("registry.example/a/first:1", &[LAYER, "one"]),
            package_of("registry.example/a/second:1", &[LAYER, "two"]),
        ]
    }

    fn digest() -> Digest {
        Digest::of(LAYER.as_bytes())
    }

    /// Goes once over everything. Returns what is known then.
    fn pass(site: &Site, open: &Open) -> Result<State, String> {
        let parts = Parts {
            catalog: open.catalog.clone(),
            clock: Arc::new(SystemClock),
            repairer: Repairer {
                store: open.store.clone(),
                origins: Vec::new(),
                files: Arc::new(Done(site.path("drop/done"))),
                limits: Limits::default(),
            },
        };
        let options = Options {
            bytes_per_second: u64::MAX,
            repair: Repairs::On,
        };
        let (mut scrub, _) = Scrub::new(options, parts).map_err(|error| words(&error))?;
        let record = open.catalog.find_job(Scrub::NAME);
        let record = record.map_err(|error| words(&error))?;
        let mut record = record.unwrap_or(JobRecord {
            name: Scrub::NAME.to_owned(),
            last_scheduled_at: None,
            finished_at: None,
            state: serde_json::Value::Null,
        });
        // It reads on the thread of the runtime, which must have others.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let ran = runtime.block_on(scrub.run(Request::Pass, &mut record, &stop));
        ran.map_err(|error| words(&error))?;
        Ok(State::read(&record))
    }

    /// Fails the test unless the blob is damaged, put aside or whole, and everything else is as it was.
    fn assert_nothing_else_is_touched(site: &Site, what: &str) {
        let Open { store, catalog, .. } = site.open().unwrap_or_else(|error| {
            panic!("{what}: {error}");
        });
        let packages = catalog.list_packages().unwrap();
        assert_eq!(packages.len(), 2, "{what}: {packages:?}");
        for package in packages {
            let content = catalog.find_content(&package.digest).unwrap().unwrap();
            for (digest, size_bytes) in content.entries() {
                let read = store.read(digest, *size_bytes);
                assert!(
                    *digest == Self::digest() || read.is_ok(),
                    "{what}: {digest}: {read:?}"
                );
            }
        }
        let blob = std::fs::read(blob_path(site));
        if let Ok(found) = &blob {
            let is_known = found == DAMAGED || found == LAYER.as_bytes();
            assert!(is_known, "{what}: {found:?}");
        }
        let aside = site.state().join("quarantine");
        for name in names(&aside) {
            assert!(name.starts_with(&Self::digest().hex()), "{what}: {name}");
            let found = std::fs::read(aside.join(&name)).unwrap();
            assert_eq!(found, DAMAGED, "{what}: {name}");
        }
        let is_aside = !names(&aside).is_empty();
        let is_damaged = blob.is_ok_and(|found| found == DAMAGED);
        assert!(is_aside || is_damaged, "{what}: the damage is nowhere");
    }
}

fn blob_path(site: &Site) -> PathBuf {
    let hex = Damage::digest().hex();
    let blobs = site.state().join("blobs/sha256");
    blobs.join(&hex[..2]).join(hex)
}

impl Scenario for Damage {
    /// For about forty failures, half a second each.
    const ONE_OF: usize = 3;

    fn prepare(root: &Path) {
        let [first, second] = Self::packages();
        let site = Site::at(root);
        site.prepare_ready(&[(NAMES[0], &first), (NAMES[1], &second)]);
        let path = blob_path(&site);
        assert_eq!(std::fs::read(&path).unwrap(), LAYER.as_bytes());
        durable::replace_file(&path, DAMAGED, 0o440).unwrap();
    }

    fn live(root: &Path) -> Result<(), String> {
        let site = Site::at(root);
        let open = site.open()?;
        let state = Self::pass(&site, &open)?;
        if state.open_count() != 0 || state.current.is_some() {
            return Err(format!("expected a repair, found {state:?}"));
        }
        let state = Self::pass(&site, &open)?;
        match &state.last {
            Some(pass) if pass.counts.damaged == 0 && state.open_count() == 0 => Ok(()),
            Some(_) | None => Err(format!("expected a clean pass, found {state:?}")),
        }
    }

    fn check(root: &Path, what: &str) {
        let site = Site::at(root);
        Self::assert_nothing_else_is_touched(&site, what);
        let outcome = Self::live(root);
        assert!(outcome.is_ok(), "{what}: {outcome:?}");
        Self::assert_nothing_else_is_touched(&site, what);
        let [first, second] = Self::packages();
        site.assert_sound(&[(NAMES[0], &first), (NAMES[1], &second)], what);
    }

    fn database(root: &Path) -> PathBuf {
        Site::at(root).state().join("catalog")
    }

    fn is_repetition(root: &Path, path: &Path) -> bool {
        path.parent() == Some(&Site::at(root).state().join("blobs/sha256"))
    }
}

#[test]
fn a_failure_of_a_scrub_leaves_the_damage_to_be_found_again_or_repaired() {
    let count = trial::fail_everywhere::<Damage>();
    assert!(count > 30, "{count}");
}

#[test]
fn a_power_cut_in_a_scrub_leaves_the_damage_to_be_found_again_or_repaired() {
    let count = trial::cut_everywhere::<Damage>();
    assert!(count > 10, "{count}");
}
