//! Tests of the configuration as a whole.

use std::time::Duration;

use super::*;
use crate::base::{ByteCount, Chain, Class, Classified as _};

const FILE: &str = "/etc/violetd/violetd.toml";

/// The shortest good configuration: nothing but required keys.
const MINIMAL: &str = r#"
[[drop]]
path = "/drop"
[[target]]
name = "a"
role = "primary"
registry.address = "registry-a.example"
"#;

/// A good standby.
const STANDBY: &str = r#"
[[target]]
name = "b"
role = "standby"
registry = { address = "registry-b.example", no_auth = true }
"#;

/// Many keys with values that are not their defaults, some in an unusual spelling.
const FULL: &str = r#"
state_dir = "/srv//violetd/."
[limits]
unpacked_bytes_max = 1048576
[disk]
low_bytes = "2GiB"
[admin]
listen = "[::1]:9470"
[verify]
signers = ["0123 4567 89ab CDEF 0123  4567 89AB CDEF 0123 4567"]
[[drop]]
path = "/drop"
policy = "none"
settle = "1m 30s"
[[target]]
name = "b"
role = "standby"
packages = ["redis-*", "mysql"]
[target.registry]
address = "Registry.Example.:5000"
connect_to = "192.0.2.20"
bandwidth_max = "20MB"
plain_http = true
username = "mirror"
password = { credential = "registry" }
[target.platform]
kind = "acp"
address = "platform.example"
connect_to = "[2001:db8::1]"
insecure_skip_verify = true
token = { env = "TOKEN" }
clusters = ["global", "business-1"]
catalog_source = "custom"
[[target]]
name = "files"
role = "primary"
registry.address = "registry-a.example"
platform = { kind = "directory", path = "/srv/files", pull_registry = "registry.example" }
"#;

fn parse_with(text: &str, env: &[(&str, &str)]) -> Result<Config, Error> {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(Path::new(FILE), text, env)
}

pub(super) fn parse(text: &str) -> Result<Config, Error> {
    parse_with(text, &[])
}

/// The error as operators see it, with its hint on a second line.
fn refused(text: &str, env: &[(&str, &str)]) -> String {
    let error = parse_with(text, env).expect_err(text);
    assert_eq!(error.class(), Class::Usage, "{error}");
    let shown = Chain(&error).to_string();
    let shown = shown.strip_prefix("/etc/violetd/").unwrap_or(&shown);
    match error.hint() {
        Some(hint) => format!("{shown}\nhint: {hint}"),
        None => shown.to_owned(),
    }
}

#[test]
fn defaults_are_applied() {
    let config = parse(&format!("{MINIMAL}{STANDBY}")).unwrap();
    assert_eq!(config.state_dir, Path::new("/var/lib/violetd"));
    assert_eq!(config.admin.listen, None);
    assert_eq!(config.disk.low_bytes, ByteCount(5 << 30));
    assert_eq!(config.disk.critical_bytes, ByteCount(1 << 30));
    assert_eq!(config.replicate.retry_max, Duration::from_mins(30));
    let drop = &config.drops[0];
    assert_eq!(drop.policy, Policy::Signature);
    assert_eq!(drop.done_dir, Path::new("/drop/done"));
    let [primary, standby] = &config.targets[..] else {
        panic!("expected two targets, found {}", config.targets.len());
    };
    assert_eq!(
        primary.registry.effective_address().to_string(),
        "registry-a.example:443"
    );
    assert_eq!(
        (standby.role, standby.registry.credentials.clone()),
        (Role::Standby, None)
    );
    assert_eq!(config.check_risks(), []);
}

