//! What a server says, fit to be shown.

use std::fmt;

/// What a server said, in one printable line; prints itself as ` (words)`, or as nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(String);

impl Message {
    /// Keeps one line of at most `characters_max` printable characters.
    pub fn new(text: &str, characters_max: usize) -> Self {
        let words: Vec<&str> = text
            .split(|c: char| c.is_whitespace() || c.is_control())
            .filter(|word| !word.is_empty())
            .collect();
        Self(words.join(" ").chars().take(characters_max).collect())
    }

    /// Does the same with a body in plain text or HTML. Of a page only the title is for people.
    pub fn of_page(body: &[u8], characters_max: usize) -> Self {
        let text = String::from_utf8_lossy(body);
        let title = text
            .split_once("<title>")
            .and_then(|(_, rest)| rest.split_once("</title>"))
            .map(|(title, _)| title);
        Self::new(title.unwrap_or(&text), characters_max)
    }

    /// Returns the words.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, " ({})", self.0)
    }
}
