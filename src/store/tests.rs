//! The store against cut, wrong and repeated streams, damaged blobs and foreign directories.

use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::base::Chain;

pub(super) fn new_store() -> (TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    (root, store)
}

pub(super) fn stage(batch: &mut Batch, content: &[u8]) -> Result<Staged, Error> {
    let mut writer = batch.writer(Some(Digest::of(content)), content.len() as u64)?;
    writer.write(content)?;
    batch.stage(writer)
}

pub(super) fn store_all(store: &Store, contents: &[&[u8]]) -> Result<Committed, Error> {
    let mut batch = store.begin();
    for content in contents {
        stage(&mut batch, content)?;
    }
    Ok(batch.commit()?.0)
}

pub(super) fn staged_files(root: &Path) -> usize {
    std::fs::read_dir(root.join(INGEST)).unwrap().count()
}

pub(super) fn listed(store: &Store) -> Vec<(Digest, u64)> {
    store.list().collect::<Result<_, _>>().unwrap()
}

/// Overwrites a stored blob behind the store's back.
fn damage(store: &Store, digest: &Digest, content: &[u8]) {
    fs::replace_file(&store.blob_path(digest), content, 0o444).unwrap();
}

#[test]
fn commit_makes_all_blobs_visible_at_once_and_read_only() {
    let (root, store) = new_store();
    let mut batch = store.begin();
    let staged = stage(&mut batch, b"abc").unwrap();
    assert!(staged.is_new);
    assert!(!stage(&mut batch, b"abc").unwrap().is_new);
    stage(&mut batch, b"").unwrap();
    assert_eq!(store.find(&staged.digest).unwrap(), None);
    assert_eq!(batch.find(&staged.digest).unwrap(), Some(3));
    assert_eq!(batch.read(&staged.digest, 3).unwrap(), b"abc");
    assert_eq!(
        batch.commit().unwrap().0,
        Committed {
            new_blobs: 2,
            new_bytes: 3,
            known_blobs: 0,
            known_bytes: 0
        }
    );
    assert_eq!(store.read(&staged.digest, 3).unwrap(), b"abc");
    assert_eq!(staged_files(root.path()), 0);
    let blob = store.open_blob(&staged.digest).unwrap();
    assert_eq!(blob.size_bytes, 3);
    let mode = blob.file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o444);
}

#[test]
fn commit_is_idempotent_and_does_not_write_known_blobs() {
    use std::os::unix::fs::MetadataExt as _;

    let (root, store) = new_store();
    store_all(&store, &[b"abc", b"def"]).unwrap();
    let path = store.blob_path(&Digest::of(b"abc"));
    let before = path.metadata().unwrap().ino();

    let mut batch = store.begin();
    assert!(!stage(&mut batch, b"abc").unwrap().is_new);
    assert_eq!(staged_files(root.path()), 0);
    // Without an expected digest the content has to be written before it is known to be there.
    let mut writer = batch.writer(None, 100).unwrap();
    writer.write(b"def").unwrap();
    assert!(!batch.stage(writer).unwrap().is_new);
    assert_eq!(staged_files(root.path()), 0);

    assert_eq!(
        batch.commit().unwrap().0,
        Committed {
            new_blobs: 0,
            new_bytes: 0,
            known_blobs: 2,
            known_bytes: 6
        }
    );
    assert_eq!(path.metadata().unwrap().ino(), before);
}

#[test]
fn truncated_stream_never_becomes_a_blob() {
    let (root, store) = new_store();
    let digest = Digest::of(b"abc");
    let mut batch = store.begin();
    let mut writer = batch.writer(Some(digest), 3).unwrap();
    writer.write(b"ab").unwrap();
    let error = batch.stage(writer).unwrap_err();
    assert_eq!(
        Chain(&error).to_string(),
        format!("expected content {digest}, found {}", Digest::of(b"ab")),
    );
    assert_eq!(error.class(), Class::Rejected);
    assert_eq!(staged_files(root.path()), 0);
    batch.commit().unwrap();
    assert_eq!(listed(&store), []);
}

