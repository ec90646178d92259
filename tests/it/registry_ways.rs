//! The way to a real docker-registry: through proxies, with a certificate of our own, to IPv6 addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use violetd::base::{Chain, Class, Classified as _, Secret};
use violetd::registry::{
    Client, Error, Identity, Options, Proxies, Proxy, ProxyLogin, Transport, Trust,
};

use crate::registry::push_mount_and_pull;
use crate::support::{Auth, Authority, Certificate, Forward, Socks, TestRegistry};

const LOGIN: (&str, &str) = ("us er", "p@ss: wörd%41");
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn through(url: &str, login: Option<(&str, &str)>) -> Proxies {
    Proxies::Through(Proxy {
        url: url.parse().unwrap(),
        login: login.map(|(username, password)| ProxyLogin {
            username: username.to_owned(),
            password: Secret::new(password.to_owned()),
        }),
    })
}

fn trusting(authority: &Authority) -> Transport {
    Transport::Https(Trust {
        extra_roots: vec![authority.pem()],
        ..Trust::default()
    })
}

/// Returns options for a registry under a name that only proxies know.
fn named(registry: &TestRegistry, transport: Transport, proxies: Proxies) -> Options {
    Options {
        address: format!("registry.example:{}", registry.address().port()),
        transport,
        proxies,
        ..registry.options()
    }
}

