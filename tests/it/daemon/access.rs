//! Registries that want to know who asks, and registries that must show who they are.

use std::process::Command;
use std::time::Duration;

use super::{assert_holds, count, problems, target};
use crate::support::{
    Auth, Authority, Daemon, PASSWORD, Package, Setup, TestRegistry, TokenServer, USERNAME, run,
};

/// Returns the section of a target whose registry wants [`USERNAME`] to log in, with `keys` of the registry.
fn target_with_login(name: &str, address: &str, keys: &str) -> String {
    format!(
        "[[target]]\nname = '{name}'\nrole = 'standby'\nschedule = '0 0 29 2 *'\n\
         [target.registry]\naddress = '{address}'\nusername = '{USERNAME}'\n{keys}\n"
    )
}

#[test]
fn refused_credentials_are_reported_and_stop_nothing_else() {
    let open = TestRegistry::start(Auth::None);
    let guarded = TestRegistry::start(Auth::Basic);
    let address = guarded.address().to_string();
    let setup = Setup::new("none");
    let password = setup.file("password", "wrong");
    let keys = format!(
        "plain_http = true\npassword = {{file = '{}'}}",
        password.display()
    );
    let setup = setup
        .target("global-a", "primary", open.address(), "")
        .section(&target_with_login("global-b", &address, &keys));
    let daemon = Daemon::start(setup);
    let package = Package::small("guarded");
    daemon.setup.drop_package(&package);
    let status = daemon.wait_until("sync of one target and failure of the other", |status| {
        target(status, "global-a")["packages_in_sync"] == 1
            && !problems(status, "global-b").is_empty()
    });
    assert_holds(&open, &package);
    for problem in problems(&status, "global-b") {
        assert_eq!(problem["class"], "denied", "{problem:#}");
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains(&address), "{message}");
        assert!(message.contains(USERNAME), "{message}");
        assert!(
            problem["hint"].as_str().unwrap().contains("password"),
            "{problem:#}"
        );
    }
    assert!(
        !status.to_string().contains("wrong"),
        "the password is nobody's business"
    );

    let setup = daemon.stop();
    setup.file("password", PASSWORD);
    let daemon = Daemon::start(setup);
    daemon.wait_in_sync(1);
    assert_eq!(status_with_login(&guarded, &package), "200");
    daemon.stop();
}

