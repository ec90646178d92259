//! The exact bytes of record files, and what is made of those that are not what was written.

use super::tests::{at, commit, digest, hex, new_catalog, new_package, package, pin};
use super::*;
use crate::sys::fs;

/// The bytes of the record of `package(1)` before its check. Released: they change only together with the format.
fn golden() -> String {
    let (one, two) = (hex(1), hex(2));
    [
        format!(r#"{{"format":1,"package":{{"digest":"sha256:{one}","#),
        r#""file_name":"redis-operator.amd64.v1.2.3.tgz","size_bytes":18446744073709551615,"name":"redis-operator","#.to_owned(),
        r#""version":"v1.2.3","kind":"operator","platforms":["linux/amd64"],"#.to_owned(),
        r#""artifact":"registry.example/3rdparty/redis-bundle:v1.2.3","#.to_owned(),
        r#""images":[{"reference":"registry.example:5000/3rdparty/redis:7","#.to_owned(),
        format!(r#""digest":"sha256:{two}","media_type":"application/vnd.oci.image.index.v1+json","#),
        r#""size_bytes":3,"content_bytes":4}],"#.to_owned(),
        r#""resources":[{"kind":"ModulePlugin","ratio":0.1,"replicas":1}],"display_name":null,"#.to_owned(),
        r#""blob_count":5,"blob_bytes":6,"provenance":{"by":"signature","fingerprint":"AB12","#.to_owned(),
        r#""signed_at":"2026-01-01T00:00:01.001000001Z"},"ready_at":"2026-01-01T00:00:02.001000001Z"},"#.to_owned(),
        format!(r#""content":[["sha256:{one}",18446744073709551615],["sha256:{two}",3]],"#),
        format!(r#""pin":{{"package":"sha256:{one}","pinned_at":"2026-01-01T00:00:02.001000001Z","reason":"audit"}}"#),
    ]
    .concat()
}

/// Returns the bytes of a file with this beginning.
fn checked(head: &str) -> String {
    format!("{head},\"check\":\"{}\"}}\n", Digest::of(head.as_bytes()))
}

fn path_of(dir: &Path, byte: u8) -> std::path::PathBuf {
    dir.join(format!("packages/{}.json", hex(byte)))
}

#[test]
fn golden_record_file() {
    let new = new_package(package(1));
    let bytes = kept::encode(&package(1), Some(&new.content), Some(&pin(1))).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), checked(&golden()));

    let (dir, catalog) = new_catalog();
    let plain = kept::encode(&package(1), None, None).unwrap();
    let plain = String::from_utf8(plain).unwrap();
    let expected = golden();
    let (expected, _) = expected.split_once(r#","content""#).unwrap();
    assert_eq!(plain, checked(expected));
    for (text, content, pinned) in [
        (checked(&golden()), Some(new.content), Some(pin(1))),
        (plain, None, None),
        // What a later version adds within the format is left out.
        (
            checked(&expected.replace("\"format\":1", "\"format\":1,\"moon\":[]")),
            None,
            None,
        ),
    ] {
        fs::replace_file(&path_of(dir.path(), 1), text.as_bytes(), 0o640).unwrap();
        let read = catalog.read_record(&digest(1)).unwrap().unwrap();
        assert_eq!(read.package, package(1));
        assert_eq!((read.content, read.pin), (content, pinned));
    }
}

#[test]
fn a_record_that_is_not_what_was_written_is_named_as_such() {
    let (dir, catalog) = new_catalog();
    let whole = checked(&golden());
    for (bytes, reason) in [
        (String::new(), "less than a record"),
        (
            whole[..whole.len() - 1].to_owned(),
            "a record without its check",
        ),
        (
            whole.replace("redis-operator\"", "redis-operatoR\""),
            "other bytes than were written",
        ),
        (checked("{\"format\":1"), "missing field `package`"),
        (
            checked(&golden().replacen(&hex(1), &hex(3), 1)),
            "that of sha256:0303",
        ),
    ] {
        fs::replace_file(&path_of(dir.path(), 1), bytes.as_bytes(), 0o640).unwrap();
        let error = catalog.read_record(&digest(1)).unwrap_err();
        assert_eq!(error.class(), Class::Corrupt);
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
    let newer = checked(&golden()).replace("\"format\":1", "\"format\":2");
    fs::replace_file(&path_of(dir.path(), 1), newer.as_bytes(), 0o640).unwrap();
    let error = catalog.read_record(&digest(1)).unwrap_err();
    assert_eq!(error.class(), Class::Usage);
    let words = error.to_string();
    assert!(
        words.ends_with("in format 1 or older, found format 2"),
        "{words}"
    );
}

#[test]
fn the_record_says_what_the_catalog_says() {
    let (dir, catalog) = new_catalog();
    commit(&catalog, 1);
    let read = || catalog.read_record(&digest(1)).unwrap().unwrap();
    assert_eq!(read().pin, None);
    catalog.put_pin(&pin(1)).unwrap();
    assert_eq!(read().pin, Some(pin(1)));
    let again = PinRecord {
        pinned_at: at(9),
        ..pin(1)
    };
    catalog.put_pin(&again).unwrap();
    assert_eq!(read().pin, Some(again.clone()));
    // Coming again takes the pin along.
    commit(&catalog, 1);
    assert_eq!(
        (read().pin, catalog.list_pins().unwrap()),
        (Some(again.clone()), vec![again])
    );
    catalog.remove_pin(&digest(1)).unwrap();
    assert_eq!(
        (read().pin, catalog.list_pins().unwrap()),
        (None, Vec::new())
    );
    let content: Content = [(digest(7), 7)].into_iter().collect();
    catalog.put_content(&digest(1), &content).unwrap();
    assert_eq!(read().content, Some(content));
    assert_eq!(read().package, package(1));

    let error = catalog.put_pin(&pin(2)).unwrap_err();
    assert!(matches!(error, Error::NoPackage { package } if package == digest(2)));
    catalog.remove_pin(&digest(2)).unwrap();
    assert!(!path_of(dir.path(), 2).exists());
}
