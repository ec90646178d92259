//! Printing: data to standard output, words to standard error.
#![expect(clippy::print_stderr, reason = "this is the file that prints")]

use std::fmt::Display;
use std::io::{self, BufWriter, StdoutLock, Write as _};
use std::process::ExitCode;

use chrono::TimeDelta;
use serde::Serialize;

use super::{Failure, exit_code};
use crate::base::Class;
use crate::base::shown::printable;

/// Prints data for people.
pub(super) fn data(text: impl Display) {
    let mut text = harmless(&text.to_string());
    if !text.ends_with('\n') && !text.is_empty() {
        text.push('\n');
    }
    bytes(text.as_bytes());
}

/// Prints data for programs.
pub(super) fn json(value: &impl Serialize) {
    bytes(json_text(value).as_bytes());
}

/// Returns data for programs as it is printed.
pub(super) fn json_text(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("views can be written as JSON");
    text.push('\n');
    text
}

/// Returns data for programs on one line, without a line feed.
pub(super) fn json_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("views can be written as JSON")
}

/// Shows how far something has come, on a terminal, in place of what was shown before; nothing for an empty text.
pub(super) fn progress(text: &str) {
    // Back to the beginning of the line, and away with the rest of it (ECMA-48, EL).
    eprint!("\r{text}\x1b[K");
}

/// Prints data as it is. Whoever reads it may have seen enough (`violetd packages | head`): that is no failure, and any
/// other is said where words go.
pub(super) fn bytes(bytes: &[u8]) {
    let written = io::stdout().write_all(bytes);
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        eprintln!("error: failed to write to standard output: {error}");
    }
}

/// Prints data that is too much to be put together first.
pub(super) fn stream(
    write: impl FnOnce(&mut BufWriter<StdoutLock<'_>>) -> io::Result<()>,
) -> io::Result<()> {
    let mut output = BufWriter::new(io::stdout().lock());
    match write(&mut output).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Prints words.
pub(super) fn note(text: impl Display) {
    eprintln!("{}", harmless(&text.to_string()));
}

/// Prints why a command failed.
pub(super) fn failure(failure: &Failure) {
    note(format_args!("error: {:#}", failure.error));
    if let Some(hint) = &failure.hint {
        note(format_args!("hint: {hint}"));
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

/// Returns a text in which everything but line feeds is written out that would move the cursor, colour what follows or turn it
/// around: names of files and messages of servers come from elsewhere.
fn harmless(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(printable).collect();
    lines.join("\n")
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
            // A line feed would begin a row that nobody has given.
            line.extend(cell.chars().map(|c| if c == '\n' { ' ' } else { c }));
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
    fn control_characters_of_others_do_not_reach_a_terminal() {
        let text = "a\u{1b}[2Jb\tc\u{9b}d\ne\u{7f}";
        assert_eq!(harmless(text), "a\\u{1b}[2Jb\\u{9}c\\u{9b}d\ne\\u{7f}");
        assert_eq!(
            table(&[vec!["a\nb".to_owned(), "c".to_owned()]]),
            "a b  c\n"
        );
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
