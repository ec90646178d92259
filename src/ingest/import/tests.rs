//! What reaches store and catalog, and what does not: files that were swapped after they were verified.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::base::SystemClock;
use crate::base::oci::{Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST};
use crate::catalog::{Column, IngestRecord, IngestState, raw};
use crate::package::parts::{PartFiles, Splitter, Table};
use crate::package::{Image, Manifest, Nested, WriteOptions, Writer};
use crate::sys::disk::Marks;
use crate::sys::fs as durable;
use crate::verify::{Failure, Keyring, Policy, Requirements, verify_file};

/// How long parts are: a package of these tests has several.
const PART_BYTES: NonZeroU64 = NonZeroU64::new(300).unwrap();

/// Nothing is too little.
const NO_MARKS: Marks = Marks {
    low_bytes: 0,
    critical_bytes: 0,
};

/// An importer over a store and a catalog of its own, and a drop folder.
struct Bench {
    dir: TempDir,
    importer: Importer,
}

impl Bench {
    fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap())
    }

    fn open(dir: TempDir) -> Self {
        let state = dir.path().join("state");
        let importer = Importer {
            store: Store::open(&state).unwrap(),
            catalog: Catalog::open(&state).unwrap(),
            clock: Arc::new(SystemClock),
            limits: Limits::default(),
            disk: Arc::new(Alarm::new(dir.path(), NO_MARKS)),
            expansion: Expansion::default(),
        };
        Self { dir, importer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        durable::replace_file(&self.path(name), content, 0o600).unwrap();
    }

    fn unpack(&self, file: &Verified<PackageFile>) -> Result<Imported, Error> {
        self.importer.unpack(file, &CancellationToken::new())
    }

    /// Makes the packages ready.
    fn commit(&self, imported: &Imported) {
        let record = IngestRecord {
            path: "x.tgz".to_owned(),
            size_bytes: 0,
            modified_at: SystemClock.now(),
            digest: None,
            state: IngestState::Seen,
            updated_at: SystemClock.now(),
        };
        let catalog = &self.importer.catalog;
        catalog
            .commit_packages(&imported.packages, &record)
            .unwrap();
    }

    /// Fails the test unless the file is taken for one that was swapped, and nothing is left of it.
    fn assert_caught(&self, file: &Verified<PackageFile>, what: &str) {
        let error = self.unpack(file).unwrap_err();
        assert_eq!(error.code(), "file-changed", "{what}: {error}");
        assert_eq!(self.importer.store.list().count(), 0, "{what}");
        assert_eq!(self.importer.catalog.list_packages().unwrap(), [], "{what}");
        let staged = std::fs::read_dir(self.path("state/ingest")).unwrap();
        assert_eq!(staged.count(), 0, "{what}");
    }
}

fn verify(source: &Source) -> Result<Verified<PackageFile>, Failure> {
    let requirements = Requirements::new(Policy::None);
    let keyring = Keyring::default();
    verify_file(source, &requirements, &keyring, SystemClock.now())
}

fn verified(source: &Source) -> Verified<PackageFile> {
    verify(source).unwrap()
}

/// Returns a package of one image whose layer holds `content`.
fn package_of(content: &[u8]) -> Vec<u8> {
    package_with(content, None, |_| true)
}

/// Returns a package of one image whose layer holds `content`, and which has a foreign layer besides, if any. Of its blobs,
/// those are in it that are wanted.
fn package_with(
    content: &[u8],
    foreign: Option<&[u8]>,
    is_wanted: impl Fn(&Digest) -> bool,
) -> Vec<u8> {
    let mut blobs = BTreeMap::new();
    let mut put = |media_type: &str, content: Vec<u8>| {
        let descriptor = Descriptor::of(media_type, &content);
        blobs.insert(descriptor.digest, content);
        descriptor
    };
    let layer = put("application/vnd.oci.image.layer.v1.tar", content.to_vec());
    let config =
        r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let config = put(MEDIA_TYPE_CONFIG, config.into());
    let mut layers = vec![serde_json::json!(layer)];
    if let Some(foreign) = foreign {
        let media_type = "application/vnd.oci.image.layer.nondistributable.v1.tar";
        let mut layer = serde_json::json!(put(media_type, foreign.to_vec()));
        layer["urls"] = serde_json::json!(["https://layers.example/base"]);
        layers.push(layer);
    }
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": config, "layers": layers,
    });
    let descriptor = put(MEDIA_TYPE_MANIFEST, manifest.to_string().into_bytes());
    let image = Image {
        reference: "registry.example/a/b:1".parse().unwrap(),
        descriptor,
    };
    let (manifest, options) = (Manifest::default(), WriteOptions::default());
    let mut writer = Writer::create(Vec::new(), &manifest, &[image], options).unwrap();
    for (digest, content) in blobs.iter().filter(|(digest, _)| is_wanted(digest)) {
        let size_bytes = content.len() as u64;
        writer
            .add_blob(digest, size_bytes, &mut content.as_slice())
            .unwrap();
    }
    writer.finish().unwrap()
}

