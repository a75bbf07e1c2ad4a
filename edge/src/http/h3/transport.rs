//! h3's view of a QUIC connection, for servers (over [`quic`](crate::http::quic)) and clients (over quinn).
//!
//! h3 does the protocol's bookkeeping (SETTINGS, HEADERS, GOAWAY); bodies do not go through it. The sending half of a request stream can be
//! taken out with [`Bodies::take`] once the HEADERS frame is written, and then `Bytes` go to QUIC as they are. Where h3's own
//! adapter keeps a future across polls, this one keeps nothing, so dropping a send half-way harms nobody.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use parking_lot::Mutex;
use quinn_proto::{ConnectionError, VarInt};

use super::{
    frames::{self, Frames, Update},
    priority::{BadUpdate, Priority},
};

/// The most bytes taken from a stream at once.
const READ_BYTES_MAX: u64 = 256 << 10;

/// What this wants of a QUIC connection.
pub trait Transport: Send + Sized {
    /// A sending half.
    type Sender: Sender;
    /// A receiving half.
    type Receiver: Receiver;

    /// Another handle of the same connection.
    fn again(&self) -> Self;
    /// The next stream in both directions that the other side opens.
    fn poll_accept_bi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Halves<Self>, ConnectionError>>;
    /// The next stream in one direction that the other side opens.
    fn poll_accept_uni(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Receiver, ConnectionError>>;
    /// Opens a stream in both directions.
    fn poll_open_bi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Halves<Self>, ConnectionError>>;
    /// Opens a stream in one direction.
    fn poll_open_uni(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::Sender, ConnectionError>>;
    /// Closes the connection at once.
    fn close(&self, code: VarInt, reason: &[u8]);
    /// Sets how urgent what is sent on a request's stream is; the stream may be one that the other side will open. Clients need not.
    fn prioritize(&self, _: quinn_proto::StreamId, _: i32) {}
}

/// Both halves of a stream.
pub type Halves<T> = (<T as Transport>::Sender, <T as Transport>::Receiver);

/// What this wants of a sending half.
pub trait Sender: Send {
    /// Its number.
    fn id(&self) -> quinn_proto::StreamId;
    /// Writes at least a byte, by copy.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, StreamErrorIncoming>>;
    /// Nothing more will be written.
    fn finish(&mut self);
    /// Gives up.
    fn reset(&mut self, code: VarInt);
    /// Sets how urgent it is: the highest number goes first.
    fn prioritize(&mut self, priority: i32);
}

/// What this wants of a receiving half.
pub trait Receiver: Send {
    /// Its number.
    fn id(&self) -> quinn_proto::StreamId;
    /// The next bytes; `None` after the last.
    fn poll_read(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>>;
    /// Wants no more.
    fn stop(&mut self, code: VarInt);
}

/// How much h3 may read of a stream that the other side opened. It keeps all of a frame other than DATA until the frame is whole, however
/// long the other side says that it is.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Of a request stream.
    pub request_bytes_max: u64,
    /// Of any other.
    pub control_bytes_max: u64,
}

impl ReadLimits {
    /// None, for a client that trusts its server: its answers have bodies of any length.
    pub const NONE: Self = Self { request_bytes_max: u64::MAX, control_bytes_max: u64::MAX };
}

/// The other side sent more on a stream than [`ReadLimits`] lets it.
#[derive(Debug, thiserror::Error)]
#[error("the other side sent more on a stream than it may")]
pub struct TooMuch;

/// A QUIC connection as h3 wants it.
pub struct Connection<T: Transport> {
    opener: Opener<T>,
    limits: ReadLimits,
    /// `None` for clients: servers do not say what is urgent.
    heeds: Option<Heeds>,
}

/// What is known of the streams that a client may open.
#[derive(Clone)]
struct Heeds {
    /// Streams that it may have open at once.
    streams_max: u64,
    /// Streams that it has opened.
    opened: Arc<AtomicU64>,
}

impl<T: Transport> Connection<T> {
    /// Takes an established connection.
    pub fn new(transport: T, limits: ReadLimits) -> Self {
        Self { opener: Opener { transport, bodies: Bodies::default() }, limits, heeds: None }
    }

    /// The same for servers: heeds what a client, which may have `streams_max` requests under way, says about their order (RFC 9218 §7.2).
    pub fn heeding(self, streams_max: u32) -> Self {
        Self { heeds: Some(Heeds { streams_max: streams_max.into(), opened: Arc::default() }), ..self }
    }

    /// The sending halves of its request streams.
    pub fn bodies(&self) -> Bodies<T::Sender> {
        self.opener.bodies.clone()
    }
}

impl<T: Transport> quic::Connection<Bytes> for Connection<T> {
    type RecvStream = RecvStream<T>;
    type OpenStreams = Opener<T>;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::RecvStream, ConnectionErrorIncoming>> {
        let half = ready!(self.opener.transport.poll_accept_uni(cx)).map_err(connection_error)?;
        let onlooker = self.heeds.as_ref().map(|heeds| Onlooker::of_control(&self.opener.transport, heeds));
        Poll::Ready(Ok(RecvStream::new(half, self.limits.control_bytes_max, onlooker)))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::BidiStream, ConnectionErrorIncoming>> {
        let halves = ready!(self.opener.transport.poll_accept_bi(cx)).map_err(connection_error)?;
        let onlooker = self.heeds.as_ref().map(|heeds| {
            heeds.opened.fetch_add(1, Ordering::Relaxed);
            Onlooker::of_request()
        });
        Poll::Ready(Ok(self.opener.bidi(halves, self.limits.request_bytes_max, onlooker)))
    }

    fn opener(&self) -> Opener<T> {
        self.opener.clone()
    }
}

impl<T: Transport> quic::OpenStreams<Bytes> for Connection<T> {
    type BidiStream = BidiStream<T>;
    type SendStream = SendStream<T::Sender>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: h3::error::Code, reason: &[u8]) {
        quic::OpenStreams::<Bytes>::close(&mut self.opener, code, reason);
    }
}

/// Opens streams of our own.
pub struct Opener<T: Transport> {
    transport: T,
    bodies: Bodies<T::Sender>,
}

impl<T: Transport> Opener<T> {
    fn bidi(&self, (send, recv): Halves<T>, read_bytes_max: u64, onlooker: Option<Onlooker<T>>) -> BidiStream<T> {
        let id = send.id();
        let send = Arc::new(Mutex::new(Some(send)));
        self.bodies.0.lock().insert(id, send.clone());
        BidiStream {
            send: SendStream { id, half: send, pending: None, bodies: Some(self.bodies.clone()) },
            recv: RecvStream::new(recv, read_bytes_max, onlooker),
        }
    }
}

impl<T: Transport> Clone for Opener<T> {
    fn clone(&self) -> Self {
        Self { transport: self.transport.again(), bodies: self.bodies.clone() }
    }
}

impl<T: Transport> quic::OpenStreams<Bytes> for Opener<T> {
    type BidiStream = BidiStream<T>;
    type SendStream = SendStream<T::Sender>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::BidiStream, StreamErrorIncoming>> {
        let opened = ready!(self.transport.poll_open_bi(cx));
        Poll::Ready(opened.map(|halves| self.bidi(halves, u64::MAX, None)).map_err(lost))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Self::SendStream, StreamErrorIncoming>> {
        let opened = ready!(self.transport.poll_open_uni(cx));
        Poll::Ready(opened.map(SendStream::uni).map_err(lost))
    }

    fn close(&mut self, code: h3::error::Code, reason: &[u8]) {
        self.transport.close(varint(code.value()), reason);
    }
}

/// Both halves of a request stream.
pub struct BidiStream<T: Transport> {
    send: SendStream<T::Sender>,
    recv: RecvStream<T>,
}

impl<T: Transport> quic::BidiStream<Bytes> for BidiStream<T> {
    type SendStream = SendStream<T::Sender>;
    type RecvStream = RecvStream<T>;

    fn split(self) -> (Self::SendStream, Self::RecvStream) {
        (self.send, self.recv)
    }
}

impl<T: Transport> quic::RecvStream for BidiStream<T> {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.recv.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl<T: Transport> quic::SendStream<Bytes> for BidiStream<T> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<D: Into<WriteBuf<Bytes>>>(&mut self, data: D) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// A receiving half.
pub struct RecvStream<T: Transport> {
    half: T::Receiver,
    /// What may still be read.
    bytes_left: u64,
    onlooker: Option<Onlooker<T>>,
}

impl<T: Transport> RecvStream<T> {
    fn new(half: T::Receiver, bytes_max: u64, onlooker: Option<Onlooker<T>>) -> Self {
        Self { half, bytes_left: bytes_max, onlooker }
    }
}

impl<T: Transport> quic::RecvStream for RecvStream<T> {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if self.bytes_left == 0 {
            return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(TooMuch))));
        }
        let chunk = ready!(self.half.poll_read(cx, self.bytes_left.min(READ_BYTES_MAX) as usize))?;
        self.bytes_left -= chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if let (Some(chunk), Some(onlooker)) = (&chunk, &mut self.onlooker) {
            onlooker.see(chunk).map_err(|bad| StreamErrorIncoming::Unknown(Box::new(bad)))?;
        }
        Poll::Ready(Ok(chunk))
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.half.stop(varint(error_code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.half.id())
    }
}

/// Sees what h3 reads of a client's streams, for what h3 does not know.
struct Onlooker<T> {
    frames: Frames,
    /// On the control stream.
    control: Option<(T, Heeds)>,
}

impl<T: Transport> Onlooker<T> {
    fn of_request() -> Self {
        Self { frames: Frames::of_request(), control: None }
    }

