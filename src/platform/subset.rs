//! Whether an object holds everything that is wanted, whatever else it holds.

use serde_json::{Map, Value};

/// Returns whether every field of `wanted` is in `found` with that value.
///
/// Objects may hold more fields than wanted: servers add defaults and other managers their own. Lists must have the
/// same length, and their elements are compared one by one, because the lists of these resources are replaced whole;
/// `metadata.ownerReferences`, a set, must contain each wanted element somewhere. A wanted `null` means "not set".
/// Numbers are equal if their values are, however they are written.
pub fn is_subset(wanted: &Value, found: &Value) -> bool {
    contains(wanted, found, Place::Root)
}

/// Where in the object the comparison is, as far as it matters.
#[derive(Clone, Copy)]
enum Place {
    Root,
    Metadata,
    OwnerReferences,
    Inside,
}

impl Place {
    fn below(self, key: &str) -> Self {
        match (self, key) {
            (Self::Root, "metadata") => Self::Metadata,
            (Self::Metadata, "ownerReferences") => Self::OwnerReferences,
            _ => Self::Inside,
        }
    }
}

fn contains(wanted: &Value, found: &Value, place: Place) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => contains_fields(wanted, found, place),
        (Value::Array(wanted), Value::Array(found)) => match place {
            Place::OwnerReferences => wanted.iter().all(|wanted| {
                found
                    .iter()
                    .any(|found| contains(wanted, found, Place::Inside))
            }),
            Place::Root | Place::Metadata | Place::Inside => {
                wanted.len() == found.len()
                    && wanted
                        .iter()
                        .zip(found)
                        .all(|(wanted, found)| contains(wanted, found, Place::Inside))
            }
        },
        (Value::Number(wanted), Value::Number(found)) => {
            wanted == found || wanted.as_f64() == found.as_f64()
        }
        (wanted, found) => wanted == found,
    }
}

fn contains_fields(wanted: &Map<String, Value>, found: &Map<String, Value>, place: Place) -> bool {
    wanted.iter().all(|(key, wanted)| match found.get(key) {
        Some(found) => contains(wanted, found, place.below(key)),
        None => wanted.is_null(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn compares_what_is_wanted_only() {
        for (wanted, found, expected) in [
            (json!({}), json!({"a": 1}), true),
            (json!({"a": 1}), json!({}), false),
            (json!({"a": 1}), json!({"a": 1.0}), true),
            (json!({"a": 1}), json!({"a": "1"}), false),
            (json!({"a": null}), json!({}), true),
            (json!({"a": null}), json!({"a": 1}), false),
            (json!({"a": [1, 2]}), json!({"a": [2, 1]}), false),
            (json!({"a": [1]}), json!({"a": [1, 2]}), false),
            (
                json!({"a": [{"b": 1}]}),
                json!({"a": [{"b": 1, "c": 2}]}),
                true,
            ),
            (json!({"a": {}}), json!({"a": []}), false),
        ] {
            assert_eq!(is_subset(&wanted, &found), expected, "{wanted} in {found}");
        }
    }

    #[test]
    fn only_the_owners_of_the_object_itself_are_a_set() {
        let owners = json!([{"uid": "1"}]);
        let more = json!([{"uid": "0"}, {"uid": "1", "name": "x"}]);
        let at = |value: &Value| json!({"metadata": {"ownerReferences": value}});
        assert!(is_subset(&at(&owners), &at(&more)));
        assert!(!is_subset(&at(&json!([{"uid": "2"}])), &at(&more)));
        let deeper = |value: &Value| json!({"spec": {"metadata": {"ownerReferences": value}}});
        assert!(!is_subset(&deeper(&owners), &deeper(&more)));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-c]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    /// Adds a field that nobody wants to every object.
    fn grown(value: &Value) -> Value {
        match value {
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| (key.clone(), grown(value)))
                .chain([("extra".to_owned(), json!(true))])
                .collect(),
            Value::Array(items) => items.iter().map(grown).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }

    /// Changes one leaf, the first there is; without one there is nothing to change.
    fn spoiled(value: &Value) -> Option<Value> {
        match value {
            Value::Object(fields) => {
                let (key, changed) = fields
                    .iter()
                    .find_map(|(key, value)| Some((key.clone(), spoiled(value)?)))?;
                let mut fields = fields.clone();
                fields.insert(key, changed);
                Some(Value::Object(fields))
            }
            Value::Array(items) => {
                let (index, changed) = items
                    .iter()
                    .enumerate()
                    .find_map(|(index, value)| Some((index, spoiled(value)?)))?;
                let mut items = items.clone();
                items[index] = changed;
                Some(Value::Array(items))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Some(json!("no generated leaf is this"))
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_added_it_stays_a_subset(value in any_value()) {
            prop_assert!(is_subset(&value, &value));
            prop_assert!(is_subset(&value, &grown(&value)));
        }

        #[test]
        fn any_changed_leaf_is_noticed(value in any_value()) {
            if let Some(spoiled) = spoiled(&value) {
                prop_assert!(!is_subset(&value, &spoiled), "{value} in {spoiled}");
            }
        }

        #[test]
        fn subsets_are_transitive(value in any_value()) {
            let (more, most) = (grown(&value), grown(&grown(&value)));
            prop_assert!(is_subset(&more, &most) && is_subset(&value, &most));
        }
    }
}
