//! One edge takes over from another, both in this process.

use std::time::Duration;

use edge::{
    Edge,
    config::Config,
    handover::{Handover, HandoverError, Inheritance, pair},
    http::Protocol,
};
use http::{HeaderMap, Method};

use crate::{
    origin::{Fault, Object},
    support::{AUTHORITY, Running, SLICE, get, start_of, start_with, with_devices},
};

const GENERATION: &str = "larder_edge_generation";
const FORWARDED: &str = "larder_edge_upgrade_forwarded_datagrams_total";

fn path(number: usize) -> String {
    format!("/titles/t/v1080/{number:05}.m4s")
}

/// Has another edge with `config` take over, as the two would in processes of their own.
async fn hand_over(from: &Handover, config: Config) -> (Result<(), HandoverError>, Result<Edge, String>) {
    let (elder, heir) = pair().expect("sockets");
    let heir = async {
        let inheritance = Inheritance::over(heir).await.map_err(|error| error.to_string())?;
        Edge::succeed(config, inheritance).await.map_err(|error| error.to_string())
    };
    tokio::join!(from.give(elder), heir)
}

/// The edge of `running` is another one from now on. Comes back with what the old one ends in.
async fn upgrade(running: &mut Running) -> crate::support::Run {
    let (given, heir) = hand_over(&running.handover, running.config().clone()).await;
    given.expect("given");
    let heir = heir.expect("takes over");
    assert_eq!((heir.addr(), heir.admin_addr()), (running.addr, running.admin_addr));
    running.goes_on_as(heir)
}

/// An answer of which a part has come, and the rest is held at the origin.
struct Download {
    _connection: edge::http::client::Connection,
    body: edge::http::client::ClientBody,
    received: Vec<u8>,
    object: Object,
}

impl Download {
    async fn begin(edge: &Running, protocol: Protocol, number: usize) -> Self {
        let object = Object::new(3 * SLICE + 5000, number as u64);
        edge.origin.put(&path(number), object.clone());
        edge.origin.fails(Fault::HoldAfter(1000), 1);
        let connection = edge.connect(protocol).await;
        let asked = connection.send(Method::GET, AUTHORITY, &edge.signed(&path(number)), HeaderMap::new()).await;
        let (_, mut body) = asked.expect("an answer");
        let received = body.next().await.expect("bytes").expect("bytes").to_vec();
        Self { _connection: connection, body, received, object }
    }

    async fn ends_well(mut self) {
        while let Some(chunk) = self.body.next().await {
            self.received.extend_from_slice(&chunk.expect("the answer is finished"));
        }
        assert!(self.received == *self.object.bytes);
    }
}

#[tokio::test]
async fn what_is_being_sent_is_finished_and_newcomers_are_the_heirs() {
    for protocol in Protocol::ALL {
        let mut edge = start_with("").await;
        let download = Download::begin(&edge, protocol, 1).await;
        let before = upgrade(&mut edge).await;
        // A moment after the hand-over the elder may still answer an operator.
        edge.metric_becomes(GENERATION, 1).await;
        assert_eq!(edge.admin("/readyz").await.0, 200);
        assert!(!before.is_finished());
        edge.origin.put(&path(2), Object::new(SLICE, 2));
        for newcomer in Protocol::ALL {
            let answer = get(&edge.connect(newcomer).await, &edge.signed(&path(2))).await;
            assert!(answer.body == *Object::new(SLICE, 2).bytes, "{newcomer:?}");
        }
        assert_eq!(edge.metric("larder_edge_requests_total{protocol=\"h3\",status=\"2xx\",verdict=\"hit\"}").await, 1);
        assert!(!before.is_finished());
        edge.origin.release();
        download.ends_well().await;
        before.await.expect("no panic").expect("ends well");
        let was_forwarded = edge.metric(FORWARDED).await > 0;
        assert!(was_forwarded || protocol != Protocol::Http3, "what the client of HTTP/3 said went by the heir");
        edge.stop().await;
    }
}

