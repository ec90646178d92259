//! Waiting for the platform's controllers to decide about an object.
//!
//! Each round looks at the object and then follows its changes by a watch; a round ends with the watch, and the next one
//! looks again, so that nothing depends on the watch. Where it is not to be had (old proxies cut or refuse it), rounds
//! are a poll.
//!
//! # States
//!
//! A `Failed` that is there on the first look may be what was left before our apply: the status does not say which
//! generation it is about. It becomes final when the grace time has passed, or when the status changes to another failure.
//!
//! # References
//!
//! Kubernetes API concepts, "Efficient detection of changes".

use std::time::Duration;

use bytes::BytesMut;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout_at};
use url::Url;

use super::Acp;
use super::object::{MODULE_CONFIGS, Place, refusal};
use super::wire::{ANSWER_BYTES_MAX, Request};
use crate::base::{Chain, Class, Classified as _};
use crate::platform::plugin::{config_name, plugin_version};
use crate::platform::verdict::{of_artifact, of_artifact_version, of_plugin};
use crate::platform::{Error, Resource, ResourceKind, Verdict};

/// What is looked at to decide about a resource.
struct Subject<'a> {
    resource: &'a Resource,
    /// The objects of the kind that carries the verdict, and the name of the one.
    collection: Place,
    name: String,
    /// The version of a plugin.
    version: &'a str,
}

/// What a look has found.
struct Look {
    /// The object that carries the verdict.
    object: Option<Value>,
    /// The `ModulePlugin`, if it is not the object itself.
    plugin: Option<Value>,
    /// From where a watch goes on.
    resource_version: String,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMetadata,
    items: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: String,
}

/// How a watch ended that decided nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The server closed it or wants a new look.
    Closed,
    /// The server does not offer it.
    Unavailable,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    object: Value,
}

/// Waits until there is a verdict on `resource`, at most `timeout`.
pub(super) async fn wait(
    acp: &Acp,
    resource: &Resource,
    timeout: Duration,
) -> Result<Verdict, Error> {
    let timeouts = acp.0.options.timeouts;
    let subject = Subject::of(resource);
    let start = Instant::now();
    let deadline = start + timeout;
    let grace = match resource.kind {
        ResourceKind::ArtifactVersion => timeouts.failed_grace.min(timeout),
        // These do not fail by their status.
        ResourceKind::Artifact | ResourceKind::ModulePlugin => Duration::ZERO,
    };
    let mut waiting = Waiting::new(start + grace);
    let mut look = subject.look(acp).await?;
    loop {
        if let Some(verdict) = waiting.judge(subject.judge(&look), look.object.as_ref()) {
            return Ok(verdict);
        }
        let round = Instant::now();
        if round >= deadline {
            return Ok(waiting.pending());
        }
        let until = waiting.round_end(round + timeouts.watch).min(deadline);
        let follow = subject.follow(acp, &look.resource_version, &mut waiting);
        match timeout_at(until, follow).await {
            Ok(Ok(Ok(verdict))) => return Ok(verdict),
            // A round is no shorter than a poll, or a server that closes at once would be asked without a pause.
            Ok(Ok(Err(ended))) => {
                if ended == Ended::Unavailable {
                    tracing::debug!(%resource, "watch not available, polling");
                }
                sleep_until((round + timeouts.poll).min(until)).await;
            }
            Ok(Err(error)) if error.class() == Class::Transient => {
                tracing::debug!(%resource, error = %Chain(&error), "watch failed");
                sleep_until((round + timeouts.poll).min(until)).await;
            }
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => {}
        }
        // The last look may end after the deadline, but not by much.
        let limit = deadline.max(Instant::now() + timeouts.connect);
        match timeout_at(limit, subject.look(acp)).await {
            Ok(found) => look = found?,
            Err(_elapsed) => return Ok(waiting.pending()),
        }
    }
}

/// What is known while nothing is decided.
struct Waiting {
    /// The failure of the first look, with the status that said so.
    leftover: Option<(Verdict, Value)>,
    /// Until when that failure may be a leftover.
    doubt_until: Instant,
    is_first: bool,
    last: String,
}

impl Waiting {
    const fn new(doubt_until: Instant) -> Self {
        Self {
            leftover: None,
            doubt_until,
            is_first: true,
            last: String::new(),
        }
    }

