//! What a client says is urgent goes first (RFC 9218). Decided by the order of bytes, not by time: the connection's window is the narrow place.

use std::{sync::Arc, time::Duration};

use edge::http::Limits;
use futures_util::future::join_all;
use parking_lot::Mutex;
use quinn::{Connection, Endpoint, IdleTimeout, RecvStream, SendStream, TransportConfig};

use crate::support::{Running, counted, soon, start};

/// What the client takes before it has read some of it: small beside the answers, so that the server has to choose what to send.
const WINDOW_BYTES: u32 = 40_000;
/// An answer.
const ANSWER_BYTES: usize = 1_200_000;
/// H3_FRAME_UNEXPECTED, H3_FRAME_ERROR and H3_ID_ERROR (RFC 9114 §8.1).
const FRAME_UNEXPECTED: u32 = 0x105;
const FRAME_ERROR: u32 = 0x106;
const ID_ERROR: u32 = 0x108;

/// A client that says its frames byte by byte.
struct Client {
    quic: Connection,
    control: SendStream,
    _endpoint: Endpoint,
}

impl Client {
    /// Connects. The control stream begins with SETTINGS that say nothing.
    async fn new(server: &Running) -> Self {
        Self::with(server, WINDOW_BYTES).await
    }

    /// The same with another window.
    async fn with(server: &Running, window_bytes: u32) -> Self {
        let mut transport = TransportConfig::default();
        let patience = IdleTimeout::try_from(Duration::from_secs(120)).expect("short enough");
        transport.receive_window(window_bytes.into());
        transport.stream_receive_window(8_000_000_u32.into()).max_idle_timeout(Some(patience));
        let (endpoint, quic) = server.raw_quic_by(transport).await;
        let mut control = quic.open_uni().await.expect("a stream");
        control.write_all(&[0, 4, 0]).await.expect("writes");
        Self { quic, control, _endpoint: endpoint }
    }

    /// Asks for `path`. The streams are numbered 0, 4, 8 …
    async fn ask(&self, path: &str, priority: Option<&str>) -> RecvStream {
        let mut fields = vec![0, 0];
        // GET, https, the authority "a", the path, by the static table (RFC 9204 §A); then a name that is not in it.
        fields.extend_from_slice(&[0xd1, 0xd7, 0x50, 1, b'a', 0x51]);
        let text = |fields: &mut Vec<u8>, value: &str| {
            fields.push(u8::try_from(value.len()).expect("short"));
            fields.extend_from_slice(value.as_bytes());
        };
        text(&mut fields, path);
        if let Some(priority) = priority {
            fields.extend_from_slice(&[0x27, 1]);
            fields.extend_from_slice(b"priority");
            text(&mut fields, priority);
        }
        let (mut send, recv) = self.quic.open_bi().await.expect("a stream");
        send.write_all(&[1, u8::try_from(fields.len()).expect("below 64")]).await.expect("writes");
        send.write_all(&fields).await.expect("writes");
        send.finish().expect("it is open");
        recv
    }

    async fn update(&mut self, stream: u8, value: &str) {
        let mut frame = vec![0x80, 0x0f, 0x07, 0x00, u8::try_from(1 + value.len()).expect("below 64"), stream];
        frame.extend_from_slice(value.as_bytes());
        self.control.write_all(&frame).await.expect("writes");
    }

    /// With which code the server closes it.
    async fn closed(&self) -> u64 {
        match soon("its end", self.quic.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("{other:?}"),
        }
    }
}

/// Reads all answers at once. Says for each how much of every one had come when it ended.
async fn read(answers: Vec<RecvStream>) -> Vec<Vec<usize>> {
    let got = Arc::new(Mutex::new(vec![0; answers.len()]));
    let reading = answers.into_iter().enumerate().map(|(number, mut answer)| {
        let got = got.clone();
        async move {
            while let Some(chunk) = answer.read_chunk(8000, true).await.expect("no error") {
                got.lock()[number] += chunk.bytes.len();
            }
            got.lock().clone()
        }
    });
    let ends = soon("all answers", join_all(reading)).await;
    assert!(got.lock().iter().all(|bytes| *bytes > ANSWER_BYTES), "frames and bodies: {got:?}");
    ends
}

