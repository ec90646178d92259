//! Whole packages out of any bytes: what they are is found by looking at them.
//!
//! The first byte says how the rest is taken: as it is; as one gzip member or zstd frame or several, because compressed data
//! has checksums that a fuzzer does not hit; as an archive inside of an archive; or as bytes that are changed in a good
//! package, each with its position before it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use violetd_fuzz::{Archive, gzip, unpack, zstd};

/// Returns a package that is good: an image layout without images, and a manifest that promises none.
fn good() -> Vec<u8> {
    let mut archive = Archive::default();
    archive.file(b"oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    archive.file(b"index.json", br#"{"schemaVersion":2,"manifests":[]}"#);
    archive.file(
        b"manifest.yaml",
        b"kind: PackageManifest\nspec: {type: chart}\n",
    );
    archive.file(&[b'x'; 150], b"something else");
    archive.finish()
}

/// Changes bytes: two of position, one of value.
fn patch(mut bytes: Vec<u8>, patches: &[u8]) -> Vec<u8> {
    let length = bytes.len();
    for patch in patches.chunks_exact(3) {
        let position = usize::from(u16::from_le_bytes([patch[0], patch[1]]));
        bytes[position % length] = patch[2];
    }
    bytes
}

/// Returns an archive that holds `content` under this name.
fn around(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.file(name.as_bytes(), content);
    archive.finish()
}

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    let bytes = match mode % 12 {
        0 => rest.to_vec(),
        1 => gzip(rest),
        2 => rest
            .chunks(usize::from(*mode).max(1) * 8)
            .flat_map(gzip)
            .collect(),
        3 => patch(good(), rest),
        4 => patch(gzip(&good()), rest),
        5 => zstd(rest),
        6 => rest
            .chunks(usize::from(*mode).max(1) * 8)
            .flat_map(zstd)
            .collect(),
        7 => patch(zstd(&good()), rest),
        8 => around("a/b.tar", rest),
        9 => gzip(&around("b.tgz", &patch(gzip(&good()), rest))),
        // One member or frame and what is behind it.
        10 => {
            let (member, behind) = rest.split_at(rest.len() / 2);
            [gzip(member), behind.to_vec()].concat()
        }
        _ => {
            let (frame, behind) = rest.split_at(rest.len() / 2);
            [zstd(frame), behind.to_vec()].concat()
        }
    };
    let (whole, received) = unpack(&bytes, usize::MAX);
    let (piecewise, again) = unpack(&bytes, 7);
    match (whole, piecewise) {
        (Ok(whole), Ok(piecewise)) => {
            assert_eq!(whole, piecewise);
            assert_eq!(received, again);
        }
        (Err(whole), Err(piecewise)) => assert_eq!(whole.to_string(), piecewise.to_string()),
        (whole, piecewise) => panic!("{whole:?} at once, {piecewise:?} in pieces"),
    }
});