#[test]
fn known_content_is_still_compared() {
    let (_root, store) = new_store();
    store_all(&store, &[b"abc"]).unwrap();
    let mut batch = store.begin();
    let mut writer = batch.writer(Some(Digest::of(b"abc")), 3).unwrap();
    writer.write(b"abd").unwrap();
    assert!(matches!(
        batch.stage(writer),
        Err(Error::DigestMismatch { .. })
    ));
}

#[test]
fn oversized_stream_is_refused_before_it_is_written() {
    let (root, store) = new_store();
    let batch = store.begin();
    let mut writer = batch.writer(None, 2).unwrap();
    writer.write(b"a").unwrap();
    for _ in 0..2 {
        let error = writer.write(b"bc").unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit_bytes: 2 }));
    }
    drop(writer);
    assert_eq!(staged_files(root.path()), 0);
}

#[test]
fn dropping_a_batch_leaves_nothing_behind() {
    let (root, store) = new_store();
    let mut batch = store.begin();
    stage(&mut batch, b"abc").unwrap();
    let writer = batch.writer(None, 9).unwrap();
    assert_eq!(staged_files(root.path()), 2);
    drop(batch);
    drop(writer);
    assert_eq!(staged_files(root.path()), 0);
    assert_eq!(listed(&store), []);
}

#[test]
fn retain_forgets_what_nothing_needs() {
    let (root, store) = new_store();
    let mut batch = store.begin();
    let kept = stage(&mut batch, b"abc").unwrap().digest;
    let gone = stage(&mut batch, b"def").unwrap().digest;
    batch.retain(|digest| *digest == kept);
    assert_eq!(batch.find(&gone).unwrap(), None);
    assert_eq!(staged_files(root.path()), 1);
    assert_eq!(batch.commit().unwrap().0.new_blobs, 1);
    assert_eq!(listed(&store), [(kept, 3)]);
}

#[test]
fn reopening_empties_ingest_and_keeps_blobs() {
    let (root, store) = new_store();
    store_all(&store, &[b"abc"]).unwrap();
    fs::replace_file(&root.path().join("ingest/leftover"), b"x", 0o600).unwrap();
    let reader = Store::open_read_only(root.path()).unwrap();
    assert_eq!(staged_files(root.path()), 1);
    assert_eq!(listed(&reader).len(), 1);
    let store = Store::open(root.path()).unwrap();
    assert_eq!(staged_files(root.path()), 0);
    assert_eq!(store.read(&Digest::of(b"abc"), 3).unwrap(), b"abc");
}

#[test]
fn a_batch_of_more_blobs_than_may_be_open_is_committed_whole() {
    let (_root, store) = new_store();
    let contents: Vec<Vec<u8>> = (0..300_u32).map(|n| n.to_le_bytes().to_vec()).collect();
    let mut batch = store.begin();
    for content in &contents {
        stage(&mut batch, content).unwrap();
        assert!(open_descriptors_below(&store.ingest_path()) < 128);
    }
    assert_eq!(batch.commit().unwrap().0.new_blobs, 300);
    assert_eq!(listed(&store).len(), 300);
}

fn open_descriptors_below(dir: &Path) -> usize {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.starts_with(dir))
        .count()
}

#[test]
fn another_thread_may_fill_a_writer_while_the_batch_is_used() {
    let (_root, store) = new_store();
    let mut batch = store.begin();
    let mut writer = batch.writer(None, 3).unwrap();
    let filled = std::thread::spawn(move || writer.write(b"abc").map(|()| writer));
    stage(&mut batch, b"def").unwrap();
    let writer = filled.join().unwrap().unwrap();
    assert_eq!(batch.stage(writer).unwrap().digest, Digest::of(b"abc"));
    assert_eq!(batch.commit().unwrap().0.new_blobs, 2);
}