/// Returns a copy with one bit changed.
fn flipped(content: &[u8], at: usize) -> Vec<u8> {
    let mut content = content.to_vec();
    content[at] ^= 1;
    content
}

#[test]
fn a_file_swapped_after_it_was_verified_is_caught_whatever_it_was_swapped_for() {
    let bench = Bench::new();
    let good = package_of(b"layer");
    bench.write("x.tgz", &good);
    let file = verified(&Source::File(bench.path("x.tgz")));
    let other = package_of(&[7; 5000]);
    let length = good.len();
    for (what, content) in [
        // The time in the header of gzip: it unpacks to the very same package.
        ("same size, same package", flipped(&good, 4)),
        ("same size, damaged content", flipped(&good, length / 2)),
        ("same size, damaged checksum", flipped(&good, length - 5)),
        ("same size, no archive", vec![b'x'; length]),
        ("shorter", good[..length / 2].to_vec()),
        ("longer", [&good[..], b"x"].concat()),
        ("empty", Vec::new()),
        ("another good package", other),
    ] {
        bench.write("x.tgz", &content);
        bench.assert_caught(&file, what);
    }
    durable::remove_file(&bench.path("x.tgz")).unwrap();
    assert_eq!(bench.unpack(&file).unwrap_err().code(), "file-system");
    // What was verified is still good once it is back.
    bench.write("x.tgz", &good);
    assert_eq!(bench.unpack(&file).unwrap().packages.len(), 1);
}

#[test]
fn the_content_of_a_foreign_layer_is_kept_where_it_came_and_not_missed_where_it_did_not() {
    let foreign = Digest::of(b"foreign");
    for (is_carried, name) in [(true, "with.tgz"), (false, "without.tgz")] {
        let bench = Bench::new();
        let is_wanted = |digest: &Digest| is_carried || *digest != foreign;
        bench.write(name, &package_with(b"layer", Some(b"foreign"), is_wanted));
        let file = verified(&Source::File(bench.path(name)));
        let imported = bench.unpack(&file).unwrap();
        bench.commit(&imported);
        let Importer { store, catalog, .. } = &bench.importer;
        let NewPackage { record, content } = &imported.packages[0];
        let kept = content.entries().contains(&(foreign, 7));
        assert_eq!(kept, is_carried, "{name}");
        assert_eq!(record.blobs.contains_key(&foreign), is_carried, "{name}");
        assert_eq!(store.find(&foreign).unwrap().is_some(), is_carried);
        let bytes = record.images[0].content_bytes;
        assert_eq!(bytes, content.size_bytes(), "{name}");
        assert_eq!(record.blob_count, content.entries().len() as u64);
        let known = catalog.find_content(&record.digest).unwrap().unwrap();
        assert_eq!(known, *content, "{name}");
        // It is whole as it is: nothing is unpacked again.
        assert!(bench.unpack(&file).unwrap().committed.is_none(), "{name}");
    }
}

#[test]
fn a_file_without_blobs_is_left_as_well_when_the_daemon_stops() {
    let bench = Bench::new();
    bench.write("a.tgz", b"no archive at all");
    let file = verified(&Source::File(bench.path("a.tgz")));
    let error = bench.unpack(&file).unwrap_err();
    assert_eq!(error.code(), "not-an-archive");
    let stop = CancellationToken::new();
    stop.cancel();
    let error = bench.importer.unpack(&file, &stop).unwrap_err();
    assert!(matches!(error, Error::Stopped), "{error}");
}

#[test]
fn a_package_that_is_bad_itself_is_refused_for_what_is_wrong_with_it() {
    let bench = Bench::new();
    let good = package_of(b"layer");
    bench.write("x.tgz", &good[..good.len() / 2]);
    let file = verified(&Source::File(bench.path("x.tgz")));
    assert_eq!(bench.unpack(&file).unwrap_err().code(), "truncated");
}

