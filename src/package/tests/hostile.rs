//! Input that is damaged, incomplete or made to do harm.

use std::io::Cursor;

use proptest::prelude::*;

use super::builder::{
    MANIFEST, MemorySink, Raw, code_of, code_with, encode, entry, file, gzip, operator_package,
    read, read_into, read_with, tar_of, tgz_of, zstd,
};
use crate::base::{Chain, Class, Classified, Digest};
use crate::package::{DiscardSink, HashingReader, Limits, UnpackError, unpack};

/// One hostile or broken input.
type Case = (&'static str, Vec<u8>);

/// Returns a whole package with the entry put in front and behind, because order must not matter.
fn with(raw: &Raw) -> Vec<Vec<u8>> {
    let (_, mut files) = operator_package();
    let mut front = files.clone();
    front.insert(0, raw.clone());
    files.push(raw.clone());
    vec![tgz_of(&front), tgz_of(&files)]
}

#[test]
fn hostile_entries_are_refused_each_with_its_code() {
    for (code, raw) in [
        ("name-absolute", file("/etc/passwd", "x")),
        ("name-parent", file("a/../../etc/passwd", "x")),
        ("name-empty", file("a//b", "x")),
        ("name-character", file("a\\b", "x")),
        ("name-character", file("a\x07b", "x")),
        ("name-not-utf8", entry(b'0', b"\xff\xfe", b"x")),
        ("name-too-long", file(&"a/".repeat(600), "x")),
        ("symbolic-link", entry(b'2', b"link", b"")),
        ("hard-link", entry(b'1', b"link", b"")),
        ("device", entry(b'3', b"null", b"")),
        ("device", entry(b'4', b"sda", b"")),
        ("fifo", entry(b'6', b"pipe", b"")),
        ("sparse-file", entry(b'S', b"sparse", b"")),
        ("entry-type", entry(b'7', b"contiguous", b"")),
        ("entry-type", entry(b'5', b"dir", b"content")),
        ("name-duplicate", file("oci-layout", "again")),
        ("name-duplicate", file("./oci-layout", "again")),
        ("name-duplicate", entry(b'5', b"oci-layout", b"")),
        ("name-conflict", file("oci-layout/x", "x")),
        ("name-conflict", entry(b'5', b"oci-layout/x/y", b"")),
        ("name-conflict", file("./blobs", "x")),
        ("name-conflict", file("blobs/sha256", "x")),
        ("header-corrupt", entry(b'g', b"global", b"10 size=1\n")),
        ("header-corrupt", entry(b'x', b"pax", b"99 path=x\n")),
        (
            "extension-too-large",
            entry(b'x', b"pax", &b"x".repeat(70_000)),
        ),
        ("blob-name", file("x/blobs/sha256/README", "x")),
        (
            "digest-mismatch",
            file(&format!("x/blobs/sha256/{}", "0".repeat(64)), "x"),
        ),
        (
            "layout-version",
            file("x/oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#),
        ),
        ("layout-version", file("x/oci-layout", "no")),
        (
            "index-absent",
            file("x/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
        ),
        ("metadata-invalid", file("moduleplugin.yaml", "{")),
        ("metadata-invalid", file("x/moduleplugin.yaml", "spec: 1")),
        ("several-manifests", file("x/manifest.yaml", MANIFEST)),
        (
            "metadata-too-large",
            file("x/index.json", vec![b' '; (4 << 20) + 1]),
        ),
    ] {
        for bytes in with(&raw) {
            let name = String::from_utf8_lossy(&raw.name);
            assert_eq!(code_of(&bytes), code, "entry: {name}");
        }
    }
}

#[test]
fn extension_headers_that_contradict_or_overflow_are_refused_each_with_its_code() {
    let pax = |records: &[u8]| encode(&entry(b'x', b"pax", records));
    let (_, files) = operator_package();
    let named = pax(b"14 path=other\n");
    let body = tar_of(&files);
    let long = encode(&entry(b'L', b"long", b"name\0"));
    for (code, prefix) in [
        ("name-ambiguous", [named.clone(), long].concat()),
        ("name-ambiguous", [named.clone(), named.clone()].concat()),
        ("sparse-file", pax(b"22 GNU.sparse.major=1\n")),
        (
            "header-corrupt",
            [
                named.clone(),
                encode(&entry(b'g', b"global", b"23 comment=from a tool\n")),
            ]
            .concat(),
        ),
        (
            "too-many-extensions",
            pax(b"30 mtime=1700000000.123456789\n").repeat(9),
        ),
    ] {
        assert_eq!(code_of(&gzip(&[prefix, body.clone()].concat())), code);
    }
    assert_eq!(
        code_of(&gzip(&[named, vec![0; 1024]].concat())),
        "header-corrupt"
    );
}

#[test]
fn extension_headers_and_directories_of_common_writers_are_fine() {
    let (_, files) = operator_package();
    let mut bytes = encode(&entry(
        b'g',
        b"pax_global_header",
        b"23 comment=from a tool\n",
    ));
    bytes.extend(encode(&entry(b'5', b"./", b"")));
    bytes.extend(encode(&entry(b'5', b"./blobs/", b"")));
    bytes.extend(encode(&entry(b'5', b"./blobs/", b"")));
    bytes.extend(encode(&entry(
        b'x',
        b"pax",
        b"30 mtime=1700000000.123456789\n",
    )));
    bytes.extend(encode(&file(
        &format!("{}x", "deep/".repeat(40)),
        "long name",
    )));
    bytes.extend(tar_of(&files));
    bytes.extend([0; 9 * 1024]);
    read(&gzip(&bytes)).unwrap();
}

#[test]
fn damaged_containers_are_refused_each_with_its_code() {
    let (_, files) = operator_package();
    let tar = tar_of(&files);
    let tgz = gzip(&tar);
    let half = tar.len() / 1024 * 512;
    let mut bad_sum = tgz.clone();
    let crc = bad_sum.len() - 8;
    bad_sum[crc] ^= 1;
    let mut bad_header = tar.clone();
    // The second entry: the manifest before it fills one block.
    bad_header[1024] ^= 0x40;
    let mut bad_start = tar.clone();
    bad_start[3] ^= 0x40;
    let cases: Vec<Case> = vec![
        ("header-corrupt", bad_start.clone()),
        ("header-corrupt", gzip(&bad_start)),
        ("not-an-archive", Vec::new()),
        ("not-an-archive", b"PK\x03\x04".repeat(200)),
        ("truncated", gzip(b"hello")),
        ("header-corrupt", bad_header),
        ("not-an-archive", gzip(&[b'x'; 2000])),
        ("gzip-corrupt", b"\x1f\x8b".repeat(300)),
        ("gzip-corrupt", bad_sum),
        ("truncated", gzip(&tar[..tar.len() - 512])),
        ("truncated", gzip(&tar[..tar.len() - 1024])),
        ("truncated", gzip(&tar[..half])),
        ("truncated", tgz[..tgz.len() - 1].to_vec()),
        ("trailing-bytes", [&tgz[..], b"more"].concat()),
        ("trailing-bytes", [tgz.clone(), tgz.clone()].concat()),
        ("trailing-bytes", [tar.clone(), tar.clone()].concat()),
        (
            "header-corrupt",
            [&tar[..tar.len() - 512], &[1; 512]].concat(),
        ),
    ];
    for (code, bytes) in cases {
        assert_eq!(code_of(&bytes), code);
    }
}

#[test]
fn the_whole_file_is_read_so_that_its_digest_is_known() {
    let (_, files) = operator_package();
    let tar = tar_of(&files);
    // Zeros after the end mark, and an empty member after the last, are part of the file.
    let padded = [&tar[..], &[0; 9000]].concat();
    let members = [gzip(&tar), gzip(b"")].concat();
    for bytes in [tar.clone(), padded, gzip(&tar), members] {
        let (input, digest) = HashingReader::new(Cursor::new(bytes.clone()));
        unpack(input, &Limits::default(), &mut DiscardSink::default()).unwrap();
        assert_eq!(digest.get(), Some(Digest::of(&bytes)));
    }
    let (input, digest) = HashingReader::new(Cursor::new(vec![b'x'; 1 << 20]));
    unpack(input, &Limits::default(), &mut DiscardSink::default()).unwrap_err();
    assert_eq!(digest.get(), None, "refused before the end");
}

#[test]
fn a_package_in_many_gzip_members_is_read_to_the_end() {
    let (_, files) = operator_package();
    let tar = tar_of(&files);
    let members: Vec<u8> = tar.chunks(700).flat_map(gzip).collect();
    assert_eq!(read(&members).unwrap(), read(&tgz_of(&files)).unwrap());
    let mut damaged = members;
    let middle = damaged.len() / 2;
    damaged.truncate(middle);
    assert_eq!(code_of(&damaged), "truncated");
}

#[test]
fn limits_are_kept_each_with_its_code() {
    let (_, files) = operator_package();
    let bytes = tgz_of(&files);
    let limits = Limits::default();
    for (code, limits) in [
        (
            "too-many-entries",
            Limits {
                entries_max: 5,
                ..limits
            },
        ),
        (
            "too-large",
            Limits {
                unpacked_bytes_max: 6000,
                ..limits
            },
        ),
        (
            "metadata-too-large",
            Limits {
                metadata_bytes_max: 100,
                ..limits
            },
        ),
        (
            "metadata-total-too-large",
            Limits {
                metadata_total_bytes_max: 3000,
                ..limits
            },
        ),
        (
            "name-too-long",
            Limits {
                path_bytes_max: 20,
                ..limits
            },
        ),
        (
            "manifest-too-large",
            Limits {
                manifest_bytes_max: 100,
                ..limits
            },
        ),
        (
            "nesting-too-deep",
            Limits {
                nesting_max: 0,
                ..limits
            },
        ),
        (
            "too-many-images",
            Limits {
                images_max: 1,
                ..limits
            },
        ),
    ] {
        assert_eq!(code_with(&bytes, &limits), code);
    }
}

#[test]
fn kubernetes_documents_are_counted() {
    let documents = "---\nkind: A\n---\nkind: B\n---\nkind: C\n";
    let bytes = tgz_of(&[
        file(
            "manifest.yaml",
            "kind: PackageManifest\nspec: {type: plugin}\n",
        ),
        file("res/resources.yaml", documents),
    ]);
    let limits = |resources_max| Limits {
        resources_max,
        ..Limits::default()
    };
    assert_eq!(code_with(&bytes, &limits(3)), "none");
    assert_eq!(code_with(&bytes, &limits(2)), "too-many-resources");
}

#[test]
fn an_index_of_manifests_is_one_level() {
    let limits = Limits {
        nesting_max: 1,
        ..Limits::default()
    };
    read_with(&tgz_of(&operator_package().1), &limits).unwrap();
}

#[test]
fn the_hint_of_a_limit_names_its_key() {
    let (_, files) = operator_package();
    let limits = Limits {
        entries_max: 5,
        ..Limits::default()
    };
    let error = read_with(&tgz_of(&files), &limits).unwrap_err();
    assert_eq!(
        error.hint().as_deref(),
        Some("raise `limits.entries_max` in the configuration if the package can be trusted")
    );
}

#[test]
fn resources_that_grow_when_they_are_read_are_bounded_all_together() {
    let limits = Limits {
        metadata_total_bytes_max: 100_000,
        ..Limits::default()
    };
    let zeros = |count: usize| format!("kind: ModulePlugin\nx: [{}0]\n", "0,".repeat(count));
    let of = |files: &[Raw]| code_with(&tgz_of(files), &limits);
    let light = file(
        "manifest.yaml",
        "kind: PackageManifest\nspec: {type: chart}\n",
    );
    let fine = file("moduleplugin.yaml", zeros(1000));
    assert_eq!(of(&[light.clone(), fine.clone()]), "none");
    let more = file("res/resources.yaml", zeros(1001));
    assert_eq!(of(&[light, fine, more]), "metadata-total-too-large");
}

#[test]
fn sizes_that_readers_take_for_different_numbers_are_refused() {
    let (_, files) = operator_package();
    let body = tar_of(&files);
    for size in [
        *b"\x80\0\0\x01\0\0\0\0\0\0\0\0",
        *b"+0000000000\0",
        [0xff; 12],
    ] {
        let mut block = tar::Header::new_ustar();
        block.as_mut_bytes()[0] = b'x';
        block.as_mut_bytes()[124..136].copy_from_slice(&size);
        block.set_cksum();
        let first = encode(&file("first", ""));
        let bytes = [&first[..], block.as_bytes(), &body].concat();
        assert_eq!(code_of(&gzip(&bytes)), "header-corrupt", "size: {size:?}");
    }
}

#[test]
fn a_decompression_bomb_is_refused_early() {
    let zeros = gzip(&vec![0; 80 << 20]);
    let tar_start = encode(&Raw {
        content: vec![0; 512],
        ..file("x", "")
    });
    // The header promises a large file of zeros.
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[0] = b'b';
    header.set_size(70 << 20);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    let start = gzip(&[&tar_start[..], header.as_bytes()].concat());
    let bomb = [start, zeros].concat();
    assert!(bomb.len() < 1 << 20);
    assert_eq!(code_of(&bomb), "expansion-ratio");
    // Zeros without end after the end mark are a bomb as well.
    let (_, files) = operator_package();
    let padded = [tgz_of(&files), gzip(&vec![0; 70 << 20])].concat();
    assert_eq!(code_of(&padded), "expansion-ratio");
}

#[test]
fn a_failing_input_is_not_blamed_on_the_package() {
    struct Failing(Cursor<Vec<u8>>);
    impl std::io::Read for Failing {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(into)? {
                0 => Err(std::io::Error::other("input/output error")),
                amount => Ok(amount),
            }
        }
    }
    let (_, files) = operator_package();
    let whole = tgz_of(&files);
    let cut = whole[..whole.len() / 2].to_vec();
    for bytes in [cut, tar_of(&files)[..4096].to_vec(), vec![0x1f]] {
        let mut sink = DiscardSink::default();
        let input = Failing(Cursor::new(bytes));
        let error = unpack(input, &Limits::default(), &mut sink).unwrap_err();
        let UnpackError::Package(error) = error else {
            panic!("expected an error of the package");
        };
        assert_eq!(error.code(), "read-failed", "{error:?}");
        assert_eq!(
            Chain(&error).to_string(),
            "failed to read the package: input/output error"
        );
        assert_eq!(error.class(), Class::Transient);
    }
}

#[test]
fn a_package_cut_anywhere_is_refused() {
    let (_, files) = operator_package();
    for whole in [tgz_of(&files), tar_of(&files)] {
        for twentieth in 0..20 {
            let cut = &whole[..whole.len() * twentieth / 20];
            let code = code_of(cut);
            assert!(
                matches!(code, "truncated" | "not-an-archive"),
                "{code} at {twentieth}/20"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_entries_plays_no_part(
        files in Just(operator_package().1).prop_shuffle(),
    ) {
        let expected = read(&tgz_of(&operator_package().1)).unwrap();
        prop_assert_eq!(read(&tgz_of(&files)).unwrap(), expected);
    }

    #[test]
    fn a_flipped_bit_never_gives_other_content(position: prop::sample::Index, bit in 0_u8..8) {
        let (_, files) = operator_package();
        let mut bytes = tgz_of(&files);
        let expected = read(&bytes).unwrap();
        let position = position.index(bytes.len());
        bytes[position] ^= 1 << bit;
        if let Ok(found) = read(&bytes) {
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_flipped_bit_in_a_plain_tar_never_changes_a_blob(
        position: prop::sample::Index,
        bit in 0_u8..8,
    ) {
        let (builder, files) = operator_package();
        let mut bytes = tar_of(&files);
        let position = position.index(bytes.len());
        bytes[position] ^= 1 << bit;
        let mut sink = MemorySink::default();
        if read_into(&mut sink, &bytes).is_ok() {
            for (digest, content) in &sink.blobs {
                prop_assert_eq!(builder.blobs.get(digest), Some(content));
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(read(&bytes).is_err());
        prop_assert!(read(&gzip(&bytes)).is_err());
    }
}

#[test]
fn folders_cost_memory_whether_they_are_entries_or_not() {
    let deep = |number: u32| file(&format!("{number}/{}x", "a/".repeat(40)), "");
    let files: Vec<Raw> = (0..20).map(deep).collect();
    let limits = |metadata_total_bytes_max| Limits {
        metadata_total_bytes_max,
        ..Limits::default()
    };
    // Twenty names of 84 bytes at most, each with 41 folders, at 64 bytes apiece.
    let bytes = tgz_of(&files);
    assert_eq!(code_with(&bytes, &limits(20 * (84 + 42 * 64))), "empty");
    assert_eq!(
        code_with(&bytes, &limits(20 * 41 * 64)),
        "metadata-total-too-large"
    );
}

#[test]
fn members_and_frames_that_hold_nothing_are_refused_early() {
    let (_, files) = operator_package();
    let whole = tgz_of(&files);
    let empty = gzip(b"");
    let skipped = b"\x50\x2a\x4d\x18\0\0\0\0";
    let many = |member: &[u8]| member.repeat(100_000);
    // Some are written by tools: at the end of a file, or one for each piece.
    for few in [1, 1000] {
        let bytes = [whole.clone(), empty.repeat(few)].concat();
        assert_eq!(code_of(&bytes), "none");
    }
    let tar = zstd(&tar_of(&files));
    for bytes in [
        [whole.clone(), many(&empty)].concat(),
        [many(&empty), whole.clone()].concat(),
        [tar.clone(), many(skipped)].concat(),
        [many(&zstd(b"")), tar.clone()].concat(),
        // One byte in each of them is no better.
        tar_of(&files)
            .iter()
            .flat_map(|byte| gzip(&[*byte]))
            .collect(),
        // Compressed themselves.
        tgz_of(&[file("x.tgz", [many(&empty), whole].concat())]),
    ] {
        let is_early = bytes.len() > 1 << 20;
        let (input, digest) = HashingReader::new(Cursor::new(bytes));
        let error = unpack(input, &Limits::default(), &mut DiscardSink::default()).unwrap_err();
        let UnpackError::Package(error) = error else {
            panic!("expected a fault of the package");
        };
        assert_eq!(error.code(), "expansion-ratio");
        assert!(!is_early || digest.get().is_none(), "not read to its end");
    }
}
