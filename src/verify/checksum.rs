//! Checksum files.
//!
//! # Format
//!
//! One of these on each line; empty lines and lines that begin with `#` are skipped:
//!
//! ```text
//! HEX                     only as the single line of the file
//! HEX  name               sha256sum, sha512sum
//! HEX *name               sha256sum --binary
//! SHA256 (name) = HEX     sha256sum --tag, shasum, BSD; SHA512 alike
//! ```
//!
//! A line that begins with `\` has a name in which `\\`, `\n` and `\r` stand for backslash, line feed and carriage
//! return (GNU coreutils). Of a name only the last component counts: the file was written in another folder. The
//! algorithm is known by the number of digits, whatever the file is called.
//!
//! # Which lines count
//!
//! All lines for the package; where two are of one algorithm, they must agree. Algorithms that protect nobody any more (MD5,
//! SHA-1) are passed over as long as there is a better line for the package. In a package's own file every line must be
//! of a known form, and one must be for the package. In a list for a folder only lines that mention the package's
//! name are looked at: the others are none of its business.

use std::fmt;
use std::path::Path;

use sha2::Digest as _;

use super::{Error, Limits};
use crate::base::Digest;
use crate::base::shown::escape;

/// What a checksum file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One package.
    Package,
    /// The files of a folder.
    Folder,
}

/// The checksum of a content by one of the algorithms that count. `Display` is `sha256:<hex>` or `sha512:<hex>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256.
    Sha256(Digest),
    /// SHA-512, as 128 lower-case hex characters.
    Sha512(String),
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::Sha512(hex) => write!(f, "sha512:{hex}"),
        }
    }
}

/// Computes a SHA-512.
#[derive(Debug, Default)]
pub(super) struct Sha512Hasher(sha2::Sha512);

impl Sha512Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> Checksum {
        use fmt::Write as _;

        let mut hex = String::with_capacity(128);
        for byte in self.0.finalize() {
            write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        }
        Checksum::Sha512(hex)
    }
}

/// What a checksum file promises of one package. At least one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Promises {
    pub(super) sha256: Option<Checksum>,
    pub(super) sha512: Option<Checksum>,
}

/// The longest name or algorithm that an error message carries, in characters. Chosen, not measured.
const SHOWN_CHARACTERS_MAX: usize = 200;

/// What is wrong with a checksum file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing in it, or a line that is none of the known forms: its number, from 1.
    Malformed { line: usize },
    /// Only checksums that are neither SHA-256 nor SHA-512: the first algorithm.
    Algorithm { found: String },
    /// Only lines for other files: the name that was looked for and the first that was found.
    OtherFile { expected: String, found: String },
    /// Two lines for the package that differ.
    Contradiction,
    /// More lines than allowed.
    Lines { limit: u64 },
}

impl Fault {
    pub(super) fn at(self, sidecar: &Path) -> Error {
        let sidecar = sidecar.to_owned();
        match self {
            Self::Malformed { line } => Error::MalformedChecksum { sidecar, line },
            Self::Algorithm { found } => Error::UnsupportedChecksum { sidecar, found },
            Self::OtherFile { expected, found } => Error::ChecksumOfOtherFile {
                sidecar,
                expected,
                found,
            },
            Self::Contradiction => Error::ChecksumContradiction { sidecar },
            Self::Lines { limit } => Error::TooManyChecksums { sidecar, limit },
        }
    }
}

/// What a line says.
struct Line<'a> {
    algorithm: Algorithm<'a>,
    hex: &'a str,
    /// Without it the line is about the only package that the file can be about.
    name: Option<String>,
}

#[derive(Clone, Copy)]
enum Algorithm<'a> {
    Sha256,
    Sha512,
    Other(&'a str),
}

