//! `/docs`: the description, to be read.

use http::{Method, StatusCode};

use crate::service::{request, start};

#[tokio::test]
async fn every_operation_and_schema_stands_on_the_page_of_the_reference() {
    let (_dir, service) = start().await;
    let page = service.get("/docs").await;
    assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, "text/html; charset=utf-8"));
    let html = str::from_utf8(&page.body).unwrap();
    let description = service.get("/openapi.json").await.json();
    let mut operations = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        assert!(html.replace("<wbr>", "").contains(path), "{path}");
        for operation in item.as_object().unwrap().values() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(html.contains(&format!("<article id=\"{id}\">")), "{id}");
            operations += 1;
        }
    }
    for name in description["components"]["schemas"].as_object().unwrap().keys() {
        assert!(html.contains(&format!("<article id=\"schema-{name}\">")), "{name}");
    }
    assert!(operations > 15 && html.contains("A viewer's token: a JWT"));
    let links = html.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap());
    for link in links {
        assert!(html.contains(&format!("id=\"{link}\"")), "#{link} leads nowhere");
    }
}

#[tokio::test]
async fn the_page_needs_no_script_and_nothing_from_elsewhere() {
    let (_dir, service) = start().await;
    let page = service.get("/docs").await;
    let html = str::from_utf8(&page.body).unwrap();
    for absent in ["<script", "<link", "<img", "src=", "@import", "url(", "style=\""] {
        assert!(!html.contains(absent), "{absent}");
    }
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    for path in ["/docs", "/openapi.json"] {
        let mut again = request(Method::GET, path);
        again.headers_mut().insert("if-none-match", service.get(path).await.header("etag").parse().unwrap());
        let again = service.send(again).await;
        assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
    }
}
