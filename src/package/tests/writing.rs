//! The writer: what it writes reads back, is always the same, and is never wrong content.

use std::fmt::Write as _;

use super::builder::{Builder, operator_package, read, tgz_of};
use crate::base::Digest;
use crate::package::{Contents, Error, Image, Manifest, WriteOptions, Writer};

/// Writes the images of a package again and returns the bytes.
fn rewrite(contents: &Contents, blobs: &Builder, images: &[Image]) -> Vec<u8> {
    let manifest = contents.manifest.clone().unwrap_or_default();
    let mut writer =
        Writer::create(Vec::new(), &manifest, images, WriteOptions::default()).unwrap();
    for (digest, size_bytes) in &contents.blobs {
        writer
            .add_blob(digest, *size_bytes, &mut blobs.blobs[digest].as_slice())
            .unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn what_is_written_reads_back_and_is_the_same_every_time() {
    let (builder, files) = operator_package();
    let contents = read(&tgz_of(&files)).unwrap();
    let bytes = rewrite(&contents, &builder, &contents.images);
    assert_eq!(read(&bytes).unwrap(), contents);
    let mut reversed = contents.images.clone();
    reversed.reverse();
    assert!(bytes == rewrite(&contents, &builder, &reversed));
    // Header: deflate, no flags, no time, no remark on the level, unknown system.
    assert_eq!(bytes[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    let mut tree = Builder::default();
    let image = tree.image("x", "amd64");
    let hostless = read(&tgz_of(&tree.tree("", &[("a/b", "1", &image)]))).unwrap();
    let bytes = rewrite(&hostless, &tree, &hostless.images);
    assert_eq!(read(&bytes).unwrap().images, hostless.images);
}

#[test]
fn the_archive_inside_is_golden() {
    let mut builder = Builder::default();
    let image = builder.image("x", "amd64");
    let images = [Image {
        reference: "registry.example/a/b:1".parse().unwrap(),
        descriptor: image,
    }];
    let manifest = Manifest::default();
    let mut writer =
        Writer::create(Vec::new(), &manifest, &images, WriteOptions::default()).unwrap();
    for (digest, content) in &builder.blobs {
        let size_bytes = content.len() as u64;
        writer
            .add_blob(digest, size_bytes, &mut content.as_slice())
            .unwrap();
    }
    let packed = writer.finish().unwrap();
    let mut bytes = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(packed.as_slice());
    std::io::Read::read_to_end(&mut decoder, &mut bytes).unwrap();
    let mut listing = String::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        writeln!(
            listing,
            "{:o} {}:{} {} {}",
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.mtime().unwrap(),
            String::from_utf8_lossy(&entry.path_bytes()),
        )
        .unwrap();
    }
    insta::assert_snapshot!(listing, @r"
    644 0:0 0 manifest.yaml
    644 0:0 0 oci-layout
    644 0:0 0 index.json
    644 0:0 0 blobs/sha256/39cf30ecf49ec0b7958b2b043e68abc908719e7b3b7d7d759cedcd7a9bb36845
    644 0:0 0 blobs/sha256/3e72b863517ed48bd2edddba861100b0a426308d3e3d32916c51cc4795910a0c
    644 0:0 0 blobs/sha256/48c187767dddb44e5b7af78dabdec2b14f0f983e86e1fe695c65bc6a2a3cb42f
    644 0:0 0 blobs/sha256/8a6cad905dc4d49ee00789864700888e9240122c4f84e937e21b28935d85077a
    ");
    assert_eq!(
        Digest::of(&bytes).short(),
        "12dfb69a566f",
        "the bytes of a package must not change between releases"
    );
}

#[test]
fn the_writer_refuses_wrong_content_and_wrong_order() {
    let mut builder = Builder::default();
    let image = builder.image("x", "amd64");
    let images = [Image {
        reference: "a/b:1".parse().unwrap(),
        descriptor: image.clone(),
    }];
    let create = || {
        Writer::create(
            Vec::new(),
            &Manifest::default(),
            &images,
            WriteOptions::default(),
        )
        .unwrap()
    };
    let code = |outcome: Result<(), Error>| outcome.unwrap_err().code();
    let (digest, content) = builder.blobs.first_key_value().unwrap();
    let size_bytes = content.len() as u64;
    let longer = [&content[..], b"x"].concat();
    for wrong in [&content[..content.len() - 1], &longer[..], b""] {
        assert_eq!(
            code(create().add_blob(digest, size_bytes, &mut &wrong[..])),
            "blob-content"
        );
    }
    let mut writer = create();
    writer
        .add_blob(digest, size_bytes, &mut &content[..])
        .unwrap();
    assert_eq!(
        code(writer.add_blob(digest, size_bytes, &mut &content[..])),
        "blob-order"
    );
    assert_eq!(create().finish().unwrap_err().code(), "blob-not-written");
    let beyond = Digest::from_bytes([255; 32]);
    assert_eq!(
        code(create().add_blob(&beyond, 1, &mut &b"x"[..])),
        "blob-not-written"
    );
}

#[test]
fn a_delta_need_not_hold_the_manifest_of_an_image_that_it_expects_to_be_there() {
    let mut builder = Builder::default();
    let image = builder.image("x", "amd64");
    let images = [Image {
        reference: "a/b:1".parse().unwrap(),
        descriptor: image.clone(),
    }];
    let finish = |manifest: &Manifest| {
        let writer = Writer::create(Vec::new(), manifest, &images, WriteOptions::default());
        writer.unwrap().finish()
    };
    let mut manifest = Manifest::default();
    assert_eq!(finish(&manifest).unwrap_err().code(), "blob-not-written");
    manifest.expects.insert(image.digest, image.size_bytes);
    finish(&manifest).unwrap();
}

#[test]
fn a_manifest_that_no_reader_takes_is_not_written() {
    let blob = |number: u64| (Digest::of(&number.to_le_bytes()), number);
    let manifest = Manifest {
        expects: (0..50_000).map(blob).collect(),
        ..Manifest::default()
    };
    let error = Writer::create(Vec::new(), &manifest, &[], WriteOptions::default()).unwrap_err();
    assert_eq!(error.code(), "metadata-too-large");
}
