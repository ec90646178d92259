//! Logging in: what is sent, how often, and what refusals mean.

use super::*;

#[tokio::test]
async fn one_login_serves_many_requests() {
    let fake = FakeAcp::start().await;
    let platform = connect(options(&fake, password(PASSWORD)));
    let checks = (0..8).map(|_| platform.check());
    for result in futures_util::future::join_all(checks).await {
        result.unwrap();
    }
    assert_eq!((fake.logins(), fake.login_attempts()), (1, 1));
}

#[tokio::test]
async fn a_refused_password_is_explained_and_not_tried_again() {
    let fake = FakeAcp::start().await;
    let platform = connect(options(&fake, password("a wrong password")));
    let error = platform.check().await.unwrap_err();
    assert_eq!(error.class(), Class::Denied);
    let text = Chain(&error).to_string();
    assert!(
        text.contains("`admin`") && text.contains("InvalidUsernameOrPassword"),
        "{text}"
    );
    assert!(error.hint().unwrap().contains("API token"));
    assert!(!format!("{platform:?} {error:?} {text}").contains("a wrong password"));

    let requests = fake.requests().len();
    let error = platform.check().await.unwrap_err();
    assert!(matches!(error, Error::Login { .. }));
    assert_eq!(
        (fake.login_attempts(), fake.requests().len()),
        (1, requests)
    );
}

#[tokio::test]
async fn a_refused_password_is_tried_again_after_the_pause() {
    let fake = FakeAcp::start().await;
    let mut options = options(&fake, password("a wrong password"));
    options.timeouts.login_pause = Duration::ZERO;
    let platform = connect(options);
    platform.check().await.unwrap_err();
    platform.check().await.unwrap_err();
    assert_eq!(fake.login_attempts(), 2);
}

#[tokio::test]
async fn what_is_wrong_with_a_user_is_told_apart() {
    for (status, reason, expected) in [
        (500, "FirstLoginPasswordUpdate", LoginProblem::FirstLogin),
        (500, "PasswordExpired", LoginProblem::PasswordExpired),
        (403, "CaptchaRequired", LoginProblem::Captcha),
    ] {
        let fake = FakeAcp::start().await;
        fake.set_login_problem(status, reason);
        let platform = connect(options(&fake, password(PASSWORD)));
        let error = platform.check().await.unwrap_err();
        assert!(error.hint().is_some());
        let Error::Login { problem, .. } = error else {
            panic!("expected a refused login, found {error:?}");
        };
        assert_eq!(problem, expected);
        assert_eq!(fake.login_attempts(), 1, "{reason}");
    }
}

#[tokio::test]
async fn an_unknown_identity_provider_is_a_refusal() {
    let fake = FakeAcp::start().await;
    let auth = Auth::Password(Password {
        identity_provider: "ldap".to_owned(),
        ..Password::new(USERNAME.to_owned(), Secret::new(PASSWORD.to_owned()))
    });
    let error = connect(options(&fake, auth)).check().await.unwrap_err();
    assert_eq!(error.class(), Class::Denied);
}

#[tokio::test]
async fn the_password_is_sent_again_only_if_nobody_saw_it() {
    const SUBMIT: &str = "/dex/api/v1/authorize/local";
    let fake = FakeAcp::start().await;
    let platform = connect(options(&fake, password(PASSWORD)));
    let submissions = || {
        let requests = fake.requests();
        requests
            .iter()
            .filter(|request| request.contains(SUBMIT))
            .count()
    };
    for status in [500, 502, 504] {
        let before = submissions();
        fake.fail(Failure::of(SUBMIT).status(status));
        let error = platform.check().await.unwrap_err();
        assert_eq!(error.class(), Class::Transient, "{status}");
        assert_eq!(submissions(), before + 1, "{status}");
    }
    let before = submissions();
    fake.fail(Failure::of(SUBMIT).status(503));
    platform.check().await.unwrap();
    assert_eq!(submissions(), before + 2);
}

#[tokio::test]
async fn a_token_that_is_refused_in_the_middle_is_replaced() {
    let fake = FakeAcp::start().await;
    let platform = connect(options(&fake, password(PASSWORD)));
    platform.check().await.unwrap();
    fake.revoke_tokens();
    let [artifact, _] = operator("global");
    assert_eq!(platform.apply(&artifact).await.unwrap(), Applied::Created);
    assert_eq!(fake.logins(), 2);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let fake = FakeAcp::start().await;
    fake.set_token_lifetime(Duration::ZERO);
    let platform = connect(options(&fake, password(PASSWORD)));
    platform.pull_registry().await.unwrap();
    platform.pull_registry().await.unwrap();
    assert_eq!(fake.logins(), 2, "each request finds the token expired");
}

#[tokio::test]
async fn a_refused_api_token_is_an_error_with_a_hint() {
    let (fake, platform) = start().await;
    platform.check().await.unwrap();
    fake.revoke_tokens();
    let error = platform.check().await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("token"));
    let before = fake.requests().len();
    platform.observe(&plugin()).await.unwrap_err();
    assert_eq!(
        fake.requests().len(),
        before + 1,
        "the same token is not sent twice"
    );
}
