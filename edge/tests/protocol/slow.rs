//! Clients that take long: to shake hands, and to take what they asked for. What is held for them is counted.

use std::{
    net::UdpSocket,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use edge::http::{Limits, Protocol};
use quinn::crypto::rustls::QuicClientConfig;
use quinn_proto::{Endpoint, EndpointConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    frames::{SETTINGS, WINDOW_UPDATE, frame, get, preface, write},
    support::{counted, fetch, patient, start, start_named},
};

/// RFC 9000 §8.1: "Prior to validating the client address, servers MUST NOT send more than three times as many bytes as the number of bytes
/// they have received."
#[tokio::test]
async fn a_quic_client_that_is_silent_after_its_first_flight_gets_three_times_its_bytes_and_no_more() {
    // A certificate of some 20 kB, so that there would be more to send.
    let names = (0..500).map(|number| format!("name-{number}.of.a.long.list.example"));
    let names = ["127.0.0.1".to_owned()].into_iter().chain(names).collect();
    let server =
        start_named("127.0.0.1:0", names, Limits { header_timeout: Duration::from_secs(2), ..Limits::default() }, |_| {});
    let mut tls = rustls::ClientConfig::clone(&server.client_tls);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3"));
    let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
    let config = quinn::ClientConfig::new(crypto);
    let (_, mut connection) = endpoint.connect(Instant::now(), config, server.addr, "127.0.0.1").expect("an address");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let (mut sent, mut datagram) = (0, Vec::new());
    while let Some(transmit) = connection.poll_transmit(Instant::now(), 1, &mut datagram) {
        sent += udp.send_to(&datagram[..transmit.size], server.addr).expect("sends");
        datagram.clear();
    }
    counted("the handshake is given up", &server.counters.timed_out, 1).await;
    udp.set_nonblocking(true).expect("a socket");
    let (mut received, mut buffer) = (0, vec![0; 65_536]);
    while let Ok(length) = udp.recv(&mut buffer) {
        received += length;
    }
    assert!(received > 2 * sent, "{received} for {sent}: it had more to say");
    assert!(received <= 3 * sent, "{received} for {sent}");
    assert_eq!(server.counters.open(), 0, "its place is free");
    server.stop().await;
}

/// A client that takes a little now and then, less than a viewer of anything could live on.
#[tokio::test]
async fn a_client_that_takes_a_trickle_is_given_up_and_little_is_held_for_it() {
    /// Of /sevens, whose chunks are 1 MB: what the system's buffers hold (tcp_wmem is 4 MB at most as it is shipped), hyper's, and a chunk.
    const HELD_BYTES_MAX: u64 = 12_000_000;
    const PATH: &str = "/sevens/200000000";
    let server = start(Limits { write_stall_max: Duration::from_secs(2), ..Limits::default() });
    let witness = server.connect(Protocol::Http2).await;
    let tick = || tokio::time::sleep(Duration::from_millis(50));
    let mut handed = 0;
    for (number, protocol) in (1..).zip(Protocol::ALL) {
        let trickle = async {
            match protocol {
                Protocol::Http1 => {
                    let mut tls = server.raw_tls(protocol).await;
                    let request = format!("GET {PATH} HTTP/1.1\r\nhost: a\r\n\r\n");
                    tls.write_all(request.as_bytes()).await.expect("writes");
                    tls.flush().await.expect("writes");
                    while matches!(tls.read(&mut [0; 100]).await, Ok(1..)) {
                        tick().await;
                    }
                }
                Protocol::Http2 => {
                    let mut tls = server.raw_tls(protocol).await;
                    let none = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
                    assert!(write(&mut tls, &[preface(), none, get(1, PATH)].concat()).await);
                    let (mut reads, mut writes) = tokio::io::split(tls);
                    let open_by_one = async {
                        while write(&mut writes, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await {
                            tick().await;
                        }
                    };
                    let mut said = Vec::new();
                    let _ = tokio::join!(open_by_one, reads.read_to_end(&mut said));
                }
                Protocol::Http3 => {
                    let mut transport = quinn::TransportConfig::default();
                    transport.stream_receive_window(800_u32.into());
                    let (_endpoint, quinn) = server.raw_quic_by(transport).await;
                    let (mut send, mut recv) = quinn.open_bi().await.expect("a stream");
                    let path = PATH.as_bytes();
                    // As in RFC 9204 §A, with a path of its own (literal, named by the static table's first).
                    let mut block = vec![0, 0, 0xd1, 0xd7, 0x51, path.len() as u8];
                    block.extend(path);
                    block.extend([0x50, 1, b'a']);
                    send.write_all(&[&[1, block.len() as u8][..], &block].concat()).await.expect("writes");
                    send.finish().expect("it is open");
                    while let Ok(Some(1..)) = recv.read(&mut [0; 100]).await {
                        tick().await;
                    }
                }
            }
        };
        // What is on its way by then would feed a trickle for hours.
        let given_up = async {
            tokio::select! {
                () = trickle => counted("given up", &server.counters.stalled, number).await,
                () = counted("given up", &server.counters.stalled, number) => {}
            }
        };
        let (served, ()) = patient(protocol.alpn(), async { tokio::join!(fetch(&witness, "/bytes/1000"), given_up) }).await;
        assert!(served.is_ok(), "{protocol:?}: others are served");
        let total = server.echo.handed_bytes.load(Ordering::SeqCst);
        assert!(total - handed <= HELD_BYTES_MAX, "{protocol:?}: {} bytes were held", total - handed);
        handed = total;
    }
    server.stop().await;
}

/// Requests in a row without a look at the answers: the next is not begun before the last is with the system.
#[tokio::test]
async fn requests_in_a_row_without_reading_wait_for_each_other() {
    let server = start(Limits { write_stall_max: Duration::from_secs(2), ..Limits::default() });
    let witness = server.connect(Protocol::Http1).await;
    let mut tls = server.raw_tls(Protocol::Http1).await;
    let request = b"GET /bytes/1000000 HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100);
    let attack = async {
        let mut asked = 0;
        while write(&mut tls, &request).await {
            asked += 100;
        }
        asked
    };
    let given_up = counted("given up", &server.counters.stalled, 1);
    let (asked, served, ()) = patient("its end", async { tokio::join!(attack, fetch(&witness, "/bytes/1"), given_up) }).await;
    assert!(served.is_ok(), "others are served");
    let begun = server.counters.of(Protocol::Http1).requests.value();
    assert!(begun < 20 && asked > begun, "{begun} answers of 1 MB were begun for {asked} requests");
    server.stop().await;
}

#[tokio::test]
async fn requests_in_a_row_are_answered_in_order() {
    let server = start(Limits::default());
    let mut tls = server.raw_tls(Protocol::Http1).await;
    let mut requests: String = (0..50).map(|number| format!("GET /words-{number} HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
    requests += "GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    tls.write_all(requests.as_bytes()).await.expect("writes");
    tls.flush().await.expect("writes");
    let mut said = String::new();
    patient("answers", tls.read_to_string(&mut said)).await.expect("text, and an end");
    let places: Vec<_> = (0..50).map(|number| said.find(&format!("GET a /words-{number} from"))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
    assert!(said.contains("GET a /last from"));
    server.stop().await;
}

/// Content is not waited for: an upload ends with the answer.
#[tokio::test]
async fn an_upload_is_not_taken() {
    let server = start(Limits::default());
    let witness = server.connect(Protocol::Http1).await;
    let mut tls = server.raw_tls(Protocol::Http1).await;
    let head = b"PUT /bytes/1 HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000000\r\n\r\n";
    let upload = async {
        let mut written = 0;
        if write(&mut tls, head).await {
            while write(&mut tls, &[b'x'; 16_384]).await {
                written += 16_384;
            }
        }
        written
    };
    let (written, served) = patient("its end", async { tokio::join!(upload, fetch(&witness, "/bytes/1")) }).await;
    assert!(served.is_ok(), "others are served");
    assert!(written < 64 << 20, "{written} bytes were taken");
    counted("the content", &server.counters.contents, 1).await;
    server.stop().await;
}
