//! How a record becomes the bytes of a row.
//!
//! # Format
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version of the rows of this column |
//! | the rest | the record as JSON |
//!
//! Rows of `content` hold, instead of JSON, 40 bytes for each entry: the digest and the size in bytes, big-endian, ordered by
//! digest. There may be a million entries, and collection reads all of them. Rows of `held` are a few bytes (`held.rs`).
//!
//! A field may be added within a version if it has a default; anything else is a new version, with a reader for each
//! older one here.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use super::column::Column;
use super::record::Content;
use crate::base::Digest;

/// Bytes of one entry of a row of `content`.
const ENTRY_BYTES: usize = 32 + 8;

/// Encodes `record` as a row of `column`.
///
/// The row is decoded again and compared: a record whose parts do not survive their text form (an image reference
/// without a host, for example) is refused here, rather than found unreadable or changed when it is needed.
pub(super) fn encode<T>(column: Column, record: &T) -> Result<Vec<u8>, Error>
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    let failed = |source| Error::Encode {
        column: column.name(),
        source,
    };
    let mut row = vec![column.version()];
    serde_json::to_writer(&mut row, record).map_err(failed)?;
    let decoded: T = serde_json::from_slice(&row[1..]).map_err(failed)?;
    if decoded != *record {
        return Err(Error::Unfaithful {
            column: column.name(),
        });
    }
    Ok(row)
}

/// Decodes a row of `column` that is stored under `key`.
pub(super) fn decode<T: DeserializeOwned>(
    column: Column,
    key: &[u8],
    row: &[u8],
) -> Result<T, Error> {
    let body = body_of(column, key, row)?;
    serde_json::from_slice(body).map_err(|source| Error::Decode {
        column: column.name(),
        key: printable(key),
        source,
    })
}

/// Encodes a row of `content`.
pub(super) fn encode_content(content: &Content) -> Vec<u8> {
    let entries = content.entries();
    let mut row = Vec::with_capacity(1 + entries.len() * ENTRY_BYTES);
    row.push(Column::Content.version());
    for (digest, size_bytes) in entries {
        row.extend_from_slice(digest.as_bytes());
        row.extend_from_slice(&size_bytes.to_be_bytes());
    }
    row
}

/// Decodes a row of `content` that is stored under `key`.
pub(super) fn decode_content(key: &[u8], row: &[u8]) -> Result<Content, Error> {
    let body = body_of(Column::Content, key, row)?;
    let (entries, rest) = body.as_chunks::<ENTRY_BYTES>();
    let entries: Vec<(Digest, u64)> = entries
        .iter()
        .map(|entry| {
            let (digest, size_bytes) = entry.split_at(32);
            let digest = digest.try_into().expect("split there");
            let size_bytes = size_bytes.try_into().expect("split there");
            (Digest::from_bytes(digest), u64::from_be_bytes(size_bytes))
        })
        .collect();
    let is_ordered = entries.is_sorted_by(|(a, _), (b, _)| a < b);
    if !rest.is_empty() || !is_ordered {
        return Err(Error::Garbled {
            column: Column::Content.name(),
            key: printable(key),
        });
    }
    Ok(entries.into_iter().collect())
}

/// Returns a row without its version, if it is one that this program reads.
pub(super) fn body_of<'r>(column: Column, key: &[u8], row: &'r [u8]) -> Result<&'r [u8], Error> {
    let (version, body) = row.split_first().ok_or_else(|| Error::Empty {
        column: column.name(),
        key: printable(key),
    })?;
    if *version != column.version() {
        return Err(Error::Format {
            column: column.name(),
            known: column.version(),
            found: *version,
        });
    }
    Ok(body)
}

pub(super) fn printable(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Chain, Class, Classified as _, ImageReference};

    #[test]
    fn rows_of_an_unknown_version_are_named_as_such() {
        let error = decode::<u8>(Column::Run, b"k", b"\x02{}").unwrap_err();
        assert_eq!(
            error.to_string(),
            "expected rows of version 1 in column `run`, found version 2"
        );
        assert_eq!(error.class(), Class::Usage);
    }

    #[test]
    fn damaged_rows_say_where_they_are() {
        let error = decode::<serde_json::Value>(Column::Run, b"a\0\x01", b"\x01{").unwrap_err();
        assert_eq!(error.class(), Class::Corrupt);
        assert!(
            Chain(&error).to_string().starts_with(
                r"failed to decode the row `a\x00\x01` of column `run`: EOF while parsing"
            ),
            "{}",
            Chain(&error)
        );
        let error = decode::<u8>(Column::Run, b"a", b"").unwrap_err();
        assert_eq!(error.class(), Class::Corrupt);
    }

    #[test]
    fn a_record_that_would_not_read_back_is_not_encoded() {
        let reference = |registry: &str| {
            let repository = "a/b".parse().unwrap();
            ImageReference::new(registry.to_owned(), repository, None, None)
        };
        // Neither tag nor digest: the text form reads back with the tag `latest`.
        let error = encode(Column::Package, &reference("registry.example")).unwrap_err();
        assert!(matches!(error, Error::Unfaithful { column: "package" }));
        // No host that could be parsed: the text form does not read back at all.
        let error = encode(Column::Package, &reference("not a host")).unwrap_err();
        assert!(matches!(error, Error::Encode { .. }));
        assert_eq!(error.class(), Class::Bug);
    }
}