#[test]
fn everything_set_is_read() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.state_dir.to_str(), Some("/srv/violetd"));
    assert_eq!(config.limits.unpacked_bytes_max, Some(ByteCount(1 << 20)));
    assert_eq!(config.admin.listen, Some("[::1]:9470".parse().unwrap()));
    assert_eq!(
        config.verify.signers,
        ["0123456789ABCDEF0123456789ABCDEF01234567"]
    );
    assert_eq!(config.disk.low_bytes, ByteCount(2 << 30));
    assert_eq!(config.drops[0].settle, Duration::from_secs(90));
    let target = &config.targets[0];
    assert_eq!(target.registry.address.to_string(), "registry.example:5000");
    assert_eq!(
        target.registry.effective_address().to_string(),
        "192.0.2.20:5000"
    );
    assert_eq!(
        target.registry.credentials,
        Some(Credentials {
            username: "mirror".to_owned(),
            password: SecretSource::Credential("registry".to_owned()),
        })
    );
    let Platform::Acp(acp) = &target.platform else {
        panic!("expected acp, found {:?}", target.platform);
    };
    assert_eq!(acp.effective_address().to_string(), "[2001:db8::1]:443");
    assert_eq!(
        acp.access,
        PlatformAccess::Token(SecretSource::Env("TOKEN".to_owned()))
    );
    assert_eq!(acp.clusters, ["global", "business-1"]);
    let risks: Vec<String> = config.check_risks().iter().map(Risk::to_string).collect();
    assert_eq!(
        risks,
        [
            "packages in `/drop` are not verified: `policy` is `none`",
            "the credentials of target `b` are sent to its registry without encryption",
            "the certificate of the platform of target `b` is not verified: `insecure_skip_verify` is set",
        ]
    );
}

#[test]
fn environment_wins_over_the_file() {
    let text = format!("log.level = \"warn\"\n{MINIMAL}");
    let env = [
        ("VIOLETD_LOG__LEVEL", "debug"),
        ("VIOLETD_STATE_DIR", "/srv/violetd"),
        ("VIOLETD_VERIFY__KEYRING", "/a, /b"),
        ("VIOLETD_REPLICATE__CONCURRENCY", "9"),
        ("VIOLETD_DISK__LOW_BYTES", "7GiB"),
        // None of these is a key.
        ("VIOLETD_CONFIG", "/x"),
        ("VIOLETD_TOKEN_A", "secret"),
        ("VIOLETD_TARGET", "a"),
        ("OTHER__LEVEL", "x"),
    ];
    let config = parse_with(&text, &env).unwrap();
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.state_dir, Path::new("/srv/violetd"));
    assert_eq!(config.verify.keyring, [Path::new("/a"), Path::new("/b")]);
    assert_eq!(config.replicate.concurrency, 9);
    assert_eq!(config.disk.low_bytes, ByteCount(7 << 30));
}

