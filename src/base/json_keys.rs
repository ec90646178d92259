//! Keys of JSON documents that other readers take for other keys.
//!
//! `encoding/json` of Go, in which most registries and container engines are written, does not look at case: `Layers` is
//! `layers` to it, and the last of them counts. A document with such a key is one thing to us and another to them.
//!
//! # References
//!
//! Go 1.22, package `encoding/json`, `Unmarshal`: "preferring an exact match but also accepting a case-insensitive match".

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The keys of an object that mean something to a reader.
#[derive(Debug)]
pub(super) struct Object {
    /// Each key, with the keys of the object, or of each object of the list, below it.
    pub(super) keys: &'static [(&'static str, Option<&'static Object>)],
}

/// A key that some readers take for another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lookalike {
    pub(super) known: &'static str,
    pub(super) found: String,
}

/// Returns the first key that is none of those of `object` and is taken for one of them by readers that do not look at case.
pub(super) fn find_lookalike(
    bytes: &[u8],
    object: &'static Object,
) -> Result<Option<Lookalike>, serde_json::Error> {
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let search = Search {
        object,
        found: &mut found,
    };
    search.deserialize(&mut deserializer)?;
    Ok(found)
}

/// Returns whether `key` is `known`, which is ASCII, but for case. Two letters beyond ASCII have one of ASCII as their
/// other case (Unicode 15.1, `CaseFolding.txt`).
fn is_alike(key: &str, known: &str) -> bool {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(known.chars().map(fold))
}

/// Goes through one value.
struct Search<'a> {
    object: &'static Object,
    found: &'a mut Option<Lookalike>,
}

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let mut keys = self.object.keys.iter();
            match keys.find(|(known, _)| is_alike(&key, known)) {
                Some((known, Some(object))) if *known == key => {
                    map.next_value_seed(Search {
                        object,
                        found: self.found,
                    })?;
                }
                Some((known, _)) if *known != key => {
                    self.found.get_or_insert_with(|| Lookalike {
                        known,
                        found: key.into_owned(),
                    });
                    map.next_value::<IgnoredAny>()?;
                }
                Some(_) | None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        loop {
            let search = Search {
                object: self.object,
                found: self.found,
            };
            if seq.next_element_seed(search)?.is_none() {
                return Ok(());
            }
        }
    }

    // Whoever reads the document says which of these do not belong there.
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static INNER: Object = Object {
        keys: &[("size", None)],
    };
    static OUTER: Object = Object {
        keys: &[("kind", None), ("items", Some(&INNER)), ("free", None)],
    };

    fn find(text: &str) -> Option<(&'static str, String)> {
        let found = find_lookalike(text.as_bytes(), &OUTER).unwrap();
        found.map(|it| (it.known, it.found))
    }

    #[test]
    fn keys_that_differ_by_case_are_found_where_they_mean_something() {
        for (text, known, found) in [
            (r#"{"kind":1,"Kind":2}"#, "kind", "Kind"),
            ("{\"\u{212a}ind\":1}", "kind", "\u{212a}ind"),
            (r#"{"\u004bind":1}"#, "kind", "Kind"),
            (r#"{"items":[{},{"SIZE":null}]}"#, "size", "SIZE"),
            (r#"{"items":{"\u017fize":1}}"#, "size", "\u{17f}ize"),
            (r#"{"x":true,"y":-1.5,"FREE":{}}"#, "free", "FREE"),
        ] {
            assert_eq!(find(text), Some((known, found.to_owned())), "{text}");
        }
        for text in [
            r#"{"kind":"KIND","items":[1,"SIZE",null],"free":{"Size":1,"Kind":2}}"#,
            r#"{"other":{"Kind":1},"kinds":1,"kin":2}"#,
            "[]",
            "3",
        ] {
            assert_eq!(find(text), None, "{text}");
        }
        assert!(find_lookalike(b"{", &OUTER).is_err());
    }
}
