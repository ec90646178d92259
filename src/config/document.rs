//! The text of the file and the environment, merged, with a memory of where each key was set.
//!
//! The `config` crate merges and gives types. Two things are done here because it does not do them: unknown keys and
//! values of the wrong kind are found by comparing with [`Settings::sample`], and lines are remembered, by reading the
//! file a second time with the parser that the crate uses itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use config::{ConfigError, FileFormat, Source as _, Value, ValueKind};
use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use super::error::{Error, Flaw, Place, Problem};
use super::settings::Settings;

/// What the names of variables begin with.
const PREFIX: &str = "VIOLETD_";
/// What stands between section and key in the name of a variable.
const SEPARATOR: &str = "__";
/// Names that differ in more than this part of their characters are not suggested.
const SUGGESTION_DISTANCE_PART: usize = 2;

/// Where each key was set.
#[derive(Debug)]
pub(super) struct Document {
    file: Option<PathBuf>,
    lines: BTreeMap<String, usize>,
    variables: BTreeMap<String, String>,
}

impl Document {
    /// Merges `text`, the content of `file`, with the environment, which wins.
    pub(super) fn read(
        file: Option<&Path>,
        text: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<(Settings, Self), Error> {
        let mut document = Self {
            file: file.map(Path::to_owned),
            lines: BTreeMap::new(),
            variables: BTreeMap::new(),
        };
        let table = DeTable::parse(text).map_err(|error| document.syntax(text, &error))?;
        let mut lines = Lines {
            text,
            found: BTreeMap::new(),
        };
        lines.add_table("", table.get_ref());
        document.lines = lines.found;
        check_sections(table.get_ref()).map_err(|flaw| document.locate(flaw))?;

        let settings = document
            .merge(text, env)
            .map_err(|flaw| document.locate(flaw))?;
        Ok((settings, document))
    }

    /// Adds to a flaw where its key was set.
    pub(super) fn locate(&self, flaw: Flaw) -> Error {
        Error::Key {
            place: self.place(&flaw.key),
            key: flaw.key,
            problem: flaw.problem,
        }
    }

    /// Returns where `key` was set, or else the section around it.
    fn place(&self, key: &str) -> Place {
        let mut around = Some(key);
        while let Some(key) = around {
            if let Some(name) = self.variables.get(key) {
                return Place::Variable(name.clone());
            }
            if let Some(line) = self.lines.get(key) {
                return self.line(Some(*line));
            }
            around = key.rfind(['.', '[']).map(|end| &key[..end]);
        }
        self.line(None)
    }

    fn line(&self, line: Option<usize>) -> Place {
        match &self.file {
            Some(path) => Place::File {
                path: path.clone(),
                line,
            },
            None => Place::NoFile,
        }
    }

    fn syntax(&self, text: &str, error: &toml::de::Error) -> Error {
        let line = error.span().map(|span| line_at(text, span.start));
        Error::Syntax {
            place: self.line(line),
            message: error.message().replace('\n', ", "),
        }
    }

    fn merge(
        &mut self,
        text: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Settings, Flaw> {
        let schema = sample();
        let whole = |error: ConfigError| Flaw::new("", Problem::Value(error.to_string()));
        let mut builder =
            config::Config::builder().add_source(config::File::from_str(text, FileFormat::Toml));
        for (name, value) in env {
            let Some(key) = key_of_variable(&name, &schema) else {
                continue;
            };
            self.variables.insert(key.clone(), name);
            let value = value_of_variable(&key, &value, &schema)?;
            builder = builder.set_override(&key, value).map_err(whole)?;
        }
        let merged = builder.build().map_err(whole)?;
        let table = merged.collect().map_err(whole)?;
        check("", &Value::from(table), &schema, &schema)?;
        merged.try_deserialize().map_err(|error| flaw_of(&error))
    }
}

/// Finds the first key of the file itself that the sample does not have.
///
/// The crate takes such a key for a path: `"target[9999999999]" = 1` would be an element of a list of that length.
fn check_sections(table: &DeTable<'_>) -> Result<(), Flaw> {
    let schema = sample();
    let names: BTreeSet<&str> = table.keys().map(|name| name.get_ref().as_ref()).collect();
    let mut names = names.into_iter();
    names
        .find(|name| schema.get(name).is_none())
        .map_or(Ok(()), |name| Err(unknown(name, name, &schema, &schema)))
}

/// Returns every key there is, with a value of its kind.
fn sample() -> Json {
    serde_json::to_value(Settings::sample()).expect("settings are plain data")
}

/// Returns the key that a variable sets, if it is one of ours.
///
/// `VIOLETD_LOG__LEVEL` is `log.level` and `VIOLETD_STATE_DIR` is `state_dir`. Other names without a double underscore
/// belong to the command line or to secrets.
fn key_of_variable(name: &str, schema: &Json) -> Option<String> {
    let key = name.strip_prefix(PREFIX)?.to_lowercase();
    if key.contains(SEPARATOR) {
        return Some(key.replace(SEPARATOR, "."));
    }
    let is_value = schema
        .get(&key)
        .is_some_and(|value| !value.is_object() && !value.is_array());
    is_value.then_some(key)
}

/// Reads the text of a variable as what its key takes. Elements of lists are separated by commas.
fn value_of_variable(key: &str, text: &str, schema: &Json) -> Result<Value, Flaw> {
    let mut sample = schema;
    let mut known = String::new();
    for segment in key.split('.') {
        if sample.is_array() {
            return Err(Flaw::new(key, Problem::FileOnly(known)));
        }
        known = join(&known, segment);
        sample = match sample.get(segment) {
            Some(below) => below,
            None => return Err(unknown(key, segment, sample, schema)),
        };
    }
    let kind = match sample {
        Json::Array(samples) if samples.iter().any(Json::is_object) => {
            return Err(Flaw::new(key, Problem::FileOnly(known)));
        }
        Json::Array(_) => ValueKind::Array(
            text.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(Value::from)
                .collect(),
        ),
        Json::Bool(_) => text
            .parse()
            .map_or_else(|_| ValueKind::from(text), ValueKind::Boolean),
        Json::Null | Json::Number(_) | Json::String(_) | Json::Object(_) => ValueKind::from(text),
    };
    Ok(Value::new(None, kind))
}

/// Finds the first key of `value` that the sample does not have, or whose value is of another kind.
fn check(key: &str, value: &Value, sample: &Json, schema: &Json) -> Result<(), Flaw> {
    let expected = match (sample, &value.kind) {
        (Json::Object(_), ValueKind::Table(table)) => {
            let sorted: BTreeMap<_, _> = table.iter().collect();
            return sorted.into_iter().try_for_each(|(name, value)| {
                let key = join(key, name);
                match sample.get(name) {
                    Some(sample) => check(&key, value, sample, schema),
                    None => Err(unknown(&key, name, sample, schema)),
                }
            });
        }
        (Json::Array(samples), ValueKind::Array(items)) => {
            let sample = samples
                .first()
                .expect("every list of the sample has an element");
            return items.iter().enumerate().try_for_each(|(index, item)| {
                check(&format!("{key}[{index}]"), item, sample, schema)
            });
        }
        (Json::Object(keys), ValueKind::String(_)) if keys.contains_key("credential") => {
            return Err(Flaw::new(key, Problem::LiteralSecret));
        }
        (Json::Number(_), ValueKind::I64(number)) if *number < 0 => "a number from 0 on",
        (Json::Bool(_), ValueKind::Boolean(_))
        | (
            Json::Number(_) | Json::String(_),
            ValueKind::I64(_)
            | ValueKind::I128(_)
            | ValueKind::U64(_)
            | ValueKind::U128(_)
            | ValueKind::String(_),
        ) => return Ok(()),
        (Json::Object(_), _) => "a table",
        (Json::Array(_), _) => "a list",
        (Json::Bool(_), _) => "true or false",
        (Json::Number(_), _) => "a whole number",
        (Json::String(_) | Json::Null, _) => "a string",
    };
    let found = match &value.kind {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(number) if *number < 0 => "a negative number",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => {
            "a number"
        }
        ValueKind::Float(_) => "a fraction",
        ValueKind::String(_) => "a string",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    };
    Err(Flaw::new(key, Problem::Kind { expected, found }))
}

/// Describes an unknown key by the nearest one of its section, or by the section where there is one of that name.
fn unknown(key: &str, name: &str, section: &Json, schema: &Json) -> Flaw {
    let names: Vec<&str> = section
        .as_object()
        .into_iter()
        .flat_map(|section| section.keys().map(String::as_str))
        .collect();
    let nearest = names
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, name), *known))
        .min()
        .filter(|(distance, known)| distance * SUGGESTION_DISTANCE_PART <= known.len());
    let mut elsewhere = Vec::new();
    add_keys("", schema, &mut elsewhere);
    let elsewhere = elsewhere
        .into_iter()
        .find(|key| key.rsplit('.').next() == Some(name));
    let suggestion = match (nearest, elsewhere) {
        (Some((_, known)), _) => format!("did you mean `{known}`?"),
        (None, Some(key)) => format!("did you mean `{key}`, in another section?"),
        (None, None) if names.is_empty() => "there is nothing below a value".to_owned(),
        (None, None) => format!("known here: {}", names.join(", ")),
    };
    Flaw::new(key, Problem::UnknownKey { suggestion })
}

