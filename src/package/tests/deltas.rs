//! What a package may leave out: blobs that were there before, children of sparse indexes, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::builder::{
    Builder, MANIFEST, MemorySink, Raw, code_of, file, read_into, tar_of, tgz_of,
};
use crate::base::oci::{Descriptor, MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST};
use crate::base::{Class, Classified, Digest, PackageKind};
use crate::package::{Contents, Error, Manifest, Unpacked};

/// Name of the one image of the packages here.
const NAME: &str = "registry.example/ops/redis:7";

type Blobs = BTreeMap<Digest, Vec<u8>>;

/// Reads a file where these blobs were before.
fn read_on(base: &Blobs, bytes: &[u8]) -> Result<Unpacked, Error> {
    let mut sink = MemorySink::default();
    sink.base.clone_from(base);
    read_into(&mut sink, bytes)
}

/// Unpacks a package where these blobs were before.
fn unpack_on(base: &Blobs, files: &[Raw]) -> Result<Contents, Error> {
    let unpacked = read_on(base, &tgz_of(files))?;
    Ok(unpacked.package.unwrap())
}

fn code_on(base: &Blobs, files: &[Raw]) -> &'static str {
    unpack_on(base, files).map_or_else(|error| error.code(), |_| "none")
}

fn sizes(blobs: &Blobs) -> BTreeMap<Digest, u64> {
    blobs
        .iter()
        .map(|(digest, content)| (*digest, content.len() as u64))
        .collect()
}

/// Returns the files of a package with one image, its manifest first.
fn package(manifest: &Manifest, blobs: &Blobs, image: &Descriptor) -> Vec<Raw> {
    let builder = Builder {
        blobs: blobs.clone(),
    };
    let mut files = vec![file("manifest.yaml", manifest.encode())];
    files.extend(builder.layout("", &[(Some(NAME), image)]));
    files
}

fn delta(expects: BTreeMap<Digest, u64>) -> Manifest {
    Manifest {
        expects,
        ..Manifest::default()
    }
}

fn sparse(omitted: impl IntoIterator<Item = Digest>) -> Manifest {
    Manifest {
        omitted: omitted.into_iter().collect(),
        ..Manifest::default()
    }
}

fn supplement() -> Manifest {
    Manifest {
        kind: Some(PackageKind::Supplement),
        ..Manifest::default()
    }
}

#[test]
fn a_delta_without_its_base_says_what_is_missing_wherever_its_manifest_is() {
    let mut builder = Builder::default();
    let image = builder.multi("x");
    let mut blobs = builder.blobs.clone();
    let (digest, content) = blobs.pop_first().unwrap();
    let base = Blobs::from([(digest, content)]);
    let manifest = delta(sizes(&base));
    let first = package(&manifest, &blobs, &image);
    let mut last = first.clone();
    last.rotate_left(1);
    for mut files in [first, last] {
        let contents = unpack_on(&base, &files).unwrap();
        assert_eq!(
            contents.blobs,
            sizes(&builder.blobs),
            "received and expected alike"
        );
        let Err(error @ Error::BaseMissing { .. }) = unpack_on(&Blobs::new(), &files) else {
            panic!("expected that the base is missing");
        };
        assert_eq!(
            (error.code(), error.class()),
            ("base-missing", Class::Absent)
        );
        let Error::BaseMissing { expected, missing } = error else {
            return;
        };
        assert_eq!((expected.len(), missing), (1, sizes(&base)));
        // What came with the package does not stand for the base: that would depend on the order.
        files.extend(
            Builder {
                blobs: base.clone(),
            }
            .blob_files("blobs/sha256/", ""),
        );
        assert_eq!(code_on(&Blobs::new(), &files), "base-missing");
        assert_eq!(code_on(&base, &files), "none");
    }
}

#[test]
fn a_foreign_layer_that_a_delta_builds_on_is_kept_and_one_that_it_does_not_name_is_not() {
    let mut builder = Builder::default();
    let config = builder.blob(MEDIA_TYPE_CONFIG, "{}");
    let layer = Descriptor::of(
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        b"foreign",
    );
    let mut entry = json!(layer);
    entry["urls"] = json!(["https://layers.example/base"]);
    let manifest = json!({"schemaVersion": 2, "mediaType": MEDIA_TYPE_MANIFEST, "config": config,
        "layers": [entry]});
    let image = builder.json(MEDIA_TYPE_MANIFEST, &manifest);
    let base = Blobs::from([(layer.digest, b"foreign".to_vec())]);
    let named = package(&delta(sizes(&base)), &builder.blobs, &image);
    assert_eq!(code_on(&Blobs::new(), &named), "base-missing");
    let contents = unpack_on(&base, &named).unwrap();
    assert_eq!(contents.blobs[&layer.digest], 7);
    assert_eq!(contents.foreign, BTreeSet::from([layer.digest]));
    let unnamed = package(&Manifest::default(), &builder.blobs, &image);
    assert!(unpack_on(&base, &unnamed).unwrap().foreign.is_empty());
}

