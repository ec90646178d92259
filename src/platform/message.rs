//! What a server says when it refuses.
//!
//! # Format
//!
//! Kubernetes answers with a `Status` object, the login with `{"reason": …}` or `{"error": …}`, proxies in HTML or
//! plain text, and some with nothing at all. All of it becomes one short printable line.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::transport::Message;

/// The longest message that is shown, in characters. Chosen for two or three lines on a terminal.
const MESSAGE_CHARACTERS_MAX: usize = 400;

/// Returns the part of a text that is shown.
pub(super) fn message_of(text: &str) -> Message {
    Message::new(text, MESSAGE_CHARACTERS_MAX)
}

/// Reads the body of a refusal. Whatever it is, it becomes a message.
pub(super) fn message_of_body(body: &[u8]) -> Message {
    let Ok(document) = serde_json::from_slice::<Value>(body) else {
        return Message::of_page(body, MESSAGE_CHARACTERS_MAX);
    };
    let find = |pointers: &[&str]| {
        pointers
            .iter()
            .filter_map(|pointer| document.pointer(pointer)?.as_str())
            .find(|words| !words.is_empty())
    };
    let message = find(&["/message", "/error/message", "/error_description"]);
    // Of a `Status`, the message says it all; elsewhere only the reason is sure to be words of a fixed set.
    let reason = find(&["/reason", "/error/reason", "/error"])
        .filter(|_| document["kind"] != "Status" || message.is_none());
    match (reason, message) {
        (Some(reason), Some(message)) => message_of(&format!("{reason}: {message}")),
        (Some(words), None) | (None, Some(words)) => message_of(words),
        (None, None) => Message::default(),
    }
}

/// Another manager's fields that an apply would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldConflict {
    /// The manager, as `metadata.managedFields` names it.
    pub manager: String,
    /// Paths such as `.spec.registry`, in the order of the answer.
    pub fields: Vec<String>,
}

impl fmt::Display for FieldConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` manages {}", self.manager, self.fields.join(", "))
    }
}

/// A Kubernetes `Status` (meta/v1), as far as it decides anything.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default)]
    name: String,
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Debug, Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    field: String,
}

impl Status {
    /// Reads a body; what is no `Status` is an empty one.
    pub(super) fn parse(body: &[u8]) -> Self {
        serde_json::from_slice(body)
            .ok()
            .filter(|status: &Self| status.kind == "Status")
            .unwrap_or_default()
    }

    /// Returns whether the answer is about the object with this name, and not about its kind or its cluster.
    pub(super) fn names(&self, object: &str) -> bool {
        self.details.name == object
    }

    /// Returns who manages fields that an apply would have changed, by manager.
    pub(super) fn conflicts(&self) -> Vec<FieldConflict> {
        let mut conflicts: Vec<FieldConflict> = Vec::new();
        for cause in &self.details.causes {
            if cause.reason != "FieldManagerConflict" {
                continue;
            }
            // `conflict with "<manager>" using app.alauda.io/v1alpha1 at …`
            let manager = cause.message.split('"').nth(1).unwrap_or("unknown");
            let field = message_of(&cause.field).as_str().to_owned();
            let manager = message_of(manager).as_str().to_owned();
            match conflicts.iter_mut().find(|known| known.manager == manager) {
                Some(known) => known.fields.push(field),
                None => conflicts.push(FieldConflict {
                    manager,
                    fields: vec![field],
                }),
            }
        }
        conflicts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refusals_become_one_line() {
        for (body, expected) in [
            (
                r#"{"kind":"Status","message":"artifacts \"x\" not found","reason":"NotFound"}"#,
                r#" (artifacts "x" not found)"#,
            ),
            (r#"{"reason":"PasswordExpired"}"#, " (PasswordExpired)"),
            (
                r#"{"reason":"PasswordExpired","message":"too old"}"#,
                " (PasswordExpired: too old)",
            ),
            (r#"{"error":{"reason":"x"}}"#, " (x)"),
            (r#"{"error":"x"}"#, " (x)"),
            ("{}", ""),
            ("[1]", ""),
            ("", ""),
            (
                "<html><head><title>502 Bad\r\nGateway</title>",
                " (502 Bad Gateway)",
            ),
            ("no\u{1b}[31m colour", " (no [31m colour)"),
        ] {
            assert_eq!(
                message_of_body(body.as_bytes()).to_string(),
                expected,
                "body: {body}"
            );
        }
    }

    #[test]
    fn conflicts_are_grouped_by_manager() {
        let body = r#"{"kind":"Status","details":{"name":"x","causes":[
            {"reason":"FieldManagerConflict","message":"conflict with \"kubectl\" using app.alauda.io/v1alpha1","field":".spec.registry"},
            {"reason":"FieldManagerConflict","message":"conflict with \"console\"","field":".spec.type"},
            {"reason":"FieldManagerConflict","message":"conflict with \"kubectl\"","field":".spec.present"},
            {"reason":"Other"}]}}"#;
        let status = Status::parse(body.as_bytes());
        let found: Vec<String> = status.conflicts().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "`kubectl` manages .spec.registry, .spec.present",
                "`console` manages .spec.type"
            ]
        );
        assert!(status.names("x") && !status.names("y"));
        assert!(
            Status::parse(br#"{"details":{"name":"x"}}"#)
                .details
                .name
                .is_empty()
        );
    }

    proptest! {
        #[test]
        fn messages_are_short_and_printable(body in prop::collection::vec(any::<u8>(), 0..2000)) {
            let message = message_of_body(&body);
            prop_assert!(message.as_str().chars().count() <= MESSAGE_CHARACTERS_MAX);
            prop_assert!(!message.as_str().contains(char::is_control));
            let _ = Status::parse(&body);
        }
    }
}