struct Folder<'a>(&'a Bench);

impl PartFiles for Folder<'_> {
    type File = Vec<u8>;

    fn create(&mut self, _: &str) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn close(&mut self, name: &str, file: Vec<u8>) -> io::Result<()> {
        self.0.write(name, &file);
        Ok(())
    }
}

fn split(bench: &Bench, content: &[u8]) -> Table {
    let mut splitter = Splitter::new("x.tgz", PART_BYTES, Folder(bench)).unwrap();
    io::Write::write_all(&mut splitter, content).unwrap();
    splitter.finish().unwrap().0
}

#[test]
fn one_part_swapped_after_all_were_verified_is_caught() {
    let bench = Bench::new();
    let good = package_of(b"layer");
    let table = split(&bench, &good);
    bench.write("x.tgz.parts", &table.encode());
    let file = verified(&Source::of(&bench.path("x.tgz.parts")).unwrap());
    assert_eq!(file.get().digest, Digest::of(&good));
    assert!(table.parts().len() > 2);
    for part in table.parts() {
        let content = std::fs::read(bench.path(&part.name)).unwrap();
        let last = content.len() - 1;
        for (what, other) in [
            ("same size", flipped(&content, last / 2)),
            ("shorter", content[..last].to_vec()),
            ("longer", [&content[..], b"x"].concat()),
        ] {
            bench.write(&part.name, &other);
            bench.assert_caught(&file, &format!("{}, {what}", part.name));
        }
        durable::remove_file(&bench.path(&part.name)).unwrap();
        bench.assert_caught(&file, &format!("{}, gone", part.name));
        bench.write(&part.name, &content);
    }
    let imported = bench.unpack(&file).unwrap();
    assert_eq!(imported.packages[0].record.digest, Digest::of(&good));
    assert_eq!(imported.packages[0].record.file_name, "x.tgz");
}

#[test]
fn a_table_that_lies_about_the_whole_is_refused() {
    let bench = Bench::new();
    let table = split(&bench, &package_of(b"layer"));
    let mut document: serde_json::Value = serde_json::from_slice(&table.encode()).unwrap();
    document["digest"] = Digest::of(b"other").to_string().into();
    bench.write("x.tgz.parts", document.to_string().as_bytes());
    let source = Source::of(&bench.path("x.tgz.parts")).unwrap();
    let failure = verify(&source).unwrap_err();
    assert_eq!(failure.error.code(), "parts-whole-digest");
}

/// Unpacks files one after the other into one batch, as if they had come inside of `carrier`.
fn store_nested(
    bench: &Bench,
    carrier: &Verified<PackageFile>,
    inner: &[(&str, &[u8])],
) -> Imported {
    let stop = CancellationToken::new();
    let budget = Budget::new(&bench.importer.disk, 0, None);
    let mut sink = BatchSink::new(&bench.importer, budget, &stop);
    let nested = inner.iter().map(|(path, content)| {
        let content = content.to_vec();
        let digest = Digest::of(&content);
        let size_bytes = content.len() as u64;
        let unpacked = package::unpack(io::Cursor::new(content), &Limits::default(), &mut sink);
        Nested {
            path: (*path).to_owned(),
            digest,
            size_bytes,
            contents: unpacked.unwrap().package.unwrap(),
        }
    });
    let unpacked = package::Unpacked {
        package: None,
        nested: nested.collect(),
    };
    let batch = sink.batch;
    bench
        .importer
        .store(carrier.get(), unpacked, batch)
        .unwrap()
}

/// Puts what was imported into the catalog.
fn commit(bench: &Bench, imported: &Imported) {
    let ingest = IngestRecord {
        path: "/drop/carrier.tar".to_owned(),
        size_bytes: 0,
        modified_at: SystemClock.now(),
        digest: None,
        state: IngestState::Unpacked,
        updated_at: SystemClock.now(),
    };
    let catalog = &bench.importer.catalog;
    catalog
        .commit_packages(&imported.packages, &ingest)
        .unwrap();
}

