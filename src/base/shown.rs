//! Text that others wrote, in forms that can be shown.
//!
//! Names of files, messages of servers and fields of packages come from elsewhere. None of them may move the cursor, pass for
//! lines of ours, turn what follows around, or fill a log.

/// Returns `text` as a message quotes it: escaped as in a string literal, of at most `characters_max` characters before that.
pub fn escape(text: &str, characters_max: usize) -> String {
    text.chars()
        .take(characters_max)
        .flat_map(char::escape_debug)
        .collect()
}

/// Returns `text` as words on one line: blanks in place of control characters, of at most `characters_max` characters.
pub fn one_line(text: &str, characters_max: usize) -> String {
    text.chars()
        .take(characters_max)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Returns the whole `text` with every character that would move or turn others about written as `\u{..}`. Line feeds are
/// among them.
pub fn printable(text: &str) -> String {
    let mut printed = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || breaks_or_turns(c) {
            printed.extend(c.escape_unicode());
        } else {
            printed.push(c);
        }
    }
    printed
}

/// Marks, separators and overrides that change lines or directions (Unicode Standard Annex 9, section 2; annex 14 for the
/// separators).
const fn breaks_or_turns(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_moves_or_turns_text_is_written_out() {
        let text = "a\u{1b}[2Jb\tc\u{9b}d\ne\u{7f}\u{202e}f\u{2066}";
        assert_eq!(
            printable(text),
            "a\\u{1b}[2Jb\\u{9}c\\u{9b}d\\u{a}e\\u{7f}\\u{202e}f\\u{2066}"
        );
        assert_eq!(printable("größer `x` \"y\""), "größer `x` \"y\"");
        assert_eq!(escape("a\nb\u{202e}\"", 10), "a\\nb\\u{202e}\\\"");
        assert_eq!(one_line("a\r\nb\tc", 5), "a  b ");
    }

    proptest! {
        #[test]
        fn no_form_has_a_control_character(text in any::<String>()) {
            for shown in [printable(&text), escape(&text, 20), one_line(&text, 20)] {
                prop_assert!(!shown.contains(char::is_control), "{shown:?}");
            }
            prop_assert!(one_line(&text, 20).chars().count() <= 20);
        }
    }
}
