//! Waiting for the platform's controllers.

use super::*;

#[tokio::test]
async fn a_verdict_comes_by_watch() {
    let (fake, platform) = start().await;
    for resources in [operator("global").to_vec(), vec![plugin()]] {
        fake.hold_controllers();
        apply_all(&platform, &resources).await;
        let waiting = {
            let (platform, resource) = (platform.clone(), resources.last().unwrap().clone());
            tokio::spawn(async move { platform.wait_verdict(&resource, LONG).await })
        };
        fake.until("a watch", |fake| fake.watchers() == 1).await;
        let before = fake.requests().len();
        fake.release_controllers();
        assert_eq!(waiting.await.unwrap().unwrap(), Verdict::Accepted);
        assert_eq!(fake.requests().len(), before, "nothing is polled");
    }
}

#[tokio::test]
async fn a_verdict_comes_without_watches_too() {
    for watches in [Watches::Closed, Watches::Refused] {
        let (fake, platform) = start().await;
        fake.set_watches(watches);
        fake.hold_controllers();
        let resources = operator("global");
        apply_all(&platform, &resources).await;
        let waiting = {
            let (platform, resource) = (platform.clone(), resources[1].clone());
            tokio::spawn(async move { platform.wait_verdict(&resource, LONG).await })
        };
        fake.until("a second look", |fake| {
            fake.requests()
                .iter()
                .filter(|request| request.contains("watch=true"))
                .count()
                > 1
        })
        .await;
        fake.release_controllers();
        assert_eq!(
            waiting.await.unwrap().unwrap(),
            Verdict::Accepted,
            "{watches:?}"
        );
    }
}

#[tokio::test]
async fn a_failed_watch_is_not_the_end() {
    let (fake, platform) = start().await;
    fake.hold_controllers();
    let resources = operator("global");
    apply_all(&platform, &resources).await;
    fake.fail(Failure::of("watch=true").status(502));
    let waiting = {
        let (platform, resource) = (platform.clone(), resources[1].clone());
        tokio::spawn(async move { platform.wait_verdict(&resource, LONG).await })
    };
    fake.until("a watch", |fake| fake.watchers() == 1).await;
    fake.release_controllers();
    assert_eq!(waiting.await.unwrap().unwrap(), Verdict::Accepted);
}

#[tokio::test]
async fn the_platforms_words_come_through() {
    let (fake, platform) = start().await;
    fake.set_verdict(ArtifactVerdict::Failed("the bundle has no CSV".to_owned()));
    let resources = operator("global");
    apply_all(&platform, &resources).await;
    let words = failed(platform.wait_verdict(&resources[1], LONG).await.unwrap());
    assert_eq!(words, "Failed (Failed: the bundle has no CSV)");
}

#[tokio::test]
async fn a_version_without_owner_fails_with_the_known_words() {
    let (fake, platform) = start().await;
    let [artifact, version] = operator("global");
    platform.apply(&artifact).await.unwrap();
    for owners in [
        json!(null),
        json!([{
            "apiVersion": "app.alauda.io/v1alpha1", "kind": "Artifact", "name": ARTIFACT, "uid": "another",
        }]),
    ] {
        fake.edit("global", "ArtifactVersion", VERSION, |object| {
            *object = version.body.clone();
            object["metadata"]["ownerReferences"] = owners.clone();
        });
        let words = failed(platform.wait_verdict(&version, LONG).await.unwrap());
        assert!(
            words.contains("aritfactVersion not have OwnerReference"),
            "{words}"
        );
        fake.delete("global", "ArtifactVersion", VERSION);
    }
}