#[test]
fn packages_inside_of_a_file_have_records_of_their_own_and_known_ones_stay_as_they_are() {
    let bench = Bench::new();
    let (one, two) = (package_of(b"one"), package_of(b"two"));
    bench.write("carrier.tar", b"stands for the outer file");
    bench.write("one.tgz", &one);
    let alone = verified(&Source::File(bench.path("one.tgz")));
    commit(&bench, &bench.unpack(&alone).unwrap());
    let carrier = verified(&Source::File(bench.path("carrier.tar")));
    let inner = [
        ("a/one.tgz", &one[..]),
        ("a/two.tgz", &two),
        ("b/two-again.tgz", &two),
    ];
    let imported = store_nested(&bench, &carrier, &inner);
    let digests = [Digest::of(&one), Digest::of(&two), Digest::of(&two)];
    assert_eq!(imported.nested, digests);
    let [new] = &imported.packages[..] else {
        panic!("expected one new package, found {imported:?}");
    };
    assert_eq!(
        (new.record.digest, new.record.file_name.as_str()),
        (digests[1], "a/two.tgz")
    );
    assert_eq!(new.record.name.as_str(), "two");
    assert_eq!(new.record.carried_by, Some(carrier.get().digest));
    assert_eq!(new.record.provenance, Provenance::Unchecked);
    commit(&bench, &imported);
    let known = bench.importer.catalog.find_package(&digests[0]).unwrap();
    assert_eq!(known.unwrap().carried_by, None);

    // The same file again: all is known, nothing is written.
    let again = store_nested(&bench, &carrier, &inner);
    assert_eq!((again.packages.len(), again.nested), (0, digests.to_vec()));
    assert_eq!(again.committed.unwrap().new_blobs, 0);
}

#[test]
fn file_names_become_names() {
    for (file_name, name) in [
        ("redis-operator.v1.tgz", "redis-operator.v1"),
        ("a b.tgz", "a"),
        ("deliveries/2026/redis.tgz", "redis"),
        ("--.tgz", "unnamed"),
        ("ä.tgz", "unnamed"),
    ] {
        assert_eq!(name_from_file(file_name).as_str(), name);
    }
}

#[test]
fn a_known_package_that_comes_again_restores_blobs_that_were_lost() {
    let bench = Bench::new();
    bench.write("x.tgz", &package_of(b"layer"));
    let file = verified(&Source::File(bench.path("x.tgz")));
    let imported = bench.unpack(&file).unwrap();
    bench.commit(&imported);
    drop(imported);
    assert_eq!(bench.unpack(&file).unwrap().committed, None, "all is there");

    let blobs = bench.importer.store.list();
    let blobs: Vec<Digest> = blobs.map(|blob| blob.unwrap().0).collect();
    for lost in &blobs {
        let size_bytes = bench.importer.store.find(lost).unwrap();
        bench.importer.store.quarantine(lost, size_bytes).unwrap();
        let again = bench.unpack(&file).unwrap();
        assert!(again.packages.is_empty(), "it is known");
        let committed = again.committed.unwrap();
        assert_eq!(
            (committed.new_blobs, committed.known_blobs),
            (1, 2),
            "{lost}"
        );
        assert!(bench.importer.store.find(lost).unwrap().is_some());
    }
}

#[test]
fn a_known_package_that_comes_again_says_what_it_keeps_where_nobody_knew_it() {
    let bench = Bench::new();
    bench.write("x.tgz", &package_of(b"layer"));
    let file = verified(&Source::File(bench.path("x.tgz")));
    let imported = bench.unpack(&file).unwrap();
    let NewPackage { record, content } = imported.packages[0].clone();
    bench.commit(&imported);
    drop(imported);
    // As a version has left it that did not write it down, and with a manifest that cannot be read.
    let (root, state) = (record.images[0].digest, bench.path("state"));
    let Bench { dir, importer } = bench;
    drop(importer);
    raw::put_raw(&state, Column::Content, record.digest.as_bytes(), None);
    let bench = Bench::open(dir);
    let Importer { store, catalog, .. } = &bench.importer;
    assert_eq!(catalog.list_without_content(), [record.digest]);
    let size_bytes = store.find(&root).unwrap();
    store.quarantine(&root, size_bytes).unwrap().unwrap();

    let again = bench.unpack(&file).unwrap();
    assert!(again.packages.is_empty(), "it is known");
    assert_eq!(again.committed.unwrap().new_blobs, 1);
    assert_eq!(catalog.find_content(&record.digest).unwrap(), Some(content));
    catalog.check_contents_known().unwrap();
    assert_eq!(bench.unpack(&file).unwrap().committed, None, "all is there");
}