#[test]
fn the_base_is_asked_for_before_anything_else_is_read() {
    let mut builder = Builder::default();
    let image = builder.image("x", "amd64");
    let expected = BTreeMap::from([(Digest::of(b"elsewhere"), 9)]);
    let mut files = package(&delta(expected), &builder.blobs, &image);
    files.insert(1, file("../escape", "x"));
    assert_eq!(code_on(&Blobs::new(), &files), "base-missing");
    files.swap(0, 1);
    assert_eq!(code_on(&Blobs::new(), &files), "name-parent");
}

#[test]
fn a_package_that_expects_nothing_never_looks_at_what_was_there_before() {
    let mut builder = Builder::default();
    let image = builder.multi("x");
    let base = builder.blobs.clone();
    for (digest, content) in &base {
        let mut blobs = base.clone();
        blobs.remove(digest);
        let code = code_on(&base, &package(&Manifest::default(), &blobs, &image));
        assert_eq!(code, "missing-blob", "{}", content.len());
    }
    // One that expects something gets that, and nothing else.
    let mut blobs = base.clone();
    let expected = blobs.pop_first().unwrap();
    let other = blobs.pop_first().unwrap();
    let manifest = delta(sizes(&Blobs::from([expected.clone()])));
    assert_eq!(
        code_on(&base, &package(&manifest, &blobs, &image)),
        "missing-blob"
    );
    let manifest = delta(sizes(&Blobs::from([expected, other])));
    assert_eq!(code_on(&base, &package(&manifest, &blobs, &image)), "none");
}

#[test]
fn lies_about_the_base_are_refused_each_with_its_code() {
    let mut builder = Builder::default();
    let image = builder.image("x", "amd64");
    let mut blobs = builder.blobs.clone();
    let (digest, content) = blobs.pop_first().unwrap();
    let size_bytes = content.len() as u64;
    let stray = Digest::of(b"stray");
    let base = Blobs::from([(digest, content), (stray, b"stray".to_vec())]);
    let code =
        |expects: BTreeMap<Digest, u64>| code_on(&base, &package(&delta(expects), &blobs, &image));
    assert_eq!(code(BTreeMap::from([(digest, size_bytes)])), "none");
    assert_eq!(
        code(BTreeMap::from([(digest, size_bytes + 1)])),
        "base-size-mismatch"
    );
    assert_eq!(
        code(BTreeMap::from([(digest, size_bytes), (stray, 5)])),
        "base-unneeded"
    );
    // A blob that is there and with another size needs no waiting for the other one.
    let absent = Digest::of(b"absent");
    assert_eq!(
        code(BTreeMap::from([(absent, 1), (digest, size_bytes + 1)])),
        "base-size-mismatch"
    );
    // A package without images builds on nothing.
    let light = MANIFEST.replace("kind:", "apiVersion: v1\nkind:");
    let light = format!("{light}  expects: [{{digest: '{stray}', size: 5}}]\n");
    assert_eq!(
        code_on(&base, &[file("manifest.yaml", light)]),
        "base-unneeded"
    );
}

#[test]
fn a_base_blob_of_another_size_than_its_image_says_is_refused() {
    let mut builder = Builder::default();
    let child = builder.image("x", "amd64");
    let mut wrong = child.clone();
    wrong.size_bytes += 1;
    let index = builder.index(&[(wrong, "amd64")]);
    let mut blobs = builder.blobs.clone();
    let base = Blobs::from([blobs.remove_entry(&child.digest).unwrap()]);
    let files = package(&delta(sizes(&base)), &blobs, &index);
    assert_eq!(code_on(&base, &files), "size-mismatch");
}