/// Returns the HTTP status with which a registry that wants a login answers for the only image of a package.
fn status_with_login(registry: &TestRegistry, package: &Package) -> String {
    let image = &package.images.placed[0];
    let (address, repository, tag) = (registry.address(), image.repository, image.tag);
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
    ])
    .args(["--user", &format!("{USERNAME}:{PASSWORD}")])
    .args([
        "--header",
        "Accept: application/vnd.oci.image.index.v1+json",
    ])
    .arg(format!("http://{address}/v2/{repository}/manifests/{tag}"));
    String::from_utf8(run("curl", &mut curl)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_have_expired_are_fetched_anew() {
    // The first two have expired before they come, and the others are said to be good for a second.
    let tokens = TokenServer::start(Duration::from_secs(1)).await;
    tokens.grant_stale_tokens(2);
    let realm = tokens.realm();
    let registry = TestRegistry::start(Auth::Token(&tokens, &realm));
    let keys = "plain_http = true\npassword = {env = 'TOKEN_PASSWORD'}";
    let section = target_with_login("global-a", &registry.address().to_string(), keys);
    let setup = Setup::new("none")
        .section(&section)
        .variable("TOKEN_PASSWORD", PASSWORD);
    let daemon = Daemon::start(setup);
    let package = Package::small("tokens");
    daemon.setup.drop_package(&package);
    daemon.wait_in_sync(1);
    assert!(tokens.requests() > 2, "{} tokens", tokens.requests());
    let scopes = tokens.scopes().concat();
    let wanted = format!("repository:{}:", package.images.placed[0].repository);
    let is_wanted = |scope: &String| scope.starts_with(&wanted) && scope.contains("push");
    assert!(scopes.iter().any(is_wanted), "{scopes:?}");
    // A new run over the same image finds it there: the registry has what was sent with these tokens.
    let status = daemon.sync();
    assert_eq!(count(&status, "global-a", "images_in_sync"), 1);
    daemon.stop();
}

#[test]
fn a_certificate_counts_once_its_authority_is_trusted() {
    let authority = Authority::new();
    let certificate = authority.issue("registry.example");
    let registry = TestRegistry::build(Auth::None).tls(&certificate).start();
    let address = format!("registry.example:{}", registry.address().port());
    let base = Setup::new("none");
    let ca_file = base.file("authority.pem", authority.pem());
    let section = |keys: &str| {
        format!(
            "[[target]]\nname = 'global-a'\nrole = 'primary'\nschedule = '0 0 29 2 *'\n\
             [target.registry]\naddress = '{address}'\nno_auth = true\nconnect_to = '127.0.0.1'\n{keys}\n"
        )
    };
    let package = Package::small("certified");
    let daemon = Daemon::start(Setup::new("none").section(&section("")));
    daemon.setup.drop_package(&package);
    let status = daemon.wait_until("a failure", |status| {
        !problems(status, "global-a").is_empty()
    });
    for problem in problems(&status, "global-a") {
        let message = problem["message"].as_str().unwrap().to_lowercase();
        assert!(message.contains(&address), "{message}");
        assert!(message.contains("certificate"), "{message}");
        let hint = problem["hint"].as_str().unwrap();
        assert!(hint.contains("ca_file"), "{hint}");
    }
    assert_eq!(status["is_in_sync"], false);
    daemon.stop();

    let keys = format!("ca_file = '{}'", ca_file.display());
    let daemon = Daemon::start(base.section(&section(&keys)));
    daemon.setup.drop_package(&package);
    let status = daemon.wait_in_sync(1);
    assert_eq!(count(&status, "global-a", "images_pushed"), 1);
    let status = daemon.sync();
    assert_eq!(count(&status, "global-a", "images_in_sync"), 1);
    daemon.stop();
}

#[test]
fn a_credential_helper_is_asked_for_the_login_and_asked_again_when_it_is_refused() {
    let registry = TestRegistry::start(Auth::Basic);
    let address = registry.address();
    let setup = Setup::new("none");
    let password = setup.file("password", "wrong horse");
    let script = setup.file(
        "script",
        format!(
            "#!/bin/sh\n[ \"$1\" = get ] && [ \"$(cat)\" = '{address}' ] || exit 1\n\
             printf '{{\"ServerURL\":\"\",\"Username\":\"{USERNAME}\",\"Secret\":\"%s\"}}' \"$(cat '{}')\"\n",
            password.display()
        ),
    );
    let helper = setup.path("docker-credential-tests");
    // By another process: a program that is open for writing in one that forks cannot be run.
    let mut install = Command::new("install");
    run(
        "coreutils",
        install.args(["-m", "700"]).args([&script, &helper]),
    );
    let config = format!(r#"{{"credHelpers": {{"{address}": "tests"}}}}"#);
    let config = setup.file("config.json", config);
    let section = format!(
        "[[target]]\nname = 'global-a'\nrole = 'standby'\nschedule = '0 0 29 2 *'\n\
         [target.registry]\naddress = '{address}'\nplain_http = true\ndocker_config = {{file = '{}'}}\n",
        config.display()
    );
    let folder = helper.parent().unwrap().display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let daemon = Daemon::start(setup.section(&section).variable("PATH", &path));
    let package = Package::small("helped");
    daemon.setup.drop_package(&package);
    let status = daemon.wait_until("a failure", |status| {
        !problems(status, "global-a").is_empty()
    });
    for problem in problems(&status, "global-a") {
        assert_eq!(problem["class"], "denied", "{problem:#}");
    }
    assert!(!status.to_string().contains("horse"), "{status:#}");

    daemon.setup.file("password", PASSWORD);
    daemon.wait_in_sync(1);
    assert_eq!(status_with_login(&registry, &package), "200");
    assert!(daemon.log_lines("horse").is_empty());
    daemon.stop();
}
