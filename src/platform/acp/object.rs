//! Where Kubernetes objects are behind the platform's proxy, and what a refusal of theirs means.
//!
//! # References
//!
//! Kubernetes API concepts, "Resource URIs"; API conventions, "Response Status Kind".

use url::Url;

use super::wire::{Answer, Wire};
use crate::base::ClusterName;
use crate::platform::error::Error;
use crate::platform::message::{Status, message_of_body};
use crate::platform::{Resource, ResourceKind};
use crate::transport::Action;

/// A kind of object, as paths name it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Api {
    /// Group and version: `app.alauda.io/v1alpha1`, or `v1` for the core.
    pub(super) group_version: &'static str,
    /// `None` for what is cluster-scoped.
    pub(super) namespace: Option<&'static str>,
    pub(super) plural: &'static str,
}

/// What the platform makes of a `ModulePlugin`, one for each version.
pub(super) const MODULE_CONFIGS: Api = Api {
    group_version: "cluster.alauda.io/v1alpha1",
    namespace: None,
    plural: "moduleconfigs",
};

/// The platform's own settings, the better version first.
pub(super) const PRODUCT_BASES: [Api; 2] = [
    Api {
        group_version: "product.alauda.io/v1alpha2",
        namespace: None,
        plural: "productbases",
    },
    Api {
        group_version: "product.alauda.io/v1alpha1",
        namespace: None,
        plural: "productbases",
    },
];

/// What every user of a cluster may read.
pub(super) const PUBLIC_CONFIG_MAPS: Api = Api {
    group_version: "v1",
    namespace: Some("kube-public"),
    plural: "configmaps",
};

impl From<ResourceKind> for Api {
    fn from(kind: ResourceKind) -> Self {
        Self {
            group_version: kind.api_version(),
            namespace: kind.namespace(),
            plural: kind.plural(),
        }
    }
}

/// The path of an object, a collection or an API group on one cluster.
#[derive(Clone, Debug)]
pub(super) struct Place {
    segments: Vec<String>,
    /// The object's name; `None` for anything else.
    name: Option<String>,
}

impl Place {
    /// Returns the place of the group and version of a kind.
    pub(super) fn group(cluster: &ClusterName, api: Api) -> Self {
        let is_core = !api.group_version.contains('/');
        let root = if is_core { "api" } else { "apis" };
        let segments = ["kubernetes", cluster.as_str(), root]
            .into_iter()
            .chain(api.group_version.split('/'))
            .map(str::to_owned)
            .collect();
        Self {
            segments,
            name: None,
        }
    }

    /// Returns the place of all objects of one kind, in one namespace if they have any.
    pub(super) fn collection(cluster: &ClusterName, api: Api) -> Self {
        let mut place = Self::group(cluster, api);
        if let Some(namespace) = api.namespace {
            place
                .segments
                .extend(["namespaces".to_owned(), namespace.to_owned()]);
        }
        place.segments.push(api.plural.to_owned());
        place
    }

    /// Returns the place of one object.
    pub(super) fn object(cluster: &ClusterName, api: Api, name: &str) -> Self {
        let mut place = Self::collection(cluster, api);
        place.segments.push(name.to_owned());
        place.name = Some(name.to_owned());
        place
    }

    /// Returns the place of a resource.
    pub(super) fn of(resource: &Resource) -> Self {
        Self::object(
            &resource.cluster,
            resource.kind.into(),
            resource.name.as_str(),
        )
    }

    pub(super) fn url(&self, wire: &Wire) -> Url {
        let segments: Vec<&str> = self.segments.iter().map(String::as_str).collect();
        wire.url(&segments)
    }

    /// Returns whether an answer with status 404 is about this object. One about its kind, its cluster or its path does
    /// not name it.
    pub(super) fn is_missing(&self, answer: &Answer) -> bool {
        self.name
            .as_deref()
            .is_some_and(|name| Status::parse(&answer.body).names(name))
    }
}

/// Returns the error for an answer that is not the expected one.
pub(super) fn refusal(answer: &Answer, action: Action) -> Error {
    let status = answer.status.as_u16();
    let message = message_of_body(&answer.body);
    match status {
        401 => Error::Denied { action, message },
        403 => Error::Forbidden { action, message },
        404 => Error::NotServed { action, message },
        409 => {
            let conflicts = Status::parse(&answer.body).conflicts();
            if conflicts.is_empty() {
                // Somebody changed the object at the same time: it may work the next time.
                return Error::Busy {
                    action,
                    status,
                    retry_after: None,
                    message,
                };
            }
            Error::Conflict { action, conflicts }
        }
        // 500 comes here only for a document that does not fit the schema.
        400 | 422 | 500 => Error::Invalid { action, message },
        _ => Error::Status {
            action,
            status,
            message,
        },
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;
    use crate::base::{Class, Classified as _};

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            body: body.to_owned().into(),
        }
    }

    #[test]
    fn statuses_decide_the_class() {
        let conflict = r#"{"kind":"Status","details":{"causes":[{"reason":"FieldManagerConflict",
            "message":"conflict with \"console\"","field":".spec.registry"}]}}"#;
        for (status, body, class) in [
            (401, "", Class::Denied),
            (403, "", Class::Denied),
            (404, "404 page not found", Class::Absent),
            (409, conflict, Class::Rejected),
            (409, "", Class::Transient),
            (422, "", Class::Rejected),
            (400, "", Class::Rejected),
            (302, "", Class::Rejected),
        ] {
            let action = Action::new("test".to_owned(), "platform.example");
            let error = refusal(&answer(status, body), action);
            assert_eq!(error.class(), class, "{status} {body}: {error}");
        }
    }

    #[test]
    fn a_missing_object_is_not_a_missing_kind() {
        let api = Api {
            group_version: "a/v1",
            namespace: Some("n"),
            plural: "xs",
        };
        let place = Place::object(&ClusterName::global(), api, "x");
        assert_eq!(
            place.segments.join("/"),
            "kubernetes/global/apis/a/v1/namespaces/n/xs/x"
        );
        let status = |details: &str| {
            format!(r#"{{"kind":"Status","reason":"NotFound","details":{details}}}"#)
        };
        assert!(place.is_missing(&answer(404, &status(r#"{"name":"x","kind":"xs"}"#))));
        assert!(!place.is_missing(&answer(404, &status("{}"))));
        assert!(!place.is_missing(&answer(404, "404 page not found")));
        let core = Place::group(&ClusterName::global(), PUBLIC_CONFIG_MAPS);
        assert_eq!(core.segments.join("/"), "kubernetes/global/api/v1");
    }
}
