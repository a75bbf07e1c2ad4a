//! The driver over real sockets on loopback, with the `quinn` crate as its client.
//!
//! A request is eight bytes, how many bytes are wanted; the answer is that many bytes of a table, from a place that the stream's number
//! tells, so that a byte of another stream or offset is noticed.

mod ends;
mod paths;
mod streams;

use std::{
    future::poll_fn,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use quinn_proto::{EndpointConfig, IdleTimeout, ServerConfig, TransportConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{Connection, Endpoint, ReadError, RecvStream, SendStream, VarInt, WriteError, driver::Census};
use crate::http::Counters;

/// The length is a prime: no two streams of a test are in step with chunks.
static TABLE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut word = 0x9e37_79b9_u32;
    let bytes = (0..1_000_003).map(|_| {
        word ^= word << 13;
        word ^= word >> 17;
        word ^= word << 5;
        word as u8
    });
    bytes.collect()
});
/// No wait of these tests is shorter; none takes so long unless it fails.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// What `work` comes to.
async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT_MAX, work).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

struct Served {
    endpoint: Arc<Endpoint>,
    addr: SocketAddr,
    counters: Arc<Counters>,
    certificate: CertificateDer<'static>,
}

/// A client and the socket it is at.
struct Client {
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
}

/// How a test's server differs.
struct Setting {
    segmentation: bool,
    idle_timeout: Duration,
    udp: UdpSocket,
}

impl Default for Setting {
    fn default() -> Self {
        Self { segmentation: true, idle_timeout: WAIT_MAX, udp: bind() }
    }
}

fn bind() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("binds")
}

impl Served {
    fn new(setting: Setting) -> Self {
        let Setting { segmentation, idle_timeout, udp } = setting;
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).expect("a certificate");
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let mut config = ServerConfig::with_single_cert(vec![certificate.clone()], key).expect("usable");
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(IdleTimeout::try_from(idle_timeout).expect("short enough"))).send_window(32 << 20);
        config.transport_config(Arc::new(transport));
        let (addr, counters) = (udp.local_addr().expect("bound"), Arc::new(Counters::default()));
        let endpoint = Endpoint::new(udp, EndpointConfig::default(), config, segmentation, counters.clone()).expect("serves");
        Self { endpoint: Arc::new(endpoint), addr, counters, certificate }
    }

    /// Accepts whoever comes, and answers.
    fn answering(setting: Setting) -> Self {
        let served = Self::new(setting);
        let endpoint = served.endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.accept().await {
                        answer_all(connection).await;
                    }
                });
            }
        });
        served
    }

    fn client_config(&self, transport: TransportConfig) -> quinn::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("usable");
        let mut config = quinn::ClientConfig::with_root_certificates(Arc::new(roots)).expect("TLS");
        config.transport_config(Arc::new(transport));
        config
    }

    async fn connect(&self) -> Client {
        self.connect_by(self.addr, patient()).await
    }

    async fn connect_by(&self, addr: SocketAddr, transport: TransportConfig) -> Client {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("binds");
        let connecting = endpoint.connect_with(self.client_config(transport), addr, "127.0.0.1").expect("an address");
        let connection = soon("a connection", connecting).await.expect("connects");
        Client { endpoint, connection }
    }

    /// The next client, shaken hands with.
    async fn accept(&self) -> Connection {
        let incoming = soon("a client", self.endpoint.accept()).await.expect("the endpoint is open");
        soon("a handshake", incoming.accept()).await.expect("a connection")
    }

    /// A client, and the server's end of its connection.
    async fn pair(&self, addr: SocketAddr, transport: TransportConfig) -> (Client, Connection) {
        tokio::join!(self.connect_by(addr, transport), self.accept())
    }

    /// Waits until nothing of any connection is left.
    async fn emptied(&self) {
        soon("the end of all", self.endpoint.wait_idle()).await;
        assert_eq!(self.endpoint.census(), Census::default());
    }

    /// Waits until `census` is as it should be.
    async fn counts(&self, what: &str, as_it_should: impl Fn(&Census) -> bool) {
        let reached = async {
            while !as_it_should(&self.endpoint.census()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(WAIT_MAX, reached).await;
        reached.unwrap_or_else(|_| panic!("{what}: {:?}", self.endpoint.census()));
    }
}

/// A client's configuration that a slow machine does not make lose its connection.
fn patient() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(IdleTimeout::try_from(WAIT_MAX).expect("short enough")));
    transport
}

async fn answer_all(connection: Connection) {
    while let Ok((send, recv)) = poll_fn(|cx| connection.poll_accept_bi(cx)).await {
        tokio::spawn(answer(send, recv));
    }
}

async fn next_stream(connection: &Connection) -> (SendStream, RecvStream) {
    soon("a stream", poll_fn(|cx| connection.poll_accept_bi(cx))).await.expect("a stream")
}

async fn answer(mut send: SendStream, mut recv: RecvStream) {
    let Ok(request) = read_all(&mut recv).await else { return };
    let length = u64::from_be_bytes(request.try_into().expect("eight bytes"));
    if write_body(&mut send, length).await.is_ok() {
        send.finish();
        let _ = send.stopped().await;
    }
}

async fn read_all(recv: &mut RecvStream) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while let Some(chunk) = recv.read_chunk(1000).await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

async fn write_body(send: &mut SendStream, length: u64) -> Result<(), WriteError> {
    let (mut left, mut at) = (length as usize, start(send.id().into()));
    while left > 0 {
        let chunk = TABLE.slice(at..(at + left.min(300_000)).min(TABLE.len()));
        left -= chunk.len();
        at = (at + chunk.len()) % TABLE.len();
        let mut chunks = [chunk];
        while !chunks[0].is_empty() {
            send.write_chunks(&mut chunks).await?;
        }
    }
    Ok(())
}

/// Where in the table a stream's answer begins.
fn start(stream: u64) -> usize {
    (stream as usize * 7919) % TABLE.len()
}

impl Client {
    /// Asks for `length` bytes on a stream of its own.
    async fn ask(&self, length: u64) -> quinn::RecvStream {
        let (mut send, recv) = self.connection.open_bi().await.expect("a stream");
        send.write_all(&length.to_be_bytes()).await.expect("writes");
        send.finish().expect("it is open");
        recv
    }

    /// Asks for `length` bytes and holds them against the table.
    async fn fetch(&self, length: u64) {
        let mut recv = self.ask(length).await;
        let mut checked = Checked::of(&recv);
        while let Some(chunk) = soon("bytes", recv.read_chunk(usize::MAX, true)).await.expect("no error") {
            checked.next(&chunk.bytes);
        }
        assert_eq!(checked.length, length);
    }
}

/// An answer as far as it has come.
struct Checked {
    at: usize,
    length: u64,
}

impl Checked {
    fn of(recv: &quinn::RecvStream) -> Self {
        Self { at: start(recv.id().into()), length: 0 }
    }

    fn next(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(TABLE.len() - self.at));
            assert!(TABLE[self.at..][..now.len()] == *now, "wrong bytes before {}", self.length);
            (self.at, bytes) = ((self.at + now.len()) % TABLE.len(), later);
        }
    }
}

fn code(value: u32) -> VarInt {
    VarInt::from_u32(value)
}