/// Returns what `text` promises for the file called `file_name`; `None` if it is a list that says nothing about it.
pub(super) fn parse(
    text: &str,
    file_name: &str,
    scope: Scope,
    limits: &Limits,
) -> Result<Option<Promises>, Fault> {
    let lines = significant_lines(text, limits)?;
    let mut promises = Promises::default();
    let (mut weak, mut other) = (None, None);
    for (number, line) in &lines {
        // A name with escapes is not there as such.
        let is_mentioned = line.starts_with('\\') || line.contains(file_name);
        if scope == Scope::Folder && !is_mentioned {
            continue;
        }
        let malformed = Fault::Malformed { line: *number };
        let Some(line) = parse_line(line) else {
            return Err(malformed);
        };
        match line.name {
            None if scope == Scope::Folder || lines.len() > 1 => return Err(malformed),
            Some(name) if !is_name_of(&name, file_name) => {
                other.get_or_insert_with(|| escape(&name, SHOWN_CHARACTERS_MAX));
            }
            Some(_) | None => match line.algorithm {
                Algorithm::Other(name) => {
                    weak.get_or_insert_with(|| escape(name, SHOWN_CHARACTERS_MAX));
                }
                Algorithm::Sha256 => {
                    let digest = Digest::from_hex(&line.hex.to_ascii_lowercase());
                    let digest = digest.map_err(|_| malformed)?;
                    keep(&mut promises.sha256, Checksum::Sha256(digest))?;
                }
                Algorithm::Sha512 => keep(
                    &mut promises.sha512,
                    Checksum::Sha512(line.hex.to_ascii_lowercase()),
                )?,
            },
        }
    }
    match (weak, other, scope) {
        _ if promises != Promises::default() => Ok(Some(promises)),
        (Some(found), ..) => Err(Fault::Algorithm { found }),
        (None, _, Scope::Folder) => Ok(None),
        (None, Some(found), Scope::Package) => Err(Fault::OtherFile {
            expected: file_name.to_owned(),
            found,
        }),
        (None, None, Scope::Package) => Err(Fault::Malformed { line: 1 }),
    }
}

/// Returns the lines that say something, with their numbers from 1.
fn significant_lines<'a>(text: &'a str, limits: &Limits) -> Result<Vec<(usize, &'a str)>, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.lines().count() as u64 > limits.sidecar_lines_max {
        return Err(Fault::Lines {
            limit: limits.sidecar_lines_max,
        });
    }
    Ok(text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .collect())
}

fn keep(place: &mut Option<Checksum>, checksum: Checksum) -> Result<(), Fault> {
    match place {
        Some(known) if *known != checksum => Err(Fault::Contradiction),
        _ => {
            *place = Some(checksum);
            Ok(())
        }
    }
}

fn parse_line(line: &str) -> Option<Line<'_>> {
    let (line, is_escaped) = match line.strip_prefix('\\') {
        Some(rest) => (rest, true),
        None => (line, false),
    };
    let (algorithm, hex, name) = split_tagged(line).or_else(|| split_plain(line))?;
    let name = match name {
        Some(name) if is_escaped => Some(unescape(name)?),
        name => name.map(ToOwned::to_owned),
    };
    Some(Line {
        algorithm,
        hex,
        name,
    })
}

type Parts<'a> = (Algorithm<'a>, &'a str, Option<&'a str>);

/// Splits `SHA256 (name) = HEX`.
fn split_tagged(line: &str) -> Option<Parts<'_>> {
    let (tag, rest) = line.split_once(" (")?;
    let (name, hex) = rest.rsplit_once(") = ")?;
    let algorithm = match tag {
        "SHA256" => Algorithm::Sha256,
        "SHA512" => Algorithm::Sha512,
        other => Algorithm::Other(other),
    };
    let is_whole = match (algorithm, algorithm_of(hex)?) {
        (Algorithm::Sha256, Algorithm::Sha256) | (Algorithm::Sha512, Algorithm::Sha512) => true,
        (Algorithm::Other(tag), _) => !tag.contains(char::is_whitespace),
        _ => false,
    };
    is_whole.then_some((algorithm, hex, Some(name)))
}

