//! Patterns that choose packages by name.

use std::str::FromStr;

use thiserror::Error;

use super::PackageName;
use super::text::text_value;

/// A pattern of package names: `*` stands for any characters, also none, and `?` for one. `redis-*`
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamePattern(String);

text_value!(NamePattern);

/// A string that is no pattern of names.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("expected a pattern of letters, digits, `-`, `_`, `.`, `*` and `?`")]
pub struct ParseNamePatternError;

impl FromStr for NamePattern {
    type Err = ParseNamePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_good = !text.is_empty()
            && text.bytes().all(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'*' | b'?')
            });
        is_good
            .then(|| Self(text.to_owned()))
            .ok_or(ParseNamePatternError)
    }
}

impl NamePattern {
    /// Returns whether the whole of `name` fits.
    pub fn matches(&self, name: &PackageName) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_str().as_bytes());
        let (mut at, mut position) = (0, 0);
        // Where to go on when the characters after the last star turn out not to fit: the star takes one more.
        let mut retry: Option<(usize, usize)> = None;
        while position < name.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    retry = Some((at + 1, position));
                    at += 1;
                }
                Some(byte) if *byte == b'?' || *byte == name[position] => {
                    at += 1;
                    position += 1;
                }
                _ => {
                    let Some((after_star, taken)) = retry else {
                        return false;
                    };
                    retry = Some((after_star, taken + 1));
                    (at, position) = (after_star, taken + 1);
                }
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        let pattern: NamePattern = pattern.parse().unwrap();
        pattern.matches(&name.parse().unwrap())
    }

    /// The definition, in exponential time.
    fn defined(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| defined(rest, &name[skip..])),
            (None, Some(_)) | (Some(_), None) => false,
            (Some((first, pattern)), Some((byte, name))) => {
                (*first == b'?' || first == byte) && defined(pattern, name)
            }
        }
    }

    #[test]
    fn accepts_and_refuses() {
        assert!(matches("*", "redis"));
        assert!(matches("redis-*", "redis-operator"));
        assert!(!matches("redis-*", "redis"));
        assert!(matches("r?d*s", "redis"));
        for bad in ["", "a b", "[ab]", "{a,b}", "!a", "a/b"] {
            assert_eq!(bad.parse::<NamePattern>(), Err(ParseNamePatternError));
        }
    }

    proptest! {
        #[test]
        fn matching_follows_the_definition(pattern in "[ab*?]{1,8}", name in "[ab]{1,10}") {
            prop_assert_eq!(
                matches(&pattern, &name),
                defined(pattern.as_bytes(), name.as_bytes())
            );
        }
    }
}
