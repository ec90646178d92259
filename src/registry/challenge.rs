//! What a registry wants to see before it answers: the `WWW-Authenticate` header.
//!
//! # Format
//!
//! ```text
//! challenge    = scheme [ 1*SP ( token68 / param *( OWS "," OWS param ) ) ]
//! param        = token BWS "=" BWS ( token / quoted-string )
//! header value = challenge *( OWS "," OWS challenge )
//! ```
//!
//! The comma separates both parameters and challenges, so a word decides which it starts by what follows it: `=` makes
//! it a parameter. Reading is lenient: what cannot be understood ends the list, what came before it counts.
//!
//! # References
//!
//! RFC 9110, 11.3 and 11.6.1.

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The most challenges that are looked at. A registry offers one or two.
const CHALLENGES_MAX: usize = 16;

/// One way to authenticate that a server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// The scheme in lower case: `basic`, `bearer`.
    pub(super) scheme: String,
    /// Names in lower case, values without quotes.
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Returns the value of the first parameter of this name.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Returns the challenges of all `WWW-Authenticate` headers, in their order.
pub(super) fn challenges_of(headers: &HeaderMap) -> Vec<Challenge> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .take(CHALLENGES_MAX)
        .collect()
}

/// Parses one header value.
pub(super) fn parse(text: &str) -> Vec<Challenge> {
    let mut cursor = Cursor(text);
    let mut challenges: Vec<Challenge> = Vec::new();
    while challenges.len() <= CHALLENGES_MAX {
        cursor.skip(|c| c == ',' || is_space(c));
        let Some(word) = cursor.token() else {
            break;
        };
        cursor.skip(is_space);
        let value = if cursor.eat('=') {
            cursor.skip(is_space);
            cursor.value()
        } else {
            None
        };
        match (value, challenges.last_mut()) {
            (Some(value), Some(challenge)) => challenge
                .parameters
                .push((word.to_ascii_lowercase(), value)),
            // A parameter of nothing.
            (Some(_), None) => break,
            (None, _) => challenges.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                parameters: Vec::new(),
            }),
        }
    }
    challenges
}

/// The rest of a header value.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn skip(&mut self, is_skipped: impl Fn(char) -> bool) {
        self.0 = self.0.trim_start_matches(is_skipped);
    }

    fn eat(&mut self, c: char) -> bool {
        let rest = self.0.strip_prefix(c);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    /// Takes a token, which is not empty.
    fn token(&mut self) -> Option<&'a str> {
        let end = self
            .0
            .find(|c| !is_token_character(c))
            .unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// Takes a token or a quoted string. An unfinished quoted string ends with the text.
    fn value(&mut self) -> Option<String> {
        if !self.eat('"') {
            return self.token().map(str::to_owned);
        }
        let mut value = String::new();
        let mut characters = self.0.chars();
        while let Some(c) = characters.next() {
            match c {
                '"' => break,
                '\\' => value.extend(characters.next()),
                c => value.push(c),
            }
        }
        self.0 = characters.as_str();
        Some(value)
    }
}

const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// RFC 9110, 5.6.2, and `/` and `:`, because servers forget the quotes around URLs.
const fn is_token_character(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(
            c,
            '!' | '#'
                | '$'
                | '%'
                | '&'
                | '\''
                | '*'
                | '+'
                | '-'
                | '.'
                | '^'
                | '_'
                | '`'
                | '|'
                | '~'
                | '/'
                | ':'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        Challenge {
            scheme: scheme.to_owned(),
            parameters: parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn challenges_seen_in_the_field() {
        for (text, expected) in [
            (
                r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
                vec![challenge(
                    "bearer",
                    &[
                        ("realm", "https://auth.example/token"),
                        ("service", "registry.example"),
                        ("scope", "repository:a/b:pull,push"),
                    ],
                )],
            ),
            (
                r#"Bearer realm="/auth/token", service="token-service""#,
                vec![challenge(
                    "bearer",
                    &[("realm", "/auth/token"), ("service", "token-service")],
                )],
            ),
            (
                "BASIC realm=registry",
                vec![challenge("basic", &[("realm", "registry")])],
            ),
            (
                r#"Basic realm="a, b=\"c\"", Bearer realm=http://auth.example/t , service = s"#,
                vec![
                    challenge("basic", &[("realm", r#"a, b="c""#)]),
                    challenge(
                        "bearer",
                        &[("realm", "http://auth.example/t"), ("service", "s")],
                    ),
                ],
            ),
            (
                "Negotiate, Basic realm=x",
                vec![
                    challenge("negotiate", &[]),
                    challenge("basic", &[("realm", "x")]),
                ],
            ),
            ("realm=x", vec![]),
            ("", vec![]),
            (
                r#"Bearer realm="open"#,
                vec![challenge("bearer", &[("realm", "open")])],
            ),
        ] {
            assert_eq!(parse(text), expected, "input: {text}");
        }
    }

    #[test]
    fn several_headers_are_several_challenges() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=x"));
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=y"));
        let schemes: Vec<_> = challenges_of(&headers)
            .into_iter()
            .map(|challenge| challenge.scheme)
            .collect();
        assert_eq!(schemes, ["basic", "bearer"]);
    }

    proptest! {
        #[test]
        fn quoted_parameters_round_trip(
            parameters in proptest::collection::vec(("[a-z]{1,8}", "[ -~]{0,20}"), 0..5),
        ) {
            let list: Vec<String> = parameters
                .iter()
                .map(|(name, value)| {
                    let value = value.replace('\\', r"\\").replace('"', r#"\""#);
                    format!(r#"{name}="{value}""#)
                })
                .collect();
            let expected = Challenge { scheme: "bearer".to_owned(), parameters };
            prop_assert_eq!(parse(&format!("Bearer {}", list.join(", "))), vec![expected]);
        }

        #[test]
        fn parse_never_panics_and_is_bounded(text in ".{0,400}") {
            prop_assert!(parse(&text).len() <= CHALLENGES_MAX + 1);
        }
    }
}