#[test]
fn batches_on_many_threads_that_bring_the_same_blobs_all_succeed() {
    let (root, store) = new_store();
    let contents: Vec<Vec<u8>> = (0..40_u8).map(|n| vec![n; usize::from(n) * 50]).collect();
    std::thread::scope(|scope| {
        for first in 0..4 {
            let (store, contents) = (&store, &contents);
            scope.spawn(move || {
                let mut batch = store.begin();
                for content in contents.iter().cycle().skip(first * 10).take(40) {
                    stage(&mut batch, content).unwrap();
                }
                let committed = batch.commit().unwrap().0;
                assert_eq!(committed.new_blobs + committed.known_blobs, 40);
            });
        }
    });
    assert_eq!(listed(&store).len(), 40);
    for content in &contents {
        let stored = store.read(&Digest::of(content), u64::MAX).unwrap();
        assert_eq!(stored, *content);
    }
    assert_eq!(staged_files(root.path()), 0);
}

#[test]
fn damaged_blobs_are_found_and_healed_by_bringing_them_again() {
    let (root, store) = new_store();
    store_all(&store, &[b"abc"]).unwrap();
    let digest = Digest::of(b"abc");

    damage(&store, &digest, b"abd");
    let error = store.read(&digest, 3).unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    assert_eq!(
        error.to_string(),
        format!(
            "expected stored content {digest}, found {}",
            Digest::of(b"abd")
        )
    );
    let first = store.quarantine(&digest, Some(3)).unwrap().unwrap();
    assert_eq!(std::fs::read(first).unwrap(), b"abd");
    assert_eq!(store.quarantine(&digest, Some(3)).unwrap(), None);
    assert_eq!(store.quarantine(&digest, None).unwrap(), None);
    store_all(&store, &[b"abc"]).unwrap();

    // A wrong size is seen without reading, so the commit itself heals.
    damage(&store, &digest, b"a");
    assert_eq!(store_all(&store, &[b"abc"]).unwrap().new_blobs, 1);
    assert_eq!(store.read(&digest, 3).unwrap(), b"abc");
    let quarantine = root.path().join(QUARANTINE);
    assert_eq!(std::fs::read_dir(quarantine).unwrap().count(), 2);
}

#[test]
fn what_a_batch_has_stored_since_the_damage_was_found_is_not_put_aside() {
    let (root, store) = new_store();
    let digest = Digest::of(b"abc");
    // Found missing, or with another size; then the package comes again.
    for found in [None, Some(1)] {
        if found.is_some() {
            damage(&store, &digest, b"a");
        }
        store_all(&store, &[b"abc"]).unwrap();
        assert_eq!(store.quarantine(&digest, found).unwrap(), None);
        assert_eq!(store.read(&digest, 3).unwrap(), b"abc", "{found:?}");
    }
    let aside = std::fs::read_dir(root.path().join(QUARANTINE)).unwrap();
    assert_eq!(aside.count(), 1, "the commit has put the short one aside");
}

#[test]
fn a_folder_for_damaged_blobs_that_somebody_has_removed_is_made_again() {
    let (root, store) = new_store();
    store_all(&store, &[b"abc"]).unwrap();
    let digest = Digest::of(b"abc");
    fs::remove_dir_all(&root.path().join(QUARANTINE)).unwrap();
    let place = store.quarantine(&digest, Some(3)).unwrap().unwrap();
    assert_eq!(std::fs::read(place).unwrap(), b"abc");
    assert_eq!(store.find(&digest).unwrap(), None);
}

#[test]
fn a_blob_removed_during_a_batch_fails_its_commit() {
    let (_root, store) = new_store();
    store_all(&store, &[b"abc"]).unwrap();
    let digest = Digest::of(b"abc");
    let mut batch = store.begin();
    stage(&mut batch, b"abc").unwrap();
    fs::remove_file(&store.blob_path(&digest)).unwrap();
    let error = batch.commit().unwrap_err();
    assert!(matches!(error, Error::Vanished { .. }));
    assert_eq!(error.class(), Class::Transient);
}

