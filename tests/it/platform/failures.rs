//! Servers that fail, cannot be reached or are not trusted.

use super::*;

#[tokio::test]
async fn what_may_pass_is_repeated_and_counted() {
    let (fake, platform) = start().await;
    let [artifact, _] = operator("global");
    for status in [408, 429, 500, 502, 503, 504] {
        let before = platform.counters();
        fake.fail(Failure::of("/kubernetes/").times(2).status(status));
        platform.observe(&artifact).await.unwrap();
        let after = platform.counters();
        assert_eq!(after.retries - before.retries, 2, "{status}");
        assert_eq!(after.requests - before.requests, 3, "{status}");
    }
}

#[tokio::test]
async fn attempts_have_an_end() {
    let fake = FakeAcp::start().await;
    let mut options = options(&fake, token(&fake));
    options.retries.attempts_max = 3;
    let platform = connect(options);
    fake.fail(Failure::of("/kubernetes/").times(100));
    let error = platform.observe(&plugin()).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert!(
        error
            .to_string()
            .contains("status 503 (Service Unavailable)"),
        "{error}"
    );
    assert_eq!(fake.requests().len(), 3);
}

#[tokio::test]
async fn the_server_decides_how_long_to_wait() {
    let (fake, platform) = start().await;
    fake.fail(
        Failure::of("/kubernetes/")
            .status(429)
            .header("retry-after", "1"),
    );
    let start = Instant::now();
    platform.observe(&plugin()).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn refusals_are_not_repeated() {
    let (fake, platform) = start().await;
    for (status, class) in [
        (403, Class::Denied),
        (302, Class::Rejected),
        (418, Class::Rejected),
    ] {
        let before = fake.requests().len();
        fake.fail(
            Failure::of("/kubernetes/")
                .status(status)
                .header("location", "/auth/v1/clusters"),
        );
        let error = platform.observe(&plugin()).await.unwrap_err();
        assert_eq!(error.class(), class, "{error:?}");
        assert_eq!(fake.requests().len(), before + 1);
    }
}

#[tokio::test]
async fn a_platform_that_is_not_there_is_unreachable() {
    let fake = FakeAcp::start().await;
    let mut options = options(&fake, token(&fake));
    options.retries.attempts_max = 2;
    drop(fake);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    options.address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let platform = connect(options);
    let error = platform.check().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(error.class(), Class::Transient);
    assert_eq!(platform.counters().retries, 1);
}

#[tokio::test]
async fn a_shared_name_leads_to_the_host_that_is_meant() {
    let (fake, certificate) = FakeAcp::start_with_tls("platform.example").await;
    let mut options = options(&fake, password(PASSWORD));
    options.address = fake.address_as("platform.example");
    options.connect_to = Some("127.0.0.1".to_owned());
    options.trust.extra_roots = vec![certificate];
    let platform = connect(options.clone());
    platform.check().await.unwrap();

    options.trust.extra_roots.clear();
    let error = connect(options.clone()).check().await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("platform.example") && text.contains("is not trusted"),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("ca_file"));

    options.trust.verification = Verification::Skip;
    connect(options).check().await.unwrap();
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (fake, certificate) = FakeAcp::start_with_tls("platform.example").await;
    let mut options = options(&fake, token(&fake));
    options.trust.extra_roots = vec![certificate];
    let error = connect(options).check().await.unwrap_err();
    assert_eq!(error.class(), Class::Usage);
    assert!(
        error.to_string().contains("not valid for that name"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("connect_to"));
}
