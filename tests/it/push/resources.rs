//! Resources on a platform.

use serde_json::Value;

use super::{User, report, report_of, words};
use crate::support::fake_acp::{FakeAcp, PASSWORD, USERNAME};
use crate::support::{Auth, Images, Package, TestRegistry, module_plugin, noise};

/// Adds the platform to a push.
fn on(platform: &FakeAcp, push: &mut std::process::Command) {
    push.args(["--platform-address", &platform.address()])
        .args(["--platform-username", USERNAME])
        .env("VIOLETD_PUSH_PLATFORM_PASSWORD", PASSWORD);
}

fn version(platform: &FakeAcp, cluster: &str) -> Option<Value> {
    platform.object(cluster, "ArtifactVersion", "operator.v1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_published_on_the_named_clusters_after_their_images() {
    let platform = FakeAcp::start().await;
    let registry = TestRegistry::start(Auth::None);
    let package = Package::small("operator");
    let user = User::new();
    let mut push = user.push_to(registry.address());
    on(&platform, &mut push);
    push.args(["--clusters", "global,business-1"])
        .args(["--target-catalog-source", "system"])
        .args(["--image-pull-secret", "pull"]);
    let found = report(push.arg(&package.path), 0);
    assert_eq!(found["counts"]["resources_applied"], 4, "{found:#}");
    for cluster in ["global", "business-1"] {
        let artifact = platform.object(cluster, "Artifact", "operator").unwrap();
        assert_eq!(
            artifact["spec"]["imagePullSecrets"][0], "pull",
            "{artifact:#}"
        );
        assert!(artifact.to_string().contains("system"), "{artifact:#}");
        let version = version(&platform, cluster).unwrap();
        assert_eq!(version["status"]["phase"], "Present", "{version:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_and_resources_can_be_pushed_one_after_the_other() {
    let platform = FakeAcp::start().await;
    let registry = TestRegistry::start(Auth::None);
    let package = Package::small("operator");
    let user = User::new();
    let push = |flag: &str| {
        let mut push = user.push_to(registry.address());
        on(&platform, &mut push);
        push.arg(flag).arg(&package.path);
        push
    };
    // The registry is asked, and has nothing.
    let output = push("--skip-push").output().unwrap();
    let early = report_of(&output, 66);
    assert_eq!(early["counts"]["images_failed"], 1, "{early:#}");
    assert!(words(&output).contains("hint: push the images first"));
    assert!(version(&platform, "global").is_none());

    let images = report(&mut push("--skip-crs"), 0);
    assert_eq!(images["counts"]["resources_wanted"], 0, "{images:#}");
    assert!(version(&platform, "global").is_none());

    let resources = report(&mut push("--skip-push"), 0);
    assert_eq!(resources["counts"]["resources_applied"], 2, "{resources:#}");
    assert_eq!(resources["counts"]["bytes_sent"], 0, "{resources:#}");
    assert!(version(&platform, "global").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_is_published_without_a_registry_where_its_images_are_said_to_be_there() {
    let platform = FakeAcp::start().await;
    let mut images = Images::default();
    images.add("ait/log-center", "v1.2.0", &[noise(3, 1000)]);
    let package = Package::plugin("log-center", images, &module_plugin());
    let user = User::new();
    let mut push = user.push();
    on(&platform, &mut push);
    push.arg("--skip-push").arg(&package.path);
    let found = report(&mut push, 0);
    assert_eq!(found["registry"], Value::Null, "{found:#}");
    assert_eq!(found["counts"]["resources_applied"], 1, "{found:#}");
    assert!(
        platform
            .object("global", "ModulePlugin", "log-center")
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_of_the_platform_is_an_answer_of_its_own() {
    let platform = FakeAcp::start().await;
    let registry = TestRegistry::start(Auth::None);
    let package = Package::small("operator");
    let user = User::new();
    let mut push = user.push_to(registry.address());
    on(&platform, &mut push);
    push.env("VIOLETD_PUSH_PLATFORM_PASSWORD", "wrong-password");
    let output = push.arg(&package.path).output().unwrap();
    let found = report_of(&output, 77);
    assert_eq!(found["counts"]["images_pushed"], 1, "{found:#}");
    assert!(!words(&output).contains("wrong-password"), "{output:?}");
}
