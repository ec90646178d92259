//! Parts: what is split is joined again, hostile tables are refused, and damage has a name.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read as _, Write as _};
use std::num::NonZeroU64;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::base::{Class, Classified as _};

/// Parts in memory, by name.
#[derive(Debug, Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl PartFiles for Files {
    type File = Vec<u8>;

    fn create(&mut self, _: &str) -> io::Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn close(&mut self, name: &str, file: Vec<u8>) -> io::Result<()> {
        self.0.insert(name.to_owned(), file);
        Ok(())
    }
}

fn split(content: &[u8], part_bytes: u64) -> io::Result<(Table, BTreeMap<String, Vec<u8>>)> {
    let part_bytes = NonZeroU64::new(part_bytes).unwrap();
    let mut splitter = Splitter::new("x.tgz", part_bytes, Files::default())?;
    for piece in content.chunks(7) {
        splitter.write_all(piece)?;
    }
    let (table, files) = splitter.finish()?;
    Ok((table, files.0))
}

fn join(table: &Table, files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, Error> {
    let mut joined = Joined::new(table, |name: &str| match files.get(name) {
        Some(content) => Ok(Cursor::new(content.clone())),
        None => Err(io::ErrorKind::NotFound.into()),
    });
    let mut content = Vec::new();
    match joined.read_to_end(&mut content) {
        Ok(_) => Ok(content),
        Err(error) => Err(error.downcast::<Error>().unwrap()),
    }
}

#[test]
fn the_table_is_golden() {
    let (table, files) = split(b"one package, split", 8).unwrap();
    let digest = |content: &[u8]| Digest::of(content).to_string();
    let golden = format!(
        r#"{{
  "format": "violetd parts",
  "version": 1,
  "name": "x.tgz",
  "size_bytes": 18,
  "digest": "{}",
  "parts": [
    {{
      "name": "x.tgz.001",
      "size_bytes": 8,
      "digest": "{}"
    }},
    {{
      "name": "x.tgz.002",
      "size_bytes": 8,
      "digest": "{}"
    }},
    {{
      "name": "x.tgz.003",
      "size_bytes": 2,
      "digest": "{}"
    }}
  ]
}}
"#,
        digest(b"one package, split"),
        digest(b"one pack"),
        digest(b"age, spl"),
        digest(b"it"),
    );
    assert_eq!(String::from_utf8(table.encode()).unwrap(), golden);
    assert_eq!(Table::parse("x.tgz.parts", golden.as_bytes()), Ok(table));
    assert_eq!(files["x.tgz.002"], b"age, spl");
}

#[test]
fn every_damaged_and_every_missing_part_is_named() {
    let content: Vec<u8> = (0..100).collect();
    let (table, good) = split(&content, 10).unwrap();
    let mut files = good.clone();
    files.get_mut("x.tgz.002").unwrap()[3] ^= 1;
    files.get_mut("x.tgz.004").unwrap().pop();
    files.get_mut("x.tgz.005").unwrap().push(0);
    files.remove("x.tgz.009");
    files.remove("x.tgz.010");
    let names = |numbers: &[usize]| -> Vec<String> {
        numbers.iter().map(|it| part_name("x.tgz", *it)).collect()
    };
    let error = join(&table, &files).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected 10 parts as the table says, found 3 damaged: `x.tgz.002`, `x.tgz.004`, `x.tgz.005`; \
         2 missing: `x.tgz.009`, `x.tgz.010`"
    );
    assert_eq!(error.code(), "part-damaged");
    let expected = Error::Damaged {
        expected: 10,
        damaged: names(&[2, 4, 5]),
        missing: names(&[9, 10]),
    };
    assert_eq!(error, expected);
    let mut files = good;
    files.remove("x.tgz.001");
    assert_eq!(join(&table, &files).unwrap_err().code(), "part-missing");
}

#[test]
fn a_part_that_cannot_be_read_says_which_and_why() {
    let (table, _) = split(b"content", 3).unwrap();
    let mut joined = Joined::new(&table, |_: &str| -> io::Result<io::Empty> {
        Err(io::ErrorKind::PermissionDenied.into())
    });
    let error = joined.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    let error = error.downcast::<Error>().unwrap();
    assert_eq!(
        (error.code(), error.class()),
        ("part-unreadable", Class::Denied)
    );
}

/// Changes one thing of a good table and returns the code of the refusal.
fn refused(change: impl FnOnce(&mut Value)) -> &'static str {
    let (table, _) = split(b"one package, split", 8).unwrap();
    let mut document: Value = serde_json::from_slice(&table.encode()).unwrap();
    change(&mut document);
    let error = Table::parse("x.tgz.parts", document.to_string().as_bytes()).unwrap_err();
    error.code()
}

