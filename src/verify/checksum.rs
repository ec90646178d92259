//! Checksum files.
//!
//! # Format
//!
//! One of these on each line; empty lines and lines that begin with `#` are skipped:
//!
//! ```text
//! HEX                     only as the single line of the file
//! HEX  name               sha256sum
//! HEX *name               sha256sum --binary
//! SHA256 (name) = HEX     sha256sum --tag, shasum, BSD
//! ```
//!
//! Of a name only the last component counts: the file was written in another folder. The line for the package decides; a
//! file without such a line is an error, because it vouches for something else.

use crate::base::Digest;

/// Length of a SHA-512 in hex characters.
const SHA512_CHARACTERS: usize = 128;
/// Length of a SHA-256 in hex characters.
const SHA256_CHARACTERS: usize = 64;

/// What is wrong with a checksum file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing in it, or a line that is none of the known forms: its number, from 1.
    Malformed { line: usize },
    /// A checksum that is not SHA-256.
    Algorithm { found: String },
    /// Only lines for other files: the first of them.
    OtherFile { found: String },
    /// Two lines for the package that differ.
    Contradiction,
}

/// Returns the SHA-256 that `text` promises for the file called `file_name`.
pub(super) fn parse(text: &str, file_name: &str) -> Result<Digest, Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let mut found = None;
    let mut other = None;
    for (number, line) in &lines {
        let (digest, name) = parse_line(line, *number)?;
        match name {
            None if lines.len() > 1 => return Err(Fault::Malformed { line: *number }),
            Some(name) if last_component(name) != file_name => {
                other.get_or_insert_with(|| name.to_owned());
            }
            Some(_) | None => {
                if found.is_some_and(|found| found != digest) {
                    return Err(Fault::Contradiction);
                }
                found = Some(digest);
            }
        }
    }
    match (found, other) {
        (Some(found), _) => Ok(found),
        (None, Some(found)) => Err(Fault::OtherFile { found }),
        (None, None) => Err(Fault::Malformed { line: 1 }),
    }
}

/// Returns the digest on a line and the name that it is for.
fn parse_line(line: &str, number: usize) -> Result<(Digest, Option<&str>), Fault> {
    let malformed = Fault::Malformed { line: number };
    if let Some((tag, rest)) = line.split_once(" (") {
        let (name, hex) = rest.rsplit_once(") = ").ok_or(malformed)?;
        if tag != "SHA256" {
            return Err(Fault::Algorithm {
                found: tag.to_owned(),
            });
        }
        return Ok((parse_hex(hex, number)?, Some(name)));
    }
    match line.split_once([' ', '\t']) {
        None => Ok((parse_hex(line, number)?, None)),
        Some((hex, name)) => {
            let name = name.trim_start();
            let name = name.strip_prefix('*').unwrap_or(name);
            Ok((parse_hex(hex, number)?, Some(name)))
        }
    }
}

fn parse_hex(hex: &str, line: usize) -> Result<Digest, Fault> {
    let is_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    match hex.len() {
        SHA256_CHARACTERS if is_hex => {
            Digest::from_hex(&hex.to_ascii_lowercase()).map_err(|_| Fault::Malformed { line })
        }
        SHA512_CHARACTERS if is_hex => Err(Fault::Algorithm {
            found: "SHA512".to_owned(),
        }),
        _ => Err(Fault::Malformed { line }),
    }
}

fn last_component(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn every_form_gives_the_digest() {
        let digest = Digest::of(b"");
        for text in [
            HEX.to_owned(),
            format!("{HEX}\n"),
            format!("\u{feff}{}\r\n", HEX.to_uppercase()),
            format!("{HEX}  x.tgz\n"),
            format!("{HEX} *x.tgz\n"),
            format!("{HEX}  ./out/x.tgz\n"),
            format!("SHA256 (x.tgz) = {HEX}\n"),
            format!(
                "# made by hand\n\n{}  y.tgz\n{HEX}  x.tgz\n",
                "0".repeat(64)
            ),
        ] {
            assert_eq!(parse(&text, "x.tgz"), Ok(digest), "input: {text:?}");
        }
    }

    #[test]
    fn everything_else_is_refused_and_says_why() {
        let other = Fault::OtherFile {
            found: "y.tgz".to_owned(),
        };
        let sha512 = Fault::Algorithm {
            found: "SHA512".to_owned(),
        };
        for (text, fault) in [
            (String::new(), Fault::Malformed { line: 1 }),
            ("# nothing\n".to_owned(), Fault::Malformed { line: 1 }),
            ("no".to_owned(), Fault::Malformed { line: 1 }),
            (format!("\n{HEX}0"), Fault::Malformed { line: 2 }),
            (format!("{HEX}\n{HEX}\n"), Fault::Malformed { line: 1 }),
            (format!("{HEX}  y.tgz"), other.clone()),
            (format!("SHA256 (y.tgz) = {HEX}"), other),
            (format!("{HEX}{HEX}  x.tgz"), sha512.clone()),
            (format!("SHA512 (x.tgz) = {HEX}{HEX}"), sha512),
            (
                format!("{HEX}  x.tgz\n{}  x.tgz\n", "0".repeat(64)),
                Fault::Contradiction,
            ),
        ] {
            assert_eq!(parse(&text, "x.tgz"), Err(fault), "input: {text:?}");
        }
    }

    proptest! {
        #[test]
        fn parse_never_panics(text in "[0-9a-f ()=*\\n\\PC]{0,200}") {
            let _ = parse(&text, "x.tgz");
        }
    }
}
