//! Operators: roles, and the audit log of what they changed.

use control::{Config, config::OperatorConfig};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::service::{self, EDGE, OPERATOR, Service, config, directory, registration, start_with, title};

const LOOKER: &str = "the-secret-of-lena-looks";
const DOER: &str = "the-secret-of-dora-does";
const ADMIN: &str = "the-secret-of-ada-admin";

async fn start() -> (TempDir, Service) {
    let dir = directory();
    let service = start_in(&dir).await;
    (dir, service)
}

async fn start_in(dir: &TempDir) -> Service {
    let operator = |name: &str, role: &str, secret: &str| {
        let token_file = dir.path().join(format!("{name}.token"));
        std::fs::write(&token_file, secret).unwrap();
        OperatorConfig { name: name.parse().unwrap(), role: role.parse().unwrap(), token_file }
    };
    let operators = vec![operator("lena", "viewer", LOOKER), operator("dora", "operator", DOER), operator("ada", "admin", ADMIN)];
    start_with(Config { operators, ..config(dir.path()) }).await.unwrap()
}

#[tokio::test]
async fn each_role_may_do_what_it_may_and_no_more() {
    let (_dir, service) = start().await;
    for (method, path, least) in [
        (Method::GET, "/fleet/edges", 0),
        (Method::GET, "/videos", 0),
        (Method::PUT, "/videos/demo", 1),
        (Method::DELETE, "/videos/demo", 1),
        (Method::DELETE, "/fleet/edges/e1", 1),
        (Method::GET, "/audit", 2),
    ] {
        for (rank, secret) in [(0, LOOKER), (1, DOER), (2, ADMIN), (2, OPERATOR)] {
            service.send(service::with(Method::PUT, "/fleet/edges/e1", EDGE, &registration("e1"))).await;
            let reply = service.send(service::with(method.clone(), path, secret, &title("demo"))).await;
            if rank >= least {
                assert!(
                    reply.status.is_success() || reply.status == StatusCode::NOT_FOUND,
                    "{method} {path} {secret}: {reply:?}"
                );
                continue;
            }
            assert_eq!(
                (reply.status, reply.header("www-authenticate")),
                (StatusCode::FORBIDDEN, "Bearer realm=\"larder\", error=\"insufficient_scope\""),
                "{method} {path} {secret}"
            );
            assert_eq!(reply.json()["type"], "/problems/role-too-small");
        }
    }
}

async fn audit(service: &Service, query: &str) -> Value {
    let reply = service.send(service::with(Method::GET, &format!("/audit{query}"), ADMIN, &Value::Null)).await;
    assert_eq!((reply.status, reply.header("cache-control")), (StatusCode::OK, "no-store"));
    reply.json()
}

#[tokio::test]
async fn whatever_an_operator_changes_is_in_the_log_and_stays_there() {
    let (dir, service) = start().await;
    let send = async |method, path: &str, secret| service.send(service::with(method, path, secret, &title("demo"))).await.status;
    assert_eq!(send(Method::PUT, "/videos/demo", DOER).await, StatusCode::CREATED);
    assert_eq!(send(Method::PUT, "/videos/demo?x=1", LOOKER).await, StatusCode::FORBIDDEN);
    assert_eq!(send(Method::GET, "/fleet/edges", LOOKER).await, StatusCode::OK);
    assert_eq!(send(Method::DELETE, "/videos/none", OPERATOR).await, StatusCode::NOT_FOUND);
    send(Method::PUT, "/fleet/edges/e1", EDGE).await;
    service.stop().await;

    let service = start_in(&dir).await;
    let page = audit(&service, "").await;
    let rows: Vec<_> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |member: &str| row[member].as_str().unwrap().to_owned();
            (text("operator"), text("role"), text("method"), text("target"), row["status"].clone())
        })
        .collect();
    let row = |operator: &str, role: &str, method: &str, target: &str, status: u16| {
        (operator.to_owned(), role.to_owned(), method.to_owned(), target.to_owned(), json!(status))
    };
    assert_eq!(
        rows,
        [
            row("operator", "admin", "DELETE", "/videos/none", 404),
            row("lena", "viewer", "PUT", "/videos/demo?x=1", 403),
            row("dora", "operator", "PUT", "/videos/demo", 201),
        ],
        "newest first; looks and edges are not in it"
    );
    assert_eq!((&page["entries"][0]["address"], &page["nextCursor"]), (&json!("127.0.0.1"), &Value::Null));
    assert!(page["entries"][0]["at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn the_log_is_read_a_page_at_a_time_while_it_grows() {
    let (_dir, service) = start().await;
    let write =
        async |n: u32| drop(service.send(service::with(Method::DELETE, &format!("/videos/t{n}"), DOER, &Value::Null)).await);
    for n in 0..5 {
        write(n).await;
    }
    let targets = |page: &Value| -> Vec<String> {
        page["entries"].as_array().unwrap().iter().map(|row| row["target"].as_str().unwrap().to_owned()).collect()
    };
    let first = audit(&service, "?limit=2").await;
    assert_eq!(targets(&first), ["/videos/t4", "/videos/t3"]);
    write(5).await;
    let second = audit(&service, &format!("?limit=2&nextCursor={}", first["nextCursor"].as_str().unwrap())).await;
    assert_eq!(targets(&second), ["/videos/t2", "/videos/t1"]);
    let last = audit(&service, &format!("?limit=2&nextCursor={}", second["nextCursor"].as_str().unwrap())).await;
    assert_eq!((targets(&last), &last["nextCursor"]), (vec!["/videos/t0".to_owned()], &Value::Null));
    for bad in ["limit=0", "limit=501", "nextCursor=zzz", "nextCursor=YXVkaXQuLTE", "x=1"] {
        let reply = service.send(service::with(Method::GET, &format!("/audit?{bad}"), ADMIN, &Value::Null)).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{bad}");
    }
}
