//! The documents of a package: package manifest, resources, indexes, image manifests, tag links, lists of archives.
//!
//! The input is text that describes a package, so that seeds can be read and written by people:
//!
//! ```text
//! == manifest.yaml            a file of this name; its content follows
//! == @c                       a blob called c: a file that is named by the digest of its content
//! == x.tgz/                   an archive of this name begins; what follows is in it
//! == /                        and ends
//! ```
//!
//! In a content, `$c` stands for the digest of the blob c, and `#c` for its size in bytes.
//!
//! A package means the same in whatever order its files come.

#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use violetd::base::Digest;
use violetd_fuzz::{Archive, check_message, gzip, unpack, zstd};

/// How a line begins that begins a file.
const MARK: &[u8] = b"== ";

/// Names and contents.
type Files = Vec<(Vec<u8>, Vec<u8>)>;

/// Returns the files that an input describes.
fn files_of(input: &[u8]) -> Files {
    let mut blobs: HashMap<u8, (String, String)> = HashMap::new();
    let mut files = Files::new();
    // Archives that have begun: their names, and what comes before them.
    let mut outer: Vec<(Vec<u8>, Files)> = Vec::new();
    let mut lines = input.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let Some(name) = line.strip_prefix(MARK) else {
            continue;
        };
        let name = name.strip_suffix(b"\n").unwrap_or(name);
        let mut content = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with(MARK)) {
            substitute(line, &blobs, &mut content);
        }
        if name == b"/" {
            if let Some((archive, before)) = outer.pop() {
                let content = archive_of(&archive, &std::mem::replace(&mut files, before));
                files.push((archive, content));
            }
            continue;
        }
        if let Some(archive) = name.strip_suffix(b"/")
            && outer.len() < 4
        {
            outer.push((archive.to_vec(), std::mem::take(&mut files)));
            continue;
        }
        let name = match name {
            [b'@', letter, ..] => {
                let digest = Digest::of(&content);
                let size = content.len().to_string();
                blobs.insert(*letter, (digest.to_string(), size));
                format!("blobs/sha256/{}", digest.hex()).into_bytes()
            }
            name => name.to_vec(),
        };
        files.push((name, content));
    }
    while let Some((archive, before)) = outer.pop() {
        let content = archive_of(&archive, &std::mem::replace(&mut files, before));
        files.push((archive, content));
    }
    files
}

/// Returns an archive that is packed as its name says.
fn archive_of(name: &[u8], files: &Files) -> Vec<u8> {
    let tar = archive(files.iter());
    match name {
        [.., b'g', b'z'] => gzip(&tar),
        [.., b's', b't'] => zstd(&tar),
        _ => tar,
    }
}

fn substitute(line: &[u8], blobs: &HashMap<u8, (String, String)>, into: &mut Vec<u8>) {
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let blob = bytes.peek().and_then(|letter| blobs.get(letter));
        match (byte, blob) {
            (b'$', Some((digest, _))) => into.extend_from_slice(digest.as_bytes()),
            (b'#', Some((_, size))) => into.extend_from_slice(size.as_bytes()),
            _ => {
                into.push(byte);
                continue;
            }
        }
        bytes.next();
    }
}

fn archive<'f>(files: impl Iterator<Item = &'f (Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    let mut archive = Archive::default();
    for (name, content) in files {
        archive.file(name, content);
    }
    archive.finish()
}

fuzz_target!(|data: &[u8]| {
    let files = files_of(data);
    if files.is_empty() {
        return;
    }
    let (forwards, _) = unpack(&archive(files.iter()), usize::MAX);
    let (backwards, _) = unpack(&archive(files.iter().rev()), usize::MAX);
    match (forwards, backwards) {
        (Ok(forwards), Ok(backwards)) => {
            assert_eq!(forwards, backwards);
            let package = forwards.package.iter();
            let nested = forwards.nested.iter().map(|nested| &nested.contents);
            for contents in package.chain(nested) {
                let texts = contents.version.iter().chain(&contents.display_name);
                texts.for_each(check_message);
            }
        }
        // Of several faults another one may be met first.
        (Err(_), Err(_)) => {}
        (forwards, backwards) => panic!("{forwards:?} in order, {backwards:?} in reverse"),
    }
});
