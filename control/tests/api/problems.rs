use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::service::{EDGE, OPERATOR, registration, report, request, start, title, with};

fn raw(method: Method, path: &str, content_type: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "control.test")
        .header("authorization", format!("Bearer {OPERATOR}"))
        .header("content-type", content_type)
        .body(Full::from(body.into()))
        .unwrap()
}

fn changed(mut value: Value, pointer: &str, to: Value) -> Value {
    *value.pointer_mut(pointer).unwrap() = to;
    value
}

#[tokio::test]
async fn each_bad_request_gets_its_own_problem() {
    const JSON: &str = "application/json";
    let (_dir, service) = start().await;
    let get = |path: &str| request(Method::GET, path);
    let put = |body: &Value| with(Method::PUT, "/videos/demo", OPERATOR, body);
    let register = |body: &Value| with(Method::PUT, "/fleet/edges/e1", EDGE, body);
    let unknown_member = {
        let mut title = title("demo");
        title["colour"] = json!("red");
        title
    };
    let cases = [
        (get("/nowhere"), 404, "no-such-route", "there is nothing at /nowhere"),
        (get("/videos/"), 404, "no-such-route", "/openapi.json lists"),
        (request(Method::PATCH, "/videos"), 405, "method-not-allowed", "PATCH"),
        (request(Method::POST, "/"), 405, "method-not-allowed", "POST"),
        (get("/videos?limit=0"), 400, "bad-parameter", "limit: it must be from 1 to 100, not 0"),
        (get("/videos?limit=101"), 400, "bad-parameter", "limit: it must be from 1 to 100, not 101"),
        (get("/videos?limit=many"), 400, "bad-parameter", "limit: invalid digit"),
        (get("/videos?limit=1&limit=2"), 400, "bad-parameter", "limit"),
        (get("/videos?serachQuery=x"), 400, "bad-parameter", "serachQuery"),
        (get("/videos?nextCursor=zzz"), 400, "bad-parameter", "nextCursor: it is not a cursor that this list gave"),
        (
            get(&format!("/videos?searchQuery={}", "x".repeat(201))),
            400,
            "bad-parameter",
            "searchQuery: it is longer than 200 characters",
        ),
        (get("/videos/UPPER"), 400, "bad-parameter", "a title's id is 1 to 64 of a-z, 0-9 and -"),
        (get("/videos/%ff"), 400, "bad-parameter", "UTF-8"),
        (get("/videos/none"), 404, "no-such-title", "no title \"none\" is catalogued"),
        (get("/videos/none/thumbnail"), 404, "no-such-title", "none"),
        (get("/problems/none"), 404, "no-such-route", "no such kind of problem"),
        (raw(Method::PUT, "/videos/demo", JSON, "{"), 400, "bad-body", "EOF while parsing"),
        (raw(Method::PUT, "/videos/demo", JSON, "{}"), 400, "bad-body", "missing field `id`"),
        (raw(Method::PUT, "/videos/demo", JSON, vec![0xff; 10]), 400, "bad-body", "line 1 column 1"),
        (raw(Method::PUT, "/videos/demo", "text/plain", "{}"), 415, "not-json", "Content-Type: application/json"),
        (put(&unknown_member), 400, "bad-body", "unknown field `colour`"),
        (put(&changed(title("demo"), "/root", json!("../x"))), 400, "bad-body", "root: a path begins with a slash"),
        (put(&changed(title("demo"), "/id", json!("other"))), 422, "flawed-title", "/id: it says \"other\""),
        (put(&changed(title("demo"), "/hls", json!("gone"))), 422, "flawed-title", "\"gone\" is not among the title's objects"),
        (with(Method::PUT, "/fleet/edges/a%20b", EDGE, &registration("e")), 400, "bad-parameter", "an edge's id is 1 to 64"),
        (register(&changed(registration("e1"), "/site", json!("a/b"))), 422, "flawed-edge", "a site's name is 1 to 64"),
        (
            register(&changed(registration("e1"), "/url", json!("https://e1/x"))),
            422,
            "flawed-edge",
            "an edge's url is http or https",
        ),
        (register(&changed(registration("e1"), "/version", json!(7))), 400, "bad-body", "version: invalid type"),
        (
            with(Method::POST, "/fleet/edges/e9/reports", EDGE, &report("ready")),
            404,
            "no-such-edge",
            "no edge \"e9\" is registered",
        ),
        (
            with(Method::POST, "/fleet/edges/e9/reports", EDGE, &changed(report("ready"), "/health", json!(7))),
            400,
            "bad-body",
            "health: expected value",
        ),
    ];
    for (request, status, kind, detail) in cases {
        let what = format!("{} {}", request.method(), request.uri());
        let reply = service.send(request).await;
        assert_eq!(
            (reply.header("content-type"), reply.header("cache-control")),
            ("application/problem+json", "no-store"),
            "{what}"
        );
        let problem = reply.json();
        assert_eq!((reply.status.as_u16(), &problem["type"]), (status, &json!(format!("/problems/{kind}"))), "{what}: {problem}");
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{what}: {problem}");
        let explained = service.get(&format!("/problems/{kind}")).await.json();
        assert_eq!(
            (&explained["type"], &explained["title"], &explained["status"]),
            (&problem["type"], &problem["title"], &problem["status"])
        );
    }
    let flawed = service.send(put(&changed(title("demo"), "/cast/0", json!("")))).await;
    assert_eq!(flawed.json()["pointer"], "/cast/0");
    assert_eq!(service.send(request(Method::PATCH, "/videos")).await.header("allow"), "GET,HEAD");
    assert_eq!(service.send(request(Method::POST, "/")).await.header("allow"), "GET,HEAD");
    assert_eq!(service.get("/videos").await.json()["videos"], json!([]), "none of it was catalogued");
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_by_its_name() {
    let (_dir, service) = start().await;
    let over = |method, path: &str, secret: &str, limit: usize| {
        let (head, _) = with(method, path, secret, &json!(null)).into_parts();
        Request::from_parts(head, Full::from(vec![b' '; limit + 1]))
    };
    for request in [
        over(Method::PUT, "/videos/demo", OPERATOR, 32 * 1024 * 1024),
        over(Method::PUT, "/fleet/edges/e1", EDGE, 4 * 1024 * 1024),
        over(Method::POST, "/fleet/edges/e1/reports", EDGE, 64 * 1024),
    ] {
        let reply = service.send(request).await;
        assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(
            reply.json()["detail"],
            "a title's body may have 33554432 bytes, an edge's or a site's 4194304, any other 65536"
        );
    }
}

#[tokio::test]
async fn what_needs_a_secret_is_closed_to_all_others() {
    let (_dir, service) = start().await;
    for (method, path, wrong) in [
        (Method::PUT, "/videos/demo", EDGE),
        (Method::DELETE, "/videos/demo", EDGE),
        (Method::GET, "/fleet/edges", EDGE),
        (Method::DELETE, "/fleet/edges/e1", EDGE),
        (Method::PUT, "/fleet/edges/e1", OPERATOR),
        (Method::POST, "/fleet/edges/e1/reports", OPERATOR),
    ] {
        for request in [
            request(method.clone(), path),
            with(method.clone(), path, wrong, &json!({})),
            with(method.clone(), path, "", &json!({})),
        ] {
            let reply = service.send(request).await;
            assert_eq!(
                (reply.status, reply.header("www-authenticate")),
                (StatusCode::UNAUTHORIZED, "Bearer realm=\"larder\""),
                "{method} {path}"
            );
            assert_eq!(reply.json()["type"], "/problems/no-secret");
        }
    }
}
