//! How fast and how much at once registries are asked: before real servers that limit, stall and go away.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use rustix::process::Signal;
use serde_json::Value;
use violetd::base::{Class, Classified as _, Repository};
use violetd::registry::{
    BreakerOptions, BreakerState, Client, Error, ManifestReference, Options, PaceOptions, Transport,
};

use crate::daemon::assert_holds;
use crate::support::{
    Auth, Daemon, Images, Nginx, Package, Proxy, Scripted, Setup, Step, TestRegistry, metric,
    noise, on, within,
};

/// A breaker that opens with the third operation that finds no server.
const BREAKER: BreakerOptions = BreakerOptions {
    operations_min: 3,
    silence_min: Duration::ZERO,
    rest_first: Duration::from_millis(100),
    rest_max: Duration::from_millis(100),
};

/// nginx that passes on what comes as it comes.
fn start_nginx(upstream: SocketAddr, outside: &str, inside: &str) -> Nginx {
    let outside = format!("client_max_body_size 0; proxy_request_buffering off;\n{outside}");
    Nginx::start(upstream, &outside, inside)
}

fn repository(number: usize) -> Repository {
    format!("demo/r{number}").parse().unwrap()
}

fn v1() -> ManifestReference {
    ManifestReference::Tag("v1".parse().unwrap())
}

/// Asks for so many manifests, up to 32 at once. None of them is there, which the registry has to say.
async fn ask(client: &Client, count: usize) {
    let questions = futures_util::stream::iter(0..count)
        .map(|number| async move { client.find_manifest(&repository(number), &v1()).await });
    let mut answers = questions.buffer_unordered(32);
    while let Some(answer) = within("an answer", answers.next()).await {
        assert_eq!(answer.unwrap(), None);
    }
}

fn refused(client: &Client) -> u64 {
    let kinds = client.pace().kinds;
    kinds.iter().map(|kind| kind.refused).sum()
}

#[tokio::test]
async fn a_server_that_limits_the_rate_refuses_less_in_the_second_half() {
    let registry = TestRegistry::start(Auth::None);
    let nginx = start_nginx(
        registry.address(),
        "limit_req_zone $server_port zone=all:1m rate=50r/s; limit_req_status 429;",
        "limit_req zone=all burst=4 nodelay;",
    );
    let client = Client::new(registry.options_via(nginx.address)).unwrap();
    ask(&client, 150).await;
    let first_half = refused(&client);
    ask(&client, 150).await;
    let second_half = refused(&client) - first_half;
    assert!(first_half >= 4, "{first_half}");
    assert!(
        second_half * 2 <= first_half,
        "{first_half}, then {second_half}: {:?}",
        client.pace()
    );
}

