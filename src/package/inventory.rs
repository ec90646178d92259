//! Lists of blobs that travel beside packages: what somebody has, and what somebody misses.
//!
//! An [`Inventory`] says which blobs are on the far side of the air gap, so that a delta package can leave them out. A
//! [`Request`] says which blobs a delta package expected and did not find, so that a supplement can bring exactly those.
//! Both are small text files that people can read, sort and compare. `docs/formats/inventory.md` has the details.
//!
//! # Format
//!
//! ```text
//! violetd inventory 1                         violetd request 1
//! sha256:<64 hex> <size in bytes>             package <name or -> <version or -> sha256:<64 hex>
//! ...                                         sha256:<64 hex> <size in bytes>
//!                                             ...
//! ```
//!
//! # Invariants
//!
//! One set of blobs has one form: lines ascend by digest, each ends in a line feed, sizes have no leading zeros. What was
//! cut in the middle of a line is therefore noticed, and two files can be compared byte by byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, Read as _, Write};

use super::inventory_error::ParseInventoryError;
use crate::base::shown::escape;
use crate::base::{Digest, PackageName};

/// First line of an inventory. The number is the version of the format.
const INVENTORY_HEADER: &str = "violetd inventory 1";
/// First line of a request. The number is the version of the format.
const REQUEST_HEADER: &str = "violetd request 1";
/// First word of the line that says for which package a request is.
const PACKAGE_WORD: &str = "package";
/// What stands for a name or version that is not known.
const NONE: &str = "-";
/// The longest line, in bytes, without its end: the longest is that of a package, with a name of 253 bytes, a version of
/// [`VERSION_BYTES_MAX`], a digest and the words between them.
pub(super) const LINE_BYTES_MAX: usize = 2048;
/// The longest version, in bytes as written. Chosen: versions have tens of bytes, and the line is for people; what is
/// requested is told by the digest.
const VERSION_BYTES_MAX: usize = 1024;
/// How much of what was found a message shows, in characters: a digest and its prefix are 71. Chosen, not measured.
const SHOWN_CHARACTERS_MAX: usize = 200;
/// The most blobs of one list. Chosen: a hundred times what the images of one platform release have, in 90 MB of text and
/// about as much memory.
pub const INVENTORY_BLOBS_MAX: usize = 1_000_000;

/// Blobs that somebody has, with their sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The blobs: layers, configurations and manifests alike.
    pub blobs: BTreeMap<Digest, u64>,
}

/// Blobs that a delta package expected and that are missing where it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Name of the package that waits, if it has one.
    pub name: Option<PackageName>,
    /// Its version, if it has one.
    pub version: Option<String>,
    /// Digest of its file.
    pub file: Digest,
    /// What it waits for, with sizes in bytes.
    pub missing: BTreeMap<Digest, u64>,
}

impl Inventory {
    /// Reads an inventory to the end of `input`.
    pub fn parse(input: impl BufRead) -> Result<Self, ParseInventoryError> {
        let mut lines = Lines::new(input);
        lines.expect_header(INVENTORY_HEADER)?;
        Ok(Self {
            blobs: lines.read_blobs()?,
        })
    }

    /// Writes the inventory. Does not flush.
    pub fn write(&self, mut output: impl Write) -> io::Result<()> {
        writeln!(output, "{INVENTORY_HEADER}")?;
        write_blobs(&self.blobs, output)
    }
}

impl Request {
    /// Reads a request to the end of `input`.
    pub fn parse(input: impl BufRead) -> Result<Self, ParseInventoryError> {
        const SHAPE: &str = "package <name or -> <version or -> sha256:<64 hex>";

        let mut lines = Lines::new(input);
        lines.expect_header(REQUEST_HEADER)?;
        let text = lines.next()?.unwrap_or_default();
        let line = lines.line;
        let words: Vec<&str> = text.split(' ').collect();
        let [PACKAGE_WORD, name, version, file] = words[..] else {
            return Err(ParseInventoryError::Shape {
                line,
                expected: SHAPE,
                found: show(&text),
            });
        };
        let parse_name = |name: &str| {
            name.parse().map_err(|source| ParseInventoryError::Name {
                line,
                found: show(name),
                source,
            })
        };
        let parse_version = |version: &str| {
            decode_version(version).ok_or_else(|| ParseInventoryError::Version {
                line,
                found: show(version),
            })
        };
        Ok(Self {
            name: (name != NONE).then(|| parse_name(name)).transpose()?,
            version: (version != NONE)
                .then(|| parse_version(version))
                .transpose()?,
            file: parse_digest(line, file)?,
            missing: lines.read_blobs()?,
        })
    }

