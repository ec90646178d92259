//! Tables of packages in parts, and the parts that they describe.
//!
//! The first line of the input is the name of the table's file, the rest its content.

#![no_main]

use std::io::{self, Read as _};

use libfuzzer_sys::fuzz_target;
use violetd::base::{Chain, Digest};
use violetd::package::parts::{Joined, Member, PARTS_MAX, Table};
use violetd_fuzz::check_message;

/// What is read of a joined stream at most, in bytes.
const READ_BYTES_MAX: u64 = 1 << 20;
/// What every part holds that is there.
const CONTENT: &[u8] = b"0123456789";

/// Checks that a table names nothing but its own parts, and that its sizes add up.
fn check(table: &Table) {
    let name = table.name();
    assert!(!name.contains('/') && !name.contains('\0'), "{name:?}");
    assert!((1..=PARTS_MAX).contains(&table.parts().len()));
    let mut total_bytes = 0_u64;
    for part in table.parts() {
        assert_eq!(Member::of(&part.name), Some(Member::Part(name)));
        assert!(part.size_bytes > 0, "an empty part");
        total_bytes += part.size_bytes;
    }
    assert_eq!(total_bytes, table.size_bytes());
}

/// Reads the parts, of which every third is missing.
fn join(table: &Table) {
    let open = |name: &str| match name.as_bytes().last() {
        Some(b'3' | b'6' | b'9') => Err(io::Error::from(io::ErrorKind::NotFound)),
        Some(_) | None => Ok(CONTENT),
    };
    let mut read = Vec::new();
    let mut joined = Joined::new(table, open).take(READ_BYTES_MAX);
    match joined.read_to_end(&mut read) {
        Ok(_) => {
            let digest = Digest::of(CONTENT);
            let is_right = |part: &violetd::package::parts::Part| part.digest == digest;
            assert!(
                joined.limit() == 0 || table.parts().iter().all(is_right),
                "nothing but the right content is accepted"
            );
            assert!(read.len() as u64 <= table.size_bytes());
        }
        Err(error) => {
            let error = error.downcast::<violetd::package::parts::Error>();
            check_message(&Chain(&error.expect("an error of parts")));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let Ok(name) = std::str::from_utf8(&data[..end]) else {
        return;
    };
    match Table::parse(name, &data[end + 1..]) {
        Ok(table) => {
            check(&table);
            let again = Table::parse(name, &table.encode()).expect("what is written can be read");
            assert_eq!(again, table);
            join(&table);
        }
        // A table of 999 parts that are damaged is a long message, but none of these is.
        Err(error) => check_message(&Chain(&error)),
    }
});
