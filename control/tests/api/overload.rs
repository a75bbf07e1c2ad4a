//! What is answered while control has too much to do, and what a second instance does.

use std::time::Duration;

use control::{
    Config,
    config::{CanaryConfig, Overload},
};
use http::{Method, StatusCode};
use serde_json::json;

use crate::service::{OPERATOR, Reply, Service, config, directory, request, start, start_with, title, with};

/// A metric's value.
async fn metric(service: &Service, line: &str) -> f64 {
    let metrics = service.get("/metrics").await;
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{line} is not in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn when_too_many_requests_are_in_progress_the_least_urgent_are_turned_away() {
    let dir = directory();
    let overload = Overload { lag: Duration::from_secs(10), requests_max: 1 };
    let service = start_with(Config { overload, ..config(dir.path()) }).await.unwrap();
    // One has room, whatever it is for.
    assert_eq!(service.get("/videos").await.status, StatusCode::OK);
    // A body that does not come keeps its request in progress.
    let mut slow = std::net::TcpStream::connect(service.addr).unwrap();
    let head = format!(
        "PUT /videos/demo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR}\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n"
    );
    std::io::Write::write_all(&mut slow, head.as_bytes()).unwrap();
    let refused = loop {
        let reply = service.get("/videos?searchQuery=x").await;
        if reply.status != StatusCode::OK {
            break reply;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["type"], "/problems/overloaded");
    assert_eq!(refused.header("retry-after"), "5");
    drop(slow);
    while service.get("/videos").await.status != StatusCode::OK {
        tokio::task::yield_now().await;
    }
    assert!(metric(&service, "larder_control_admission_total{priority=\"search\",verdict=\"crowded_out\"}").await >= 1.0);
}

/// A control, and one that tries out the first.
async fn pair(split_percent: u8, mirror_percent: u8) -> (Service, Service, [tempfile::TempDir; 2]) {
    let (there_dir, there) = start().await;
    let here_dir = directory();
    let canary = CanaryConfig {
        url: format!("http://{}", there.addr).parse().unwrap(),
        split_percent,
        mirror_percent,
        deadline: Duration::from_secs(60),
    };
    let here = start_with(Config { canary: Some(canary), ..config(here_dir.path()) }).await.unwrap();
    (here, there, [here_dir, there_dir])
}

async fn read(service: &Service, path: &str) -> Reply {
    service.send(request(Method::GET, path)).await
}

#[tokio::test]
async fn reads_are_split_and_writes_stay() {
    let (here, there, _dirs) = pair(100, 0).await;
    here.publish(&title("here")).await;
    there.publish(&title("there")).await;
    let (split, own) = (read(&here, "/videos/there").await, read(&there, "/videos/there").await);
    assert_eq!((split.status, &split.body, split.header("etag")), (StatusCode::OK, &own.body, own.header("etag")));
    assert_eq!(read(&here, "/videos/here").await.status, StatusCode::NOT_FOUND, "the second one has another catalogue");
    let not_modified = {
        let mut request = request(Method::GET, "/videos/there");
        request.headers_mut().insert("if-none-match", own.header("etag").parse().unwrap());
        here.send(request).await
    };
    assert_eq!(not_modified.status, StatusCode::NOT_MODIFIED);
    // Operators look at this instance, and write to it.
    assert_eq!(here.send(with(Method::GET, "/videos/here", OPERATOR, &json!(null))).await.status, StatusCode::OK);
    assert_eq!(metric(&here, "larder_control_arm_requests_total{arm=\"canary\",outcome=\"2xx\"}").await, 1.0);
    assert_eq!(metric(&here, "larder_control_arm_requests_total{arm=\"canary\",outcome=\"4xx\"}").await, 1.0);
    // What another instance sends goes no further.
    let mut sent_on = request(Method::GET, "/videos/here");
    sent_on.headers_mut().insert("larder-arm", "canary".parse().unwrap());
    assert_eq!(here.send(sent_on).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_second_instance_that_fails_is_not_noticed() {
    let (here, there, _dirs) = pair(100, 0).await;
    here.publish(&title("here")).await;
    there.stop().await;
    assert_eq!(read(&here, "/videos/here").await.status, StatusCode::OK);
    assert_eq!(metric(&here, "larder_control_arm_requests_total{arm=\"canary\",outcome=\"failed\"}").await, 1.0);
    assert_eq!(metric(&here, "larder_control_arm_requests_total{arm=\"stable\",outcome=\"2xx\"}").await, 1.0);
}

#[tokio::test]
async fn copies_of_reads_are_compared_and_change_nothing() {
    let (here, there, _dirs) = pair(0, 50).await;
    here.publish(&title("here")).await;
    for _ in 0..20 {
        assert_eq!(read(&here, "/videos/here").await.status, StatusCode::OK);
    }
    let differs = "larder_control_mirror_differs_total";
    while metric(&here, differs).await < 10.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(metric(&here, differs).await, 10.0, "half of them, and the second instance does not know the title");
    assert_eq!(metric(&here, "larder_control_arm_requests_total{arm=\"mirror\",outcome=\"4xx\"}").await, 10.0);
    let asked = there.get("/metrics").await;
    let asked = String::from_utf8(asked.body.to_vec()).unwrap();
    let line = "larder_control_requests_total{method=\"GET\",route=\"/videos/{id}\",status=\"404\"} 10";
    assert!(asked.lines().any(|found| found == line), "{asked}");
}
