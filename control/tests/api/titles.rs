use http::{Method, StatusCode};
use serde_json::json;

use crate::service::{OPERATOR, Service, request, start, start_in, title, title_of, with};

async fn ids(service: &Service, path: &str) -> Vec<String> {
    let page = service.get(path).await.json();
    page["videos"].as_array().unwrap().iter().map(|video| video["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_title_is_published_looked_up_replaced_and_removed() {
    let (_dir, service) = start().await;
    let created = service.publish(&title("demo")).await;
    assert_eq!((created.status, created.header("location")), (StatusCode::CREATED, "/videos/demo"));

    let video = service.get("/videos/demo").await.json();
    assert_eq!(video, created.json());
    assert_eq!(
        (&video["title"], &video["cast"], &video["durationMs"]),
        (&json!("The Title demo"), &json!(["Änne Somebody"]), &json!(10_000))
    );
    assert_eq!(
        (&video["genres"], &video["year"], &video["language"], &video["kind"]),
        (&json!(["Drama"]), &json!(1999), &json!("en"), &json!("film"))
    );
    assert_eq!(video["thumbnailUrl"], "/videos/demo/thumbnail");
    assert!(video["createdAt"].as_str().unwrap().starts_with("20"));
    assert_eq!(
        video["renditions"][0],
        json!({ "id": "v720", "kind": "video", "codecs": "avc1.64001f", "width": 1280, "height": 720, "frameRate": 25.0,
                "bitsPerSecondPeak": 3_000_000, "bitsPerSecondMean": 1_500_000 })
    );
    assert_eq!(
        video["renditions"][2],
        json!({ "id": "a1", "kind": "audio", "codecs": "mp4a.40.2", "channels": 2, "language": "und",
                "bitsPerSecondPeak": 128_000, "bitsPerSecondMean": 64_000 })
    );

    let mut again = title("demo");
    again["title"] = json!("Another name");
    let replaced = service.publish(&again).await;
    assert_eq!((replaced.status, &replaced.json()["title"]), (StatusCode::OK, &json!("Another name")));
    assert_eq!(replaced.json()["createdAt"], video["createdAt"]);

    let remove = || with(Method::DELETE, "/videos/demo", OPERATOR, &json!(null));
    assert_eq!(service.send(remove()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(service.send(remove()).await.status, StatusCode::NOT_FOUND);
    assert_eq!(service.get("/videos/demo").await.status, StatusCode::NOT_FOUND);
    assert_eq!(ids(&service, "/videos").await, Vec::<String>::new());
}

#[tokio::test]
async fn one_source_is_catalogued_under_one_id() {
    let (_dir, service) = start().await;
    service.publish(&title("one")).await;
    let mut same_source = title("two");
    same_source["fingerprint"] = title("one")["fingerprint"].clone();
    let refused = service.publish(&same_source).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    assert_eq!(refused.json()["available"], json!(["one"]));
    assert_eq!(service.get("/videos/two").await.status, StatusCode::NOT_FOUND);
    let publish = |query: &str| service.send(with(Method::PUT, &format!("/videos/two{query}"), OPERATOR, &same_source));
    assert_eq!(publish("?allowDuplicate=no").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(publish("?allowDuplicate=false").await.status, StatusCode::CONFLICT);
    assert_eq!(publish("?allowDuplicate=true").await.status, StatusCode::CREATED);
    assert_eq!(publish("").await.status, StatusCode::OK, "it is meant, and need not be said again");
    assert_eq!(ids(&service, "/videos?limit=10").await.len(), 2);
}

#[tokio::test]
async fn pages_follow_each_other_to_the_end_while_titles_come_and_go() {
    let (_dir, service) = start().await;
    for id in ["a", "b", "c", "d", "e"] {
        service.publish(&title(id)).await;
    }
    let first = service.get("/videos?limit=2").await.json();
    let mut seen = vec![first["videos"][0]["id"].clone(), first["videos"][1]["id"].clone()];
    service.publish(&title("late")).await;
    service.send(with(Method::DELETE, &format!("/videos/{}", seen[1].as_str().unwrap()), OPERATOR, &json!(null))).await;
    let mut cursor = first["nextCursor"].clone();
    while let Some(next) = cursor.as_str() {
        let page = service.get(&format!("/videos?limit=2&nextCursor={next}")).await.json();
        seen.extend(page["videos"].as_array().unwrap().iter().map(|video| video["id"].clone()));
        cursor = page["nextCursor"].clone();
    }
    // Titles of one millisecond are ordered by id, so the order among the five may be any; none repeats and none is missing.
    seen.sort_by_key(|id| id.as_str().unwrap().to_owned());
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
    assert_eq!(service.get("/videos?limit=100").await.json()["nextCursor"], json!(null));
}

#[tokio::test]
async fn a_film_of_three_hours_fits() {
    let (_dir, service) = start().await;
    assert_eq!(service.publish(&title_of("film", 2700)).await.status, StatusCode::CREATED);
    assert_eq!(service.get("/videos/film").await.json()["durationMs"], 10_798_000);
}

#[tokio::test]
async fn the_catalogue_survives_a_restart() {
    let dir = crate::service::directory();
    let service = start_in(dir.path()).await.unwrap();
    let published = service.publish(&title("demo")).await.json();
    service.stop().await;
    let service = start_in(dir.path()).await.unwrap();
    assert_eq!(service.get("/videos/demo").await.json(), published);
    let head = service.send(request(Method::HEAD, "/videos")).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}
