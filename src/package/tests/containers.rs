//! How archives are packed: zstd beside gzip, and tar as it was before it had a magic.

use std::io::Cursor;
use std::io::Write as _;

use super::builder::{
    MANIFEST, MemorySink, Raw, code_of, code_with, encode, file, gzip, operator_package, read,
    tar_of, tgz_of, zstd,
};
use crate::base::Digest;
use crate::package::{HashingReader, Limits, unpack};

/// Takes the magic off each header, as tar was written before POSIX.1-1988.
fn old_tar_of(files: &[Raw]) -> Vec<u8> {
    let mut out = Vec::new();
    for raw in files {
        let mut bytes = encode(raw);
        let header = bytes.first_chunk_mut::<512>().unwrap();
        header[257..].fill(0);
        let mut old = tar::Header::from_byte_slice(header).clone();
        old.set_cksum();
        header.copy_from_slice(old.as_bytes());
        out.extend(bytes);
    }
    out.extend([0; 1024]);
    out
}

#[test]
fn zstd_in_one_frame_or_several_is_read_like_gzip() {
    let (builder, files) = operator_package();
    let tar = tar_of(&files);
    let expected = read(&tgz_of(&files)).unwrap();
    let frames: Vec<u8> = tar.chunks(700).flat_map(zstd).collect();
    // As parallel compressors write it: a frame to be skipped in front.
    let skipped = [&b"\x50\x2a\x4d\x18\x04\0\0\0size"[..], &zstd(&tar)].concat();
    for bytes in [zstd(&tar), frames, skipped] {
        let (input, digest) = HashingReader::new(Cursor::new(bytes.clone()));
        let mut sink = MemorySink::default();
        let unpacked = unpack(input, &Limits::default(), &mut sink).unwrap();
        assert_eq!(unpacked.package.as_ref(), Some(&expected));
        assert_eq!(sink.blobs, builder.blobs);
        assert_eq!(digest.get(), Some(Digest::of(&bytes)), "read to the end");
    }
}

#[test]
fn damaged_zstd_is_refused_each_with_its_code() {
    let (_, files) = operator_package();
    let tar = tar_of(&files);
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(&tar).unwrap();
    let whole = encoder.finish().unwrap();
    let mut bad_sum = whole.clone();
    *bad_sum.last_mut().unwrap() ^= 1;
    let mut bad_frame = whole.clone();
    bad_frame[4] |= 0x08; // a reserved bit of the frame header
    for (code, bytes) in [
        ("zstd-corrupt", bad_sum),
        ("zstd-corrupt", bad_frame),
        ("zstd-corrupt", b"\x28\xb5\x2f\xfd".repeat(300)),
        (
            "zstd-corrupt",
            [&whole[..], b"PK"]
                .concat()
                .iter()
                .copied()
                .chain([3; 9])
                .collect(),
        ),
        ("truncated", whole[..whole.len() - 1].to_vec()),
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("truncated", zstd(&tar[..tar.len() - 512])),
        ("trailing-bytes", [&whole[..], b"more"].concat()),
        ("trailing-bytes", [&whole[..], &gzip(b"")].concat()),
        ("trailing-bytes", [whole.clone(), whole.clone()].concat()),
        ("not-an-archive", zstd(&[b'x'; 2000])),
        (
            "expansion-ratio",
            [&whole[..], &zstd(&vec![0; 70 << 20])].concat(),
        ),
    ] {
        assert_eq!(code_of(&bytes), code, "{} bytes", bytes.len());
    }
}

#[test]
fn a_zstd_window_over_the_limit_is_refused_with_its_own_code() {
    let (_, files) = operator_package();
    // Larger than the window, so that the frame needs all of it.
    let large = file("large", vec![7; 3 << 20]);
    let tar = tar_of(&[&files[..], &[large]].concat());
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(21).unwrap();
    encoder.write_all(&tar).unwrap();
    let bytes = encoder.finish().unwrap();
    let limits = |zstd_window_bytes_max| Limits {
        zstd_window_bytes_max,
        ..Limits::default()
    };
    assert_eq!(code_with(&bytes, &limits(2 << 20)), "none");
    assert_eq!(code_with(&bytes, &limits(1 << 20)), "zstd-window-too-large");
}

#[test]
fn tar_without_magic_is_known_by_its_checksum() {
    let (_, mut files) = operator_package();
    files.insert(0, file("blobs/", ""));
    let old = old_tar_of(&files);
    let expected = read(&tgz_of(&files[1..])).unwrap();
    for bytes in [old.clone(), gzip(&old), zstd(&old)] {
        assert_eq!(read(&bytes).unwrap(), expected);
    }
    let mut damaged = old.clone();
    damaged[3] ^= 1;
    assert_eq!(code_of(&damaged), "not-an-archive");
    assert_eq!(code_of(&[0; 4096]), "not-an-archive");
    let mut later = old_tar_of(&[file("manifest.yaml", MANIFEST), file("x", "")]);
    later[1024] ^= 1;
    assert_eq!(code_of(&later), "header-corrupt");
}