#[test]
fn an_index_may_be_sparse_where_the_manifest_says_so() {
    let mut builder = Builder::default();
    let amd64 = builder.image("x", "amd64");
    let mut whole = builder.clone();
    let arm64 = whole.image("x", "arm64");
    let index = whole.index(&[(amd64, "amd64"), (arm64.clone(), "arm64")]);
    builder
        .blobs
        .insert(index.digest, whole.blobs[&index.digest].clone());
    let none = Blobs::new();
    let files = package(&sparse([arm64.digest]), &builder.blobs, &index);
    let contents = unpack_on(&none, &files).unwrap();
    assert_eq!(contents.omitted, BTreeSet::from([arm64.digest]));
    assert_eq!(contents.blobs, sizes(&builder.blobs));
    let platforms: Vec<&str> = contents.platforms.iter().map(AsRef::as_ref).collect();
    assert_eq!(platforms, ["linux/amd64"], "what was left out runs nowhere");
    // Where it is there all the same, it is not left out, and then it must be whole.
    let files = package(&sparse([arm64.digest]), &whole.blobs, &index);
    assert!(unpack_on(&none, &files).unwrap().omitted.is_empty());
    let files = package(&Manifest::default(), &builder.blobs, &index);
    assert_eq!(code_on(&none, &files), "missing-blob");
    // What the store holds besides does not fill the gap.
    let files = package(&sparse([arm64.digest]), &builder.blobs, &index);
    let contents = unpack_on(&whole.blobs, &files).unwrap();
    assert_eq!(contents.omitted.len(), 1);
}

#[test]
fn nothing_but_children_of_indexes_can_be_left_out() {
    let mut builder = Builder::default();
    let index = builder.multi("x");
    let none = Blobs::new();
    let stray = Digest::of(b"stray");
    let files = package(&sparse([stray]), &builder.blobs, &index);
    assert_eq!(code_on(&none, &files), "omitted-unnamed");
    let files = package(&sparse([index.digest]), &builder.blobs, &index);
    assert_eq!(code_on(&none, &files), "omitted-unnamed");
    for (digest, content) in &builder.blobs {
        let is_manifest = String::from_utf8_lossy(content).contains("schemaVersion");
        if is_manifest {
            continue;
        }
        let mut blobs = builder.blobs.clone();
        blobs.remove(digest);
        let files = package(&sparse([*digest]), &blobs, &index);
        assert_eq!(
            code_on(&none, &files),
            "missing-blob",
            "configuration or layer"
        );
    }
    let mut blobs = builder.blobs.clone();
    blobs.remove(&index.digest);
    let files = package(&sparse([index.digest]), &blobs, &index);
    assert_eq!(code_on(&none, &files), "missing-blob", "the image itself");
}

#[test]
fn a_supplement_is_all_of_its_blobs_and_has_no_images() {
    let mut builder = Builder::default();
    let image = builder.multi("x");
    let mut files = vec![file("manifest.yaml", supplement().encode())];
    files.extend(builder.layout("", &[]));
    let contents = unpack_on(&Blobs::new(), &files).unwrap();
    assert_eq!(contents.kind, PackageKind::Supplement);
    assert_eq!(contents.blobs, sizes(&builder.blobs));
    assert!(contents.images.is_empty() && contents.platforms.is_empty());
    let files = package(&supplement(), &builder.blobs, &image);
    assert_eq!(code_of(&tgz_of(&files)), "supplement-images");
    let mut files = vec![file("manifest.yaml", supplement().encode())];
    files.extend(builder.layout("", &[(None, &image)]));
    assert_eq!(code_of(&tgz_of(&files)), "supplement-images");
    let files = [file("manifest.yaml", supplement().encode())];
    assert_eq!(code_of(&tgz_of(&files)), "empty");
    let manifest = Manifest {
        expects: BTreeMap::from([(Digest::of(b"stray"), 5)]),
        ..supplement()
    };
    let base = Blobs::from([(Digest::of(b"stray"), b"stray".to_vec())]);
    let mut files = vec![file("manifest.yaml", manifest.encode())];
    files.extend(builder.blob_files("blobs/sha256/", ""));
    assert_eq!(code_on(&base, &files), "base-unneeded");
}

/// Unpacks a file of several, where these blobs were before.
fn unpack_carrier(base: &Blobs, files: &[Raw]) -> Result<Unpacked, Error> {
    read_on(base, &tar_of(files))
}

