//! A worker's UDP socket: many datagrams a call in both directions (GRO, GSO), with ECN and the address that they came to, by quinn-udp.
//!
//! A system call is tried before the runtime is asked whether it may succeed: the runtime looks for news only between tasks, and a
//! worker that sends a lot would learn of acknowledgements late.

use std::{
    io::{self, IoSliceMut},
    net::UdpSocket,
    os::unix::net::UnixDatagram,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use quinn_proto::{EcnCodepoint, Transmit};
use quinn_udp::{RecvMeta, UdpSocketState};
use tokio::io::Interest;

use super::passage;
use crate::http::Counters;

/// Messages taken by one call; with GRO each may be many datagrams.
const MESSAGES_MAX: usize = 32;
/// The most that a UDP message can be, also one of many datagrams.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// A datagram up to this size (an acknowledgement, mostly) is handed on in memory that is used again as soon as nothing of it is kept. What
/// is kept of it, stream data, holds on to no more memory than this.
const SMALL_BYTES_MAX: usize = 256;

/// The socket.
pub(super) struct Socket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    /// The system cuts a batch into datagrams.
    segmentation: bool,
    /// Another process reads the socket; what is for this one comes from there.
    passage: Option<tokio::net::UnixDatagram>,
    counters: Arc<Counters>,
}

/// Messages as they were received.
pub(super) struct Inbox {
    memory: Box<[u8]>,
    metas: [RecvMeta; MESSAGES_MAX],
    count: usize,
}

/// What became of a send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is the system's, or lost, which the protocol repairs.
    Done,
    /// This many bytes of it are the system's; the rest must wait until the driver is woken.
    Blocked(usize),
}

impl Socket {
    /// Takes a bound socket. `segmentation`: have the system cut batches into datagrams, where it can.
    pub(super) fn new(udp: UdpSocket, segmentation: bool, counters: Arc<Counters>) -> io::Result<Self> {
        let state = UdpSocketState::new((&udp).into())?;
        let segmentation = segmentation && state.max_gso_segments() > 1;
        Ok(Self { io: tokio::net::UdpSocket::from_std(udp)?, state, segmentation, passage: None, counters })
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether the system may cut datagrams in two on their way: then their size must not be searched for.
    pub(super) fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    /// Has datagrams come from `passage` from now on, or, with `None`, from the socket itself.
    pub(super) fn receive_from(&mut self, passage: Option<UnixDatagram>) -> io::Result<()> {
        self.passage = passage.map(tokio::net::UnixDatagram::from_std).transpose()?;
        Ok(())
    }

    /// Whether another process reads the socket.
    pub(super) fn is_passed_on(&self) -> bool {
        self.passage.is_some()
    }

    /// Fills `inbox`. `at_once`: try it, whatever the runtime knows. Pending: the task is woken when there is more.
    pub(super) fn poll_receive(&self, cx: &mut Context<'_>, at_once: bool, inbox: &mut Inbox) -> Poll<()> {
        if let Some(passage) = &self.passage {
            return inbox.poll_passage(cx, passage);
        }
        if at_once && inbox.receive(&self.state, &self.io).is_ok() {
            return Poll::Ready(());
        }
        loop {
            if let Err(error) = ready!(self.io.poll_recv_ready(cx)) {
                // The runtime is about to end.
                tracing::debug!(%error, "datagrams are received no more");
                return Poll::Pending;
            }
            let received = self.io.try_io(Interest::READABLE, || {
                inbox.receive(&self.state, &self.io).map_err(|error| {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        self.counters.receives_failed.up();
                        tracing::warn!(%error, "datagrams were not received");
                    }
                    // Whatever it was, the next datagram is the time to try again.
                    io::ErrorKind::WouldBlock.into()
                })
            });
            if received.is_ok() {
                return Poll::Ready(());
            }
        }
    }

    /// Sends what `transmit` describes and `contents` begins with, from byte `from` on.
    pub(super) fn send(&mut self, cx: &mut Context<'_>, transmit: &Transmit, contents: &[u8], from: usize) -> Sent {
        let contents = &contents[..transmit.size];
        let datagram_bytes = transmit.segment_size.unwrap_or(transmit.size).max(1);
        let mut sent = from;
        if self.segmentation && contents.len() - sent > datagram_bytes {
            match self.poll_send(cx, transmit, &contents[sent..], Some(datagram_bytes)) {
                Poll::Pending => return Sent::Blocked(sent),
                Poll::Ready(Err(error)) if is_refusal(&error) => {}
                Poll::Ready(result) => {
                    self.note(transmit, result);
                    return Sent::Done;
                }
            }
            // Some drivers, and every route through IPsec, refuse batches. But the same error is given for an address of ours that is gone,
            // and then datagrams are refused alone as well.
            let first = &contents[sent..sent + datagram_bytes];
            match self.poll_send(cx, transmit, first, None) {
                Poll::Pending => return Sent::Blocked(sent),
                Poll::Ready(Ok(())) => {
                    tracing::warn!("the system does not take batches of datagrams; they are sent one by one from now on");
                    self.segmentation = false;
                    self.counters.segmentation_refused.up();
                    sent += datagram_bytes;
                }
                Poll::Ready(result) => {
                    self.note(transmit, result);
                    return Sent::Done;
                }
            }
        }
        while sent < contents.len() {
            let end = (sent + datagram_bytes).min(contents.len());
            match self.poll_send(cx, transmit, &contents[sent..end], None) {
                Poll::Pending => return Sent::Blocked(sent),
                Poll::Ready(result) => self.note(transmit, result),
            }
            sent = end;
        }
        Sent::Done
    }

