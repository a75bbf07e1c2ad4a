//! Entity tags: what a client has is not sent again, and what it has not seen is not overwritten.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::service::{self, OPERATOR, Reply, Service, request, start, title};

async fn get(service: &Service, path: &str, name: &'static str, value: &str) -> Reply {
    let mut request = request(Method::GET, path);
    request.headers_mut().insert(name, value.parse().unwrap());
    service.send(request).await
}

#[tokio::test]
async fn what_a_client_has_is_not_sent_again_until_it_changes() {
    let (_dir, service) = start().await;
    service.publish(&title("demo")).await;
    for path in ["/videos", "/videos/demo"] {
        let whole = service.get(path).await;
        let etag = whole.header("etag").to_owned();
        assert_eq!((whole.status, whole.header("cache-control")), (StatusCode::OK, "public, max-age=10"));
        let again = get(&service, path, "if-none-match", &etag).await;
        assert_eq!((again.status, again.body.len(), again.header("etag")), (StatusCode::NOT_MODIFIED, 0, &*etag));
        assert_eq!(get(&service, path, "if-none-match", &format!("\"x\", W/{etag}")).await.status, StatusCode::NOT_MODIFIED);
        assert_eq!(get(&service, path, "if-none-match", "\"x\"").await.status, StatusCode::OK);
        assert_eq!(get(&service, path, "if-match", "\"x\"").await.status, StatusCode::PRECONDITION_FAILED);
        assert_eq!(get(&service, path, "range", "bytes=0-1").await.body, whole.body, "no parts of these");

        let mut changed = title("demo");
        changed["title"] = json!(format!("Changed for {path}"));
        service.publish(&changed).await;
        let now = get(&service, path, "if-none-match", &etag).await;
        assert_eq!(now.status, StatusCode::OK);
        assert!(str::from_utf8(&now.body).unwrap().contains(&format!("Changed for {path}")), "nothing old is given");
    }
}

#[tokio::test]
async fn what_an_operator_has_not_seen_is_not_overwritten() {
    let (_dir, service) = start().await;
    let write = async |method: Method, name: &'static str, value: &str| {
        let mut request = service::with(method, "/videos/demo", OPERATOR, &title("demo"));
        request.headers_mut().insert(name, value.parse().unwrap());
        service.send(request).await
    };
    let failed = write(Method::PUT, "if-match", "*").await;
    assert_eq!(
        (failed.status, &failed.json()["type"]),
        (StatusCode::PRECONDITION_FAILED, &json!("/problems/precondition-failed"))
    );
    assert_eq!(service.get("/videos/demo").await.status, StatusCode::NOT_FOUND);
    let created = write(Method::PUT, "if-none-match", "*").await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert_eq!(write(Method::PUT, "if-none-match", "*").await.status, StatusCode::PRECONDITION_FAILED);
    let etag = created.header("etag").to_owned();
    assert_eq!(service.get("/videos/demo").await.header("etag"), etag, "the tag of a write is that of the next read");
    assert_eq!(write(Method::PUT, "if-match", "\"x\"").await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(write(Method::DELETE, "if-match", "\"x\"").await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(write(Method::PUT, "if-match", &etag).await.status, StatusCode::OK);
    assert_eq!(write(Method::DELETE, "if-match", &etag).await.status, StatusCode::NO_CONTENT);
    assert_eq!(
        service.send(service::with(Method::GET, "/videos/demo", OPERATOR, &Value::Null)).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_title_that_is_read_often_is_read_from_memory() {
    let (_dir, service) = start().await;
    service.publish(&title("demo")).await;
    for _ in 0..4 {
        service.get("/videos/demo").await;
    }
    let metrics = service.get("/metrics").await;
    let metrics = str::from_utf8(&metrics.body).unwrap();
    // Publishing reads it once, for its answer.
    for line in [
        "larder_control_hot_total{cache=\"titles\",outcome=\"hit\"} 4",
        "larder_control_hot_total{cache=\"titles\",outcome=\"miss\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}
