//! How a record becomes the bytes of a row.
//!
//! # Format
//!
//! | bytes | content |
//! |---|---|
//! | 1 | version of the rows of this column |
//! | the rest | the record as JSON |
//!
//! A field may be added within a version if it has a default; anything else is a new version, with a reader for each
//! older one here.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use super::column::Column;

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
    serde_json::from_slice(body).map_err(|source| Error::Decode {
        column: column.name(),
        key: printable(key),
        source,
    })
}

fn printable(key: &[u8]) -> String {
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
