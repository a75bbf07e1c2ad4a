//! TLS records over TCP: how many bytes go into each, and how many records into a system call.
//!
//! A client can read nothing of a record before its last byte is there. So a connection that begins, or wakes up, sends records that fit
//! into a segment each, and full ones once the congestion window has room for them. What HTTP/2 writes is cut to DATA frames, which are
//! nine bytes longer than a record: a few bytes over are held back for the next record, and records are gathered, until
//! [`Holds::poll_release`] says that nothing more comes for now. Knows no HTTP.

use std::{
    io::{self, IoSlice, Write},
    iter,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::server::TlsStream;

/// The most that a record holds (RFC 8446 §5.1).
const FULL_BYTES: usize = 16 << 10;
/// What a small record holds: with its own 22 bytes (29 in TLS 1.2) and TCP's and IPv6's headers it fits into 1400 bytes, which most
/// tunnels leave.
const SMALL_BYTES: usize = 1300;
/// What goes out in small records. The first window of a connection is ten segments (RFC 6928), into which a full record does not fit; into
/// what is left of the second, which is twenty, one does.
const SMALL_BYTES_ALL: usize = 32 << 10;
/// After so long without a write a connection begins anew: its congestion window may have shrunk (RFC 2861, RFC 7661).
const IDLE: Duration = Duration::from_secs(1);
/// What is gathered for a system call: four full records, which the kernel can hand to the network card as one.
const GATHERED_BYTES_MAX: usize = 4 * FULL_BYTES;
/// Less than this is copied and held back until more comes; more is sealed as it is.
const HELD_BYTES_MAX: usize = 2048;
/// What one poll of a connection may send, if the socket takes it: then it is the turn of the worker's other connections.
const TURN_BYTES_MAX: usize = 512 << 10;
/// Slices of one write that are looked at; a writer that has more writes again.
const SLICES_MAX: usize = 32;

/// How large the next record is.
#[derive(Debug)]
struct Sizes {
    small_bytes_left: usize,
    last: Instant,
}

impl Sizes {
    fn new(now: Instant) -> Self {
        Self { small_bytes_left: SMALL_BYTES_ALL, last: now }
    }

    /// Something is to be sent, after all before is gone.
    fn begin(&mut self, now: Instant) {
        if now.duration_since(self.last) >= IDLE {
            self.small_bytes_left = SMALL_BYTES_ALL;
        }
    }

    fn next(&self) -> usize {
        if self.small_bytes_left > 0 { SMALL_BYTES } else { FULL_BYTES }
    }

    fn sealed(&mut self, bytes: usize) {
        self.small_bytes_left = self.small_bytes_left.saturating_sub(bytes);
    }

    /// All is gone.
    fn sent(&mut self, now: Instant) {
        self.last = now;
    }
}

/// A TLS stream with records of our sizes. What is flushed waits for [`Holds::poll_release`].
pub(super) struct Records<IO> {
    tls: TlsStream<IO>,
    sizes: Sizes,
    /// Plaintext that was taken and is not sealed yet.
    held: Vec<u8>,
    /// Bytes that were sealed since all was gone last.
    gathered: usize,
    /// Bytes that went in this poll of the connection.
    sent: usize,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Records<IO> {
    pub(super) fn new(mut tls: TlsStream<IO>) -> Self {
        // The limit is ours: rustls would cut records at its own.
        tls.get_mut().1.set_buffer_limit(None);
        Self { tls, sizes: Sizes::new(Instant::now()), held: Vec::new(), gathered: 0, sent: 0 }
    }

    /// Takes as much of `bufs` as may wait.
    fn take(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut copy = [IoSlice::new(&[]); SLICES_MAX];
        let count = bufs.len().min(SLICES_MAX);
        copy[..count].copy_from_slice(&bufs[..count]);
        let mut rest = &mut copy[..count];
        let mut left: usize = rest.iter().map(|slice| slice.len()).sum();
        let mut taken = 0;
        while left > 0 && self.gathered < GATHERED_BYTES_MAX {
            let offered = self.held.len() + left;
            let size = self.sizes.next();
            let is_full = size == FULL_BYTES;
            if offered < if is_full { HELD_BYTES_MAX } else { size } {
                rest.iter().for_each(|slice| self.held.extend_from_slice(slice));
                return Ok(taken + left);
            }
            // rustls cuts what it gets into full records, so of those it can get several.
            let records =
                if is_full { (GATHERED_BYTES_MAX - self.gathered).div_ceil(FULL_BYTES).min(offered / FULL_BYTES) } else { 1 };
            let bytes = if records == 0 { offered } else { records * size };
            let used = self.seal(rest, bytes)?;
            IoSlice::advance_slices(&mut rest, used);
            taken += used;
            left -= used;
        }
        Ok(taken)
    }

    /// Makes records of what is held and of so many bytes of `slices` as are missing to `bytes`, which is how many those were.
    fn seal(&mut self, slices: &[IoSlice<'_>], bytes: usize) -> io::Result<usize> {
        let mut parts = [IoSlice::new(&[]); SLICES_MAX + 1];
        let mut count = 0;
        let mut missing = bytes;
        let held = IoSlice::new(&self.held);
        for slice in iter::once(&held).chain(slices) {
            let part = &slice[..slice.len().min(missing)];
            if !part.is_empty() {
                parts[count] = IoSlice::new(part);
                count += 1;
                missing -= part.len();
            }
        }
        let sealed = self.tls.get_mut().1.writer().write_vectored(&parts[..count])?;
        if sealed != bytes {
            return Err(io::Error::new(io::ErrorKind::WriteZero, "TLS took less than it was given"));
        }
        let used = bytes - self.held.len();
        self.held.clear();
        self.gathered += bytes;
        self.sizes.sealed(bytes);
        Ok(used)
    }

    /// Makes room for more, unless enough went in this turn.
    fn make_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered < GATHERED_BYTES_MAX {
            return Poll::Ready(Ok(()));
        }
        if self.sent >= TURN_BYTES_MAX {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.send(cx)
    }

    /// Hands all that is sealed to the socket.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tls).poll_flush(cx))?;
        if self.gathered > 0 {
            self.sent += self.gathered;
            self.gathered = 0;
            self.sizes.sent(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Records<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Records<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        ready!(self.make_room(cx))?;
        if self.gathered == 0 && self.held.is_empty() {
            self.sizes.begin(Instant::now());
        }
        let taken = self.take(bufs)?;
        if let Poll::Ready(Err(error)) = self.make_room(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Not yet: whoever flushes may go on writing.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.make_room(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}

/// A stream that may hold back what it is given to write, also when it is flushed.
pub(super) trait Holds {
    /// Sends what is there, however little: nothing more comes for now.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Holds for Records<IO> {
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sent = 0;
        // A writer that was stopped, by the socket or by the end of its turn, has nothing held: that is taken while there is room.
        if !self.held.is_empty() {
            self.seal(&[], self.held.len())?;
        }
        if self.gathered > 0 || self.tls.get_ref().1.wants_write() {
            ready!(self.send(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

/// Without TLS there are no records, and the kernel gathers by itself.
impl Holds for TcpStream {
    fn poll_release(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector, client};

    use super::*;

    /// A server's stream over a pipe that takes so many bytes, and the client's.
    async fn pair(pipe_bytes: usize) -> (Records<DuplexStream>, client::TlsStream<DuplexStream>) {
        let made = rcgen::generate_simple_self_signed(vec!["edge.example".into()]).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = made.signing_key.serialize_der().try_into().expect("a key");
        let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().expect("TLS");
        let server = server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).expect("usable");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("usable");
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let (near, far) = duplex(pipe_bytes);
        let name = "edge.example".try_into().expect("a name");
        let connecting = TlsConnector::from(Arc::new(client)).connect(name, far);
        let (server, client) = tokio::join!(TlsAcceptor::from(Arc::new(server)).accept(near), connecting);
        (Records::new(server.expect("shakes hands")), client.expect("shakes hands"))
    }

    /// Writes as much as one poll takes, and releases it; how much that was.
    async fn turn(records: &mut Records<DuplexStream>, bytes: &[u8]) -> usize {
        let mut written = 0;
        poll_fn(|cx| {
            while written < bytes.len()
                && let Poll::Ready(taken) = Pin::new(&mut *records).poll_write(cx, &bytes[written..])
            {
                written += taken.expect("the pipe is open");
                // As HTTP/2 does after each frame.
                let _ = Pin::new(&mut *records).poll_flush(cx)?;
            }
            records.poll_release(cx)
        })
        .await
        .expect("the pipe is open");
        written
    }

    #[tokio::test]
    async fn a_connection_sends_for_a_while_and_then_it_is_the_others_turn() {
        let (mut records, mut client) = pair(64 << 20).await;
        let bytes: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 251) as u8).collect();
        let mut written = 0;
        while written < bytes.len() {
            let taken = turn(&mut records, &bytes[written..]).await;
            let most = TURN_BYTES_MAX + 2 * (GATHERED_BYTES_MAX + FULL_BYTES);
            assert!((1..=most).contains(&taken) && (taken >= TURN_BYTES_MAX || written + taken == bytes.len()), "{taken}");
            written += taken;
        }
        let mut read = vec![0; bytes.len()];
        client.read_exact(&mut read).await.expect("all of it went");
        assert!(read == bytes);
    }

    #[tokio::test]
    async fn what_is_released_is_there_however_little_it_is() {
        let (mut records, mut client) = pair(64 << 20).await;
        for bytes in [1, 2, SMALL_BYTES, HELD_BYTES_MAX - 1, HELD_BYTES_MAX, FULL_BYTES, FULL_BYTES + 1, 100_000, 1, 100] {
            let bytes = vec![bytes as u8; bytes];
            assert_eq!(turn(&mut records, &bytes).await, bytes.len());
            let mut read = vec![0; bytes.len()];
            client.read_exact(&mut read).await.expect("it was released");
            assert!(read == bytes);
        }
    }

    /// The sizes of the records that `bytes` make.
    fn records(sizes: &mut Sizes, mut bytes: usize) -> Vec<usize> {
        let mut records = Vec::new();
        while bytes > 0 {
            let record = sizes.next().min(bytes);
            sizes.sealed(record);
            records.push(record);
            bytes -= record;
        }
        records
    }

    #[test]
    fn records_are_small_first_and_full_from_then_on() {
        let start = Instant::now();
        let mut sizes = Sizes::new(start);
        sizes.begin(start);
        let made = records(&mut sizes, 1 << 20);
        let small = made.iter().take_while(|bytes| **bytes == SMALL_BYTES).count();
        assert_eq!(small, SMALL_BYTES_ALL.div_ceil(SMALL_BYTES));
        assert!(made[small..made.len() - 1].iter().all(|bytes| *bytes == FULL_BYTES), "{made:?}");
        sizes.sent(start);
        sizes.begin(start + IDLE - Duration::from_millis(1));
        assert_eq!(records(&mut sizes, FULL_BYTES), [FULL_BYTES], "no idleness yet");
    }

    #[test]
    fn after_idleness_records_are_small_again() {
        let start = Instant::now();
        let mut sizes = Sizes::new(start);
        records(&mut sizes, 1 << 20);
        // A client that takes its time: what it was sent was gone only then.
        sizes.sent(start + 10 * IDLE);
        sizes.begin(start + 11 * IDLE - Duration::from_millis(1));
        assert_eq!(sizes.next(), FULL_BYTES);
        sizes.begin(start + 11 * IDLE);
        assert_eq!(sizes.next(), SMALL_BYTES);
    }

    #[tokio::test]
    async fn nothing_stays_behind_when_the_socket_takes_little_at_a_time() {
        for pipe_bytes in [1000, 20_000, 70_000, 200_000] {
            let (mut records, mut client) = pair(pipe_bytes).await;
            for length in
                [1, GATHERED_BYTES_MAX, 2 * GATHERED_BYTES_MAX + 300, SMALL_BYTES_ALL + GATHERED_BYTES_MAX + 1, 1_000_001]
            {
                let bytes = vec![length as u8; length];
                let write = async {
                    let mut written = 0;
                    while written < bytes.len() {
                        written += turn(&mut records, &bytes[written..]).await;
                    }
                    // Nobody polls it any more.
                };
                let mut read = vec![0; length];
                let both = async { tokio::join!(write, client.read_exact(&mut read)).1 };
                let both = tokio::time::timeout(Duration::from_secs(60), both).await;
                both.unwrap_or_else(|_| panic!("{length} bytes through {pipe_bytes} stay behind")).expect("the pipe is open");
                assert!(read == bytes);
            }
        }
    }
}
