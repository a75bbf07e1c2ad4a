//! Floods of QUIC frames, and streams with gaps: what quinn-proto bounds and what we do, each with its count, and others are served
//! meanwhile.

use edge::http::{Flood, Limits, Protocol};

use crate::{
    scripted::{filled, play, varint},
    support::{Running, counted_flood, fetch, patient, start},
};

/// RFC 9000 §19.
const PING: u8 = 0x01;
const CRYPTO: u8 = 0x06;
const STREAM_OFF_LEN: u8 = 0x0e;
const DATA_BLOCKED: u8 = 0x14;
const NEW_CONNECTION_ID: u8 = 0x18;
const PATH_CHALLENGE: u8 = 0x1a;

fn frame(kind: u8, numbers: &[u64], rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind];
    frame.extend(numbers.iter().flat_map(|&number| varint(number)));
    frame.extend(rest);
    frame
}

#[tokio::test]
async fn frames_that_serve_no_request_end_the_connection() {
    let server = start(Limits::default());
    let witness = server.connect(Protocol::Http3).await;
    for (flood, noise) in [
        (Flood::Ping, vec![PING]),
        (Flood::PathChallenges, frame(PATH_CHALLENGE, &[], b"12345678")),
        (Flood::Blocked, frame(DATA_BLOCKED, &[1], &[])),
        (Flood::Crypto, frame(CRYPTO, &[0, 1], b"a")),
    ] {
        let attack = play(&server, move |room| filled(room, || noise.clone()));
        let (ended, served) = tokio::join!(attack, fetch(&witness, "/bytes/1000"));
        assert!(served.is_ok(), "{flood:?}: others are served");
        match ended {
            quinn::ConnectionError::ApplicationClosed(close) => {
                assert_eq!(close.error_code, 0x107_u32.into(), "{flood:?}: H3_EXCESSIVE_LOAD");
                assert_eq!(close.reason, flood.name());
            }
            other => panic!("{flood:?}: {other:?}"),
        }
        counted_flood(&server.counters, flood, 1).await;
    }
    assert_eq!(server.counters.floods.value(), 4, "one for each");
    only_the_witness_is_left(&server).await;
    server.stop().await;
}

/// What a client must not do at all ends with the code that RFC 9000 has for it, before much of it is kept. Gaps are no error there; what
/// quinn-proto has no room for it calls INTERNAL_ERROR.
#[tokio::test]
async fn gaps_and_connection_ids_are_bounded() {
    let server = start(Limits::default());
    let witness = server.connect(Protocol::Http3).await;
    // Every other byte of a stream, each in a frame of its own, so that each would be kept by itself.
    let mut at = 0;
    let gaps = move |room| {
        filled(room, || {
            at += 2;
            frame(STREAM_OFF_LEN, &[40, at % 60_000, 1], b"a")
        })
    };
    let mut crypto_at = 10_000;
    let crypto_gaps = move |room| {
        filled(room, || {
            crypto_at += 2;
            frame(CRYPTO, &[crypto_at, 1], b"a")
        })
    };
    let mut sequence = 1_000;
    let too_many_ids = move |room| {
        filled(room, || {
            sequence += 1;
            frame(NEW_CONNECTION_ID, &[sequence, 0, 8], &[&sequence.to_be_bytes()[..], &[7; 16]].concat())
        })
    };
    let mut retired = 1_000;
    let ids_that_retire_others = move |room| {
        filled(room, || {
            retired += 1;
            frame(NEW_CONNECTION_ID, &[retired, retired, 8], &[&retired.to_be_bytes()[..], &[7; 16]].concat())
        })
    };
    for (what, expected, script) in [
        ("gaps in a stream", &["INTERNAL_ERROR"][..], Box::new(gaps) as Box<dyn FnMut(usize) -> Vec<u8> + Send>),
        ("gaps in the handshake's stream", &["INTERNAL_ERROR"], Box::new(crypto_gaps)),
        ("a handshake's stream that goes on", &["CRYPTO_BUFFER_EXCEEDED"], Box::new(|_| frame(CRYPTO, &[1 << 20, 1], b"a"))),
        ("connection IDs", &["CONNECTION_ID_LIMIT_ERROR"], Box::new(too_many_ids)),
        ("connection IDs that retire others", &["CONNECTION_ID_LIMIT_ERROR"], Box::new(ids_that_retire_others)),
        ("a stream beyond the limit", &["STREAM_LIMIT_ERROR"], Box::new(|_| frame(STREAM_OFF_LEN, &[4000, 0, 1], b"a"))),
        ("more than the window", &["FLOW_CONTROL_ERROR"], Box::new(|_| frame(STREAM_OFF_LEN, &[40, 1 << 20, 1], b"a"))),
        ("an acknowledgement of what was not sent", &["PROTOCOL_VIOLATION"], Box::new(|_| frame(2, &[1 << 40, 0, 0, 0], &[]))),
    ] {
        let counted = |server: &Running| -> u64 {
            let violations = server.counters.quic_violations();
            violations.filter(|(code, _)| expected.contains(code)).map(|(_, count)| count).sum()
        };
        let before = counted(&server);
        let reached = async || {
            while counted(&server) == before {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        // Whether the client hears of its end is another matter: the server's last word may go to a connection ID that nobody has.
        let attack = async {
            tokio::select! {
                () = reached() => {}
                ended = play(&server, script) => {
                    let reached = tokio::time::timeout(std::time::Duration::from_secs(60), reached()).await;
                    assert!(reached.is_ok(), "{what}: {ended:?}; {:?}", server.counters.quic_violations().collect::<Vec<_>>());
                }
            }
        };
        let ((), served) = tokio::join!(attack, fetch(&witness, "/bytes/1000"));
        assert!(served.is_ok(), "{what}: others are served");
    }
    only_the_witness_is_left(&server).await;
    server.stop().await;
}

/// CVE-2023-44487 in HTTP/3: requests that are sound, and given up at once.
#[tokio::test]
async fn requests_that_are_given_up_at_once_end_the_connection() {
    let server = start(Limits::default());
    let witness = server.connect(Protocol::Http3).await;
    let (_endpoint, quinn) = server.raw_quic().await;
    let attack = async {
        let mut asked = 0_u64;
        while let Ok((mut send, mut recv)) = quinn.open_bi().await {
            // HEADERS; QPACK's static table has :method GET, :scheme https, :path / and :authority by name (RFC 9204 §A).
            if send.write_all(&[1, 8, 0, 0, 0xd1, 0xd7, 0xc1, 0x50, 1, b'a']).await.is_err() {
                break;
            }
            let _ = recv.stop(0_u32.into());
            let _ = send.finish();
            asked += 1;
        }
        asked
    };
    let (asked, served) = patient("its end", async { tokio::join!(attack, fetch(&witness, "/bytes/1000")) }).await;
    assert!(served.is_ok(), "others are served");
    match quinn.closed().await {
        quinn::ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, 0x107_u32.into(), "H3_EXCESSIVE_LOAD"),
        other => panic!("{other:?} after {asked} requests"),
    }
    counted_flood(&server.counters, Flood::RapidReset, 1).await;
    server.stop().await;
}

async fn only_the_witness_is_left(server: &Running) {
    let gone = async {
        while server.counters.open() > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    patient("only the witness is left", gone).await;
}
