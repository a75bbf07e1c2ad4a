//! TLS records as they are on the wire.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use edge::http::{Limits, Protocol};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::support::{Running, pattern, soon, start};

/// What a record has beside its payload in TLS 1.3: the true type of its content and a tag (RFC 8446 §5.2). Its header is five bytes more.
const TAG_BYTES: usize = 1 + 16;
const HEADER_BYTES: usize = 5;
const FULL: usize = 16 << 10;
/// A segment's payload where nothing is in the way but a tunnel.
const SEGMENT: usize = 1400 - 60;

/// A stream that keeps a copy of what it reads.
struct Tapped {
    stream: TcpStream,
    read: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tapped {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.read.lock().expect("no panic").extend_from_slice(&buf.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The payloads of the records in which each of `paths` is answered, asked for one after the other on one connection.
async fn payloads(server: &Running, protocol: Protocol, paths: &[&str], check: impl Fn(&str, Bytes)) -> Vec<Vec<usize>> {
    let read = Arc::new(Mutex::new(Vec::new()));
    let stream = TcpStream::connect(server.addr).await.expect("connects");
    let mut tls = rustls::ClientConfig::clone(&server.client_tls);
    tls.alpn_protocols = vec![protocol.alpn().into()];
    let name = "127.0.0.1".try_into().expect("a name");
    let connector = TlsConnector::from(Arc::new(tls));
    let stream = connector.connect(name, Tapped { stream, read: read.clone() }).await.expect("shakes hands");
    let io = TokioIo::new(stream);
    let mut asked = Vec::new();
    // Tickets come before the first answer, so the first is not looked at.
    let paths: Vec<_> = ["/who"].iter().chain(paths).map(|path| (*path).to_owned()).collect();
    macro_rules! ask_all {
        ($sender:ident) => {
            for path in &paths {
                let from = read.lock().expect("no panic").len();
                let uri = if protocol == Protocol::Http2 { format!("https://edge.example{path}") } else { path.clone() };
                let request =
                    http::Request::get(uri).header("host", "edge.example").body(Empty::<Bytes>::new()).expect("a request");
                $sender.ready().await.expect("it goes on");
                let answer = $sender.send_request(request).await.expect("an answer");
                check(path, soon("the body", answer.into_body().collect()).await.expect("all of it").to_bytes());
                asked.push(records(&read.lock().expect("no panic")[from..]));
            }
        };
    }
    if protocol == Protocol::Http2 {
        let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 30)
            .initial_connection_window_size(1 << 30)
            .handshake(io)
            .await
            .expect("speaks HTTP/2");
        let driver = tokio::spawn(connection);
        ask_all!(sender);
        driver.abort();
    } else {
        let (mut sender, connection) = http1::handshake(io).await.expect("speaks HTTP/1.1");
        let driver = tokio::spawn(connection);
        ask_all!(sender);
        driver.abort();
    }
    asked.split_off(1)
}

/// Cuts what was read into records. It begins with one.
fn records(mut bytes: &[u8]) -> Vec<usize> {
    let mut records = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        records.push(length - TAG_BYTES);
        bytes = rest.get(length..).expect("whole records: all of the answer was read");
    }
    records
}

#[tokio::test]
async fn records_fit_into_segments_first_and_are_full_from_then_on() {
    let server = start(Limits::default());
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let check = |path: &str, body: Bytes| assert!(path == "/who" || body == pattern(2_000_000));
        let asked = payloads(&server, protocol, &["/bytes/2000000"], check).await;
        let records = &asked[0];
        let small = records.iter().take_while(|bytes| **bytes + TAG_BYTES + HEADER_BYTES <= SEGMENT).count();
        let small_bytes: usize = records[..small].iter().sum();
        assert!((30_000..40_000).contains(&small_bytes), "{protocol:?}: {small_bytes} bytes in small records: {records:?}");
        // What HTTP/2 has of a frame by then comes as it is.
        assert!(records[small] > SEGMENT && records[small + 1] == FULL, "{protocol:?}: {records:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_body_from_memory_fills_its_records() {
    const MB: usize = 64;
    let server = start(Limits::default());
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let path = format!("/sevens/{MB}000000");
        let check = |asked: &str, body: Bytes| assert!(asked != path || body.len() == MB * 1_000_000);
        let asked = payloads(&server, protocol, &["/bytes/100000", &path], check).await;
        let records = &asked[1];
        let (count, full) = (records.len(), records.iter().filter(|bytes| **bytes == FULL).count());
        println!("{protocol:?}: {:.1} records a MB, {full} of {count} are full", count as f64 / MB as f64);
        // Sixty-one would hold a million bytes and what HTTP/2 says about them. The end of each chunk may be in one that is not full.
        assert!(count <= MB * 63 + 8, "{protocol:?}: {count} records for {MB} MB");
    }
    server.stop().await;
}
