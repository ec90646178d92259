//! Discovery, comparison and apply.

use super::*;

#[tokio::test]
async fn a_check_finds_unknown_clusters() {
    let fake = FakeAcp::start().await;
    let mut options = options(&fake, token(&fake));
    options.clusters = vec![ClusterName::global(), "business-1".parse().unwrap()];
    connect(options.clone()).check().await.unwrap();
    options.clusters.push("business-2".parse().unwrap());
    let error = connect(options).check().await.unwrap_err();
    assert_eq!(error.class(), Class::Usage);
    assert!(error.to_string().contains("business-2"));
    assert!(error.hint().unwrap().contains("global, business-1"));
}

#[tokio::test]
async fn a_check_finds_clusters_that_do_not_answer() {
    let (fake, platform) = start().await;
    fake.fail(
        Failure::of("/kubernetes/global/apis/cluster.alauda.io")
            .status(404)
            .body("404 page not found"),
    );
    let error = platform.check().await.unwrap_err();
    assert!(matches!(error, Error::NotServed { .. }), "{error:?}");
}

#[tokio::test]
async fn the_pull_registry_is_what_the_platform_says() {
    let (fake, platform) = start().await;
    assert_eq!(
        platform.pull_registry().await.unwrap(),
        "registry.example:11443"
    );

    fake.edit("global", "ProductBase", "base", |base| {
        base["spec"]["registry"]["address"] = json!("");
    });
    let error = platform.pull_registry().await.unwrap_err();
    assert!(
        matches!(error, Error::PullRegistryUnknown { .. }),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("pull_registry"));

    fake.edit("global", "ConfigMap", "global-info", |info| {
        *info = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "global-info", "namespace": "kube-public"},
            "data": {"registryAddress": "192.0.2.1:60080", "platformURL": "https://platform.example"},
        });
    });
    assert_eq!(platform.pull_registry().await.unwrap(), "192.0.2.1:60080");

    fake.edit("global", "ProductBase", "base", |base| {
        base["spec"]["registry"]["preferPlatformURL"] = json!(true);
    });
    assert_eq!(platform.pull_registry().await.unwrap(), "platform.example");

    fake.delete("global", "ProductBase", "base");
    assert_eq!(platform.pull_registry().await.unwrap(), "192.0.2.1:60080");
}

#[tokio::test]
async fn a_pull_registry_that_was_given_is_not_asked_for() {
    let fake = FakeAcp::start().await;
    let mut options = options(&fake, token(&fake));
    options.pull_registry = Some("192.0.2.9:5000".to_owned());
    assert_eq!(
        connect(options).pull_registry().await.unwrap(),
        "192.0.2.9:5000"
    );
    assert!(fake.requests().is_empty());
}

#[tokio::test]
async fn an_operator_is_published_and_then_in_sync() {
    let (fake, platform) = start().await;
    let resources = operator("business-1");
    for resource in &resources {
        assert_eq!(platform.observe(resource).await.unwrap(), Observed::Absent);
        assert_eq!(platform.apply(resource).await.unwrap(), Applied::Created);
        assert_eq!(
            platform.wait_verdict(resource, LONG).await.unwrap(),
            Verdict::Accepted
        );
    }
    for resource in &resources {
        assert_eq!(platform.observe(resource).await.unwrap(), Observed::Same);
        assert_eq!(platform.apply(resource).await.unwrap(), Applied::Unchanged);
    }
    let artifact = fake.object("business-1", "Artifact", ARTIFACT).unwrap();
    let version = fake
        .object("business-1", "ArtifactVersion", VERSION)
        .unwrap();
    assert_eq!(artifact["spec"]["present"], true);
    assert_eq!(
        version["metadata"]["ownerReferences"][0]["uid"],
        artifact["metadata"]["uid"]
    );
    assert_eq!(version["status"]["phase"], "Present");
    assert!(fake.object("global", "Artifact", ARTIFACT).is_none());
}

#[tokio::test]
async fn a_version_needs_its_artifact() {
    let (fake, platform) = start().await;
    let [_, version] = operator("global");
    let error = platform.apply(&version).await.unwrap_err();
    assert!(matches!(error, Error::OwnerAbsent { .. }), "{error:?}");
    assert!(fake.object("global", "ArtifactVersion", VERSION).is_none());
}

#[tokio::test]
async fn a_version_follows_an_artifact_that_was_made_anew() {
    let (fake, platform) = start().await;
    let [artifact, version] = operator("global");
    apply_all(&platform, &[artifact.clone(), version.clone()]).await;
    fake.delete("global", "Artifact", ARTIFACT);
    assert_eq!(
        platform.observe(&version).await.unwrap(),
        Observed::Different
    );
    platform.apply(&artifact).await.unwrap();
    assert_eq!(
        platform.observe(&version).await.unwrap(),
        Observed::Different
    );
    assert_eq!(platform.apply(&version).await.unwrap(), Applied::Updated);
    assert_eq!(platform.observe(&version).await.unwrap(), Observed::Same);
    let found = fake.object("global", "ArtifactVersion", VERSION).unwrap();
    let owners = found["metadata"]["ownerReferences"].as_array().unwrap();
    assert_eq!(owners.len(), 1, "the dead owner is gone");
}

#[tokio::test]
async fn our_own_fields_change_and_go_without_force() {
    let (fake, platform) = start().await;
    let [mut artifact, _] = operator("global");
    platform.apply(&artifact).await.unwrap();
    artifact.body["spec"]["description"] = json!("better");
    artifact.body["spec"]
        .as_object_mut()
        .unwrap()
        .remove("imagePullSecrets");
    assert_eq!(
        platform.observe(&artifact).await.unwrap(),
        Observed::Different
    );
    assert_eq!(platform.apply(&artifact).await.unwrap(), Applied::Updated);
    let found = fake.object("global", "Artifact", ARTIFACT).unwrap();
    assert_eq!(found["spec"]["description"], "better");
    assert!(found["spec"].get("imagePullSecrets").is_none());
}

