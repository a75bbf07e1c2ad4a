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
/// What goes out in small records. The first window of a connection is ten segments (RFC 6928), so a full record would not fit into it; the
/// second is twenty, and begins with some room.
const SMALL_BYTES_ALL: usize = 32 << 10;
/// After so long without a write a connection begins anew: by then its congestion window has shrunk (RFC 2861, RFC 7661).
const IDLE: Duration = Duration::from_secs(1);
/// What is gathered for a system call: four full records, which the kernel can hand to the network card as one.
const GATHERED_BYTES_MAX: usize = 4 * FULL_BYTES;
/// Less than this is copied and held back until more comes; more is sealed as it is.
const HELD_BYTES_MAX: usize = 2048;
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
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Records<IO> {
    pub(super) fn new(mut tls: TlsStream<IO>) -> Self {
        // The limit is ours: rustls would cut records at its own.
        tls.get_mut().1.set_buffer_limit(None);
        Self { tls, sizes: Sizes::new(Instant::now()), held: Vec::new(), gathered: 0 }
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

    /// Hands all that is sealed to the socket.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tls).poll_flush(cx))?;
        if self.gathered > 0 {
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
        if self.gathered >= GATHERED_BYTES_MAX {
            ready!(self.send(cx))?;
        }
        if self.gathered == 0 && self.held.is_empty() {
            self.sizes.begin(Instant::now());
        }
        let taken = self.take(bufs)?;
        if self.gathered >= GATHERED_BYTES_MAX
            && let Poll::Ready(Err(error)) = self.send(cx)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Not yet: whoever flushes may go on writing.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered >= GATHERED_BYTES_MAX { self.send(cx) } else { Poll::Ready(Ok(())) }
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
        if self.gathered >= GATHERED_BYTES_MAX {
            // It is the socket that stopped the writer: once there is room again more may come to what is held.
            ready!(self.send(cx))?;
        }
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
    use super::*;

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
}