    /// Writes the request. Does not flush.
    ///
    /// A version that is empty or longer than 1024 bytes is left out: the digest says which package waits.
    pub fn write(&self, mut output: impl Write) -> io::Result<()> {
        let name = self.name.as_ref().map_or(NONE, PackageName::as_str);
        let version = self
            .version
            .as_deref()
            .map(encode_version)
            .filter(|version| (1..=VERSION_BYTES_MAX).contains(&version.len()))
            .unwrap_or_else(|| NONE.to_owned());
        let file = &self.file;
        writeln!(output, "{REQUEST_HEADER}")?;
        writeln!(output, "{PACKAGE_WORD} {name} {version} {file}")?;
        write_blobs(&self.missing, output)
    }
}

fn write_blobs(blobs: &BTreeMap<Digest, u64>, mut output: impl Write) -> io::Result<()> {
    for (digest, size_bytes) in blobs {
        writeln!(output, "{digest} {size_bytes}")?;
    }
    Ok(())
}

/// Writes a version as one word: printable ASCII stays, every other byte and `%` become `%` and two hex digits.
fn encode_version(version: &str) -> String {
    if version == NONE {
        return "%2D".to_owned();
    }
    let mut word = String::with_capacity(version.len());
    for byte in version.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            word.push(char::from(byte));
        } else {
            write!(word, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    word
}

/// Reads what [`encode_version`] writes, and nothing else.
fn decode_version(word: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut parts = word.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (hex, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    let version = String::from_utf8(bytes).ok()?;
    // One version has one form, as everything here.
    (encode_version(&version) == word && (1..=VERSION_BYTES_MAX).contains(&word.len()))
        .then_some(version)
}

fn parse_digest(line: u64, text: &str) -> Result<Digest, ParseInventoryError> {
    text.parse().map_err(|source| ParseInventoryError::Digest {
        line,
        found: show(text),
        source,
    })
}

/// Returns what was found so that a message can show it: bounded, without control characters.
fn show(text: &str) -> String {
    escape(text, SHOWN_CHARACTERS_MAX)
}

/// The lines of a text, of bounded length.
struct Lines<R> {
    input: R,
    /// Number of the line that was read last, from 1.
    line: u64,
}

impl<R: BufRead> Lines<R> {
    const fn new(input: R) -> Self {
        Self { input, line: 0 }
    }

    /// Reads the next line without its line feed; `None` at the end.
    fn next(&mut self) -> Result<Option<String>, ParseInventoryError> {
        self.line += 1;
        let line = self.line;
        let mut bytes = Vec::new();
        (&mut self.input)
            .take(LINE_BYTES_MAX as u64 + 1)
            .read_until(b'\n', &mut bytes)
            .map_err(|source| ParseInventoryError::Read { line, source })?;
        match bytes.pop() {
            None => Ok(None),
            Some(b'\n') => match String::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(ParseInventoryError::NotText { line }),
            },
            Some(_) if bytes.len() == LINE_BYTES_MAX => {
                Err(ParseInventoryError::LineTooLong { line })
            }
            Some(_) => Err(ParseInventoryError::Cut { line }),
        }
    }

    fn expect_header(&mut self, expected: &'static str) -> Result<(), ParseInventoryError> {
        let found = self.next()?.unwrap_or_default();
        if found == expected {
            Ok(())
        } else {
            let found = show(&found);
            Err(ParseInventoryError::Header { expected, found })
        }
    }

    /// Reads the blobs, to the end.
    fn read_blobs(&mut self) -> Result<BTreeMap<Digest, u64>, ParseInventoryError> {
        let mut blobs = BTreeMap::new();
        while let Some(text) = self.next()? {
            let (digest, size_bytes) = self.parse_blob(&text)?;
            let line = self.line;
            if let Some((last, _)) = blobs.last_key_value()
                && *last >= digest
            {
                return Err(ParseInventoryError::Order {
                    line,
                    last: *last,
                    found: digest,
                });
            }
            if blobs.len() == INVENTORY_BLOBS_MAX {
                return Err(ParseInventoryError::TooMany { line });
            }
            blobs.insert(digest, size_bytes);
        }
        Ok(blobs)
    }

    fn parse_blob(&self, text: &str) -> Result<(Digest, u64), ParseInventoryError> {
        let line = self.line;
        let Some((digest, size)) = text.split_once(' ') else {
            return Err(ParseInventoryError::Shape {
                line,
                expected: "sha256:<64 hex> <size in bytes>",
                found: show(text),
            });
        };
        let digest = parse_digest(line, digest)?;
        // `parse` takes a plus sign and leading zeros.
        let size_bytes = size
            .parse()
            .ok()
            .filter(|bytes: &u64| bytes.to_string() == size);
        let size_bytes = size_bytes.ok_or_else(|| ParseInventoryError::Size {
            line,
            found: show(size),
        })?;
        Ok((digest, size_bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_map;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn digest() -> impl Strategy<Value = Digest> {
        any::<[u8; 32]>().prop_map(Digest::from_bytes)
    }

    fn inventory_text(inventory: &Inventory) -> Vec<u8> {
        let mut text = Vec::new();
        inventory.write(&mut text).unwrap();
        text
    }

    fn request_text(request: &Request) -> Vec<u8> {
        let mut text = Vec::new();
        request.write(&mut text).unwrap();
        text
    }

    proptest! {
        #[test]
        fn inventories_round_trip(blobs in btree_map(digest(), any::<u64>(), 0..20)) {
            let inventory = Inventory { blobs };
            let text = inventory_text(&inventory);
            prop_assert_eq!(Inventory::parse(text.as_slice()).unwrap(), inventory);
        }

        #[test]
        fn requests_round_trip(
            name in option::of("[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?"),
            version in option::of(".{1,80}"),
            file in digest(),
            missing in btree_map(digest(), any::<u64>(), 0..20),
        ) {
            let name = name.map(|name| name.parse().unwrap());
            let request = Request { name, version, file, missing };
            let text = request_text(&request);
            prop_assert_eq!(Request::parse(text.as_slice()).unwrap(), request);
        }

        #[test]
        fn whatever_is_accepted_is_written_the_same_way(text in "(sha256:[0-9a-f]{64} [0-9]{1,3}\n){0,3}") {
            let text = format!("{INVENTORY_HEADER}\n{text}");
            if let Ok(inventory) = Inventory::parse(text.as_bytes()) {
                prop_assert_eq!(inventory_text(&inventory), text.as_bytes());
            }
        }

        #[test]
        fn parsing_never_panics(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Inventory::parse(text.as_slice());
            let with_header = [REQUEST_HEADER.as_bytes(), b"\n", text.as_slice()].concat();
            let _ = Request::parse(with_header.as_slice());
        }
    }

    #[test]
    fn the_written_forms_are_golden() {
        let blobs = BTreeMap::from([
            (Digest::from_bytes([0x22; 32]), 1_048_576),
            (Digest::from_bytes([0x11; 32]), 0),
        ]);
        let (one, two, three) = ("11".repeat(32), "22".repeat(32), "33".repeat(32));
        let inventory = Inventory {
            blobs: blobs.clone(),
        };
        assert_eq!(
            String::from_utf8(inventory_text(&inventory)).unwrap(),
            format!("violetd inventory 1\nsha256:{one} 0\nsha256:{two} 1048576\n")
        );
        let mut request = Request {
            name: Some("redis-operator".parse().unwrap()),
            version: Some("v1 100%".to_owned()),
            file: Digest::from_bytes([0x33; 32]),
            missing: blobs,
        };
        assert_eq!(
            String::from_utf8(request_text(&request)).unwrap(),
            format!(
                "violetd request 1\npackage redis-operator v1%20100%25 sha256:{three}\n\
                 sha256:{one} 0\nsha256:{two} 1048576\n"
            )
        );
        request.name = None;
        request.version = Some("-".to_owned());
        assert!(request_text(&request).starts_with(b"violetd request 1\npackage - %2D sha256:"));
        request.version = Some("x".repeat(VERSION_BYTES_MAX + 1));
        assert!(request_text(&request).starts_with(b"violetd request 1\npackage - - sha256:"));
    }

    #[test]
    fn control_characters_never_reach_a_message() {
        for text in [
            "\x1b[2J\n",
            "violetd request 1\n\x1b[2J\n",
            "violetd request 1\npackage \0 - sha256:1\n",
            "violetd request 1\npackage - \x07 sha256:1\n",
            "violetd request 1\npackage - - \x07\n",
            "violetd inventory 1\n\x1b\n",
            "violetd inventory 1\n\x1b 1\n",
        ] {
            for error in [
                Inventory::parse(text.as_bytes()).unwrap_err(),
                Request::parse(text.as_bytes()).unwrap_err(),
            ] {
                let message = error.to_string();
                assert!(!message.chars().any(char::is_control), "{message:?}");
            }
        }
    }

    #[test]
    fn what_is_malformed_is_refused_with_its_line() {
        let (one, two) = ("1".repeat(64), "2".repeat(64));
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        for (body, code, line) in [
            (format!("sha256:{one} 1"), "inventory-cut", "line 2"),
            (format!("sha256:{one}\n"), "inventory-shape", "line 2"),
            (format!("sha256:{one} 01\n"), "inventory-size", "line 2"),
            (format!("sha256:{one} +1\n"), "inventory-size", "line 2"),
            (format!("sha256:{one} 1\r\n"), "inventory-size", "line 2"),
            (format!("sha512:{one} 1\n"), "inventory-digest", "line 2"),
            ("\n".to_owned(), "inventory-shape", "line 2"),
            (format!("{long}\n"), "inventory-line-too-long", "line 2"),
            (
                format!("sha256:{two} 1\nsha256:{one} 1\n"),
                "inventory-order",
                "line 3",
            ),
            (
                format!("sha256:{one} 1\nsha256:{one} 1\n"),
                "inventory-order",
                "line 3",
            ),
        ] {
            let text = format!("{INVENTORY_HEADER}\n{body}");
            let error = Inventory::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.code(), code, "input: {body:?}");
            assert!(error.to_string().contains(line), "found: {error}");
        }
        let error = Inventory::parse(&b"violetd inventory 1\n\xff\n"[..]).unwrap_err();
        assert_eq!(error.code(), "inventory-not-text");
    }

    #[test]
    fn one_kind_of_list_is_not_taken_for_the_other() {
        for text in ["", "violetd request 1\n", "violetd inventory 2\n"] {
            let error = Inventory::parse(text.as_bytes()).unwrap_err();
            assert!(
                matches!(error, ParseInventoryError::Header { .. }),
                "found: {error}"
            );
        }
        let file = "1".repeat(64);
        for (line, code) in [
            (String::new(), "inventory-shape"),
            (format!("package a b c sha256:{file}"), "inventory-shape"),
            (format!("package .. b sha256:{file}"), "inventory-name"),
            (format!("package a b% sha256:{file}"), "inventory-version"),
            (format!("package a %41 sha256:{file}"), "inventory-version"),
            (format!("package a  sha256:{file}"), "inventory-version"),
            ("package a b sha256:1".to_owned(), "inventory-digest"),
        ] {
            let text = format!("{REQUEST_HEADER}\n{line}\n");
            let error = Request::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.code(), code, "input: {line:?}");
        }
    }
}