/// Asks for answers with these priorities, one after the other has arrived at the server, and reads them then.
async fn served(server: &Running, client: &Client, priorities: &[Option<&str>]) -> Vec<RecvStream> {
    let mut answers = Vec::new();
    for priority in priorities {
        let requests = server.counters.of(edge::http::Protocol::Http3).requests.value();
        answers.push(client.ask(&format!("/bytes/{ANSWER_BYTES}"), *priority).await);
        counted("the request", &server.counters.of(edge::http::Protocol::Http3).requests, requests + 1).await;
    }
    answers
}

/// Far more than the window, and less than half an answer.
const LITTLE: usize = ANSWER_BYTES / 3;

#[tokio::test]
async fn the_urgent_answer_overtakes_the_one_before_it() {
    let server = start(Limits::default());
    let client = Client::new(&server).await;
    let ends = read(served(&server, &client, &[Some("u=7"), Some("u=1"), Some("u=5")]).await).await;
    assert!(ends[1][0] < LITTLE && ends[1][2] < LITTLE, "{ends:?}");
    assert!(ends[2][0] < LITTLE, "{ends:?}");
    server.stop().await;
}

/// RFC 9218 §10: one by one, "in ascending order of the stream ID".
#[tokio::test]
async fn answers_that_are_equally_urgent_come_one_after_the_other() {
    let server = start(Limits::default());
    for priorities in [[Some("u=3"); 3], [Some("u=2"), Some("u=2, i=?0"), Some("u=2, x")]] {
        let client = Client::new(&server).await;
        let ends = read(served(&server, &client, &priorities).await).await;
        assert!(ends[0][1] < LITTLE && ends[0][2] < LITTLE && ends[1][2] < LITTLE, "{ends:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn answers_that_are_read_as_they_come_and_those_of_which_nothing_is_said_share_the_way() {
    let server = start(Limits::default());
    for priorities in [[Some("u=2, i"), Some("i, u=2")], [None, None], [None, Some("nonsense=")]] {
        let client = Client::new(&server).await;
        let ends = read(served(&server, &client, &priorities).await).await;
        assert!(ends[0][1] > LITTLE && ends[1][0] > LITTLE, "{priorities:?}: {ends:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_update_before_the_request_overrides_its_header_field() {
    let server = start(Limits::default());
    let mut client = Client::new(&server).await;
    client.update(4, "u=0").await;
    let ends = read(served(&server, &client, &[Some("u=1"), Some("u=7")]).await).await;
    assert!(ends[1][0] < LITTLE, "{ends:?}");
    server.stop().await;
}

#[tokio::test]
async fn an_update_while_the_answer_is_sent_changes_the_order_and_the_last_one_holds() {
    let server = start(Limits::default());
    let mut client = Client::new(&server).await;
    let answers = served(&server, &client, &[Some("u=1"), Some("u=7")]).await;
    client.update(0, "u=2").await;
    client.update(0, "u=6").await;
    client.update(4, "u=5, i").await;
    // These are passed over: not parsed, too long, and for a stream that never comes.
    client.update(4, "u=7,").await;
    let mut long = vec![0x80, 0x0f, 0x07, 0x00, 0x44, 0x00, 4];
    long.extend_from_slice(b"u=7, a=\"");
    long.resize(4 + 2 + 1024 - 1, b'a');
    long.push(b'"');
    client.control.write_all(&long).await.expect("writes");
    client.update(44, "u=0").await;
    let ends = read(answers).await;
    assert!(ends[1][0] < LITTLE, "{ends:?}");
    server.stop().await;
}

#[tokio::test]
async fn updates_against_the_rules_end_the_connection() {
    let server = start(Limits { streams_max: 10, ..Limits::default() });
    for (frame, code) in [
        // Streams that a server opens, and those of one direction.
        (&[0x80, 0x0f, 0x07, 0x00, 4, 1, b'u', b'=', b'1'][..], ID_ERROR),
        (&[0x80, 0x0f, 0x07, 0x00, 1, 2], ID_ERROR),
        (&[0x80, 0x0f, 0x07, 0x00, 1, 3], ID_ERROR),
        // The eleventh request, and the last that there could be.
        (&[0x80, 0x0f, 0x07, 0x00, 1, 40], ID_ERROR),
        (&[0x80, 0x0f, 0x07, 0x00, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfc], ID_ERROR),
        // A push.
        (&[0x80, 0x0f, 0x07, 0x01, 1, 0], ID_ERROR),
        // No stream, and half a stream.
        (&[0x80, 0x0f, 0x07, 0x00, 0], FRAME_ERROR),
        (&[0x80, 0x0f, 0x07, 0x00, 1, 0x40], FRAME_ERROR),
    ] {
        let mut client = Client::new(&server).await;
        // The tenth request may come at any time.
        client.update(36, "u=0").await;
        client.control.write_all(frame).await.expect("writes");
        assert_eq!(client.closed().await, u64::from(code), "{frame:?}");
    }
    let client = Client::new(&server).await;
    let (mut send, _recv) = client.quic.open_bi().await.expect("a stream");
    send.write_all(&[0x80, 0x0f, 0x07, 0x00, 1, 0]).await.expect("writes");
    assert_eq!(client.closed().await, u64::from(FRAME_UNEXPECTED), "on a request's stream");
    server.stop().await;
}

/// A client's updates cost no memory of ours, however many there are, and those for answers that have ended are nothing.
#[tokio::test]
async fn updates_for_what_is_over_are_passed_over() {
    let server = start(Limits { streams_max: 10, ..Limits::default() });
    let mut client = Client::new(&server).await;
    for _ in 0..3 {
        let answers = served(&server, &client, &[None, Some("u=0")]).await;
        read(answers).await;
        for stream in [0, 4] {
            client.update(stream, "u=2").await;
        }
    }
    server.stop().await;
}

/// GOAWAY goes before all answers: whoever drains an edge must not wait for what is left of a film.
#[tokio::test]
async fn no_answer_holds_up_a_goaway() {
    // Ten seconds' worth, so that the test ends long before the answer does.
    let server = start(Limits { connection_bits_per_second_max: Some(40_000_000), ..Limits::default() });
    const BYTES: usize = 50_000_000;
    let client = Client::with(&server, 100_000_000).await;
    let mut answer = client.ask(&format!("/sevens/{BYTES}"), Some("u=0")).await;
    let mut control = loop {
        let mut stream = soon("streams of the server's", client.quic.accept_uni()).await.expect("a stream");
        let mut kind = [0];
        stream.read_exact(&mut kind).await.expect("a type");
        if kind == [0] {
            break stream;
        }
    };
    assert!(soon("the answer", answer.read_chunk(1000, true)).await.expect("no error").is_some());
    server.drain.cancel();
    let goaway = async {
        // SETTINGS, then GOAWAY (RFC 9114 §7.2.4, §7.2.6); neither is longer than 63 bytes.
        loop {
            let mut head = [0; 2];
            control.read_exact(&mut head).await.expect("a frame");
            let mut payload = vec![0; head[1].into()];
            control.read_exact(&mut payload).await.expect("its payload");
            if head[0] == 7 {
                return;
            }
        }
    };
    tokio::pin!(goaway);
    let mut got = 0;
    loop {
        tokio::select! {
            biased;
            () = &mut goaway => break,
            chunk = answer.read_chunk(100_000, true) => {
                let chunk = chunk.expect("no error").expect("GOAWAY comes before the end");
                got += chunk.bytes.len();
            }
        }
    }
    assert!(got < BYTES / 2, "after {got} bytes");
}