#[test]
fn hostile_tables_are_refused_each_with_its_code() {
    let huge = u64::MAX;
    assert_eq!(
        refused(|it| it["parts"][0]["size_bytes"] = json!(huge)),
        "parts-size"
    );
    assert_eq!(refused(|it| it["size_bytes"] = json!(huge)), "parts-size");
    assert_eq!(
        refused(|it| {
            it["size_bytes"] = json!(huge);
            it["parts"][0]["size_bytes"] = json!(huge);
        }),
        "parts-size"
    );
    assert_eq!(
        refused(|it| it["parts"][2]["size_bytes"] = json!(0)),
        "parts-empty-part"
    );
    assert_eq!(refused(|it| it["parts"] = json!([])), "parts-count");
    let part = |number: usize| json!({"name": part_name("x.tgz", number), "size_bytes": 1, "digest": Digest::of(b"")});
    let many: Vec<Value> = (1..=PARTS_MAX + 1).map(part).collect();
    assert_eq!(refused(|it| it["parts"] = json!(many)), "parts-count");
    for name in [
        "/etc/shadow",
        "../x.tgz.001",
        "y.tgz.001",
        "x.tgz.002",
        "x.tgz.0001",
        "",
    ] {
        assert_eq!(
            refused(|it| it["parts"][0]["name"] = json!(name)),
            "parts-part-name",
            "{name}"
        );
    }
    for name in ["../x.tgz", "y.tgz", "/x.tgz", ""] {
        assert_eq!(
            refused(|it| it["name"] = json!(name)),
            "parts-table-of-other-package",
            "{name}"
        );
    }
    assert_eq!(
        refused(|it| it["version"] = json!(2)),
        "parts-table-version"
    );
    assert_eq!(
        refused(|it| it["format"] = json!("other")),
        "parts-table-malformed"
    );
    assert_eq!(
        refused(|it| it["digest"] = json!("md5:1")),
        "parts-table-malformed"
    );
    assert_eq!(refused(|it| it["else"] = json!(1)), "parts-table-malformed");
    assert_eq!(refused(|it| *it = json!(["x"])), "parts-table-malformed");
    // Ten million parts are not even looked at.
    let huge = vec![b' '; usize::try_from(TABLE_BYTES_MAX).unwrap() + 1];
    let error = Table::parse("x.tgz.parts", &huge).unwrap_err();
    assert_eq!(error.code(), "parts-table-too-large");
}

#[test]
fn control_characters_of_a_table_never_reach_a_message() {
    for content in [
        r#"{"format": "violetd parts", "version": 1, "name": "x.tgz", "size_bytes": 1, "digest": "\u001b[2J", "parts": []}"#,
        r#"{"format": "\u001b[2J", "version": 1}"#,
        r#"{"format": "violetd parts", "version": "\u0000"}"#,
    ] {
        let message = Table::parse("x.tgz.parts", content.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
}

#[test]
fn the_largest_table_is_below_its_limit() {
    let name = format!("{}.tgz", "n".repeat(240));
    let part = |number| Part {
        name: part_name(&name, number),
        size_bytes: u64::MAX / 1000,
        digest: Digest::of(b""),
    };
    let parts: Vec<Part> = (1..=PARTS_MAX).map(part).collect();
    let size_bytes = parts.iter().map(|part| part.size_bytes).sum();
    let table = Table::new(name, size_bytes, Digest::of(b""), parts).unwrap();
    assert!((table.encode().len() as u64) < TABLE_BYTES_MAX);
}

#[test]
fn more_parts_than_three_digits_can_say_are_refused_while_writing() {
    let error = split(&[0; 1000], 1).unwrap_err();
    assert_eq!(
        error.downcast::<Error>().unwrap(),
        Error::Count { found: 1000 }
    );
    assert_eq!(split(&[0; 999], 1).unwrap().0.parts().len(), 999);
    let error = split(b"", 1).unwrap_err().downcast::<Error>().unwrap();
    assert_eq!(error, Error::Count { found: 0 });
}

#[test]
fn names_tell_tables_and_parts_from_other_files() {
    for name in [
        "x.tgz.001",
        "a b.tar.gz.999",
        "x.tar.zst.100",
        "x.tgz.001.tar.002",
    ] {
        assert!(matches!(Member::of(name), Some(Member::Part(_))), "{name}");
    }
    assert_eq!(Member::of("x.tgz.parts"), Some(Member::Table("x.tgz")));
    for name in [
        "x.tgz",
        "x.tgz.000",
        "x.tgz.01",
        "x.tgz.1000",
        "x.tgz.0a1",
        "redis.v1.001",
        ".tgz.001",
        ".x.tgz.001",
        "x.parts",
        ".parts",
        "x.tgz.part",
        "x.tgz.001.part",
        "x.tgz.sig",
    ] {
        assert_eq!(Member::of(name), None, "{name}");
    }
}

proptest! {
    #[test]
    fn what_is_split_is_joined_again(content in prop::collection::vec(any::<u8>(), 1..400), part_bytes in 1_u64..500) {
        let (table, files) = split(&content, part_bytes).unwrap();
        prop_assert_eq!(table.digest(), Digest::of(&content));
        prop_assert_eq!(table.size_bytes(), content.len() as u64);
        let parsed = Table::parse("x.tgz.parts", &table.encode()).unwrap();
        prop_assert_eq!(join(&parsed, &files).unwrap(), content);
    }

    #[test]
    fn one_changed_byte_is_found_in_its_part(
        content in prop::collection::vec(any::<u8>(), 1..200), part_bytes in 1_u64..50, at in any::<prop::sample::Index>(),
    ) {
        let (table, mut files) = split(&content, part_bytes).unwrap();
        let at = at.index(content.len()) as u64;
        let name = &table.parts()[usize::try_from(at / part_bytes).unwrap()].name;
        files.get_mut(name).unwrap()[usize::try_from(at % part_bytes).unwrap()] ^= 1;
        let damaged = vec![name.clone()];
        let expected = table.parts().len();
        prop_assert_eq!(join(&table, &files), Err(Error::Damaged { expected, damaged, missing: Vec::new() }));
    }

    #[test]
    fn any_table_is_read_or_refused(content in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Table::parse("x.tgz.parts", &content);
    }
}
