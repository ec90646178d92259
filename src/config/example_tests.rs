//! The example file: every key, each with its default.

use std::collections::BTreeSet;

use super::tests::parse;
use super::*;
use crate::base::Chain;

const EXAMPLE: &str = include_str!("../../config.example.toml");

/// Every key of a TOML text, without the positions in lists.
fn keys_of(text: &str) -> BTreeSet<String> {
    let table = config::Config::builder()
        .add_source(config::File::from_str(text, config::FileFormat::Toml))
        .build()
        .unwrap()
        .try_deserialize::<serde_json::Value>()
        .unwrap();
    let mut keys = Vec::new();
    document::add_keys("", &table, &mut keys);
    keys.into_iter().collect()
}

/// The example with the optional keys set as well.
fn uncommented_example() -> String {
    EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if key.starts_with(|c: char| c.is_ascii_lowercase()) => key,
            Some(_) | None => line,
        })
        .fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn example_has_every_key_and_no_other() {
    let schema = serde_json::to_value(Settings::sample()).unwrap();
    let mut known = Vec::new();
    document::add_keys("", &schema, &mut known);
    let known: BTreeSet<String> = known.into_iter().collect();
    assert!(known.len() > 60, "found {}", known.len());
    assert_eq!(keys_of(&uncommented_example()), known);
}

#[test]
fn example_states_the_defaults() {
    let required = r#"
        [[drop]]
        path = "/var/spool/violetd/drop"
        [[target]]
        name = "global-a"
        role = "primary"
        registry = { address = "registry-a.example" }
        [[target]]
        name = "global-b"
        role = "standby"
        registry = { address = "registry-a.example", connect_to = "192.0.2.20", no_auth = true }
    "#;
    assert_eq!(parse(EXAMPLE).unwrap(), parse(required).unwrap());
}

#[test]
fn example_states_every_default() {
    let defaults = Settings {
        drop: vec![settings::DropSettings::default()],
        target: vec![settings::TargetSettings::default()],
        ..Settings::default()
    };
    let mut defaults = serde_json::to_value(defaults).unwrap();
    remove_nulls(&mut defaults);
    let mut with_default = Vec::new();
    document::add_keys("", &defaults, &mut with_default);
    assert!(with_default.len() > 40, "found {}", with_default.len());
    // The second target shows only what a standby needs.
    let first_target = EXAMPLE.split("# A standby whose").next().unwrap();
    let stated = keys_of(first_target);
    for key in with_default {
        assert!(stated.contains(&key), "key: {key}");
    }
}

fn remove_nulls(value: &mut serde_json::Value) {
    if let Some(table) = value.as_object_mut() {
        table.retain(|_, below| !below.is_null());
        table.values_mut().for_each(remove_nulls);
    } else if let Some(items) = value.as_array_mut() {
        items.iter_mut().for_each(remove_nulls);
    }
}

#[test]
fn example_values_of_optional_keys_are_good() {
    // Those that exclude each other cannot all be set at once, so each is tried alone.
    let lines: Vec<&str> = EXAMPLE.lines().collect();
    let mut tried = 0;
    for (index, line) in lines.iter().enumerate() {
        let Some(key) = line
            .strip_prefix('#')
            .filter(|key| key.starts_with(|c: char| c.is_ascii_lowercase()))
        else {
            continue;
        };
        let mut changed = lines.clone();
        changed[index] = key;
        tried += 1;
        let Err(error) = parse(&changed.join("\n")) else {
            continue;
        };
        let Error::Key { problem, .. } = &error else {
            panic!("{key}: {}", Chain(&error));
        };
        assert!(
            matches!(
                **problem,
                Problem::ForeignKey(PlatformKind::None)
                    | Problem::HalfCredentials(_)
                    // Where a secret can be is shown at once.
                    | Problem::SecretSource
                    | Problem::SharedRegistry { .. }
            ),
            "{key}: {}",
            Chain(&error)
        );
    }
    assert!(tried > 15, "found {tried}");
}