#[tokio::test]
async fn several_elders_finish_what_they_have_while_the_youngest_serves() {
    let mut edge = start_with("").await;
    let (mut downloads, mut elders) = (Vec::new(), Vec::new());
    for number in 0..4 {
        downloads.push(Download::begin(&edge, Protocol::Http3, number).await);
        elders.push(upgrade(&mut edge).await);
    }
    edge.metric_becomes(GENERATION, 4).await;
    assert!(elders.iter().all(|elder| !elder.is_finished()));
    edge.origin.release();
    for (download, elder) in downloads.into_iter().zip(elders) {
        download.ends_well().await;
        elder.await.expect("no panic").expect("ends well");
    }
    edge.origin.put(&path(9), Object::new(SLICE, 9));
    assert!(get(&edge.connect(Protocol::Http3).await, &edge.signed(&path(9))).await.body == *Object::new(SLICE, 9).bytes);
    edge.stop().await;
}

#[tokio::test]
async fn an_heir_that_cannot_serve_or_vanishes_leaves_the_elder_as_it_was() {
    let mut edge = start_with("").await;
    edge.origin.put(&path(1), Object::new(SLICE, 1));
    let connections =
        [edge.connect(Protocol::Http1).await, edge.connect(Protocol::Http2).await, edge.connect(Protocol::Http3).await];
    let mut other = edge.config().clone();
    other.workers = 3.try_into().expect("not zero");
    let (given, heir) = hand_over(&edge.handover, other).await;
    let why = "workers is 3, and 2 in the process that runs; such a change needs a restart of the edge";
    assert_eq!(heir.err().as_deref(), Some(why));
    assert_eq!(given.expect_err("refused").to_string(), format!("the new process cannot serve: {why}"));

    let mut other = edge.config().clone();
    other.tls.certificate_file = "nowhere".into();
    let (given, heir) = hand_over(&edge.handover, other).await;
    assert!(heir.is_err_and(|why| why.contains("nowhere")));
    assert!(given.is_err_and(|why| why.to_string().contains("nowhere")));

    let (elder, heir) = pair().expect("sockets");
    let (given, ()) = tokio::join!(edge.handover.give(elder), async { drop(Inheritance::over(heir).await) });
    assert!(matches!(given, Err(HandoverError::Ended(_))), "{given:?}");
    let (elder, heir) = pair().expect("sockets");
    drop(heir);
    assert!(matches!(edge.handover.give(elder).await, Err(HandoverError::Ended(_))));

    assert_eq!(edge.metric(GENERATION).await, 0);
    for connection in connections {
        assert!(get(&connection, &edge.signed(&path(1))).await.body == *Object::new(SLICE, 1).bytes);
    }
    // And the next one can.
    let before = upgrade(&mut edge).await;
    before.await.expect("no panic").expect("ends well");
    for protocol in Protocol::ALL {
        assert!(get(&edge.connect(protocol).await, &edge.signed(&path(1))).await.body == *Object::new(SLICE, 1).bytes);
    }
    edge.stop().await;
}

#[tokio::test]
async fn devices_go_to_the_heir_with_what_they_hold() {
    let mut edge = start_of(&with_devices("8MiB", 2), "").await;
    let object = Object::new(2 * SLICE, 1);
    edge.origin.put(&path(1), object.clone());
    assert!(get(&edge.connect(Protocol::Http2).await, &edge.signed(&path(1))).await.body == *object.bytes);
    edge.metric_becomes("larder_edge_ssd_slices", 2).await;
    let download = Download::begin(&edge, Protocol::Http3, 2).await;
    let before = upgrade(&mut edge).await;
    // The elder has closed them, although it still has somebody. Of what that one reads there may be some, too.
    let opened = async {
        while edge.metric("larder_edge_ssd_slices").await < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), opened).await.expect("the devices are opened");
    assert!(!before.is_finished());
    let answer = get(&edge.connect(Protocol::Http2).await, &edge.signed(&path(1))).await;
    assert!(answer.body == *object.bytes && answer.header("cache-status") == "edge-a; hit; detail=ssd", "{answer:.300?}");
    edge.origin.release();
    download.ends_well().await;
    before.await.expect("no panic").expect("ends well");
    edge.stop().await;
}
