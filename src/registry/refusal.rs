//! What a registry says when it refuses: a status, error codes, a message.
//!
//! # Format
//!
//! `{"errors": [{"code": "NAME_UNKNOWN", "message": "...", "detail": ...}]}`; but proxies before a registry answer in
//! HTML or plain text, and some in nothing at all.
//!
//! # References
//!
//! OCI distribution-spec v1.1.0, "Error Codes".

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::error::{Error, User};
use crate::base::Digest;
use crate::transport::{Action, Message};

/// The most that is read of the body of a refusal, in bytes. Real ones have a few hundred.
pub(super) const BODY_BYTES_MAX: usize = 64 << 10;
/// The longest message that is shown, in characters. Chosen for a line or two on a terminal.
const MESSAGE_CHARACTERS_MAX: usize = 300;

/// A refusal, read from the body of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    codes: Vec<String>,
    /// The digests in its details.
    digests: BTreeSet<Digest>,
    pub(super) message: Message,
}

#[derive(Deserialize)]
struct Document {
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    detail: serde_json::Value,
}

impl Refusal {
    /// Reads the body of a refusal. Whatever it is, it becomes a message.
    pub(super) fn parse(body: &[u8]) -> Self {
        if let Ok(document) = serde_json::from_slice::<Document>(body) {
            let texts: Vec<String> = document.errors.iter().map(Entry::text).collect();
            return Self {
                message: Message::new(&texts.join("; "), MESSAGE_CHARACTERS_MAX),
                digests: document.errors.iter().filter_map(Entry::digest).collect(),
                codes: document
                    .errors
                    .into_iter()
                    .map(|entry| entry.code)
                    .collect(),
            };
        }
        Self {
            codes: Vec::new(),
            digests: BTreeSet::new(),
            message: Message::of_page(body, MESSAGE_CHARACTERS_MAX),
        }
    }

    /// Returns whether the registry gave this error code.
    pub(super) fn has(&self, code: &str) -> bool {
        self.codes.iter().any(|found| found == code)
    }

    /// Returns the error for an answer that is not the expected one.
    pub(super) fn into_error(
        self,
        action: Action,
        status: u16,
        user: User,
        retry_after: Option<Duration>,
    ) -> Error {
        let message = self.message.clone();
        match status {
            // docker-registry 2.8 says so with a 500 where it also refuses the URLs of a layer.
            500 if self.has("MANIFEST_BLOB_UNKNOWN") => Error::ManifestBlobUnknown {
                action,
                message,
                missing: self.digests,
            },
            408 | 429 | 500 | 502 | 503 | 504 => Error::Busy {
                action,
                status,
                retry_after,
                message,
            },
            401 => Error::Denied {
                address: action.address().to_owned(),
                user,
                message,
            },
            403 => Error::Forbidden {
                action,
                user,
                message,
            },
            405 => Error::ReadOnly { action, message },
            413 => Error::TooLarge { action, message },
            416 => Error::SessionLost { action, message },
            _ if self.has("BLOB_UPLOAD_UNKNOWN") || self.has("BLOB_UPLOAD_INVALID") => {
                Error::SessionLost { action, message }
            }
            _ if self.has("MANIFEST_BLOB_UNKNOWN")
                // Some say so of a child that an index names. Of the manifest that is asked for it comes with 404.
                || (status != 404 && self.has("MANIFEST_UNKNOWN")) =>
            {
                Error::ManifestBlobUnknown {
                    action,
                    message,
                    missing: self.digests,
                }
            }
            _ if self.has("MANIFEST_INVALID") => Error::ManifestInvalid { action, message },
            _ if self.has("DIGEST_INVALID") => Error::DigestRefused { action, message },
            404 if self.has("NAME_UNKNOWN") => Error::RepositoryUnknown { action },
            404 => Error::Absent { action, message },
            _ if is_plain_request_to_tls(status, message.as_str()) => Error::TlsServer {
                address: action.address().to_owned(),
            },
            _ => Error::Status {
                action,
                status,
                message,
            },
        }
    }
}

/// Returns whether this is how the servers of Go and nginx answer plain HTTP where they expect TLS.
fn is_plain_request_to_tls(status: u16, message: &str) -> bool {
    status == 400
        && (message.contains("HTTP request to an HTTPS server")
            || message.contains("plain HTTP request was sent to HTTPS port"))
}

