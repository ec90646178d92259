//! Tar archives with valid checksums around fuzzed fields.
//!
//! What is accepted must be what another reader sees as well: every blob under its name, with the same content.

#![no_main]

use std::io::Read as _;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use violetd::base::Digest;
use violetd_fuzz::{Archive, BLOCK_BYTES, gzip, header, seal, unpack};

/// An archive.
#[derive(Arbitrary, Debug)]
struct Input {
    entries: Vec<Entry>,
    end: End,
    is_compressed: bool,
}

/// One header and what follows it.
#[derive(Arbitrary, Debug)]
struct Entry {
    name: Name,
    kind: Kind,
    content: Content,
    size: Size,
    patches: Vec<Patch>,
}

#[derive(Arbitrary, Debug)]
enum Name {
    /// The blob that the content is.
    Blob,
    /// A name that means something.
    Known(u8),
    Raw(Vec<u8>),
}

const KNOWN: [&str; 20] = [
    "oci-layout",
    "index.json",
    "manifest.yaml",
    "manifest.json",
    "moduleplugin.yaml",
    "res/resources.yaml",
    "x/oci-layout",
    "x/index.json",
    "docker/registry/v2/repositories/a/_manifests/tags/v1/current/link",
    "./",
    "blobs/sha256/",
    "chart/Chart.yaml",
    "chart/values.yaml",
    "a/layer.tar",
    "b/layer.tar",
    "../b/layer.tar",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.json",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.tar",
    "a/b.tar",
    "b.tgz",
];

#[derive(Arbitrary, Debug)]
enum Kind {
    File,
    OldFile,
    Directory,
    LongName,
    Records,
    GlobalRecords,
    LongLink,
    /// A symbolic link to a name that means something.
    SymbolicLink(u8),
    Raw(u8),
}

#[derive(Arbitrary, Debug)]
enum Content {
    /// The list of a docker-archive whose layers are both links or files.
    DockerList,
    Configuration,
    Chart,
    Bytes(Vec<u8>),
    /// Well-formed pax records.
    Records(Vec<(Key, Vec<u8>)>),
    Mark,
    EmptyIndex,
}

#[derive(Arbitrary, Debug)]
enum Key {
    Path,
    Size,
    LinkPath,
    Sparse,
    Other(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
enum Size {
    True,
    Field([u8; 12]),
    Binary([u8; 8]),
}

/// A byte of the header that is something else. The checksum is right all the same.
#[derive(Arbitrary, Debug)]
struct Patch {
    offset: u16,
    value: u8,
}

#[derive(Arbitrary, Debug)]
enum End {
    Mark,
    Padded(u8),
    OneBlock,
    None,
    Behind(Vec<u8>),
}

fn content_of(content: &Content) -> Vec<u8> {
    match content {
        Content::Bytes(bytes) => bytes.clone(),
        Content::Mark => br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        Content::DockerList => concat!(
            r#"[{"Config":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.json","#,
            r#""RepoTags":["a/b:v1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#
        )
        .into(),
        Content::Configuration => concat!(
            r#"{"os":"linux","rootfs":{"diff_ids":["#,
            r#""sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","#,
            r#""sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#
        )
        .into(),
        Content::Chart => b"{name: a, version: 1.0.0}\n".to_vec(),
        Content::EmptyIndex => br#"{"schemaVersion":2,"manifests":[]}"#.to_vec(),
        Content::Records(records) => records
            .iter()
            .flat_map(|(key, value)| {
                let key = match key {
                    Key::Path => b"path",
                    Key::Size => b"size",
                    Key::LinkPath => &b"linkpath"[..],
                    Key::Sparse => b"GNU.sparse.major",
                    Key::Other(key) => key,
                };
                record(key, value)
            })
            .collect(),
    }
}

/// Returns `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    let mut record = format!("{length} ").into_bytes();
    record.extend_from_slice(key);
    record.push(b'=');
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

fn write(archive: &mut Archive, entry: &Entry) {
    let content = content_of(&entry.content);
    let name = match &entry.name {
        Name::Blob => format!("blobs/sha256/{}", Digest::of(&content).hex()).into_bytes(),
        Name::Known(index) => KNOWN[usize::from(*index) % KNOWN.len()].as_bytes().to_vec(),
        Name::Raw(name) => name.iter().copied().take(100).collect(),
    };
    let kind = match entry.kind {
        Kind::File => b'0',
        Kind::OldFile => 0,
        Kind::Directory => b'5',
        Kind::LongName => b'L',
        Kind::Records => b'x',
        Kind::GlobalRecords => b'g',
        Kind::LongLink => b'K',
        Kind::SymbolicLink(_) => b'2',
        Kind::Raw(kind) => kind,
    };
    let mut block: [u8; BLOCK_BYTES] = header(kind, &name, content.len() as u64);
    if let Kind::SymbolicLink(index) = entry.kind {
        let target = KNOWN[usize::from(index) % KNOWN.len()].as_bytes();
        block[157..157 + target.len()].copy_from_slice(target);
    }
    match &entry.size {
        Size::True => {}
        Size::Field(field) => block[124..136].copy_from_slice(field),
        Size::Binary(size) => {
            block[124] = 0x80;
            block[125..128].fill(0);
            block[128..136].copy_from_slice(size);
        }
    }
    for patch in entry.patches.iter().take(4) {
        block[usize::from(patch.offset) % BLOCK_BYTES] = patch.value;
    }
    seal(&mut block);
    archive.raw(block, &content);
}

fuzz_target!(|input: Input| {
    let mut archive = Archive::default();
    for entry in &input.entries {
        write(&mut archive, entry);
    }
    let tar = match &input.end {
        End::Mark => archive.finish(),
        End::Padded(blocks) => {
            archive.bytes(&vec![0; usize::from(*blocks) * BLOCK_BYTES]);
            archive.finish()
        }
        End::OneBlock => {
            archive.bytes(&[0; BLOCK_BYTES]);
            archive.into_bytes()
        }
        End::None => archive.into_bytes(),
        End::Behind(bytes) => {
            let mut tar = archive.finish();
            tar.extend_from_slice(bytes);
            tar
        }
    };
    let bytes = if input.is_compressed {
        gzip(&tar)
    } else {
        tar.clone()
    };
    let (outcome, sink) = unpack(&bytes, usize::MAX);
    if outcome.is_err() {
        return;
    }
    let mut reader = tar::Archive::new(tar.as_slice());
    let mut seen = std::collections::BTreeMap::new();
    for entry in reader.entries().expect("accepted, so it can be listed") {
        let mut entry = entry.expect("accepted, so every entry can be read");
        let path = String::from_utf8(entry.path_bytes().into_owned()).expect("names are text");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("and its content");
        if let Some((folder, name)) = path.rsplit_once('/')
            && (folder == "blobs/sha256" || folder.ends_with("/blobs/sha256"))
            && !name.is_empty()
        {
            let digest = Digest::from_hex(name).expect("blobs are named by their digest");
            assert_eq!(digest, Digest::of(&content), "blob {path}");
            seen.insert(digest, content);
        }
    }
    // What the archive is itself, and what is made of it: a chart by itself, and manifests and configurations that the
    // archive does not have.
    let is_made = |content: &Vec<u8>| {
        *content == bytes || (content.starts_with(b"{") && content.ends_with(b"}"))
    };
    let mut received = sink.promised;
    received.retain(|digest, content| seen.contains_key(digest) || !is_made(content));
    assert_eq!(received, seen, "two readers, two archives");
});
