use control::{
    Config,
    config::{SiteRecord, SteeringConfig},
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    link::becomes,
    service::{EDGE, OPERATOR, Service, config, directory, registration, start, start_in, start_with, title, with},
};

async fn put(service: &Service, site: &str, settings: &Value) -> StatusCode {
    service.send(with(Method::PUT, &format!("/sites/{site}"), OPERATOR, settings)).await.status
}

async fn get(service: &Service, path: &str) -> Value {
    service.send(with(Method::GET, path, OPERATOR, &json!(null))).await.json()
}

/// Edges as a client would be sent to them, with the prefix that decided.
async fn explained(service: &Service, client: &str) -> Vec<(String, Value)> {
    let explained = get(service, &format!("/steering/explain?client={client}&video=demo")).await;
    let candidates = explained["candidates"].as_array().unwrap();
    candidates.iter().map(|candidate| (candidate["edge"].as_str().unwrap().to_owned(), candidate["prefix"].clone())).collect()
}

#[tokio::test]
async fn a_site_is_kept_as_it_was_said_also_after_a_restart() {
    let dir = directory();
    let service = start_in(dir.path()).await.unwrap();
    let berlin = json!({ "latitude": 52.52, "longitude": 13.4, "cost": 3, "capacityBitsPerSecond": 40_000_000_000_u64, "open": false,
                         "prefixes": ["203.0.113.0/24"] });
    assert_eq!(put(&service, "berlin", &json!({})).await, StatusCode::CREATED);
    assert_eq!(put(&service, "berlin", &berlin).await, StatusCode::NO_CONTENT);
    service.edge_up("e1").await;
    service.stop().await;

    let service = start_in(dir.path()).await.unwrap();
    let mut expected = berlin.clone();
    expected
        .as_object_mut()
        .unwrap()
        .extend(json!({ "site": "berlin", "source": "api", "edges": 0, "edgePrefixes": 0 }).as_object().unwrap().clone());
    assert_eq!(get(&service, "/sites/berlin").await, expected);
    let sites = get(&service, "/sites").await;
    let told: Vec<_> =
        sites["sites"].as_array().unwrap().iter().map(|site| (&site["site"], &site["source"], &site["edges"])).collect();
    assert_eq!(told, [(&json!("berlin"), &json!("api"), &json!(0)), (&json!("site-1"), &json!("edges"), &json!(1))]);
    let remove = || with(Method::DELETE, "/sites/berlin", OPERATOR, &json!(null));
    assert_eq!(service.send(remove()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(service.send(remove()).await.status, StatusCode::NOT_FOUND);
    assert_eq!(service.send(with(Method::GET, "/sites/berlin", OPERATOR, &json!(null))).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn flawed_sites_and_those_of_the_configuration_are_not_changed() {
    let (_dir, service) = start().await;
    for flawed in [json!({ "latitude": 52.5 }), json!({ "latitude": 95, "longitude": 0 }), json!({ "capacityBitsPerSecond": 0 })]
    {
        assert_eq!(put(&service, "berlin", &flawed).await, StatusCode::UNPROCESSABLE_ENTITY, "{flawed}");
    }
    assert_eq!(put(&service, "berlin", &json!({ "prefixes": ["x"] })).await, StatusCode::BAD_REQUEST);
    assert_eq!(put(&service, "-berlin", &json!({})).await, StatusCode::BAD_REQUEST);

    let dir = directory();
    let berlin = SiteRecord {
        name: "berlin".into(),
        place: None,
        cost: 7,
        capacity_bits_per_second: None,
        open: true,
        prefixes: Vec::new(),
    };
    let steering = SteeringConfig { sites: vec![berlin], ..SteeringConfig::default() };
    let service = start_with(Config { steering, ..config(dir.path()) }).await.unwrap();
    assert_eq!(get(&service, "/sites/berlin").await["cost"], 7);
    assert_eq!(put(&service, "berlin", &json!({})).await, StatusCode::CONFLICT);
    let removed = service.send(with(Method::DELETE, "/sites/berlin", OPERATOR, &json!(null))).await;
    assert_eq!((removed.status, &removed.json()["type"]), (StatusCode::CONFLICT, &json!("/problems/site-fixed")));
}

#[tokio::test]
async fn clients_go_where_their_network_is_announced_by_a_site_or_its_edges() {
    let (_dir, service) = start().await;
    service.publish(&title("demo")).await;
    for (edge, site) in [("e1", "berlin"), ("e2", "paris")] {
        let mut registration = registration(edge);
        registration["site"] = json!(site);
        if edge == "e2" {
            registration["prefixes"] = json!(["198.51.100.0/25", "2001:db8::/32"]);
        }
        service.send(with(Method::PUT, &format!("/fleet/edges/{edge}"), EDGE, &registration)).await;
        service.report(edge, "ready").await;
    }
    put(&service, "berlin", &json!({ "prefixes": ["198.51.100.0/24"] })).await;
    let first = async |client: &str| explained(&service, client).await.into_iter().next().unwrap();
    let by = |edge: &str, prefix: &str| (edge.to_owned(), json!(prefix));
    becomes(async || first("198.51.100.1").await, |first| *first == by("e2", "198.51.100.0/25")).await;
    becomes(async || first("198.51.100.200").await, |first| *first == by("e1", "198.51.100.0/24")).await;
    assert_eq!(first("2001:db8::7").await, by("e2", "2001:db8::/32"));
    assert_eq!(first("192.0.2.1").await.1, json!(null));
    assert_eq!(get(&service, "/sites/paris").await["edgePrefixes"], 2);

    // A site that is not open takes nobody else.
    put(&service, "berlin", &json!({ "prefixes": ["198.51.100.0/24"], "open": false })).await;
    let explained = get(&service, "/steering/explain?client=192.0.2.1&video=demo").await;
    let lost = explained["candidates"].as_array().unwrap().iter().find(|candidate| candidate["edge"] == "e1").unwrap();
    assert_eq!(lost["place"], json!(null));
    assert!(lost["reason"].as_str().unwrap().starts_with("its site serves clients of its own prefixes only"), "{lost}");
}
