//! What a registry says it has of a blob: `Range: 0-1023`.
//!
//! # References
//!
//! OCI distribution-spec v1.1.0, "Pushing a blob in chunks": both ends are inclusive, the first is 0.

/// Parses the value of a `Range` header of an answer. Returns how many bytes the registry has, from the first one on; `None`
/// where it is something else.
///
/// `0-0` should mean one byte, but is what distribution says of an empty session; no blob is cut after its first byte so often
/// that it would matter. Some put the unit first, `bytes=0-1023`.
pub(super) fn parse(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_prefix("bytes=").unwrap_or(text);
    let (first, last) = text.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if !is_number(first) || !is_number(last) || first.parse::<u64>().ok()? != 0 {
        return None;
    }
    match last.parse::<u64>().ok()? {
        0 => Some(0),
        last => last.checked_add(1),
    }
}

/// Does the same with the answer to a chunk up to `sent_bytes`, of which all was taken unless it says otherwise: some registries name
/// the first byte that they do not have as the last one (container-registry 0.3), and after the very first byte `0-0` means it.
pub(super) fn parse_after(text: &str, sent_bytes: u64) -> Option<u64> {
    parse(text).map(|found_bytes| match found_bytes {
        0 if sent_bytes == 1 => 1,
        found_bytes if found_bytes == sent_bytes.saturating_add(1) => sent_bytes,
        found_bytes => found_bytes,
    })
}

/// Returns the value of the `Content-Range` header of a request with `length_bytes` bytes, not zero, from `offset_bytes` on.
pub(super) fn content_range(offset_bytes: u64, length_bytes: u64) -> String {
    format!("{offset_bytes}-{}", offset_bytes + length_bytes - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_what_is_there_from_the_start() {
        for (text, expected) in [
            ("0-1023", Some(1024)),
            ("bytes=0-1023", Some(1024)),
            (" 0-1 ", Some(2)),
            ("0-0", Some(0)),
            ("1-1023", None),
            ("0-18446744073709551615", None),
            ("0-18446744073709551616", None),
            ("0--1", None),
            ("+0-1", None),
            ("0-", None),
            ("-1", None),
            ("bytes 0-1/2", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "input: {text:?}");
        }
    }

    #[test]
    fn one_byte_more_than_was_sent_is_not_there() {
        for (text, expected) in [
            ("0-1023", Some(1024)),
            ("0-1024", Some(1024)),
            ("0-1025", Some(1026)),
            ("0-511", Some(512)),
            ("0-0", Some(0)),
            ("", None),
        ] {
            assert_eq!(parse_after(text, 1024), expected, "input: {text:?}");
        }
        assert_eq!(parse_after("0-0", 1), Some(1));
    }

    proptest! {
        #[test]
        fn what_was_sent_is_what_is_there(length_bytes in 2..u64::MAX) {
            prop_assert_eq!(parse(&content_range(0, length_bytes)), Some(length_bytes));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn parsing_never_panics_on_what_looks_like_ranges(text in "(bytes=)?[0-9]{0,22}-[0-9]{0,22}") {
            let _ = parse(&text);
        }
    }
}