    fn of_control(transport: &T, heeds: &Heeds) -> Self {
        Self { frames: Frames::of_control(), control: Some((transport.again(), heeds.clone())) }
    }

    /// An error ends the connection: at once here, and where a request's head is awaited if it is on a request's stream.
    fn see(&mut self, bytes: &[u8]) -> Result<(), BadUpdate> {
        let control = &self.control;
        self.frames.pass(bytes, |update| {
            let Some((transport, heeds)) = control else { return Err(BadUpdate::Misplaced) };
            let heeded = heed(&update, transport, heeds);
            heeded.inspect_err(|bad| transport.close(bad.code(), bad.to_string().as_bytes()))
        })
    }
}

/// Does as a PRIORITY_UPDATE frame says. One for a stream that is over is without effect, and so is one that cannot be parsed (RFC 9218 §7 lets
/// it end the connection, and need not). What it says of a stream that is yet to come is kept in that stream's place, of which QUIC has as many
/// as the client may open.
fn heed<T: Transport>(update: &Update<'_>, transport: &T, heeds: &Heeds) -> Result<(), BadUpdate> {
    if update.kind == frames::UPDATE_PUSH {
        return Err(BadUpdate::Push);
    }
    let (id, value) = frames::integer(update.payload).ok_or(BadUpdate::Truncated)?;
    // Request streams are those that a client opens in both directions (RFC 9000 §2.1).
    if id % 4 != 0 {
        return Err(BadUpdate::NoRequest(id));
    }
    // A stream gives way to one more only after it was seen here.
    if id / 4 >= heeds.opened.load(Ordering::Relaxed) + heeds.streams_max {
        return Err(BadUpdate::BeyondLimit(id));
    }
    if let Some(priority) = Priority::parse(value).filter(|_| update.is_whole) {
        transport.prioritize(varint(id).into(), priority.rank(id));
    }
    Ok(())
}

type Shared<S> = Arc<Mutex<Option<S>>>;

/// The sending halves of a connection's request streams, for those who send bodies past h3.
pub struct Bodies<S>(Arc<Mutex<HashMap<quinn_proto::StreamId, Shared<S>>>>);

impl<S> Bodies<S> {
    /// Takes the sending half of request stream `id` out of h3's hands. From then on h3 can neither write to it nor end it.
    pub fn take(&self, id: StreamId) -> Option<S> {
        let shared = self.0.lock().remove(&quic_id(id))?;
        shared.lock().take()
    }

