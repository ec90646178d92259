//! The store against a failure of every single file operation, and the order of those operations.

use super::tests::{listed, new_store, stage, store_all};
use super::*;
use crate::sys::fault::Faults;

#[test]
fn content_is_durable_before_its_name_and_its_name_before_success() {
    let (root, store) = new_store();
    store_all(&store, &[]).unwrap();
    let contents: [&[u8]; 3] = [b"abc", b"def", b"ghi"];
    let mut batch = store.begin();
    for content in contents {
        stage(&mut batch, content).unwrap();
    }
    let recorded = Faults::record(root.path());
    batch.commit().unwrap();
    let done = recorded.done();
    let position = |verb: &str, path: &Path| {
        let is_it = |(v, p): &(&str, PathBuf)| *v == verb && p == path;
        assert_eq!(done.iter().filter(|step| is_it(step)).count(), 1);
        done.iter().position(is_it).unwrap()
    };
    let is_content =
        |(verb, path): &(&str, PathBuf)| *verb == "sync" && path.starts_with(store.ingest_path());
    let last_content = done.iter().rposition(is_content).unwrap();
    assert_eq!(done.iter().filter(|step| is_content(step)).count(), 3);
    for content in contents {
        let path = store.blob_path(&Digest::of(content));
        let renamed = position("rename to", &path);
        let name_synced = position("sync", path.parent().unwrap());
        assert!(last_content < renamed && renamed < name_synced, "{done:?}");
    }
}

#[test]
fn a_sync_that_fails_while_more_is_staged_fails_the_batch() {
    let (root, store) = new_store();
    let mut batch = store.begin();
    // Every blob is a temporary file that is made and, once enough are open, synced. One of the first syncs fails.
    let contents: Vec<String> = (0..200).map(|number| format!("blob {number}")).collect();
    let recorded = Faults::record(root.path());
    for content in &contents {
        stage(&mut batch, content.as_bytes()).unwrap();
    }
    let first_sync = recorded.done().iter().position(|(verb, _)| *verb == "sync");
    drop((batch, recorded));
    let mut batch = store.begin();
    let _faults = Faults::after(first_sync.unwrap(), root.path());
    let staged = contents
        .iter()
        .try_for_each(|content| stage(&mut batch, content.as_bytes()).map(drop));
    staged.and_then(|()| batch.commit().map(drop)).unwrap_err();
    assert_eq!(listed(&store), []);
    assert_eq!(staged_files_if_any(root.path()), 0);
}

#[test]
fn a_blob_whose_name_may_not_be_durable_is_synced_by_whoever_relies_on_it() {
    // The operations of the commit: sync the content, rename, sync the shard. One of the last two fails.
    for step in [1, 2] {
        let (root, store) = new_store();
        store_all(&store, &[]).unwrap();
        let path = store.blob_path(&Digest::of(b"abc"));
        let shard = path.parent().unwrap();
        let mut batch = store.begin();
        stage(&mut batch, b"abc").unwrap();
        let faults = Faults::after(step, root.path());
        batch.commit().unwrap_err();
        drop(faults);
        assert!(path.exists());
        // The same process, and one that started after this one died.
        for store in [store, Store::open(root.path()).unwrap()] {
            let recorded = Faults::record(root.path());
            assert_eq!(store_all(&store, &[b"abc"]).unwrap().known_blobs, 1);
            let done = recorded.done();
            assert!(
                done.contains(&("sync", shard.to_owned())),
                "step {step}: {done:?}"
            );
        }
    }
}

/// Everything a store goes through, twice over.
fn life(root: &Path) -> Result<(), Error> {
    let store = Store::open(root)?;
    store_all(&store, &[b"abc", b"", b"def"])?;
    let store = Store::open(root)?;
    store_all(&store, &[b"abc", b"new"])?;
    Ok(())
}

#[test]
fn a_failure_of_any_single_operation_leaves_a_store_that_works() {
    for step in steps_of_a_life() {
        let root = tempfile::tempdir().unwrap();
        let faults = Faults::after(step, root.path());
        life(root.path()).unwrap_err();
        assert!(faults.done().len() > step, "step {step} was not reached");
        drop(faults);
        assert_eq!(staged_files_if_any(root.path()), 0, "step {step}");
        life(root.path()).unwrap();
        let blobs = listed(&Store::open_read_only(root.path()).unwrap());
        assert_eq!(blobs.len(), 4, "step {step}");
        for (digest, size_bytes) in blobs {
            let store = Store::open_read_only(root.path()).unwrap();
            store.read(&digest, size_bytes).unwrap();
        }
    }
}

/// Returns the numbers of the operations of [`life`]. Of the many that only differ in their shard, every hundredth is
/// enough.
fn steps_of_a_life() -> Vec<usize> {
    let root = tempfile::tempdir().unwrap();
    let recorded = Faults::record(root.path());
    life(root.path()).unwrap();
    let shards = root.path().join(SHARDS);
    let is_shard = |path: &Path| path.parent() == Some(&shards);
    let done = recorded.done();
    let steps = done.iter().enumerate();
    steps
        .filter(|(step, (_, path))| !is_shard(path) || step % 100 == 0)
        .map(|(step, _)| step)
        .collect()
}

fn staged_files_if_any(root: &Path) -> usize {
    std::fs::read_dir(root.join(INGEST)).map_or(0, Iterator::count)
}
