//! A light client of HTTP/1.1: it sends bytes, and reads as much of an answer as it must.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep_until},
};

/// A kept-alive connection.
pub(super) struct Connection {
    stream: TcpStream,
    /// The answer that is being read.
    answer: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("control listens");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, answer: Vec::with_capacity(16 << 10) }
    }

    /// Sends a request. Its answer's status; the body is in [`Self::body`].
    pub(super) async fn send(&mut self, request: &[u8]) -> u16 {
        self.stream.write_all(request).await.expect("control takes requests");
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await.expect("control answers");
            assert!(read > 0, "control closed the connection: {}", String::from_utf8_lossy(&self.answer));
            if let Some(head) = find(&self.answer, b"\r\n\r\n")
                && self.answer.len() >= head + 4 + content_length(&self.answer[..head])
            {
                return str::from_utf8(&self.answer[9..12]).ok().and_then(|status| status.parse().ok()).expect("a status");
            }
        }
    }

    /// The body of the last answer.
    pub(super) fn body(&self) -> &[u8] {
        &self.answer[find(&self.answer, b"\r\n\r\n").expect("an answer was read") + 4..]
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let Some(at) = find(head, NAME) else { return 0 };
    let digits = head[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
}

/// How requests come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) connections: usize,
    pub(super) requests: u64,
    /// So many a second, whether or not the ones before are answered; as fast as they are answered if none.
    pub(super) per_second: Option<u64>,
}

/// What came of them.
pub(super) struct Outcome {
    pub(super) took: Duration,
    /// From when each was due to its answer, sorted.
    latencies: Vec<Duration>,
    pub(super) statuses: Vec<u16>,
    /// How many were answered with 2xx.
    pub(super) successes: u64,
}

impl Outcome {
    pub(super) fn requests(&self) -> u64 {
        self.latencies.len() as u64
    }

    pub(super) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    pub(super) fn percentile_ms(&self, percent: f64) -> f64 {
        let at = (self.latencies.len() as f64 * percent / 100.0) as usize;
        self.latencies.get(at.min(self.latencies.len() - 1)).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// Sends requests, the n-th one made by `request(n)`, and hands each answer's body to `look(n, body)`.
pub(super) async fn drive(
    addr: SocketAddr,
    load: Load,
    request: impl Fn(u64, &mut Vec<u8>),
    look: impl Fn(u64, &[u8]),
) -> Outcome {
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        connections.push(Connection::open(addr).await);
    }
    let (next, successes) = (Cell::new(0), Cell::new(0));
    let latencies = RefCell::new(Vec::with_capacity(load.requests as usize));
    let statuses = RefCell::new(Vec::new());
    let begun = Instant::now();
    let (next, successes, latencies, statuses, request, look) = (&next, &successes, &latencies, &statuses, &request, &look);
    join_all(connections.into_iter().map(|mut connection| async move {
        let mut bytes = Vec::new();
        loop {
            let n = next.replace(next.get() + 1);
            if n >= load.requests {
                return;
            }
            let mut due = Instant::now();
            if let Some(per_second) = load.per_second {
                due = begun + Duration::from_nanos(n * 1_000_000_000 / per_second);
                sleep_until(due).await;
            }
            bytes.clear();
            request(n, &mut bytes);
            let status = connection.send(&bytes).await;
            successes.set(successes.get() + u64::from((200..300).contains(&status)));
            latencies.borrow_mut().push(due.elapsed());
            if !statuses.borrow().contains(&status) {
                statuses.borrow_mut().push(status);
            }
            look(n, connection.body());
        }
    }))
    .await;
    let took = begun.elapsed();
    let mut latencies = latencies.take();
    latencies.sort_unstable();
    Outcome { took, latencies, statuses: statuses.take(), successes: successes.get() }
}