#[tokio::test]
async fn what_others_add_is_left_alone() {
    let (fake, platform) = start().await;
    let [artifact, _] = operator("global");
    platform.apply(&artifact).await.unwrap();
    fake.edit("global", "Artifact", ARTIFACT, |object| {
        object["metadata"]["labels"]["team"] = json!("cache");
        object["spec"]["tagPatterns"] = json!([]);
    });
    assert_eq!(platform.observe(&artifact).await.unwrap(), Observed::Same);
    assert_eq!(platform.apply(&artifact).await.unwrap(), Applied::Unchanged);
    let found = fake.object("global", "Artifact", ARTIFACT).unwrap();
    assert_eq!(found["metadata"]["labels"]["team"], "cache");
}

#[tokio::test]
async fn a_field_that_somebody_else_changed_is_a_conflict() {
    let (fake, platform) = start().await;
    let [artifact, _] = operator("global");
    platform.apply(&artifact).await.unwrap();
    fake.edit("global", "Artifact", ARTIFACT, |object| {
        object["spec"]["registry"] = json!("192.0.2.1:5000");
        object["spec"]["displayName"] = json!("theirs");
    });
    assert_eq!(
        platform.observe(&artifact).await.unwrap(),
        Observed::Different
    );
    let error = platform.apply(&artifact).await.unwrap_err();
    assert_eq!(error.class(), Class::Rejected);
    let text = error.to_string();
    assert!(
        text.contains("`kubectl-edit` manages .spec.displayName, .spec.registry"),
        "{text}"
    );
    let found = fake.object("global", "Artifact", ARTIFACT).unwrap();
    assert_eq!(
        found["spec"]["registry"], "192.0.2.1:5000",
        "nothing is overwritten"
    );

    let mut options = options(&fake, token(&fake));
    options.conflicts = Conflicts::TakeOver;
    let forcing = connect(options);
    assert_eq!(forcing.apply(&artifact).await.unwrap(), Applied::Updated);
    assert_eq!(platform.observe(&artifact).await.unwrap(), Observed::Same);
    assert_eq!(platform.apply(&artifact).await.unwrap(), Applied::Unchanged);
}

#[tokio::test]
async fn equal_values_of_somebody_else_are_shared_without_conflict() {
    let (fake, platform) = start().await;
    let [artifact, _] = operator("global");
    fake.edit("global", "Artifact", ARTIFACT, |object| {
        *object = artifact.body.clone();
    });
    assert_eq!(
        platform.observe(&artifact).await.unwrap(),
        Observed::Different,
        "not ours yet"
    );
    assert_eq!(platform.apply(&artifact).await.unwrap(), Applied::Updated);
    assert_eq!(platform.observe(&artifact).await.unwrap(), Observed::Same);
}

#[tokio::test]
async fn an_artifact_that_is_not_violets_is_switched_off_with_its_versions() {
    let (fake, platform) = start().await;
    let [mut artifact, version] = operator("global");
    let labels = artifact.body["metadata"]["labels"].as_object_mut().unwrap();
    labels.remove("cpaas.io/managed-by").unwrap();
    fake.hold_controllers();
    apply_all(&platform, &[artifact.clone(), version.clone()]).await;
    fake.release_controllers();
    fake.until("the deletion of the version", |fake| {
        fake.object("global", "ArtifactVersion", VERSION).is_none()
    })
    .await;
    let words = failed(platform.wait_verdict(&artifact, LONG).await.unwrap());
    assert!(words.contains("spec.present"), "{words}");
    let words = failed(platform.wait_verdict(&version, LONG).await.unwrap());
    assert!(words.contains("deleted"), "{words}");
}

#[tokio::test]
async fn documents_that_do_not_fit_the_schema_are_refused_once() {
    let (fake, platform) = start().await;
    for (pointer, value, words) in [
        (
            "/spec/repositry",
            json!("typo"),
            ".spec.repositry: field not declared in schema",
        ),
        (
            "/spec/present",
            json!("true"),
            ".spec.present: expected flag",
        ),
        (
            "/spec/registry",
            Value::Null,
            "spec.registry: Required value",
        ),
    ] {
        let [mut artifact, _] = operator("global");
        artifact.body["spec"][&pointer["/spec/".len()..]] = value;
        let before = platform.counters();
        let error = platform.apply(&artifact).await.unwrap_err();
        assert!(
            matches!(error, Error::Invalid { .. }),
            "{pointer}: {error:?}"
        );
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(platform.counters().retries, before.retries, "{pointer}");
        assert!(fake.object("global", "Artifact", ARTIFACT).is_none());
    }
}

#[tokio::test]
async fn plugins_are_for_the_global_cluster() {
    let (fake, platform) = start().await;
    let mut resource = plugin();
    resource.cluster = "business-1".parse().unwrap();
    let error = platform.apply(&resource).await.unwrap_err();
    assert!(matches!(error, Error::NotServed { .. }), "{error:?}");

    let resource = plugin();
    assert_eq!(platform.apply(&resource).await.unwrap(), Applied::Created);
    assert_eq!(
        platform.wait_verdict(&resource, LONG).await.unwrap(),
        Verdict::Accepted
    );
    assert_eq!(platform.observe(&resource).await.unwrap(), Observed::Same);
    assert!(
        fake.object("global", "ModuleConfig", "log-center-v1.2.0")
            .is_some()
    );
}
