//! Server-side apply: who manages which field, and what happens when two want different things. Pure.
//!
//! Objects are merged field by field; lists are replaced whole, except `metadata.ownerReferences`, whose elements are
//! known by their `uid`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// A field: the names on the way to it.
pub(super) type Path = Vec<String>;

/// Manager and operation (`Apply` or `Update`).
type Manager = (String, &'static str);

/// An object with its managers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Managed {
    /// Without `metadata.managedFields`.
    pub(super) object: Value,
    managers: BTreeMap<Manager, BTreeSet<Path>>,
}

/// A field that somebody else manages and that has another value: the manager, and the path as Kubernetes writes it.
pub(super) type Conflict = (String, String);

impl Managed {
    /// Applies `wanted` as `manager`.
    pub(super) fn apply(
        &self,
        wanted: &Value,
        manager: &str,
        force: bool,
    ) -> Result<Self, Vec<Conflict>> {
        let wanted = &pruned(wanted);
        let key = (manager.to_owned(), "Apply");
        let paths = leaves(wanted);
        let mut next = self.clone();
        let mut conflicts = Vec::new();
        for (other, owned) in next.managers.iter_mut().filter(|(other, _)| **other != key) {
            let contested: Vec<Path> = owned
                .iter()
                .filter(|path| {
                    paths.iter().any(|wanted_path| overlap(path, wanted_path))
                        && get(&self.object, path) != get(wanted, path)
                })
                .cloned()
                .collect();
            for path in contested {
                if force {
                    owned.remove(&path);
                } else {
                    conflicts.push((other.0.clone(), format!(".{}", path.join("."))));
                }
            }
        }
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        // What we do not want any more, and nobody else does, goes.
        let before = next.managers.get(&key).cloned().unwrap_or_default();
        for path in before.difference(&paths) {
            let is_shared = next
                .managers
                .iter()
                .any(|(other, owned)| *other != key && owned.contains(path));
            if !is_shared {
                remove(&mut next.object, path);
            }
        }
        for path in &paths {
            let value = get(wanted, path).expect("it is a leaf").clone();
            set(&mut next.object, path, value);
        }
        for field in ["apiVersion", "kind"] {
            next.object[field] = wanted[field].clone();
        }
        next.managers.insert(key, paths);
        next.managers.retain(|_, owned| !owned.is_empty());
        Ok(next)
    }

    /// Replaces the object as `manager`, who takes over every field that this changes.
    pub(super) fn update(&self, object: &Value, manager: &str) -> Self {
        let object = pruned(object);
        let key = (manager.to_owned(), "Update");
        let mut next = self.clone();
        let (before, after) = (leaves(&self.object), leaves(&object));
        let changed: BTreeSet<Path> = after
            .iter()
            .filter(|path| get(&self.object, path) != get(&object, path))
            .cloned()
            .collect();
        for (other, owned) in &mut next.managers {
            owned.retain(|path| {
                let is_gone = before.contains(path) && !after.contains(path);
                !is_gone && (*other == key || !changed.contains(path))
            });
        }
        next.managers.entry(key).or_default().extend(changed);
        next.managers.retain(|_, owned| !owned.is_empty());
        next.object = object;
        next
    }

    /// Returns the object as a client sees it.
    pub(super) fn shown(&self) -> Value {
        let entries: Vec<Value> = self
            .managers
            .iter()
            .map(|((manager, operation), paths)| {
                json!({
                    "manager": manager,
                    "operation": operation,
                    "apiVersion": self.object["apiVersion"],
                    "fieldsType": "FieldsV1",
                    "fieldsV1": fields_v1(paths),
                })
            })
            .collect();
        let mut object = self.object.clone();
        object["metadata"]["managedFields"] = Value::from(entries);
        object
    }
}

fn fields_v1(paths: &BTreeSet<Path>) -> Value {
    let mut root = json!({});
    for path in paths {
        let mut place = &mut root;
        for segment in path {
            place = place
                .as_object_mut()
                .expect("built of objects")
                .entry(format!("f:{segment}"))
                .or_insert_with(|| json!({}));
        }
    }
    root
}

/// Returns the fields of `object` that somebody can manage. Identity, and what the server fills in, is nobody's.
fn leaves(object: &Value) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    for section in ["metadata", "spec", "status", "data"] {
        for (name, value) in object[section].as_object().into_iter().flatten() {
            let is_servers = section == "metadata"
                && !matches!(
                    name.as_str(),
                    "labels" | "annotations" | "finalizers" | "ownerReferences"
                );
            if !is_servers {
                collect(vec![section.to_owned(), name.clone()], value, &mut found);
            }
        }
    }
    found
}

fn collect(path: Path, value: &Value, found: &mut BTreeSet<Path>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let mut below = path.clone();
                below.push(name.clone());
                collect(below, value, found);
            }
        }
        Value::Array(items) if path == ["metadata", "ownerReferences"] => {
            for item in items {
                let mut below = path.clone();
                below.push(item["uid"].as_str().unwrap_or_default().to_owned());
                found.insert(below);
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            found.insert(path);
        }
    }
}

/// Returns `value` without nulls: a server drops them, unless the schema has them, and none of these does.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), pruned(value)))
            .collect(),
        Value::Array(items) => items.iter().map(pruned).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

fn overlap(one: &[String], other: &[String]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Splits the path of an owner into the list and the owner's `uid`.
fn owner_of(path: &[String]) -> Option<&str> {
    match path {
        [metadata, owners, uid] if metadata == "metadata" && owners == "ownerReferences" => {
            Some(uid)
        }
        _ => None,
    }
}

fn get<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    if let Some(uid) = owner_of(path) {
        return object["metadata"]["ownerReferences"]
            .as_array()?
            .iter()
            .find(|item| item["uid"] == uid);
    }
    path.iter()
        .try_fold(object, |value, segment| value.get(segment))
}

fn set(object: &mut Value, path: &[String], value: Value) {
    if let Some(uid) = owner_of(path) {
        remove(object, path);
        let owners = object["metadata"]
            .as_object_mut()
            .expect("metadata is an object")
            .entry("ownerReferences")
            .or_insert_with(|| json!([]));
        assert_eq!(value["uid"], uid);
        owners
            .as_array_mut()
            .expect("owners are a list")
            .push(value);
        return;
    }
    let (last, parents) = path.split_last().expect("paths are not empty");
    let mut place = object;
    for segment in parents {
        if !place[segment.as_str()].is_object() {
            place[segment.as_str()] = Value::Object(Map::new());
        }
        place = &mut place[segment.as_str()];
    }
    place[last.as_str()] = value;
}

fn remove(object: &mut Value, path: &[String]) {
    if let Some(uid) = owner_of(path) {
        if let Some(owners) = object["metadata"]
            .get_mut("ownerReferences")
            .and_then(Value::as_array_mut)
        {
            owners.retain(|item| item["uid"] != uid);
        }
        return;
    }
    let (last, parents) = path.split_last().expect("paths are not empty");
    let parent = parents
        .iter()
        .try_fold(object, |value, segment| value.get_mut(segment));
    if let Some(fields) = parent.and_then(Value::as_object_mut) {
        fields.remove(last);
    }
}