/// Splits `HEX  name`, `HEX *name` and `HEX`.
fn split_plain(line: &str) -> Option<Parts<'_>> {
    let (hex, name) = match line.split_once([' ', '\t']) {
        None => (line, None),
        Some((hex, name)) => {
            let name = name.trim_start();
            (hex, Some(name.strip_prefix('*').unwrap_or(name)))
        }
    };
    Some((algorithm_of(hex)?, hex, name))
}

/// Returns the algorithm that gives as many hex digits.
fn algorithm_of(hex: &str) -> Option<Algorithm<'static>> {
    if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match hex.len() {
        32 => Some(Algorithm::Other("MD5")),
        40 => Some(Algorithm::Other("SHA1")),
        56 => Some(Algorithm::Other("SHA224")),
        64 => Some(Algorithm::Sha256),
        96 => Some(Algorithm::Other("SHA384")),
        128 => Some(Algorithm::Sha512),
        _ => None,
    }
}

fn unescape(name: &str) -> Option<String> {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name.chars();
    while let Some(next) = rest.next() {
        plain.push(match next {
            '\\' => match rest.next()? {
                '\\' => '\\',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

/// Returns whether a name, of which only the last component counts, is that of a file.
fn is_name_of(name: &str, file_name: &str) -> bool {
    let last = |separators: &[char]| name.rsplit(separators).next() == Some(file_name);
    last(&['/']) || last(&['/', '\\'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SHA-256 of nothing.
    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    /// SHA-512 of nothing.
    const HEX_512: &str = "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce\
                           47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";

    fn read(text: &str, scope: Scope) -> Result<Option<Promises>, Fault> {
        parse(text, "x.tgz", scope, &Limits::default())
    }

    fn sha256() -> Checksum {
        Checksum::Sha256(Digest::of(b""))
    }

    fn sha512() -> Checksum {
        Sha512Hasher::default().finish()
    }

    #[test]
    fn every_form_of_either_algorithm_gives_the_checksum() {
        for (hex, tag, promises) in [
            (
                HEX,
                "SHA256",
                Promises {
                    sha256: Some(sha256()),
                    sha512: None,
                },
            ),
            (
                HEX_512,
                "SHA512",
                Promises {
                    sha256: None,
                    sha512: Some(sha512()),
                },
            ),
        ] {
            for text in [
                hex.to_owned(),
                format!("{hex}\n"),
                format!("\u{feff}{}\r\n", hex.to_uppercase()),
                format!("{hex}  x.tgz\n"),
                format!("{hex} *x.tgz\n"),
                format!("{hex}  ./out/x.tgz\n"),
                format!("{hex}  out\\x.tgz\n"),
                format!("\\{hex}  a\\nb/x.tgz\n"),
                format!("{tag} (x.tgz) = {hex}\n"),
                format!("\\{tag} (a\\\\b/x.tgz) = {hex}\n"),
                format!(
                    "# made by hand\n\n{}  y.tgz\n{hex}  x.tgz\n",
                    "0".repeat(64)
                ),
                format!("MD5 (x.tgz) = {}\n{tag} (x.tgz) = {hex}\n", &HEX[..32]),
            ] {
                let found = read(&text, Scope::Package);
                assert_eq!(found, Ok(Some(promises.clone())), "input: {text:?}");
            }
        }
    }

    #[test]
    fn two_algorithms_are_two_promises() {
        let both = Promises {
            sha256: Some(sha256()),
            sha512: Some(sha512()),
        };
        let text = format!("{HEX}  x.tgz\nSHA512 (x.tgz) = {HEX_512}\n");
        for scope in [Scope::Package, Scope::Folder] {
            assert_eq!(read(&text, scope), Ok(Some(both.clone())));
        }
    }

    #[test]
    fn everything_else_is_refused_and_says_why() {
        let other = Fault::OtherFile {
            expected: "x.tgz".to_owned(),
            found: "y.tgz".to_owned(),
        };
        let algorithm = |found: &str| Fault::Algorithm {
            found: found.to_owned(),
        };
        let malformed = |line| Fault::Malformed { line };
        for (text, fault) in [
            (String::new(), malformed(1)),
            ("# nothing\n".to_owned(), malformed(1)),
            ("no".to_owned(), malformed(1)),
            (format!("\n{HEX}0"), malformed(2)),
            (format!("{HEX}\n{HEX}\n"), malformed(1)),
            (format!("SHA256 (x.tgz) = {HEX_512}"), malformed(1)),
            (format!("\\{HEX}  x\\t.tgz"), malformed(1)),
            (format!("{HEX}  y.tgz"), other.clone()),
            (format!("SHA256 (y.tgz) = {HEX}"), other),
            (format!("{}  x.tgz", &HEX[..32]), algorithm("MD5")),
            (HEX[..40].to_owned(), algorithm("SHA1")),
            (format!("SM3 (x.tgz) = {HEX}"), algorithm("SM3")),
            (
                format!("{HEX}  x.tgz\n{}  x.tgz\n", "0".repeat(64)),
                Fault::Contradiction,
            ),
            ("\n".repeat(10_001), Fault::Lines { limit: 10_000 }),
        ] {
            assert_eq!(read(&text, Scope::Package), Err(fault), "input: {text:?}");
        }
    }

    #[test]
    fn a_list_is_asked_for_one_name_only() {
        for (text, found) in [
            (String::new(), Ok(None)),
            ("hello\n".to_owned(), Ok(None)),
            (format!("{HEX}\n{HEX}  y.tgz\n"), Ok(None)),
            (format!("{HEX}  other-x.tgz\n"), Ok(None)),
            (
                format!("oops\n{}  y.tgz\n{HEX}  x.tgz\n", &HEX[..32]),
                Ok(Some(Promises {
                    sha256: Some(sha256()),
                    sha512: None,
                })),
            ),
            (
                "oops  x.tgz\n".to_owned(),
                Err(Fault::Malformed { line: 1 }),
            ),
        ] {
            assert_eq!(read(&text, Scope::Folder), found, "input: {text:?}");
        }
    }

    #[test]
    fn names_with_parentheses_and_backslashes_are_names() {
        for (name, line) in [
            ("x (1) = 2.tgz", format!("{HEX}  x (1) = 2.tgz")),
            ("x (1).tgz", format!("SHA256 (x (1).tgz) = {HEX}")),
            ("a\\b.tgz", format!("\\{HEX}  a\\\\b.tgz")),
        ] {
            for scope in [Scope::Package, Scope::Folder] {
                let found = parse(&line, name, scope, &Limits::default());
                assert_eq!(found.unwrap().unwrap().sha256, Some(sha256()), "{line}");
            }
        }
    }

    #[test]
    fn what_the_file_says_can_be_shown() {
        let long = "y".repeat(1000);
        for text in [
            format!("{HEX}  \u{1b}[2J{long}\0"),
            format!("SHA1\u{1b}[2J{long}\0 (x.tgz) = {HEX}"),
        ] {
            let (Fault::OtherFile { found, .. } | Fault::Algorithm { found }) =
                parse(&text, "x.tgz", Scope::Package, &Limits::default()).unwrap_err()
            else {
                panic!("expected a fault that says what was found");
            };
            assert!(!found.chars().any(char::is_control), "{found:?}");
            assert!(found.len() < 300, "{} bytes", found.len());
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in "[0-9a-f ()=*\\\\\\n\\PC]{0,200}") {
            for scope in [Scope::Package, Scope::Folder] {
                let _ = read(&text, scope);
            }
        }

        #[test]
        fn a_line_for_any_name_is_found_in_each_form(name in "[a-z \\\\()=*.]{0,9}[a-z]") {
            let escaped = name.replace('\\', "\\\\");
            let mark = if escaped == name { "" } else { "\\" };
            for line in [
                format!("{mark}{HEX}  {escaped}"),
                format!("{mark}SHA256 ({escaped}) = {HEX}"),
            ] {
                // Leading spaces and a star belong to the form with two characters between.
                prop_assume!(!name.starts_with([' ', '*']));
                let found = parse(&line, &name, Scope::Package, &Limits::default());
                prop_assert_eq!(found.unwrap().unwrap().sha256, Some(sha256()));
            }
        }
    }
}