#[test]
fn environment_errors_name_the_variable() {
    let shown = |name, value| refused(MINIMAL, &[(name, value)]);
    insta::assert_snapshot!(shown("VIOLETD_LOG__LEVLE", "debug"), @r#"
        environment variable VIOLETD_LOG__LEVLE: `log.levle`: expected a known key
        hint: did you mean `level`?
        "#);
    insta::assert_snapshot!(shown("VIOLETD_REPLICATE__CONCURRENCY", "many"), @r#"environment variable VIOLETD_REPLICATE__CONCURRENCY: `replicate.concurrency`: expected an integer, found string "many""#);
    insta::assert_snapshot!(shown("VIOLETD_REPLICATE__RETRY_FIRST", "5"), @"environment variable VIOLETD_REPLICATE__RETRY_FIRST: `replicate.retry_first`: expected a duration such as `30s` or `10m`, found `5`");
    insta::assert_snapshot!(shown("VIOLETD_TARGET__0__NAME", "b"), @r#"
        environment variable VIOLETD_TARGET__0__NAME: `target.0.name`: expected `target` to be set in the configuration file only
        hint: write it into the file; secrets can come from the environment by `{ env = "NAME" }`
        "#);
    insta::assert_snapshot!(shown("VIOLETD_LOG__LEVEL__X", "b"), @r#"
        environment variable VIOLETD_LOG__LEVEL__X: `log.level.x`: expected a known key
        hint: there is nothing below a value
        "#);
}

#[test]
fn text_errors_name_the_line() {
    let shown = |text: &str| refused(&format!("{text}\n{MINIMAL}"), &[]);
    insta::assert_snapshot!(shown("a = [1,"), @"violetd.toml:4: missing comma between array elements, expected `,`");
    insta::assert_snapshot!(shown("\n\nstate_dir = \"/a\"\nstate_dir = \"/b\""), @"violetd.toml:4: duplicate key");
    insta::assert_snapshot!(shown("\nstatedir = \"/a\""), @r#"
        violetd.toml:2: `statedir`: expected a known key
        hint: did you mean `state_dir`?
        "#);
    insta::assert_snapshot!(shown("[log]\nkeyring = []"), @r#"
        violetd.toml:2: `log.keyring`: expected a known key
        hint: did you mean `drop.keyring`, in another section?
        "#);
    insta::assert_snapshot!(shown("[log]\ncolour = true"), @r#"
        violetd.toml:2: `log.colour`: expected a known key
        hint: known here: format, level
        "#);
    insta::assert_snapshot!(shown("log = \"debug\""), @"violetd.toml:1: `log`: expected a table, found a string");
    insta::assert_snapshot!(shown("[replicate]\nconcurrency = 1.5"), @"violetd.toml:2: `replicate.concurrency`: expected a whole number, found a fraction");
    insta::assert_snapshot!(shown("[replicate]\nconcurrency = -1"), @"violetd.toml:2: `replicate.concurrency`: expected a number from 0 on, found a negative number");
    insta::assert_snapshot!(shown("[replicate]\nconcurrency = 65"), @"violetd.toml:2: `replicate.concurrency`: expected 1 to 64, found 65");
    insta::assert_snapshot!(shown("[replicate]\nidle_timeout = \"soon\""), @"violetd.toml:2: `replicate.idle_timeout`: expected a duration such as `30s` or `10m`, found `soon`");
    insta::assert_snapshot!(shown("[replicate]\nretry_first = \"1h\""), @"violetd.toml:1: `replicate.retry_max`: expected at least `retry_first`, 1h, found 30m");
    insta::assert_snapshot!(shown("[replicate]\nconnect_timeout = \"0s\""), @"violetd.toml:2: `replicate.connect_timeout`: expected more than nothing, found 0s");
    insta::assert_snapshot!(shown("[limits]\nentries_max = 0"), @"violetd.toml:2: `limits.entries_max`: expected at least 1, found 0");
    insta::assert_snapshot!(shown("[disk]\nlow_bytes = \"1 GB!\""), @"violetd.toml:2: `disk.low_bytes`: expected a unit of B, kB, KiB, MB, MiB, GB, GiB, TB or TiB, found `1 GB!`");
    insta::assert_snapshot!(shown("[disk]\nlow_bytes = 0\ncritical_bytes = 1"), @"violetd.toml:3: `disk.critical_bytes`: expected at most `low_bytes`, 0 B, found 1 B");
    insta::assert_snapshot!(shown("[disk]\ncritical_bytes = \"6GiB\""), @"violetd.toml:2: `disk.critical_bytes`: expected at most `low_bytes`, 5.0 GiB, found 6.0 GiB");
    insta::assert_snapshot!(shown("[limits]\nnesting_max = 8"), @"violetd.toml:2: `limits.nesting_max`: expected 1 to 7, found 8");
    insta::assert_snapshot!(shown("[limits]\narchives_nested_max = 9"), @"violetd.toml:2: `limits.archives_nested_max`: expected 1 to 8, found 9");
    insta::assert_snapshot!(shown("[log]\nformat = \"xml\""), @"violetd.toml:2: `log.format`: expected one of `auto`, `text`, `json`, found `xml`");
    insta::assert_snapshot!(shown("[log]\nlevel = \"a=b=c\""), @r#"violetd.toml:2: `log.level`: expected levels such as `info` or `info,violetd::registry=debug`, found `a=b=c` (error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5)"#);
    insta::assert_snapshot!(shown("[admin]\nlisten = \"localhost\""), @"violetd.toml:2: `admin.listen`: expected an IP address with a port such as `127.0.0.1:9470`, found `localhost`");
    insta::assert_snapshot!(shown("state_dir = \"data\""), @"violetd.toml:1: `state_dir`: expected an absolute path without `..`, found `data`");
    insta::assert_snapshot!(shown("[verify]\nkeyring = [\n\"/a\",\n\"/a/../b\"]"), @"violetd.toml:4: `verify.keyring[1]`: expected an absolute path without `..`, found `/a/../b`");
    insta::assert_snapshot!(shown("[verify]\nsigners = [\"89ABCDEF\"]"), @"violetd.toml:2: `verify.signers[0]`: expected a whole fingerprint, 40 or 64 hex digits, found `89ABCDEF`");
}

#[test]
fn a_target_without_any_bandwidth_is_refused() {
    let refused = refused(&format!("{MINIMAL}registry.bandwidth_max = 0"), &[]);
    insta::assert_snapshot!(refused, @"violetd.toml:8: `target[0].registry.bandwidth_max`: expected at least 1, found 0");
}

/// Each would be a list of that length if it were taken for a path.
#[test]
fn a_quoted_key_is_a_name_and_no_path() {
    for key in [
        "target[9999999999999]",
        "x.y[9999999999999].z",
        "state_dir.x",
    ] {
        let refused = refused(&format!("{MINIMAL}\n[\"{key}\"]\na = 1\n"), &[]);
        let expected = format!("`{key}`: expected a known key");
        assert!(refused.contains(&expected), "{refused}");
    }
}

#[test]
fn folders_are_kept_apart() {
    let shown = |text: &str| refused(&format!("{MINIMAL}{text}"), &[]);
    insta::assert_snapshot!(shown("[[drop]]"), @"violetd.toml:8: `drop[1].path`: expected a value, found none");
    insta::assert_snapshot!(shown("[[drop]]\npath = \"/b\"\nsettle = \"0s\""), @"violetd.toml:10: `drop[1].settle`: expected more than nothing, found 0s");
    insta::assert_snapshot!(shown("[[drop]]\npath = \"/drop/done\""), @r#"
        violetd.toml:9: `drop[1].path`: expected a folder apart from `drop[0].path`, found `/drop/done` and `/drop`
        hint: choose folders that are not inside each other
        "#);
    insta::assert_snapshot!(shown("[[drop]]\npath = \"/drop\""), @r#"
        violetd.toml:9: `drop[1].path`: expected a folder apart from `drop[0].path`, found `/drop` and `/drop`
        hint: choose folders that are not inside each other
        "#);
    insta::assert_snapshot!(shown("[[drop]]\npath = \"/var/lib/violetd/drop\""), @r#"
        violetd.toml:9: `drop[1].path`: expected a folder apart from `state_dir`, found `/var/lib/violetd/drop` and `/var/lib/violetd`
        hint: choose folders that are not inside each other
        "#);
    insta::assert_snapshot!(shown("[[drop]]\npath = \"/b\"\ndone_dir = \"/b/\""), @r#"
        violetd.toml:10: `drop[1].done_dir`: expected a folder apart from `drop[1].path`, found `/b` and `/b`
        hint: choose folders that are not inside each other
        "#);
    insta::assert_snapshot!(shown("[[drop]]\npath = \"/b\"\nrejected_dir = \"/drop\""), @r#"
        violetd.toml:10: `drop[1].rejected_dir`: expected a folder apart from `drop[0].path`, found `/drop` and `/drop`
        hint: choose folders that are not inside each other
        "#);
    insta::assert_snapshot!(shown("[[drop]]\npath = \"/b\"\nrejected_dir = \"/b/done\""), @r#"
        violetd.toml:10: `drop[1].rejected_dir`: expected a folder apart from `drop[1].done_dir`, found `/b/done` and `/b/done`
        hint: choose folders that are not inside each other
        "#);
    insta::assert_snapshot!(shown("[[drop]]\npath = \"/b\"\nrequests_dir = \"/b/done\""), @r#"
        violetd.toml:10: `drop[1].requests_dir`: expected a folder apart from `drop[1].done_dir`, found `/b/done` and `/b/done`
        hint: choose folders that are not inside each other
        "#);
    insta::assert_snapshot!(shown("[[drop]]\npath = \"/b\"\ndone_dir = \"/var/lib/violetd/x\""), @r#"
        violetd.toml:10: `drop[1].done_dir`: expected a folder apart from `state_dir`, found `/var/lib/violetd/x` and `/var/lib/violetd`
        hint: choose folders that are not inside each other
        "#);
    parse(&format!(
        "{MINIMAL}[[drop]]\npath = \"/b\"\ndone_dir = \"/drop/done\""
    ))
    .unwrap();
}

#[test]
fn something_to_do_is_required() {
    insta::assert_snapshot!(refused("", &[]), @r#"
        violetd.toml: `drop`: expected at least one drop folder, found none
        hint: add a `[[drop]]` section with the `path` of the folder
        "#);
    insta::assert_snapshot!(refused("[[drop]]\npath = \"/drop\"", &[]), @r#"
        violetd.toml: `target`: expected at least one target, found none
        hint: add a `[[target]]` section with `name`, `role` and `registry.address`
        "#);
    insta::assert_snapshot!(
        Chain(&Config::load(None, std::iter::empty()).unwrap_err()),
        @"no configuration file: `drop`: expected at least one drop folder, found none"
    );
    let error = Config::load(Some(Path::new("/nonexistent/x.toml")), std::iter::empty());
    insta::assert_snapshot!(Chain(&error.unwrap_err()), @"failed to read configuration `/nonexistent/x.toml`: No such file or directory (os error 2)");
}

/// A target `b` with these lines in its registry section.
fn with_registry(role: &str, lines: &str) -> String {
    format!("{MINIMAL}[[target]]\nname = \"b\"\nrole = \"{role}\"\n[target.registry]\n{lines}")
}

#[test]
fn registries_are_checked() {
    let shown = |role, lines| refused(&with_registry(role, lines), &[]);
    insta::assert_snapshot!(shown("standby", ""), @r#"
        violetd.toml:11: `target[1].registry.address`: expected the registry address of this standby, found none
        hint: nothing is inferred for a standby: set `address`, and `connect_to` if that name leads to the primary
        "#);
    insta::assert_snapshot!(shown("primary", "no_auth = true"), @r#"
        violetd.toml:11: `target[1].registry.address`: expected the registry address of this primary, found none
        hint: set `address`
        "#);
    insta::assert_snapshot!(shown("backup", "address = \"b\""), @"violetd.toml:10: `target[1].role`: expected one of `primary`, `standby`, found `backup`");
    insta::assert_snapshot!(shown("standby", "address = \"b\""), @r#"
        violetd.toml:11: `target[1].registry`: expected a standby to have `username` and `password`, `docker_config` or `no_auth = true`, found none of them
        hint: set `username` and `password`, or `docker_config`, or `no_auth = true` if its registry asks for no login
        "#);
    insta::assert_snapshot!(shown("standby", "address = \"https://b\""), @"violetd.toml:12: `target[1].registry.address`: expected `host` or `host:port` without scheme and path, found `https://b`");
    insta::assert_snapshot!(shown("standby", "address = \"b\"\nusername = \"u\""), @"violetd.toml:13: `target[1].registry.username`: expected `password` beside it, found none");
    insta::assert_snapshot!(shown("primary", "address = \"b\"\npassword = { env = \"P\" }"), @"violetd.toml:13: `target[1].registry.password`: expected `username` beside it, found none");
    insta::assert_snapshot!(
        shown("primary", "address = \"b\"\nusername = \"u\"\npassword = \"hunter2\""),
        @r#"
        violetd.toml:14: `target[1].registry.password`: expected where the secret is, found the secret itself
        hint: write `{ file = "/path" }`, `{ credential = "name" }` or `{ env = "NAME" }`, and change the secret
        "#
    );
    insta::assert_snapshot!(
        shown("primary", "address = \"b\"\nusername = \"u\"\npassword = { env = \"P\", file = \"/f\" }"),
        @r#"
        violetd.toml:14: `target[1].registry.password`: expected exactly one of `file`, `credential` and `env`
        hint: write `{ file = "/path" }`, `{ credential = "name" }` or `{ env = "NAME" }`
        "#
    );
    insta::assert_snapshot!(
        shown("primary", "address = \"b\"\nusername = \"u\"\npassword = { value = \"hunter2\" }"),
        @r#"
        violetd.toml:14: `target[1].registry.password.value`: expected a known key
        hint: known here: credential, env, file
        "#
    );
    insta::assert_snapshot!(
        shown("primary", "address = \"b\"\nusername = \"u\"\npassword = { credential = \"../x\" }"),
        @"violetd.toml:14: `target[1].registry.password.credential`: expected the name of a credential, found `../x`"
    );
    insta::assert_snapshot!(
        shown("standby", "address = \"b\"\nno_auth = true\nusername = \"u\"\npassword = { env = \"P\" }"),
        @"violetd.toml:13: `target[1].registry.no_auth`: expected either this or `username`, found both"
    );
    insta::assert_snapshot!(
        shown("primary", "address = \"b\"\nplain_http = true\nca_file = \"/ca.pem\""),
        @"violetd.toml:13: `target[1].registry.plain_http`: expected either this or `ca_file`, found both"
    );
    insta::assert_snapshot!(
        shown("primary", "address = \"b\"\ninsecure_skip_verify = true\nca_file = \"/ca.pem\""),
        @"violetd.toml:13: `target[1].registry.insecure_skip_verify`: expected either this or `ca_file`, found both"
    );
    insta::assert_snapshot!(shown("primary", "address = \"b\"\nconnect_to = \"192.0.2.1:443\""), @r#"
        violetd.toml:13: `target[1].registry.connect_to`: expected a host without a port, found `192.0.2.1:443`
        hint: remove the port: that of `address` is dialled
        "#);
}

#[test]
fn logins_certificates_and_proxies_of_registries_are_checked() {
    let shown = |lines: &str| {
        let lines = format!("address = \"b\"\n{lines}");
        refused(&with_registry("standby", &lines), &[])
    };
    let config = "docker_config = { file = \"/config.json\" }";
    insta::assert_snapshot!(
        shown(&format!("{config}\nusername = \"u\"\npassword = {{ env = \"P\" }}")),
        @"violetd.toml:13: `target[1].registry.docker_config`: expected either this or `username`, found both"
    );
    insta::assert_snapshot!(
        shown(&format!("{config}\nno_auth = true")),
        @"violetd.toml:14: `target[1].registry.no_auth`: expected either this or `docker_config`, found both"
    );
    insta::assert_snapshot!(shown("docker_config = \"/config.json\""), @r#"
        violetd.toml:13: `target[1].registry.docker_config`: expected where the secret is, found the secret itself
        hint: write `{ file = "/path" }`, `{ credential = "name" }` or `{ env = "NAME" }`, and change the secret
        "#);
    insta::assert_snapshot!(shown("client_cert_file = \"/c.pem\""), @"violetd.toml:13: `target[1].registry.client_cert_file`: expected `client_key` beside it, found none");
    insta::assert_snapshot!(shown("client_key = { env = \"K\" }"), @"violetd.toml:13: `target[1].registry.client_key`: expected `client_cert_file` beside it, found none");
    insta::assert_snapshot!(
        shown("plain_http = true\nclient_cert_file = \"/c.pem\"\nclient_key = { env = \"K\" }"),
        @"violetd.toml:13: `target[1].registry.plain_http`: expected either this or `client_cert_file`, found both"
    );
    insta::assert_snapshot!(shown("proxy = \"proxy:3128\""), @"violetd.toml:13: `target[1].registry.proxy`: expected `scheme://host:port` with http, https, socks5, socks5h as scheme, found `proxy:3128`");
    insta::assert_snapshot!(shown("proxy = \"http://u:hunter2@proxy:3128\""), @r"
        violetd.toml:13: `target[1].registry.proxy`: expected `scheme://host:port`, found a login in it
        hint: set `proxy_username` and `proxy_password`
        ");
    insta::assert_snapshot!(shown("proxy = \"http://proxy\"\nproxy_username = \"u\""), @"violetd.toml:14: `target[1].registry.proxy_username`: expected `proxy_password` beside it, found none");
    insta::assert_snapshot!(
        shown("proxy_username = \"u\"\nproxy_password = { env = \"P\" }"),
        @"violetd.toml:13: `target[1].registry.proxy_username`: expected `proxy` beside it, found none"
    );
    insta::assert_snapshot!(
        shown(&format!("{config}\nproxy = \"http://proxy\"\nconnect_to = \"192.0.2.1\"")),
        @r"
        violetd.toml:15: `target[1].registry.connect_to`: expected no `connect_to` with a proxy of scheme `http`, which finds out itself where a name leads
        hint: use a `socks5` proxy, or remove the key
        "
    );
}

#[test]
fn everything_about_the_way_to_a_registry_is_read() {
    let lines = r#"
        address = "[2001:db8::1]:5000"
        docker_config = { file = "/config.json" }
        client_cert_file = "/c.pem"
        client_key = { credential = "key" }
        proxy = "socks5://[::1]:1080"
        proxy_username = "u"
        proxy_password = { env = "P" }
    "#;
    let config = parse(&with_registry("standby", lines)).unwrap();
    let registry = &config.targets[1].registry;
    assert_eq!(registry.address.to_string(), "[2001:db8::1]:5000");
    assert_eq!(
        registry.docker_config,
        Some(SecretSource::File("/config.json".into()))
    );
    let identity = Identity {
        certificates: "/c.pem".into(),
        key: SecretSource::Credential("key".to_owned()),
    };
    assert_eq!(registry.identity, Some(identity));
    let proxy = registry.proxy.as_ref().unwrap();
    assert_eq!(proxy.url.as_str(), "socks5://[::1]:1080");
    let credentials = Credentials {
        username: "u".to_owned(),
        password: SecretSource::Env("P".to_owned()),
    };
    assert_eq!(proxy.credentials, Some(credentials));
    assert_eq!(registry.resolver(), None);
}

#[test]
fn two_targets_share_a_name_beyond_different_proxies_only() {
    let beyond = |proxy: &str| {
        let lines =
            format!("address = \"registry-a.example\"\nproxy = \"{proxy}\"\nno_auth = true");
        parse(&with_registry("standby", &lines))
    };
    beyond("http://proxy").unwrap();
    beyond("socks5h://proxy").unwrap();
    // We find out where the name leads, and it leads to the primary.
    beyond("socks5://proxy").unwrap_err();
}

#[test]
fn no_two_targets_share_a_registry() {
    insta::assert_snapshot!(
        refused(&with_registry("standby", "address = \"registry-a.example\"\nno_auth = true"), &[]),
        @r#"
        violetd.toml:12: `target[1].registry.address`: expected every target to have its own registry, found that of `a` at registry-a.example:443
        hint: the name both clusters share leads to the primary: set `connect_to` to the address of the standby
        "#
    );
    insta::assert_snapshot!(
        refused(&with_registry("primary", "address = \"REGISTRY-A.example.:443\""), &[]),
        @r#"
        violetd.toml:12: `target[1].registry.address`: expected every target to have its own registry, found that of `a` at registry-a.example:443
        hint: remove one of the two targets, or give each its own address
        "#
    );
    let dialled = "address = \"b\"\nconnect_to = \"registry-a.example\"\nno_auth = true";
    insta::assert_snapshot!(refused(&with_registry("standby", dialled), &[]), @r#"
        violetd.toml:13: `target[1].registry.connect_to`: expected every target to have its own registry, found that of `a` at registry-a.example:443
        hint: the name both clusters share leads to the primary: set `connect_to` to the address of the standby
        "#);
    // The standby is the one to change, also where it comes first.
    let (drop, target) = MINIMAL.split_at(MINIMAL.find("[[target]]").unwrap());
    let standby = STANDBY.replace("registry-b", "registry-a");
    insta::assert_snapshot!(refused(&format!("{drop}{standby}{target}"), &[]), @r#"
        violetd.toml:8: `target[0].registry.address`: expected every target to have its own registry, found that of `a` at registry-a.example:443
        hint: the name both clusters share leads to the primary: set `connect_to` to the address of the standby
        "#);
    let same_name = "address = \"registry-a.example\"\nconnect_to = \"192.0.2.2\"\nno_auth = true";
    parse(&with_registry("standby", same_name)).unwrap();
    parse(&with_registry(
        "primary",
        "address = \"registry-a.example:5000\"",
    ))
    .unwrap();
    let same_target = format!("{MINIMAL}{}", STANDBY.replace("\"b\"", "\"a\""));
    insta::assert_snapshot!(refused(&same_target, &[]), @"violetd.toml:10: `target[1].name`: expected every target to have its own name, found `a` twice");
}

#[test]
fn platforms_are_checked() {
    let shown = |platform: &str| refused(&format!("{MINIMAL}platform = {{ {platform} }}"), &[]);
    insta::assert_snapshot!(shown("address = \"https://platform.example\""), @r#"
        violetd.toml:8: `target[0].platform.address`: expected no such key with `kind = "none"`
        hint: set `kind`, or remove the key
        "#);
    insta::assert_snapshot!(shown("kind = \"acp\""), @r#"
        violetd.toml:8: `target[0].platform.address`: expected the platform address of this primary, found none
        hint: set `address`
        "#);
    insta::assert_snapshot!(shown("kind = \"acp\", address = \"https://p/console\""), @"violetd.toml:8: `target[0].platform.address`: expected `https://host` or `https://host:port`, found `https://p/console`");
    insta::assert_snapshot!(shown("kind = \"acp\", address = \"p\""), @r#"
        violetd.toml:8: `target[0].platform`: expected `token`, or `username` and `password`, found neither
        hint: set `token`, or `username` and `password`
        "#);
    insta::assert_snapshot!(
        shown("kind = \"acp\", address = \"p\", token = { env = \"T\" }, username = \"u\", password = { env = \"P\" }"),
        @"violetd.toml:8: `target[0].platform.token`: expected either this or `username`, found both"
    );
    insta::assert_snapshot!(
        shown("kind = \"acp\", address = \"p\", token = { env = \"T\" }, path = \"/p\""),
        @r#"
        violetd.toml:8: `target[0].platform.path`: expected no such key with `kind = "acp"`
        hint: remove the key, or change `kind`
        "#
    );
    insta::assert_snapshot!(shown("kind = \"directory\", path = \"/p\""), @"violetd.toml:8: `target[0].platform.pull_registry`: expected a value, found none");
    insta::assert_snapshot!(shown("clusters = [\"a/b\"]"), @"violetd.toml:8: `target[0].platform.clusters[0]`: expected letters, digits, `-`, `_` and `.`, with a letter or digit at both ends, found `a/b`");
    insta::assert_snapshot!(shown("clusters = []"), @"violetd.toml:8: `target[0].platform.clusters`: expected at least one cluster, found none");
    let same = "kind = \"acp\", address = \"p\", token = { env = \"T\" }";
    let standby = STANDBY.trim_end();
    insta::assert_snapshot!(
        refused(&format!("{MINIMAL}platform = {{ {same} }}{standby}\nplatform = {{ {same} }}"), &[]),
        @r#"
        violetd.toml:13: `target[1].platform.address`: expected every target to have its own platform, found that of `a` at p:443
        hint: the name both clusters share leads to the primary: set `connect_to` to the address of the standby
        "#
    );
    insta::assert_snapshot!(
        refused(&format!("{MINIMAL}{standby}\nplatform = {{ kind = \"acp\" }}"), &[]),
        @r#"
        violetd.toml:13: `target[1].platform.address`: expected the platform address of this standby, found none
        hint: nothing is inferred for a standby: set `address`, and `connect_to` if that name leads to the primary
        "#
    );
}

#[test]
fn no_secret_is_ever_shown() {
    for text in [
        "password = \"hunter2\"",
        "password = { value = \"hunter2\" }",
        "password = [\"hunter2\"]",
        "password = \"hunter2",
        "password = hunter2",
        "proxy = \"http://u:hunter2@proxy\"",
        "docker_config = \"hunter2\"",
        "client_key = \"hunter2\"",
    ] {
        let lines = format!("address = \"b\"\nusername = \"u\"\n{text}");
        let error = parse(&with_registry("primary", &lines)).unwrap_err();
        let shown = format!("{} {error:?} {:?}", Chain(&error), error.hint());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

proptest::proptest! {
    #[test]
    fn parse_never_panics(
        key in "[a-z_.]{0,20}",
        value in "[a-z0-9\"\\[\\]{}= ,./-]{0,20}",
        line in 0..12_usize,
    ) {
        let mut lines: Vec<&str> = MINIMAL.lines().collect();
        let added = format!("{key} = {value}");
        lines.insert(line.min(lines.len()), &added);
        let _ = parse(&lines.join("\n"));
    }
}
