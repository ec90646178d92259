//! The platform of these tests is itself strict.

use super::*;

#[tokio::test]
async fn the_fake_refuses_what_a_real_server_refuses() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let fake = FakeAcp::start().await;
    let http = reqwest::Client::new();
    let [artifact, _] = operator("global");
    let url = format!(
        "{}/kubernetes/global/apis/app.alauda.io/v1alpha1/namespaces/cpaas-system/artifacts/{ARTIFACT}",
        fake.address()
    );
    let patch = async |query: &str, content_type: &str, body: &Value| {
        let response = http
            .patch(format!("{url}?{query}"))
            .bearer_auth(fake.api_token())
            .header("content-type", content_type)
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        response.status().as_u16()
    };
    let with = |pointer: &str, value: Value| {
        let mut body = artifact.body.clone();
        body["metadata"][pointer] = value;
        body
    };
    let good = "fieldManager=x&fieldValidation=Strict";
    let kind = "application/apply-patch+yaml";
    let body = &artifact.body;
    assert_eq!(patch(good, "application/json", body).await, 415);
    assert_eq!(patch("fieldValidation=Strict", kind, body).await, 422);
    assert_eq!(patch("fieldManager=x", kind, body).await, 400);
    assert_eq!(patch(good, kind, &with("name", json!("y"))).await, 400);
    assert_eq!(
        patch(good, kind, &with("namespace", json!("default"))).await,
        400
    );
    assert_eq!(
        patch(good, kind, &with("managedFields", json!([]))).await,
        400
    );
    assert_eq!(
        patch(good, kind, &with("ownerReferences", json!([{"name": "x"}]))).await,
        422
    );
    assert_eq!(
        patch(good, kind, &with("resourceVersion", json!("1"))).await,
        409
    );
    assert_eq!(patch(good, kind, body).await, 201);
    assert_eq!(patch(good, kind, body).await, 200);
    assert_eq!(
        patch(good, kind, &with("resourceVersion", json!("1"))).await,
        409
    );
    let anonymous = http.get(&url).send().await.unwrap();
    assert_eq!(anonymous.status().as_u16(), 401);
    let found = fake.object("global", "Artifact", ARTIFACT).unwrap();
    let fields = &found["metadata"]["managedFields"][0];
    assert_eq!(fields["manager"], "x");
    assert!(fields["fieldsV1"]["f:spec"]["f:registry"].is_object());
    assert_eq!(found["metadata"]["generation"], 1);
}

#[tokio::test]
async fn the_fake_wants_every_step_of_the_login() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let fake = FakeAcp::start().await;
    let http = reqwest::Client::new();
    let get = async |path: &str| {
        let response = http
            .get(format!("{}{path}", fake.address()))
            .send()
            .await
            .unwrap();
        (
            response.status().as_u16(),
            response.json::<Value>().await.unwrap(),
        )
    };
    let login = "/console-platform/api/v1/token/login?client_id=alauda-auth&response_type=code";
    assert_eq!(get(login).await.0, 400);
    let scope = "scope=openid+profile+offline_access+email+groups+ext";
    let (status, body) = get(&format!(
        "{login}&{scope}&redirect_uri=http://x/dex/callback"
    ))
    .await;
    assert_eq!(status, 200);
    let query = body["auth_url"]
        .as_str()
        .unwrap()
        .split(['?', '#'])
        .nth(1)
        .unwrap()
        .to_owned();
    assert_eq!(get("/dex/api/v1/authorize?state=x").await.0, 400);
    let (status, body) = get(&format!("/dex/api/v1/authorize?{query}")).await;
    assert_eq!(status, 200);
    let req = body["req"].as_str().unwrap();
    // This client keeps no cookies.
    let response = http
        .post(format!(
            "{}/dex/api/v1/authorize/local?req={req}",
            fake.address()
        ))
        .json(&json!({"account": USERNAME, "password": "x"}))
        .send()
        .await
        .unwrap();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["reason"], "invalid authentication session");
    assert_eq!(fake.login_attempts(), 0);
}