#[tokio::test]
async fn a_failure_from_before_our_apply_is_not_ours() {
    let fake = FakeAcp::start().await;
    let mut options = options(&fake, token(&fake));
    options.timeouts.failed_grace = LONG;
    let platform = connect(options);
    let [artifact, version] = operator("global");
    platform.apply(&artifact).await.unwrap();
    fake.edit("global", "ArtifactVersion", VERSION, |object| {
        *object = version.body.clone();
        object["metadata"]["ownerReferences"] = json!(null);
    });
    fake.until("the failure", |fake| {
        let found = fake.object("global", "ArtifactVersion", VERSION);
        found.is_some_and(|found| found["status"]["phase"] == "Failed")
    })
    .await;

    fake.hold_controllers();
    platform.apply(&version).await.unwrap();
    let waiting = {
        let (platform, version) = (platform.clone(), version.clone());
        tokio::spawn(async move { platform.wait_verdict(&version, LONG).await })
    };
    fake.until("a watch", |fake| fake.watchers() == 1).await;
    fake.release_controllers();
    assert_eq!(waiting.await.unwrap().unwrap(), Verdict::Accepted);
}

#[tokio::test]
async fn a_failure_that_stays_is_one_after_the_grace_time() {
    let fake = FakeAcp::start().await;
    let mut options = options(&fake, token(&fake));
    options.timeouts.failed_grace = Duration::from_millis(50);
    let platform = connect(options);
    fake.set_verdict(ArtifactVerdict::Failed("no".to_owned()));
    let resources = operator("global");
    apply_all(&platform, &resources).await;
    fake.until("the failure", |fake| {
        let found = fake.object("global", "ArtifactVersion", VERSION);
        found.is_some_and(|found| found["status"]["phase"] == "Failed")
    })
    .await;
    let words = failed(platform.wait_verdict(&resources[1], LONG).await.unwrap());
    assert_eq!(words, "Failed (Failed: no)");
}

#[tokio::test]
async fn what_is_deleted_while_we_wait_has_failed() {
    let (fake, platform) = start().await;
    fake.set_verdict(ArtifactVerdict::Undecided);
    let resources = operator("global");
    apply_all(&platform, &resources).await;
    let waiting = {
        let (platform, resource) = (platform.clone(), resources[1].clone());
        tokio::spawn(async move { platform.wait_verdict(&resource, LONG).await })
    };
    fake.until("a watch", |fake| fake.watchers() == 1).await;
    fake.delete("global", "ArtifactVersion", VERSION);
    assert_eq!(
        failed(waiting.await.unwrap().unwrap()),
        "the platform has deleted it"
    );
}

#[tokio::test]
async fn waiting_has_an_end_and_tells_the_last_state() {
    let (fake, platform) = start().await;
    fake.set_verdict(ArtifactVerdict::Undecided);
    fake.set_images(&["middleware/redis-operator-bundle:v4.2.0"]);
    let resources = operator("global");
    apply_all(&platform, &resources).await;
    apply_all(&platform, &[plugin()]).await;
    let wait = |resource: Resource| {
        let platform = platform.clone();
        async move {
            platform
                .wait_verdict(&resource, Duration::from_millis(300))
                .await
                .unwrap()
        }
    };
    let (version, chart) = tokio::join!(wait(resources[1].clone()), wait(plugin()));
    assert_eq!(
        version,
        Verdict::Pending {
            last: "Pending (syncing)".to_owned()
        }
    );
    assert_eq!(
        chart,
        Verdict::Pending {
            last: "no ModuleConfig yet (ChartMissing: chart ait/log-center:v1.2.0 not found)"
                .to_owned()
        }
    );

    fake.set_images(&["ait/log-center:v1.2.0"]);
    assert_eq!(
        platform.wait_verdict(&plugin(), LONG).await.unwrap(),
        Verdict::Accepted
    );
    let words = failed(platform.wait_verdict(&resources[1], LONG).await.unwrap());
    assert!(words.contains("bundle image"), "{words}");
}

#[tokio::test]
async fn a_watch_from_too_long_ago_is_begun_anew() {
    let (fake, platform) = start().await;
    fake.hold_controllers();
    let resources = operator("global");
    apply_all(&platform, &resources).await;
    fake.compact();
    let waiting = {
        let (platform, resource) = (platform.clone(), resources[1].clone());
        tokio::spawn(async move { platform.wait_verdict(&resource, LONG).await })
    };
    fake.until("a second look", |fake| {
        fake.requests()
            .iter()
            .filter(|request| request.contains("watch=true"))
            .count()
            > 1
    })
    .await;
    fake.release_controllers();
    assert_eq!(waiting.await.unwrap().unwrap(), Verdict::Accepted);
}