#[test]
fn absent_and_too_large_blobs_are_told_apart() {
    let (_root, store) = new_store();
    store_all(&store, &[b"abc"]).unwrap();
    let absent = Digest::of(b"x");
    assert!(matches!(
        store.open_blob(&absent),
        Err(Error::NotFound { digest }) if digest == absent
    ));
    assert_eq!(store.read(&absent, 1).unwrap_err().class(), Class::Absent);
    assert!(matches!(
        store.read(&Digest::of(b"abc"), 2),
        Err(Error::TooLarge { limit_bytes: 2 })
    ));
}

#[test]
fn files_that_are_no_blobs_are_not_listed() {
    let (root, store) = new_store();
    store_all(&store, &[b"abc"]).unwrap();
    let digest = Digest::of(b"abc");
    let shards = root.path().join(SHARDS);
    fs::replace_file(&shards.join("00/readme"), b"x", 0o644).unwrap();
    fs::replace_file(&shards.join("00").join(digest.hex()), b"abc", 0o444).unwrap();
    assert_eq!(listed(&store), [(digest, 3)]);
}

#[test]
fn a_store_for_reading_refuses_to_write() {
    let (root, store) = new_store();
    store_all(&store, &[b"abc"]).unwrap();
    let reader = Store::open_read_only(root.path()).unwrap();
    let batch = reader.begin();
    assert!(matches!(batch.writer(None, 1), Err(Error::ReadOnly)));
    assert!(matches!(batch.commit(), Err(Error::ReadOnly)));
    assert!(matches!(
        reader.quarantine(&Digest::of(b"abc"), Some(3)),
        Err(Error::ReadOnly)
    ));
    assert_eq!(reader.read(&Digest::of(b"abc"), 3).unwrap(), b"abc");
}

#[test]
fn formats_that_this_program_does_not_know_are_refused_untouched() {
    let (root, store) = new_store();
    store_all(&store, &[b"abc"]).unwrap();
    drop(store);
    let path = root.path().join("FORMAT");
    let leftover = root.path().join("ingest/leftover");
    fs::replace_file(&leftover, b"x", 0o600).unwrap();
    let open = || Store::open(root.path()).unwrap_err();

    fs::replace_file(&path, br#"{"version":7}"#, 0o444).unwrap();
    assert!(matches!(open(), Error::FormatNewer { found: 7, .. }));
    assert!(open().hint().unwrap().contains("newer"));
    Store::open_read_only(root.path()).unwrap_err();

    fs::replace_file(&path, br#"{"version":1,"write_features":["x"]}"#, 0o444).unwrap();
    assert!(matches!(open(), Error::FormatFeature { .. }));
    Store::open_read_only(root.path()).unwrap();

    fs::replace_file(&path, b"", 0o444).unwrap();
    assert!(matches!(open(), Error::FormatUnreadable { .. }));

    fs::remove_file(&path).unwrap();
    assert!(matches!(open(), Error::FormatMissing { .. }));
    assert!(!path.exists());
    assert!(leftover.exists());
}

#[test]
fn nothing_to_read_is_absent_and_is_not_created() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state");
    let error = Store::open_read_only(&path).unwrap_err();
    assert!(matches!(error, Error::NoStore { .. }));
    assert_eq!(error.class(), Class::Absent);
    assert!(!path.exists());
}

#[test]
fn a_file_in_the_way_is_a_usage_error_and_a_full_disk_has_a_hint() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state");
    fs::replace_file(&path, b"", 0o600).unwrap();
    assert_eq!(Store::open(&path).unwrap_err().class(), Class::Usage);
    let full = Error::Fs(fs::Error {
        verb: "write to",
        path,
        source: io::Error::from(io::ErrorKind::StorageFull),
    });
    assert_eq!(full.class(), Class::Full);
    assert!(full.hint().unwrap().starts_with("free space"));
}
