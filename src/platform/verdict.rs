//! What an object on a cluster says of itself: accepted, failed, or not decided yet. Pure.
//!
//! # States
//!
//! | object | accepted | failed |
//! |---|---|---|
//! | `Artifact` | `spec.present` is true | `spec.present` is false: the platform switched it off |
//! | `ArtifactVersion` | `status.phase` is `Present` | `Failed`, `Deleted` or `Deleting` |
//! | `ModulePlugin` | its `ModuleConfig`, or its own `status.moduleConfigs[]`, says `readyForDeploy` | - |
//!
//! Neither status says which generation it is about, so a verdict may be a leftover of what was there before. `Present`
//! cannot be told from a fresh one; for `Failed` the caller waits a little (see `acp::verdict`).

use serde_json::Value;

use super::Verdict;
use super::message::message_of;
use crate::transport::Message;

/// Judges an `Artifact`.
pub(super) fn of_artifact(object: &Value) -> Verdict {
    if object.pointer("/spec/present") == Some(&Value::Bool(true)) {
        return Verdict::Accepted;
    }
    Verdict::Failed {
        message: "the platform has set `spec.present` to false".to_owned(),
    }
}

/// Judges an `ArtifactVersion`.
pub(super) fn of_artifact_version(object: &Value) -> Verdict {
    let phase = text(object, "/status/phase");
    let words = words_of(object);
    match phase {
        "Present" => Verdict::Accepted,
        "Failed" | "Deleted" | "Deleting" => Verdict::Failed {
            message: format!("{phase}{words}"),
        },
        "" => Verdict::Pending {
            last: "no status yet".to_owned(),
        },
        other => Verdict::Pending {
            last: format!("{}{words}", message_of(other).as_str()),
        },
    }
}

/// Judges a version of a `ModulePlugin` by its `ModuleConfig`, where there is one, and by its own status.
pub(super) fn of_plugin(plugin: Option<&Value>, config: Option<&Value>, version: &str) -> Verdict {
    let is_ready =
        |object: &Value, pointer: &str| object.pointer(pointer) == Some(&Value::Bool(true));
    let entry = plugin
        .and_then(|plugin| plugin.pointer("/status/moduleConfigs")?.as_array())
        .into_iter()
        .flatten()
        .find(|entry| entry.get("version").and_then(Value::as_str) == Some(version));
    if config.is_some_and(|config| is_ready(config, "/status/readyForDeploy"))
        || entry.is_some_and(|entry| is_ready(entry, "/readyForDeploy"))
    {
        return Verdict::Accepted;
    }
    let complaint = plugin.map(complaint_of).unwrap_or_default();
    let state = match (config, entry) {
        (None, None) => "no ModuleConfig yet",
        _ => "the ModuleConfig is not ready for deployment",
    };
    Verdict::Pending {
        last: format!("{state}{complaint}"),
    }
}

/// Returns reason and message of the first condition that is not met.
fn complaint_of(plugin: &Value) -> Message {
    plugin
        .pointer("/status/conditions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|condition| text(condition, "/status") == "False")
        .map(|condition| {
            message_of(&format!(
                "{}: {}",
                text(condition, "/reason"),
                text(condition, "/message")
            ))
        })
        .unwrap_or_default()
}

fn words_of(object: &Value) -> Message {
    let reason = text(object, "/status/reason");
    let message = text(object, "/status/message");
    let separator = if reason.is_empty() || message.is_empty() {
        ""
    } else {
        ": "
    };
    message_of(&format!("{reason}{separator}{message}"))
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn failed(message: &str) -> Verdict {
        Verdict::Failed {
            message: message.to_owned(),
        }
    }

    fn pending(last: &str) -> Verdict {
        Verdict::Pending {
            last: last.to_owned(),
        }
    }

    #[test]
    fn phases_decide_on_versions() {
        for (status, verdict) in [
            (
                json!({"phase": "Present", "reason": "Success"}),
                Verdict::Accepted,
            ),
            (
                json!({"phase": "Failed", "reason": "Owner", "message": "aritfactVersion not have OwnerReference"}),
                failed("Failed (Owner: aritfactVersion not have OwnerReference)"),
            ),
            (json!({"phase": "Deleting"}), failed("Deleting")),
            (json!({"phase": "unknown"}), pending("unknown")),
            (
                json!({"phase": "Pending", "message": "syncing"}),
                pending("Pending (syncing)"),
            ),
            (json!({}), pending("no status yet")),
        ] {
            assert_eq!(
                of_artifact_version(&json!({"status": status})),
                verdict,
                "{status}"
            );
        }
    }

    #[test]
    fn an_artifact_is_accepted_while_it_is_present() {
        assert_eq!(
            of_artifact(&json!({"spec": {"present": true}})),
            Verdict::Accepted
        );
        assert!(matches!(
            of_artifact(&json!({"spec": {"present": false}})),
            Verdict::Failed { .. }
        ));
    }

    #[test]
    fn a_plugin_is_accepted_by_either_witness() {
        let ready = json!({"status": {"readyForDeploy": true}});
        let not_ready = json!({"status": {"readyForDeploy": false}});
        let plugin = |version: &str, ready: bool| {
            json!({"status": {
                "moduleConfigs": [{"name": "x", "version": version, "readyForDeploy": ready}],
                "conditions": [{"status": "False", "reason": "ChartMissing", "message": "no such chart"}],
            }})
        };
        assert_eq!(of_plugin(None, Some(&ready), "v1"), Verdict::Accepted);
        assert_eq!(
            of_plugin(Some(&plugin("v1", true)), None, "v1"),
            Verdict::Accepted
        );
        assert_eq!(of_plugin(None, None, "v1"), pending("no ModuleConfig yet"));
        assert_eq!(
            of_plugin(Some(&plugin("v2", true)), Some(&not_ready), "v1"),
            pending("the ModuleConfig is not ready for deployment (ChartMissing: no such chart)")
        );
        assert_eq!(
            of_plugin(Some(&plugin("v1", false)), None, "v1"),
            pending("the ModuleConfig is not ready for deployment (ChartMissing: no such chart)")
        );
    }
}