fn identity(certificate: &Certificate) -> Identity {
    Identity {
        certificates: std::fs::read(&certificate.certificate).unwrap(),
        key: Secret::new(std::fs::read_to_string(&certificate.key).unwrap()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_proxy_tunnels_to_a_registry_with_tls() {
    let authority = Authority::new();
    let certificate = authority.issue("registry.example");
    for login in [None, Some(LOGIN)] {
        let registry = TestRegistry::build(Auth::Basic).tls(&certificate).start();
        let name = format!("registry.example:{}", registry.address().port());
        let routes = vec![(name.clone(), registry.address())];
        let proxy = Forward::start(login, routes).await;
        let proxies = through(&proxy.url(), login);
        let counters = push_mount_and_pull(named(&registry, trusting(&authority), proxies)).await;
        assert_eq!(counters.retries, 0);
        let requests = proxy.requests();
        let tunnel = format!("CONNECT {name}");
        assert!(!requests.is_empty());
        assert!(
            requests.iter().all(|request| *request == tunnel),
            "{requests:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_proxy_passes_requests_to_a_registry_without_tls_on() {
    let registry = TestRegistry::start(Auth::Basic);
    let name = format!("registry.example:{}", registry.address().port());
    let routes = vec![(name.clone(), registry.address())];
    let proxy = Forward::start(Some(LOGIN), routes).await;
    let proxies = through(&proxy.url(), Some(LOGIN));
    let counters = push_mount_and_pull(named(&registry, Transport::Http, proxies)).await;
    assert_eq!(counters.retries, 0);
    let requests = proxy.requests();
    assert_eq!(requests.len() as u64, counters.requests);
    let first = format!("GET http://{name}/v2/");
    assert_eq!(requests.first(), Some(&first));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_us_is_named_without_our_password() {
    let authority = Authority::new();
    let certificate = authority.issue("registry.example");
    let registry = TestRegistry::build(Auth::None).tls(&certificate).start();
    let forward = Forward::start(Some(LOGIN), Vec::new()).await;
    let socks = Socks::start(Some(LOGIN), Vec::new()).await;
    let urls = [forward.url(), format!("socks5h://{}", socks.address())];
    let logins = [None, Some(("us er", "hunter2"))];
    // To a server without TLS, an HTTP proxy answers in its place.
    for transport in [trusting(&authority), Transport::Http] {
        for (url, login) in urls.iter().flat_map(|url| logins.map(|login| (url, login))) {
            let options = named(&registry, transport.clone(), through(url, login));
            let client = Client::new(options).unwrap();
            let error = client.check().await.unwrap_err();
            let text = Chain(&error).to_string();
            let start = format!(
                "failed to connect to `{}` through the proxy {url}: ",
                client.address()
            );
            assert!(text.starts_with(&start), "{text}");
            assert!(matches!(error, Error::Proxy { .. }), "{error:?}");
            // Asking again would lock somebody out.
            assert_eq!(error.class(), Class::Denied, "{text}");
            assert_eq!(client.counters().retries, 0);
            let hint = error.hint().unwrap();
            assert!(hint.contains(url.as_str()), "{hint}");
            let shown = format!("{text} {error:?} {client:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socks_proxy_leads_to_a_name_that_it_knows() {
    let authority = Authority::new();
    let certificate = authority.issue("registry.example");
    for login in [None, Some(LOGIN)] {
        let registry = TestRegistry::build(Auth::Basic).tls(&certificate).start();
        let plain = TestRegistry::start(Auth::None);
        let names = vec![("registry.example", LOOPBACK)];
        let socks = Socks::start(login, names).await;
        let url = format!("socks5h://{}", socks.address());
        let options = named(&registry, trusting(&authority), through(&url, login));
        push_mount_and_pull(options).await;
        push_mount_and_pull(named(&plain, Transport::Http, through(&url, login))).await;
        let targets = socks.targets();
        for registry in [&registry, &plain] {
            let name = format!("registry.example:{}", registry.address().port());
            assert!(targets.contains(&name), "{targets:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socks_proxy_leads_to_the_address_that_connect_to_names() {
    let authority = Authority::new();
    let certificate = authority.issue("registry.example");
    let registry = TestRegistry::build(Auth::Basic).tls(&certificate).start();
    let socks = Socks::start(Some(LOGIN), Vec::new()).await;
    let proxies = through(&format!("socks5://{}", socks.address()), Some(LOGIN));
    let options = Options {
        connect_to: Some("127.0.0.1".to_owned()),
        ..named(&registry, trusting(&authority), proxies)
    };
    push_mount_and_pull(options).await;
    let target = registry.address().to_string();
    assert!(socks.targets().iter().all(|found| *found == target));

    // The others would not obey it.
    for scheme in ["socks5h", "http"] {
        let proxies = through(&format!("{scheme}://{}", socks.address()), None);
        let options = Options {
            connect_to: Some("127.0.0.1".to_owned()),
            ..named(&registry, trusting(&authority), proxies)
        };
        let error = Client::new(options).unwrap_err();
        assert_eq!(error.class(), Class::Usage);
        assert!(error.to_string().contains("`connect_to`"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_asks_for_a_certificate_gets_ours() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let certificate = authority.issue("registry.example");
    let registry = TestRegistry::build(Auth::None)
        .tls(&certificate)
        .clients_of(&clients)
        .start();
    let options = |identity| Options {
        connect_to: Some("127.0.0.1".to_owned()),
        identity,
        ..named(&registry, trusting(&authority), Proxies::Ignore)
    };
    let ours = identity(&clients.issue("mirror"));
    push_mount_and_pull(options(Some(ours.clone()))).await;

    let foreign = identity(&authority.issue("mirror"));
    for wrong in [None, Some(foreign)] {
        let client = Client::new(options(wrong)).unwrap();
        let error = client.check().await.unwrap_err();
        assert!(matches!(error, Error::Identity { .. }), "{error:?}");
        assert_eq!(error.class(), Class::Denied);
        // With TLS 1.3 the refusal comes when the request is on its way already, and is lost where the connection is reset by that.
        assert!(client.counters().retries <= 1);
        let hint = error.hint().unwrap();
        assert!(hint.contains("`client_key`"), "{hint}");
    }

    // The key of another certificate.
    let mixed = Identity {
        key: identity(&clients.issue("other")).key,
        ..ours
    };
    let error = Client::new(options(Some(mixed))).unwrap_err();
    assert_eq!(error.class(), Class::Usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_may_be_of_ipv6() {
    let listen = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let authority = Authority::new();
    let certificate = authority.issue_for_ip(Ipv6Addr::LOCALHOST.into());
    let registry = TestRegistry::build(Auth::Basic)
        .tls(&certificate)
        .listen(listen)
        .start();
    let address = registry.address();
    assert!(address.to_string().starts_with("[::1]:"), "{address}");
    push_mount_and_pull(Options {
        transport: trusting(&authority),
        ..registry.options()
    })
    .await;

    let certificate = authority.issue("registry.example");
    for connect_to in ["::1", "[::1]"] {
        let registry = TestRegistry::build(Auth::Basic)
            .tls(&certificate)
            .listen(listen)
            .start();
        let options = Options {
            connect_to: Some(connect_to.to_owned()),
            ..named(&registry, trusting(&authority), Proxies::Ignore)
        };
        push_mount_and_pull(options).await;
    }

    let plain = TestRegistry::build(Auth::None).listen(listen).start();
    push_mount_and_pull(plain.options()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socks_proxy_leads_to_an_address_of_ipv6() {
    let authority = Authority::new();
    let certificate = authority.issue("registry.example");
    let listen = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    let registry = TestRegistry::build(Auth::Basic)
        .tls(&certificate)
        .listen(listen)
        .start();
    for scheme in ["socks5", "socks5h"] {
        let plain = TestRegistry::build(Auth::None).listen(listen).start();
        let socks = Socks::start(Some(LOGIN), Vec::new()).await;
        let url = format!("{scheme}://{}", socks.address());
        let options = |registry: &TestRegistry| Options {
            proxies: through(&url, Some(LOGIN)),
            ..registry.options()
        };
        push_mount_and_pull(options(&plain)).await;
        let target = plain.address().to_string();
        assert!(socks.targets().iter().all(|found| *found == target));

        // The library cannot compare a certificate with such an address there.
        let error = Client::new(Options {
            transport: trusting(&authority),
            ..options(&registry)
        });
        let error = error.unwrap_err();
        assert_eq!(error.class(), Class::Usage);
        assert!(
            error.to_string().contains("`connect_to` with `[::1]`"),
            "{error}"
        );
    }
    let socks = Socks::start(Some(LOGIN), Vec::new()).await;
    let proxies = through(&format!("socks5://{}", socks.address()), Some(LOGIN));
    push_mount_and_pull(Options {
        connect_to: Some("::1".to_owned()),
        ..named(&registry, trusting(&authority), proxies)
    })
    .await;
    let target = registry.address().to_string();
    assert!(socks.targets().iter().all(|found| *found == target));
}