/// Adds every key of a sample, without the positions in lists: `target.registry.address`.
pub(super) fn add_keys(key: &str, sample: &Json, keys: &mut Vec<String>) {
    match sample {
        Json::Object(table) => {
            for (name, below) in table {
                let key = join(key, name);
                keys.push(key.clone());
                add_keys(&key, below, keys);
            }
        }
        Json::Array(items) => items.iter().for_each(|item| add_keys(key, item, keys)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

fn flaw_of(error: &ConfigError) -> Flaw {
    let (key, text) = if let ConfigError::Type {
        unexpected,
        expected,
        key,
        ..
    } = error
    {
        (key, format!("expected {expected}, found {unexpected}"))
    } else if let ConfigError::At { error, key, .. } = error {
        (key, error.to_string())
    } else {
        (&None, error.to_string())
    };
    let key = with_dots(key.as_deref().unwrap_or_default());
    Flaw::new(key, Problem::Value(text))
}

/// Adds the dots that the `config` crate leaves out after positions in lists: `target[1]role`.
fn with_dots(key: &str) -> String {
    key.replace(']', "].")
        .replace("..", ".")
        .replace("].[", "][")
        .trim_end_matches('.')
        .to_owned()
}

/// The lines of the keys of a file.
struct Lines<'a> {
    text: &'a str,
    found: BTreeMap<String, usize>,
}

impl Lines<'_> {
    fn add_table(&mut self, key: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = join(key, name.get_ref());
            let line = line_at(self.text, name.span().start);
            self.found.insert(key.clone(), line);
            self.add_value(&key, value.get_ref());
        }
    }

    fn add_value(&mut self, key: &str, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.add_table(key, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let key = format!("{key}[{index}]");
                    let line = line_at(self.text, item.span().start);
                    self.found.insert(key.clone(), line);
                    self.add_value(&key, item.get_ref());
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }
}

fn join(key: &str, name: &str) -> String {
    if key.is_empty() {
        name.to_owned()
    } else {
        format!("{key}.{name}")
    }
}

/// Returns the line, counted from 1, of a byte of `text`.
fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    before.split(|byte| *byte == b'\n').count()
}
