//! Checks of the source text itself: layering, file size, module headers.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Hard limit on the lines of one file before its `#[cfg(test)]` module.
const FILE_LINES_MAX: usize = 600;

/// Which top-level modules a top-level module may name. Lowest layer first.
const LAYERS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("sys", &["base"]),
    ("config", &["base"]),
    ("schedule", &["base"]),
    ("task", &["base"]),
    ("package", &["base"]),
    ("verify", &["base", "package"]),
    ("store", &["base", "sys"]),
    ("catalog", &["base", "sys"]),
    ("audit", &["base", "sys"]),
    ("transport", &["base", "sys"]),
    ("registry", &["base", "sys", "transport"]),
    ("platform", &["base", "sys", "transport"]),
    (
        "build",
        &["base", "sys", "package", "transport", "registry"],
    ),
    (
        "holdings",
        &["base", "package", "store", "catalog", "registry"],
    ),
    (
        "ingest",
        &[
            "base", "sys", "task", "package", "verify", "store", "catalog", "audit",
        ],
    ),
    (
        "replicate",
        &[
            "base", "sys", "task", "store", "catalog", "registry", "platform",
        ],
    ),
    (
        "retain",
        &[
            "base", "sys", "task", "package", "store", "catalog", "audit", "registry",
        ],
    ),
    ("check", &["base", "sys", "store", "catalog", "audit"]),
    (
        "http",
        &[
            "base",
            "sys",
            "task",
            "store",
            "catalog",
            "ingest",
            "replicate",
            "retain",
            "check",
        ],
    ),
    (
        "daemon",
        &[
            "base",
            "sys",
            "config",
            "schedule",
            "task",
            "package",
            "verify",
            "store",
            "catalog",
            "audit",
            "transport",
            "registry",
            "platform",
            "build",
            "ingest",
            "replicate",
            "retain",
            "check",
            "http",
        ],
    ),
    (
        "cli",
        &[
            "base", "sys", "config", "package", "verify", "store", "catalog", "audit", "build",
            "holdings", "retain", "check", "http", "daemon",
        ],
    ),
    // Tests only.
    (
        "crash",
        &[
            "base",
            "sys",
            "task",
            "package",
            "verify",
            "store",
            "catalog",
            "audit",
            "registry",
            "ingest",
            "replicate",
            "retain",
            "check",
        ],
    ),
];

#[test]
fn tidy() {
    let mut problems = String::new();
    let mut sources = Vec::new();
    for dir in ["src", "tests", "fuzz/src", "fuzz/fuzz_targets"] {
        collect(Path::new(dir), &mut sources);
    }
    for path in &sources {
        let text = std::fs::read_to_string(path).unwrap();
        for (line, problem) in check(path, &text) {
            writeln!(problems, "{}:{line}: {problem}", path.display()).unwrap();
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}

fn collect(dir: &Path, sources: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
}

/// Returns `(line, problem)` pairs for one file.
fn check(path: &Path, text: &str) -> Vec<(usize, String)> {
    let mut problems = Vec::new();
    let production: Vec<&str> = text
        .lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .collect();

    if production.len() > FILE_LINES_MAX {
        problems.push((
            FILE_LINES_MAX,
            format!("file is {} lines long", production.len()),
        ));
    }
    if !text.starts_with("//! ") {
        problems.push((1, "file has no `//!` header".to_owned()));
    }
    if !path.starts_with("src") {
        return problems;
    }

    let module = path
        .components()
        .nth(1)
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    let module = module.trim_end_matches(".rs");
    let allowed = match LAYERS.iter().find(|(name, _)| *name == module) {
        Some((_, allowed)) => *allowed,
        None if matches!(module, "lib" | "main") => return problems,
        None => {
            problems.push((1, format!("module `{module}` is missing from LAYERS")));
            return problems;
        }
    };
    for (index, line) in production.iter().enumerate() {
        let code = line.split("//").next().unwrap();
        for rest in code.split("crate::").skip(1) {
            let target: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if target != module && !allowed.contains(&target.as_str()) {
                problems.push((
                    index + 1,
                    format!("`{module}` must not name `crate::{target}`"),
                ));
            }
        }
    }
    problems
}

#[test]
fn layers_are_ordered() {
    for (index, (module, allowed)) in LAYERS.iter().enumerate() {
        for target in *allowed {
            let below = LAYERS[..index].iter().any(|(name, _)| name == target);
            assert!(
                below,
                "`{module}` may name `{target}`, which is not below it"
            );
        }
    }
}

#[test]
fn tidy_finds_violations() {
    let problems = check(
        Path::new("src/base/mod.rs"),
        "//! Doc.\nuse crate::store::Store;\n",
    );
    assert_eq!(
        problems,
        [(2, "`base` must not name `crate::store`".to_owned())]
    );
    let problems = check(Path::new("src/base/x.rs"), "use std::fs;\n");
    assert_eq!(problems, [(1, "file has no `//!` header".to_owned())]);
}