#[tokio::test]
async fn a_server_that_takes_few_requests_at_once_gets_few() {
    let registry = TestRegistry::start(Auth::None);
    let nginx = start_nginx(
        registry.address(),
        "limit_conn_zone $server_port zone=all:1m; limit_conn_status 429;",
        "limit_conn all 2;",
    );
    let options = Options {
        pace: PaceOptions {
            concurrency_max: 32,
            ..PaceOptions::default()
        },
        ..registry.options_via(nginx.address)
    };
    let client = Client::new(options).unwrap();
    ask(&client, 300).await;
    let reads = client.pace().kinds[0];
    assert!(reads.limit < 8, "{reads:?}");
    // With 32 at once nearly each of them would be, several times.
    assert!((1..150).contains(&reads.refused), "{reads:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_of_all_requests_is_refused_and_everything_arrives() {
    let registry = TestRegistry::start(Auth::None);
    let nginx = start_nginx(
        registry.address(),
        "split_clients $request_id $refused { 33.3% 1; * 0; }",
        "if ($refused) { return 429; }",
    );
    let setup = Setup::new("none")
        .target("global-a", "primary", nginx.address, "")
        .variable("VIOLETD_REPLICATE__ATTEMPTS_MAX", "5");
    let daemon = Daemon::start(setup);
    let package = Package::small("refused");
    daemon.setup.drop_package(&package);
    let status = daemon.wait_in_sync(1);
    assert_holds(&registry, &package);
    let run = &status["targets"][0]["last_run"];
    assert_eq!(run["reason"], "package", "{status:#}");
    let kinds = status["targets"][0]["pace"]["kinds"].as_array().unwrap();
    let refused = kinds.iter().map(|kind| kind["refused"].as_u64().unwrap());
    let refused: u64 = refused.sum();
    assert!(refused > 0, "{status:#}");
    let metrics = daemon.metrics();
    let series = |kind| {
        let labels = format!("{{target=\"global-a\",role=\"primary\",kind=\"{kind}\"}}");
        metric(
            &metrics,
            &format!("violetd_target_requests_refused_total{labels}"),
        )
    };
    let counted: u64 = ["reads", "uploads", "manifests"].map(series).iter().sum();
    assert_eq!(counted, refused, "{metrics}");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_stands_still_for_a_while_gets_the_image_in_the_same_run() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let setup = Setup::new("none")
        .target("global-a", "primary", proxy.address(), "")
        .variable("VIOLETD_REPLICATE__ATTEMPTS_MAX", "20")
        .variable("VIOLETD_REPLICATE__IDLE_TIMEOUT", "500ms")
        .variable("VIOLETD_LOG__LEVEL", "debug");
    let daemon = Daemon::start(setup);
    let mut images = Images::default();
    images.add("demo/still", "v1", &[noise(1, 32_000_000)]);
    let package = Package::operator("still", images);
    daemon.setup.drop_package(&package);
    proxy.wait_for_uploaded_bytes(1).await;
    registry.signal(Signal::STOP);
    daemon.wait_for_log("no progress for 0.5 s");
    registry.signal(Signal::CONT);
    let status = daemon.wait_in_sync(1);
    assert_holds(&registry, &package);
    let run = &status["targets"][0]["last_run"];
    assert_eq!(run["reason"], "package", "{status:#}");
    assert!(run["counts"]["retries"].as_u64() > Some(0), "{status:#}");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_on_bytes_per_second_holds_and_can_be_lifted_in_the_middle_of_an_upload() {
    let registry = TestRegistry::start(Auth::None);
    let proxy = Proxy::start(registry.address());
    let keys = "registry.bandwidth_max = 1\n";
    let setup = Setup::new("none")
        .target("global-a", "primary", proxy.address(), keys)
        // Who waits for the limit does not stand still.
        .variable("VIOLETD_REPLICATE__IDLE_TIMEOUT", "400ms");
    let daemon = Daemon::start(setup);
    let mut images = Images::default();
    images.add(
        "demo/limited",
        "v1",
        &[noise(1, 1_000_000), noise(2, 1_000_000)],
    );
    let package = Package::operator("limited", images);
    daemon.setup.drop_package(&package);
    proxy.wait_for_uploaded_bytes(3).await;
    let uploaded = proxy.uploaded_bytes();
    let status = daemon.status();
    let pace = |status: &Value| status["targets"][0]["pace"].clone();
    let passed = pace(&status)["passed_bytes"].as_u64().unwrap();
    assert!(
        uploaded <= passed && passed < 10_000,
        "{uploaded} of {passed}"
    );
    assert_eq!(pace(&status)["bandwidth_max"], 1);
    assert!(status["targets"][0]["running"].is_object(), "{status:#}");

    let limit = |limit| daemon.setup.run(&["limit", "global-a", limit]);
    let said = limit("2B");
    assert_eq!(
        String::from_utf8(said.stderr).unwrap(),
        "global-a: at most 2 B per second\n"
    );
    let shown = daemon.setup.run(&["targets"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("global-a: at most 2 B per second\n"),
        "{shown}"
    );
    assert!(limit("none").status.success());
    let status = daemon.wait_in_sync(1);
    assert_holds(&registry, &package);
    assert_eq!(pace(&status)["bandwidth_max"], Value::Null);
    let counts = &status["targets"][0]["last_run"]["counts"];
    assert_eq!(counts["retries"], 0, "{status:#}");
    assert!(
        pace(&status)["passed_bytes"].as_u64() >= Some(2_000_000),
        "{status:#}"
    );

    // The configuration says what holds after a restart.
    let daemon = Daemon::start(daemon.stop());
    assert_eq!(pace(&daemon.status())["bandwidth_max"], 1);
    daemon.stop();
}

#[test]
fn a_limit_for_nobody_and_one_of_nothing_are_refused() {
    let registry = TestRegistry::start(Auth::None);
    let setup = Setup::new("none").target("global-a", "primary", registry.address(), "");
    let daemon = Daemon::start(setup);
    let refused = daemon.setup.run(&["limit", "global-z", "1MB"]);
    let words = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(66), "{words}");
    assert_eq!(
        words,
        "error: no target `global-z`\nhint: use one of: global-a\n"
    );
    let refused = daemon.setup.run(&["limit", "global-a", "0"]);
    assert_eq!(refused.status.code(), Some(64), "{refused:?}");
    daemon.stop();
}

fn options_with_breaker(options: Options) -> Options {
    let mut options = Options {
        pace: PaceOptions {
            breaker: BREAKER,
            ..PaceOptions::default()
        },
        ..options
    };
    options.retries.attempts_max = 1;
    options
}

#[tokio::test]
async fn a_server_that_is_gone_is_asked_a_few_times_and_not_for_each_image() {
    // Nobody listens there.
    let address = TcpListener::bind("127.0.0.9:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let options = Options::new(address.to_string(), Transport::Http);
    let mut options = options_with_breaker(options);
    options.pace.breaker.rest_first = Duration::from_hours(1);
    let client = Client::new(options).unwrap();
    let mut resting = 0;
    for number in 0..10_000 {
        let error = client.find_manifest(&repository(number), &v1()).await;
        let error = error.unwrap_err();
        assert_eq!(error.class(), Class::Transient);
        resting += usize::from(matches!(error, Error::Resting { .. }));
    }
    assert_eq!(resting, 10_000 - BREAKER.operations_min);
    assert_eq!(client.counters().requests, BREAKER.operations_min as u64);
    assert!(matches!(client.pace().breaker, BreakerState::Resting(_)));
}

/// Answers as a registry does that does not have it, and as no other server.
fn absent(step: Step) -> Step {
    step.answer(404)
        .header("docker-distribution-api-version", "registry/2.0")
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_by_one_request() {
    let find = |number| format!("/v2/demo/r{number}/manifests/v1");
    let mut script: Vec<_> = (0..3)
        .map(|number| on("HEAD", find(number)).hang_up())
        .collect();
    script.extend((3..5).map(|number| absent(on("HEAD", find(number)))));
    let server = Scripted::start(script).await;
    let client = Client::new(options_with_breaker(server.options())).unwrap();
    for number in 0..3 {
        let error = client.find_manifest(&repository(number), &v1()).await;
        assert!(matches!(error, Err(Error::Cut { .. })), "{error:?}");
    }
    let until_found = async {
        loop {
            match client.find_manifest(&repository(3), &v1()).await {
                Err(Error::Resting { .. }) => tokio::task::yield_now().await,
                found => break found,
            }
        }
    };
    assert_eq!(within("the probe", until_found).await.unwrap(), None);
    assert_eq!(client.pace().breaker, BreakerState::Closed);
    let found = client.find_manifest(&repository(4), &v1()).await;
    assert_eq!(found.unwrap(), None);
    server.finish();
}

#[tokio::test]
async fn one_image_that_always_fails_is_no_outage() {
    let bad = || on("HEAD", "/v2/demo/r0/manifests/v1").answer(500);
    let mut script: Vec<_> = (0..12).map(|_| bad()).collect();
    script.push(absent(on("HEAD", "/v2/demo/r1/manifests/v1")));
    let server = Scripted::start(script).await;
    let mut options = options_with_breaker(server.options());
    options.retries.attempts_max = 4;
    let client = Client::new(options).unwrap();
    for _ in 0..3 {
        let error = client.find_manifest(&repository(0), &v1()).await;
        assert!(matches!(error, Err(Error::Busy { .. })), "{error:?}");
    }
    let found = client.find_manifest(&repository(1), &v1()).await;
    assert_eq!(found.unwrap(), None);
    server.finish();
}

#[tokio::test]
async fn a_retry_after_holds_back_every_request_to_that_registry() {
    let find = || on("HEAD", "/v2/demo/r0/manifests/v1");
    let server = Scripted::start(vec![
        find().answer(429).header("retry-after", "1"),
        absent(find()),
        absent(find()),
    ])
    .await;
    let client = Client::new(server.options()).unwrap();
    let start = Instant::now();
    let find = || async { client.find_manifest(&repository(0), &v1()).await.unwrap() };
    let second = async {
        while client.pace().held_until.is_none() {
            tokio::task::yield_now().await;
        }
        find().await
    };
    let found = within("both", async { tokio::join!(find(), second) }).await;
    assert_eq!(found, (None, None));
    assert!(start.elapsed() >= Duration::from_secs(1));
    server.finish();
}