impl Entry {
    /// Returns the digest in the detail: distribution gives it alone, others in a field.
    fn digest(&self) -> Option<Digest> {
        let text = self
            .detail
            .as_str()
            .or_else(|| self.detail["digest"].as_str());
        text?.parse().ok()
    }

    fn text(&self) -> String {
        let mut text = match (self.code.as_str(), self.message.as_str()) {
            (code, "") => code.to_owned(),
            ("", message) => message.to_owned(),
            (code, message) => format!("{code}: {message}"),
        };
        let detail = match &self.detail {
            serde_json::Value::String(detail) => detail.clone(),
            detail @ (serde_json::Value::Object(_) | serde_json::Value::Array(_)) => {
                detail.to_string()
            }
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {
                String::new()
            }
        };
        if !detail.is_empty() {
            text.push_str(": ");
            text.push_str(&detail);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::{Class, Classified as _};

    fn error_of(status: u16, body: &str) -> Error {
        let action = Action::new("send it".to_owned(), "registry.example");
        Refusal::parse(body.as_bytes()).into_error(action, status, User(None), None)
    }

    #[test]
    fn refusals_become_one_line() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry","detail":{"name":"a"}}]}"#,
                r#" (NAME_UNKNOWN: repository name not known to registry: {"name":"a"})"#,
            ),
            (
                r#"{"errors":[{"code":"A","message":"x"},{"code":"B"}]}"#,
                " (A: x; B)",
            ),
            (
                "<html>\r\n<head><title>413 Request Entity Too Large</title></head>...",
                " (413 Request Entity Too Large)",
            ),
            ("no\nspace\u{1b}[31m left", " (no space [31m left)"),
            ("", ""),
        ] {
            assert_eq!(
                Refusal::parse(body.as_bytes()).message.to_string(),
                expected,
                "body: {body}"
            );
        }
    }

    #[test]
    fn missing_content_is_known_by_its_digest() {
        let digest = Digest::of(b"x");
        for (detail, expected) in [
            (format!("\"{digest}\""), BTreeSet::from([digest])),
            (
                format!("{{\"digest\":\"{digest}\"}}"),
                BTreeSet::from([digest]),
            ),
            ("\"sha512:00\"".to_owned(), BTreeSet::new()),
            ("null".to_owned(), BTreeSet::new()),
        ] {
            let body =
                format!(r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","detail":{detail}}}]}}"#);
            let Error::ManifestBlobUnknown { missing, .. } = error_of(400, &body) else {
                panic!("expected missing content: {body}");
            };
            assert_eq!(missing, expected, "{body}");
        }
    }

    #[test]
    fn statuses_and_codes_decide_the_class() {
        let body = |code: &str| format!(r#"{{"errors":[{{"code":"{code}"}}]}}"#);
        for (status, code, class) in [
            (429, "TOOMANYREQUESTS", Class::Transient),
            (500, "UNKNOWN", Class::Transient),
            (501, "", Class::Rejected),
            (401, "UNAUTHORIZED", Class::Denied),
            (403, "DENIED", Class::Denied),
            (405, "UNSUPPORTED", Class::Denied),
            (413, "", Class::Denied),
            (416, "", Class::Transient),
            (404, "BLOB_UPLOAD_UNKNOWN", Class::Transient),
            (404, "BLOB_UPLOAD_INVALID", Class::Transient),
            (404, "NAME_UNKNOWN", Class::Absent),
            (404, "MANIFEST_BLOB_UNKNOWN", Class::Absent),
            (400, "MANIFEST_BLOB_UNKNOWN", Class::Absent),
            (500, "MANIFEST_BLOB_UNKNOWN", Class::Absent),
            (400, "MANIFEST_UNKNOWN", Class::Absent),
            (400, "MANIFEST_INVALID", Class::Rejected),
            (400, "DIGEST_INVALID", Class::Corrupt),
            (418, "", Class::Rejected),
        ] {
            assert_eq!(
                error_of(status, &body(code)).class(),
                class,
                "{status} {code}"
            );
        }
    }

    #[test]
    fn a_tls_server_is_recognised_by_its_complaint() {
        for text in [
            "Client sent an HTTP request to an HTTPS server.\n",
            "<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head>",
        ] {
            assert!(matches!(error_of(400, text), Error::TlsServer { .. }));
        }
    }

    proptest! {
        #[test]
        fn messages_are_short_and_printable(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let message = Refusal::parse(&body).message;
            prop_assert!(message.as_str().chars().count() <= MESSAGE_CHARACTERS_MAX);
            prop_assert!(!message.as_str().contains(char::is_control));
        }
    }
}