    /// Sends what the endpoint itself answers (a Retry, a reset, a refusal), if there is room: the peer asks again.
    pub(super) fn respond(&self, transmit: &Transmit, contents: &[u8]) {
        let result = self.state.try_send((&self.io).into(), &message(transmit, &contents[..transmit.size], None));
        if let Err(error) = result {
            tracing::debug!(%error, destination = %transmit.destination, "an answer to a first packet was not sent");
        }
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        transmit: &Transmit,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> Poll<io::Result<()>> {
        let message = message(transmit, contents, segment_size);
        let send = || self.state.try_send((&self.io).into(), &message);
        loop {
            match send() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            ready!(self.io.poll_send_ready(cx))?;
            match self.io.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn note(&self, transmit: &Transmit, result: io::Result<()>) {
        match result {
            Ok(()) => {}
            // What probes of the path's MTU are for.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
            Err(error) => {
                self.counters.sends_failed.up();
                tracing::debug!(%error, destination = %transmit.destination, "datagrams were not sent");
            }
        }
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

fn message<'a>(transmit: &Transmit, contents: &'a [u8], segment_size: Option<usize>) -> quinn_udp::Transmit<'a> {
    quinn_udp::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
        contents,
        segment_size,
        src_ip: transmit.src_ip,
    }
}

impl Inbox {
    pub(super) fn new() -> Self {
        let memory = vec![0; MESSAGES_MAX * MESSAGE_BYTES_MAX].into();
        Self { memory, metas: [RecvMeta::default(); MESSAGES_MAX], count: 0 }
    }

    fn receive(&mut self, state: &UdpSocketState, io: &tokio::net::UdpSocket) -> io::Result<()> {
        let mut rooms = self.memory.chunks_exact_mut(MESSAGE_BYTES_MAX).map(IoSliceMut::new);
        let mut rooms: [IoSliceMut<'_>; MESSAGES_MAX] = std::array::from_fn(|_| rooms.next().expect("there is room for each"));
        self.count = state.recv(io.into(), &mut rooms, &mut self.metas)?;
        Ok(())
    }

    /// The same from the process that reads the socket.
    fn poll_passage(&mut self, cx: &mut Context<'_>, passage: &tokio::net::UnixDatagram) -> Poll<()> {
        loop {
            self.count = 0;
            for (room, place) in self.memory.chunks_exact_mut(MESSAGE_BYTES_MAX).zip(&mut self.metas) {
                let Ok(length) = passage.try_recv(room) else { break };
                // What is no message of a passage is passed over, like a datagram from nowhere.
                *place = passage::meta(&room[..length]).unwrap_or_default();
                self.count += 1;
            }
            if self.count > 0 {
                return Poll::Ready(());
            }
            if ready!(passage.poll_recv_ready(cx)).is_err() {
                return Poll::Pending;
            }
        }
    }

    /// Whether the last call took as much as it could.
    pub(super) fn is_full(&self) -> bool {
        self.count == MESSAGES_MAX
    }

    /// Datagrams with what is known of each.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = (&RecvMeta, &[u8])> {
        let messages = self.metas[..self.count].iter().zip(self.memory.chunks_exact(MESSAGE_BYTES_MAX));
        // Nobody can be at port 0, but anybody can say so; a send to it is refused like a batch.
        let messages = messages.filter(|(meta, _)| meta.addr.port() != 0);
        messages.flat_map(|(meta, room)| room[..meta.len].chunks(meta.stride.max(1)).map(move |datagram| (meta, datagram)))
    }
}

/// ECN as quinn-proto names it.
pub(super) fn ecn(meta: &RecvMeta) -> Option<EcnCodepoint> {
    meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8))
}

/// Memory for datagrams that are handed on.
#[derive(Default)]
pub(super) struct Shelf(BytesMut);

impl Shelf {
    /// A datagram as memory of its own.
    pub(super) fn own(&mut self, datagram: &[u8]) -> BytesMut {
        if datagram.len() > SMALL_BYTES_MAX {
            return datagram.into();
        }
        // Takes back what it gave, if nothing of it is kept; else it is new memory, of just this size.
        self.0.reserve(SMALL_BYTES_MAX);
        self.0.extend_from_slice(datagram);
        self.0.split()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_datagrams_use_the_same_memory_again_unless_one_is_kept() {
        let mut shelf = Shelf::default();
        let first = shelf.own(&[1; 50]);
        let place = first.as_ptr();
        drop(first);
        for length in [0, 1, 40, SMALL_BYTES_MAX] {
            let datagram = shelf.own(&vec![2; length]);
            assert_eq!((datagram.as_ptr(), datagram.len()), (place, length));
        }
        let kept = shelf.own(&[3; 60]);
        let next = shelf.own(&[4; 60]);
        assert_ne!(next.as_ptr(), place);
        assert!(kept.iter().all(|byte| *byte == 3) && next.iter().all(|byte| *byte == 4));
    }
}