    /// What `look` says of the sending half of request stream `id`; `None` if it is not in h3's hands.
    pub fn look<A>(&self, id: StreamId, look: impl FnOnce(&S) -> A) -> Option<A> {
        let shared = self.0.lock().get(&quic_id(id))?.clone();
        shared.lock().as_ref().map(look)
    }
}

impl<S> Clone for Bodies<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> Default for Bodies<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// A sending half.
pub struct SendStream<S> {
    id: quinn_proto::StreamId,
    /// `None` once its body is sent past h3.
    half: Shared<S>,
    pending: Option<WriteBuf<Bytes>>,
    /// Where the stream is listed, if it is a request stream.
    bodies: Option<Bodies<S>>,
}

impl<S: Sender> SendStream<S> {
    fn uni(mut half: S) -> Self {
        // Control and QPACK: no body may hold up a GOAWAY.
        half.prioritize(i32::MAX);
        Self { id: half.id(), half: Arc::new(Mutex::new(Some(half))), pending: None, bodies: None }
    }
}

impl<S> Drop for SendStream<S> {
    fn drop(&mut self) {
        if let Some(bodies) = &self.bodies {
            bodies.0.lock().remove(&self.id);
        }
    }
}

impl<S: Sender> quic::SendStream<Bytes> for SendStream<S> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let Some(pending) = &mut self.pending else { return Poll::Ready(Ok(())) };
        let mut half = self.half.lock();
        let Some(half) = half.as_mut() else { return Poll::Ready(Err(taken())) };
        while pending.has_remaining() {
            let written = ready!(half.poll_write(cx, pending.chunk()))?;
            pending.advance(written);
        }
        self.pending = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<D: Into<WriteBuf<Bytes>>>(&mut self, data: D) -> Result<(), StreamErrorIncoming> {
        // A send that was dropped half-way stays here and goes out first; h3 asks `poll_ready` before each send.
        if self.pending.is_some() {
            return Err(StreamErrorIncoming::Unknown("a send before the last one was done".into()));
        }
        self.pending = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        if let Some(half) = self.half.lock().as_mut() {
            half.finish();
        }
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, reset_code: u64) {
        if let Some(half) = self.half.lock().as_mut() {
            half.reset(varint(reset_code));
        }
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.id)
    }
}

fn stream_id(id: quinn_proto::StreamId) -> StreamId {
    VarInt::from(id).into_inner().try_into().expect("a QUIC stream id is one of HTTP/3")
}

pub(super) fn quic_id(id: StreamId) -> quinn_proto::StreamId {
    varint(id.into_inner()).into()
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

fn taken() -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown("the stream's body is sent past h3".into())
}

/// The end of a connection, as streams are told.
pub(super) fn lost(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}