#[test]
fn a_delta_builds_on_what_another_package_of_the_same_file_brings_in_any_order() {
    let mut builder = Builder::default();
    let image = builder.multi("x");
    let whole = tgz_of(&package(&Manifest::default(), &builder.blobs, &image));
    let mut blobs = builder.blobs.clone();
    let (digest, content) = blobs.pop_first().unwrap();
    let base = Blobs::from([(digest, content.clone())]);
    let thin = tgz_of(&package(&delta(sizes(&base)), &blobs, &image));
    let alone = unpack_on(&base, &package(&delta(sizes(&base)), &blobs, &image)).unwrap();
    let deeper = tar_of(&[file("whole.tgz", whole.clone())]);
    for base_file in [file("a-whole.tgz", whole), file("z-deeper.tar", deeper)] {
        let mut files = vec![base_file, file("delta.tgz", thin.clone())];
        for _ in 0..2 {
            let unpacked = unpack_carrier(&Blobs::new(), &files).unwrap();
            assert_eq!(unpacked.nested.len(), 2);
            let nested = unpacked.nested.iter().find(|it| it.path == "delta.tgz");
            assert_eq!(nested.unwrap().contents, alone, "as if it came alone");
            files.reverse();
        }
    }
    // What the file's own package brings counts, too.
    let mut files = package(&Manifest::default(), &builder.blobs, &image);
    files.push(file("delta.tgz", thin.clone()));
    assert!(
        unpack_carrier(&Blobs::new(), &files)
            .unwrap()
            .package
            .is_some()
    );
    // The delta itself does not, nor an archive that is no package.
    let greedy = tgz_of(&package(&delta(sizes(&base)), &builder.blobs, &image));
    let loose = Builder {
        blobs: base.clone(),
    }
    .blob_files("blobs/sha256/", "");
    for files in [
        vec![file("delta.tgz", greedy.clone())],
        vec![
            file("delta.tgz", thin.clone()),
            file("loose.tgz", tgz_of(&loose)),
        ],
    ] {
        let error = unpack_carrier(&Blobs::new(), &files).unwrap_err();
        assert_eq!(error.code(), "base-missing");
    }
    // Two that bring it stand for each other.
    let files = [file("one.tgz", greedy.clone()), file("two.tgz", greedy)];
    unpack_carrier(&Blobs::new(), &files).unwrap();
}

#[test]
fn all_that_the_deltas_of_a_file_miss_is_said_at_once_and_a_wrong_size_with_its_path() {
    let mut builder = Builder::default();
    let image = builder.multi("x");
    let mut parts = builder.blobs.clone();
    let (one, two) = (parts.pop_first().unwrap(), parts.pop_last().unwrap());
    let thin = |part: &(Digest, Vec<u8>), more: u64| {
        let mut blobs = builder.blobs.clone();
        blobs.remove(&part.0);
        let expects = BTreeMap::from([(part.0, part.1.len() as u64 + more)]);
        tgz_of(&package(&delta(expects), &blobs, &image))
    };
    // Each brings what the other one lacks.
    let files = [
        file("one.tgz", thin(&one, 0)),
        file("two.tgz", thin(&two, 0)),
    ];
    unpack_carrier(&Blobs::new(), &files).unwrap();
    let both = |more| {
        let mut blobs = parts.clone();
        blobs.remove(&image.digest);
        let expects = [&one, &two].map(|part| (part.0, part.1.len() as u64 + more));
        tgz_of(&package(&delta(BTreeMap::from(expects)), &blobs, &image))
    };
    let Err(Error::BaseMissing { expected, missing }) =
        unpack_carrier(&Blobs::new(), &[file("x/both.tgz", both(0))])
    else {
        panic!("expected that the base is missing");
    };
    assert_eq!((expected.len(), missing.len()), (2, 2));
    let base = Blobs::from([one.clone()]);
    let error = unpack_carrier(&base, &[file("x/both.tgz", both(1))]).unwrap_err();
    assert_eq!(error.code(), "base-size-mismatch");
    assert!(error.to_string().contains("`x/both.tgz`"), "{error}");
}

proptest! {
    /// Each blob of an image is packed, or in the base, or nowhere; and expected, or not. The package is good exactly
    /// where everything is packed or expected and there, and nothing is expected that is not there.
    #[test]
    fn a_delta_is_whole_exactly_where_its_base_fills_the_gaps(fates in proptest::collection::vec(0..6_u8, 8)) {
        let mut builder = Builder::default();
        let image = builder.multi("x");
        let (mut packed, mut base, mut expects) = (Blobs::new(), Blobs::new(), BTreeMap::new());
        for ((digest, content), fate) in builder.blobs.iter().zip(fates.into_iter().cycle()) {
            let (is_packed, is_in_base, is_expected) =
                [(true, false, false), (true, true, true), (false, true, true), (true, true, false), (false, true, false), (false, false, true)][usize::from(fate)];
            if is_packed {
                packed.insert(*digest, content.clone());
            }
            if is_in_base {
                base.insert(*digest, content.clone());
            }
            if is_expected {
                expects.insert(*digest, content.len() as u64);
            }
        }
        let has_all = expects.keys().all(|digest| base.contains_key(digest));
        let is_covered = builder.blobs.keys().all(|digest| packed.contains_key(digest) || expects.contains_key(digest));
        let expected = match (has_all, is_covered) {
            (false, _) => "base-missing",
            (true, false) => "missing-blob",
            (true, true) => "none",
        };
        let files = package(&delta(expects), &packed, &image);
        prop_assert_eq!(code_on(&base, &files), expected);
    }
}
