//! The platform client against a platform that is as strict as the facts.

mod failures;
mod fake;
mod login;
mod resources;
mod verdicts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use violetd::base::{Chain, Class, Classified as _, Secret, SystemClock};
use violetd::platform::{
    Acp, AcpOptions, Applied, Auth, ClusterName, Conflicts, Error, LoginProblem, Observed,
    OperatorInfo, Password, Platform, Resource, Retries, Timeouts, Verdict, Verification,
    operator_resources, plugin_resource,
};

use crate::support::fake_acp::{ArtifactVerdict, Failure, FakeAcp, PASSWORD, USERNAME, Watches};
use crate::support::module_plugin;

const ARTIFACT: &str = "redis-operator";
const VERSION: &str = "redis-operator.v4.2.0";
/// Longer than any test takes.
const LONG: Duration = Duration::from_mins(1);

fn password(password: &str) -> Auth {
    Auth::Password(Password::new(
        USERNAME.to_owned(),
        Secret::new(password.to_owned()),
    ))
}

fn token(fake: &FakeAcp) -> Auth {
    Auth::Token(Secret::new(fake.api_token()))
}

/// Returns options with pauses that tests can afford.
fn options(fake: &FakeAcp, auth: Auth) -> AcpOptions {
    AcpOptions {
        retries: Retries {
            backoff_first: Duration::from_millis(1),
            backoff_max: Duration::from_millis(5),
            ..Retries::default()
        },
        timeouts: Timeouts {
            poll: Duration::from_millis(5),
            failed_grace: Duration::ZERO,
            ..Timeouts::default()
        },
        ..AcpOptions::new(fake.address(), auth)
    }
}

fn connect(options: AcpOptions) -> Platform {
    Platform::Acp(Acp::new(options, Arc::new(SystemClock)).unwrap())
}

/// Starts a platform and a client with a token.
async fn start() -> (FakeAcp, Platform) {
    let fake = FakeAcp::start().await;
    let platform = connect(options(&fake, token(&fake)));
    (fake, platform)
}

/// Returns the `Artifact` and the `ArtifactVersion` of an operator on one cluster.
fn operator(cluster: &str) -> [Resource; 2] {
    let info = OperatorInfo {
        name: ARTIFACT.parse().unwrap(),
        display_name: "Redis".to_owned(),
        description: "Redis operator".to_owned(),
        registry: "registry.example:11443".to_owned(),
        repository: "middleware/redis-operator-bundle".parse().unwrap(),
        tag: "v4.2.0".parse().unwrap(),
        catalog_source: "platform".to_owned(),
        image_pull_secrets: vec!["pull".to_owned()],
    };
    let resources = operator_resources(&info, &[cluster.parse().unwrap()]).unwrap();
    resources.try_into().unwrap()
}

fn plugin() -> Resource {
    let mut document = module_plugin();
    document["spec"]["config"] = json!({"any": [{"thing": 1}]});
    plugin_resource(&document).unwrap()
}

async fn apply_all(platform: &Platform, resources: &[Resource]) {
    for resource in resources {
        platform.apply(resource).await.unwrap();
    }
}

fn failed(verdict: Verdict) -> String {
    let Verdict::Failed { message } = verdict else {
        panic!("expected a failure, found {verdict:?}");
    };
    message
}
