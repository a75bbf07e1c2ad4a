use edge::http::Protocol;
use http::{HeaderMap, Method};

use crate::{
    origin::{Fault, Object},
    support::{AUTHORITY, SLICE, start_with},
};

const PATH: &str = "/titles/t/v1080/00001.m4s";

#[tokio::test]
async fn a_draining_edge_finishes_what_it_sends_and_takes_nobody_new() {
    for protocol in Protocol::ALL {
        let mut edge = start_with("").await;
        let segment = Object::new(2 * SLICE, 1);
        edge.origin.put(PATH, segment.clone());
        edge.origin.fails(Fault::HoldAfter(1000), 1);
        let connection = edge.connect(protocol).await;
        let asked = connection.send(Method::GET, AUTHORITY, &edge.signed(PATH), HeaderMap::new()).await;
        let (_, mut body) = asked.expect("an answer");
        let mut received = body.next().await.expect("bytes").expect("bytes").to_vec();

        assert_eq!(edge.admin("/readyz").await, (200, "ready\n".into()));
        edge.stop.cancel();
        let (mut status, mut text) = (200, String::new());
        while status == 200 {
            (status, text) = edge.admin("/readyz").await;
        }
        assert_eq!((status, text.split(':').next()), (503, Some("draining")), "{protocol:?}");
        assert_eq!(edge.admin("/healthz").await.0, 200, "it is alive");
        // Each worker notices for itself; one that has not yet may still take a connection.
        while edge.try_connect(Protocol::Http1).await.is_ok() {}

        edge.origin.release();
        while let Some(chunk) = body.next().await {
            received.extend_from_slice(&chunk.expect("the answer is finished"));
        }
        assert!(received == *segment.bytes, "{protocol:?}");
        drop((body, connection));
        (&mut edge.task).await.expect("no panic").expect("ends well");
        assert!(std::net::TcpStream::connect(edge.admin_addr).is_err(), "nothing of it is left");
    }
}