    /// Returns `verdict` if it is final, and remembers it otherwise.
    fn judge(&mut self, verdict: Verdict, object: Option<&Value>) -> Option<Verdict> {
        let is_first = std::mem::replace(&mut self.is_first, false);
        match &verdict {
            Verdict::Accepted => Some(verdict),
            Verdict::Pending { last } => {
                self.last.clone_from(last);
                self.leftover = None;
                None
            }
            Verdict::Failed { message } => {
                let Some(object) = object else {
                    // What is not there cannot have been left over.
                    return Some(verdict);
                };
                let status = object.get("status").cloned().unwrap_or_default();
                let is_leftover = match &self.leftover {
                    Some((_, before)) => *before == status,
                    None => is_first,
                };
                if !is_leftover || Instant::now() >= self.doubt_until {
                    return Some(verdict);
                }
                self.last.clone_from(message);
                self.leftover = Some((verdict, status));
                None
            }
        }
    }

    /// Returns when the round must end at the latest: doubts have an end.
    fn round_end(&self, end: Instant) -> Instant {
        if self.leftover.is_some() {
            end.min(self.doubt_until)
        } else {
            end
        }
    }

    fn pending(self) -> Verdict {
        match self.leftover {
            Some((failed, _)) => failed,
            None => Verdict::Pending { last: self.last },
        }
    }
}

impl<'a> Subject<'a> {
    fn of(resource: &'a Resource) -> Self {
        let kind = resource.kind;
        let version = plugin_version(&resource.body).unwrap_or_default();
        let (api, name) = match kind {
            ResourceKind::Artifact | ResourceKind::ArtifactVersion => {
                (kind.into(), resource.name.to_string())
            }
            ResourceKind::ModulePlugin => {
                (MODULE_CONFIGS, config_name(resource.name.as_str(), version))
            }
        };
        Self {
            resource,
            collection: Place::collection(&resource.cluster, api),
            name,
            version,
        }
    }

    fn url(&self, acp: &Acp) -> Url {
        let mut url = self.collection.url(&acp.0.wire);
        url.query_pairs_mut()
            .append_pair("fieldSelector", &format!("metadata.name={}", self.name));
        url
    }

    async fn look(&self, acp: &Acp) -> Result<Look, Error> {
        let action = acp
            .0
            .wire
            .action(format!("read the state of {}", self.resource));
        let request = Request::get(self.url(acp), action);
        let answer = acp.call(&request).await?;
        if answer.status != StatusCode::OK {
            return Err(refusal(&answer, request.action));
        }
        let list: List = answer.json(&request.action)?;
        let plugin = if self.resource.kind == ResourceKind::ModulePlugin {
            acp.find(&Place::of(self.resource), &self.resource.to_string())
                .await?
        } else {
            None
        };
        Ok(Look {
            object: list.items.into_iter().next(),
            plugin,
            resource_version: list.metadata.resource_version,
        })
    }

    fn judge(&self, look: &Look) -> Verdict {
        let gone = || Verdict::Failed {
            message: "the platform has deleted it".to_owned(),
        };
        match (self.resource.kind, &look.object) {
            (ResourceKind::Artifact, Some(object)) => of_artifact(object),
            (ResourceKind::ArtifactVersion, Some(object)) => of_artifact_version(object),
            (ResourceKind::Artifact | ResourceKind::ArtifactVersion, None) => gone(),
            (ResourceKind::ModulePlugin, _) if look.plugin.is_none() => gone(),
            (ResourceKind::ModulePlugin, config) => {
                of_plugin(look.plugin.as_ref(), config.as_ref(), self.version)
            }
        }
    }

    /// Follows the changes after `resource_version` until one decides, or the watch ends.
    async fn follow(
        &self,
        acp: &Acp,
        resource_version: &str,
        waiting: &mut Waiting,
    ) -> Result<Result<Verdict, Ended>, Error> {
        let timeouts = &acp.0.options.timeouts;
        let mut url = self.url(acp);
        url.query_pairs_mut()
            .append_pair("watch", "true")
            .append_pair("resourceVersion", resource_version)
            .append_pair(
                "timeoutSeconds",
                &timeouts.watch.as_secs().max(1).to_string(),
            );
        let action = acp.0.wire.action(format!("watch {}", self.resource));
        let request = Request::get(url, action);
        let grant = acp.0.session.token().await?;
        let response = acp.0.wire.open(&request, Some(&grant.token)).await?;
        match response.status() {
            StatusCode::OK => {}
            // The next look logs in again, or fails as it should.
            StatusCode::UNAUTHORIZED | StatusCode::GONE => return Ok(Err(Ended::Closed)),
            _ => return Ok(Err(Ended::Unavailable)),
        }
        let mut lines = Lines::new(response);
        while let Some(line) = lines.next(acp, &request).await? {
            let Ok(event) = serde_json::from_slice::<Event>(&line) else {
                return Ok(Err(Ended::Closed));
            };
            let verdict = match (event.kind.as_str(), self.resource.kind) {
                ("ADDED" | "MODIFIED", _) => self.judge_event(&event.object, waiting),
                // A plugin's ModuleConfig comes and goes.
                ("DELETED", ResourceKind::ModulePlugin) | ("BOOKMARK", _) => None,
                ("DELETED", _) => Some(Verdict::Failed {
                    message: "the platform has deleted it".to_owned(),
                }),
                // ERROR: the version is too old, usually.
                _ => return Ok(Err(Ended::Closed)),
            };
            if let Some(verdict) = verdict {
                return Ok(Ok(verdict));
            }
        }
        Ok(Err(Ended::Closed))
    }

