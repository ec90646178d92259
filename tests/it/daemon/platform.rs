//! Resources, which follow their images to the platform of each target.

use std::net::SocketAddr;

use super::{assert_holds, count, problems, target};
use crate::support::fake_acp::{ArtifactVerdict, FakeAcp, PASSWORD, USERNAME};
use crate::support::{Auth, Daemon, Images, Package, Setup, TestRegistry, module_plugin, noise};

const CLUSTERS: [&str; 2] = ["global", "business-1"];

/// Returns the keys of a target that publishes to this platform, on both of its clusters.
fn publishes_to(platform: &FakeAcp) -> String {
    let address = platform.address();
    let [global, business] = CLUSTERS;
    format!(
        "platform = {{kind = 'acp', address = '{address}', username = '{USERNAME}', \
         password = {{env = 'PLATFORM_PASSWORD'}}, clusters = ['{global}', '{business}'], \
         pull_registry = 'platform.example'}}"
    )
}

/// Returns what a cluster has of the package `operator`: the phase of its version, if there is one.
fn phase(platform: &FakeAcp, cluster: &str) -> Option<String> {
    platform.object(cluster, "Artifact", "operator")?;
    let version = platform.object(cluster, "ArtifactVersion", "operator.v1")?;
    Some(version["status"]["phase"].as_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_wait_for_their_images_on_each_target() {
    let (first, second) = (FakeAcp::start().await, FakeAcp::start().await);
    let primary = TestRegistry::start(Auth::None);
    let address = SocketAddr::from(([127, 0, 0, 2], 0));
    let mut standby = TestRegistry::build(Auth::None).listen(address).start();
    let setup = Setup::new("none")
        .variable("PLATFORM_PASSWORD", PASSWORD)
        .target(
            "global-a",
            "primary",
            primary.address(),
            &publishes_to(&first),
        )
        .target(
            "global-b",
            "standby",
            standby.address(),
            &publishes_to(&second),
        );
    standby.kill();
    let daemon = Daemon::start(setup);
    let package = Package::small("operator");
    daemon.setup.drop_package(&package);
    let status = daemon.wait_until("sync of one target and failure of the other", |status| {
        target(status, "global-a")["packages_in_sync"] == 1
            && !problems(status, "global-b").is_empty()
    });
    assert_holds(&primary, &package);
    assert_eq!(
        count(&status, "global-a", "resources_wanted"),
        4,
        "{status:#}"
    );
    for cluster in CLUSTERS {
        assert_eq!(
            phase(&first, cluster).as_deref(),
            Some("Present"),
            "{cluster}"
        );
        let artifact = first.object(cluster, "Artifact", "operator").unwrap();
        assert_eq!(
            artifact["spec"]["registry"], "platform.example",
            "{artifact:#}"
        );
        assert_eq!(artifact["spec"]["repository"], "operator", "{artifact:#}");
        assert!(second.object(cluster, "Artifact", "operator").is_none());
    }

    let standby = standby.resume();
    daemon.wait_in_sync(1);
    assert_holds(&standby, &package);
    for cluster in CLUSTERS {
        assert_eq!(
            phase(&second, cluster).as_deref(),
            Some("Present"),
            "{cluster}"
        );
    }
    // What is there already is neither sent nor applied again.
    let status = daemon.sync();
    for name in ["global-a", "global-b"] {
        assert_eq!(count(&status, name, "resources_applied"), 0, "{status:#}");
        assert_eq!(count(&status, name, "requests"), 1, "{status:#}");
    }
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_that_the_platform_fails_is_reported_until_it_does_not() {
    let platform = FakeAcp::start().await;
    platform.set_verdict(ArtifactVerdict::Failed("no such channel".to_owned()));
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none")
        .variable("PLATFORM_PASSWORD", PASSWORD)
        .target(
            "global-a",
            "primary",
            registry.address(),
            &publishes_to(&platform),
        );
    let daemon = Daemon::start(setup);
    let package = Package::small("operator");
    daemon.setup.drop_package(&package);
    let status = daemon.wait_until("a failure", |status| {
        !problems(status, "global-a").is_empty()
    });
    assert_holds(&registry, &package);
    assert_eq!(status["is_in_sync"], false);
    for problem in problems(&status, "global-a") {
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains("no such channel"), "{problem:#}");
    }

    platform.set_verdict(ArtifactVerdict::Present);
    daemon.wait_in_sync(1);
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_reported_and_images_are_in_place_all_the_same() {
    let package = Package::small("operator");
    let (registry, fake) = (TestRegistry::start(Auth::None), FakeAcp::start().await);
    let setup = Setup::new("none")
        .variable("PLATFORM_PASSWORD", "wrong")
        .target(
            "global-a",
            "primary",
            registry.address(),
            &publishes_to(&fake),
        );
    let daemon = Daemon::start(setup);
    daemon.setup.drop_package(&package);

    daemon.wait_until("refusal", |status| {
        let problems = problems(status, "global-a");
        problems.iter().any(|problem| problem["class"] == "denied")
    });
    assert_holds(&registry, &package);
    assert_eq!(fake.object("global", "Artifact", "operator"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_published_on_the_global_cluster_only() {
    let mut images = Images::default();
    images.add("ait/log-center", "v1.2.0", &[noise(3, 30_000)]);
    let package = Package::plugin("log-center", images, &module_plugin());
    let (registry, fake) = (TestRegistry::start(Auth::None), FakeAcp::start().await);
    let setup = Setup::new("none")
        .variable("PLATFORM_PASSWORD", PASSWORD)
        .target(
            "global-a",
            "primary",
            registry.address(),
            &publishes_to(&fake),
        );
    let daemon = Daemon::start(setup);
    daemon.setup.drop_package(&package);

    let status = daemon.wait_in_sync(1);
    assert_eq!(status["packages"][0]["kind"], "plugin");
    let plugin = fake.object("global", "ModulePlugin", "log-center").unwrap();
    assert_eq!(plugin["spec"]["mainChart"], "ait/log-center");
    assert_eq!(
        fake.object("business-1", "ModulePlugin", "log-center"),
        None
    );
}
