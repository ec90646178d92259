//! Printing: data to standard output, words to standard error.
#![expect(clippy::print_stderr, reason = "this is the file that prints")]

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use chrono::TimeDelta;
use serde::Serialize;

use super::{Failure, exit_code};
use crate::base::Class;

/// Prints data for people.
pub(super) fn data(text: impl Display) {
    let mut text = text.to_string();
    if !text.ends_with('\n') && !text.is_empty() {
        text.push('\n');
    }
    write(&text);
}

/// Prints data for programs.
pub(super) fn json(value: &impl Serialize) {
    let mut text = serde_json::to_string_pretty(value).expect("views can be written as JSON");
    text.push('\n');
    write(&text);
}

/// Writes data. Whoever reads it may have seen enough (`violetd packages | head`): that is no failure, and any other is
/// said where words go.
fn write(text: &str) {
    let written = std::io::stdout().write_all(text.as_bytes());
    if let Err(error) = written
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        eprintln!("error: failed to write to standard output: {error}");
    }
}

/// Prints words.
pub(super) fn note(text: impl Display) {
    eprintln!("{text}");
}

/// Prints why a command failed.
pub(super) fn failure(failure: &Failure) {
    eprintln!("error: {:#}", failure.error);
    if let Some(hint) = &failure.hint {
        eprintln!("hint: {hint}");
    }
}

/// Prints what is wrong with the command line, or the help that was asked for.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let is_help = !error.use_stderr();
    // Nobody is left to tell if this fails.
    let _ = error.print();
    if is_help {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit_code(Class::Usage))
    }
}

/// Lays out rows in columns of equal width, two spaces apart.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Prints a span of time with its largest unit: `3 min`.
pub(super) fn span(span: TimeDelta) -> String {
    let seconds = span.num_seconds().max(0);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up_and_end_without_blanks() {
        let rows = [["NAME", "STATE"], ["a-long-name", "ok"]];
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(ToString::to_string).collect())
            .collect();
        assert_eq!(table(&rows), "NAME         STATE\na-long-name  ok\n");
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn spans_have_one_unit() {
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7200, "2 h"),
            (400_000, "4 d"),
        ] {
            assert_eq!(span(TimeDelta::seconds(seconds)), text);
        }
    }
}