    fn judge_event(&self, object: &Value, waiting: &mut Waiting) -> Option<Verdict> {
        let verdict = match self.resource.kind {
            ResourceKind::Artifact => of_artifact(object),
            ResourceKind::ArtifactVersion => of_artifact_version(object),
            ResourceKind::ModulePlugin => of_plugin(None, Some(object), self.version),
        };
        waiting.judge(verdict, Some(object))
    }
}

/// Cuts the body of a watch into lines.
struct Lines {
    response: Response,
    buffer: BytesMut,
}

impl Lines {
    fn new(response: Response) -> Self {
        Self {
            response,
            buffer: BytesMut::new(),
        }
    }

    /// Returns the next line without its end; `None` at the end of the body.
    async fn next(&mut self, acp: &Acp, request: &Request) -> Result<Option<BytesMut>, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(end + 1);
                line.truncate(end);
                return Ok(Some(line));
            }
            if self.buffer.len() > ANSWER_BYTES_MAX {
                return Err(Error::Answer {
                    action: request.action.clone(),
                    reason: format!("expected an event of at most {ANSWER_BYTES_MAX} bytes"),
                });
            }
            let piece = self.response.chunk().await;
            match piece.map_err(|error| acp.0.wire.explain(error, &request.action))? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn version(phase: &str, message: &str) -> Value {
        json!({"status": {"phase": phase, "message": message}})
    }

    /// Lets `waiting` see a version in this state.
    fn see(waiting: &mut Waiting, phase: &str, message: &str) -> Option<Verdict> {
        let object = version(phase, message);
        waiting.judge(of_artifact_version(&object), Some(&object))
    }

    fn failed(message: &str) -> Verdict {
        Verdict::Failed {
            message: message.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_doubted_only_while_it_may_be_a_leftover() {
        let start = || Waiting::new(Instant::now() + GRACE);

        let mut waiting = start();
        assert_eq!(see(&mut waiting, "Failed", "old"), None);
        assert!(waiting.round_end(Instant::now() + GRACE * 9) <= Instant::now() + GRACE);
        assert_eq!(see(&mut waiting, "Failed", "old"), None);
        assert_eq!(
            see(&mut waiting, "Failed", "new"),
            Some(failed("Failed (new)"))
        );

        let mut waiting = start();
        assert_eq!(see(&mut waiting, "Failed", "old"), None);
        assert_eq!(see(&mut waiting, "Pending", ""), None);
        assert_eq!(
            see(&mut waiting, "Failed", "old"),
            Some(failed("Failed (old)"))
        );

        let mut waiting = start();
        assert_eq!(see(&mut waiting, "Pending", ""), None);
        assert_eq!(
            see(&mut waiting, "Failed", "new"),
            Some(failed("Failed (new)"))
        );

        let mut waiting = start();
        assert_eq!(see(&mut waiting, "Failed", "old"), None);
        tokio::time::advance(GRACE).await;
        assert_eq!(
            see(&mut waiting, "Failed", "old"),
            Some(failed("Failed (old)"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubted_failure_is_what_is_left_at_the_end() {
        let mut waiting = Waiting::new(Instant::now() + GRACE);
        see(&mut waiting, "Failed", "old");
        assert_eq!(waiting.pending(), failed("Failed (old)"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_gone_is_not_doubted() {
        let mut waiting = Waiting::new(Instant::now() + GRACE);
        assert_eq!(waiting.judge(failed("gone"), None), Some(failed("gone")));
    }
}
