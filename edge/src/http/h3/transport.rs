//! h3's view of a QUIC connection, over quinn, for servers and clients.
//!
//! h3 does the protocol's bookkeeping (SETTINGS, HEADERS, GOAWAY); bodies do not go through it. The sending half of a request stream can be
//! taken out with [`Bodies::take`] once the HEADERS frame is written, and then `Bytes` go to quinn as they are. Where h3's own
//! adapter keeps a quinn future across polls, this one keeps nothing, so dropping a send half-way harms nobody.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use parking_lot::Mutex;
use quinn::{ReadError, VarInt, WriteError};

/// The most bytes taken from a stream at once.
const READ_BYTES_MAX: u64 = 256 << 10;

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
pub struct Connection {
    quinn: quinn::Connection,
    bidi: BoxStream<'static, Result<(quinn::SendStream, quinn::RecvStream), quinn::ConnectionError>>,
    uni: BoxStream<'static, Result<quinn::RecvStream, quinn::ConnectionError>>,
    opener: Opener,
    limits: ReadLimits,
}

impl Connection {
    /// Takes an established connection.
    pub fn new(quinn: quinn::Connection, limits: ReadLimits) -> Self {
        let bidi = futures_util::stream::unfold(quinn.clone(), async |quinn| Some((quinn.accept_bi().await, quinn)));
        let uni = futures_util::stream::unfold(quinn.clone(), async |quinn| Some((quinn.accept_uni().await, quinn)));
        let opener = Opener { quinn: quinn.clone(), bodies: Bodies::default(), bidi: None, uni: None };
        Self { quinn, bidi: Box::pin(bidi), uni: Box::pin(uni), opener, limits }
    }

    /// The sending halves of its request streams.
    pub fn bodies(&self) -> Bodies {
        self.opener.bodies.clone()
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let accepted = ready!(self.uni.poll_next_unpin(cx)).expect("the stream of streams does not end");
        Poll::Ready(accepted.map(|quinn| RecvStream::new(quinn, self.limits.control_bytes_max)).map_err(connection_error))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        let accepted = ready!(self.bidi.poll_next_unpin(cx)).expect("the stream of streams does not end");
        Poll::Ready(accepted.map(|halves| self.opener.bidi(halves, self.limits.request_bytes_max)).map_err(connection_error))
    }

    fn opener(&self) -> Opener {
        Opener { quinn: self.quinn.clone(), bodies: self.opener.bodies.clone(), bidi: None, uni: None }
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: h3::error::Code, reason: &[u8]) {
        quic::OpenStreams::<Bytes>::close(&mut self.opener, code, reason);
    }
}

type Opening<T> = Option<BoxFuture<'static, Result<T, quinn::ConnectionError>>>;

/// Opens streams of our own.
pub struct Opener {
    quinn: quinn::Connection,
    bodies: Bodies,
    bidi: Opening<(quinn::SendStream, quinn::RecvStream)>,
    uni: Opening<quinn::SendStream>,
}

impl Opener {
    fn bidi(&self, (send, recv): (quinn::SendStream, quinn::RecvStream), read_bytes_max: u64) -> BidiStream {
        let id = send.id();
        let send = Arc::new(Mutex::new(Some(send)));
        self.bodies.0.lock().insert(id, send.clone());
        BidiStream {
            send: SendStream { id, quinn: send, pending: None, bodies: Some(self.bodies.clone()) },
            recv: RecvStream::new(recv, read_bytes_max),
        }
    }
}

impl Clone for Opener {
    fn clone(&self) -> Self {
        Self { quinn: self.quinn.clone(), bodies: self.bodies.clone(), bidi: None, uni: None }
    }
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        let quinn = self.quinn.clone();
        let opening = self.bidi.get_or_insert_with(|| Box::pin(async move { quinn.open_bi().await }));
        let opened = ready!(opening.as_mut().poll(cx));
        self.bidi = None;
        Poll::Ready(opened.map(|halves| self.bidi(halves, u64::MAX)).map_err(lost))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let quinn = self.quinn.clone();
        let opening = self.uni.get_or_insert_with(|| Box::pin(async move { quinn.open_uni().await }));
        let opened = ready!(opening.as_mut().poll(cx));
        self.uni = None;
        Poll::Ready(opened.map(SendStream::uni).map_err(lost))
    }

    fn close(&mut self, code: h3::error::Code, reason: &[u8]) {
        self.quinn.close(varint(code.value()), reason);
    }
}

/// Both halves of a request stream.
pub struct BidiStream {
    send: SendStream,
    recv: RecvStream,
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::RecvStream for BidiStream {
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

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
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
pub struct RecvStream {
    quinn: quinn::RecvStream,
    /// What may still be read.
    bytes_left: u64,
}

impl RecvStream {
    fn new(quinn: quinn::RecvStream, bytes_max: u64) -> Self {
        Self { quinn, bytes_left: bytes_max }
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        if self.bytes_left == 0 {
            return Poll::Ready(Err(StreamErrorIncoming::Unknown(Box::new(TooMuch))));
        }
        let bytes_max = self.bytes_left.min(READ_BYTES_MAX) as usize;
        // quinn keeps no state in this future, so making it anew at each poll loses nothing.
        let read = std::pin::pin!(self.quinn.read_chunk(bytes_max, true));
        let chunk = ready!(read.poll(cx)).map_err(|error| match error {
            ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
            ReadError::ConnectionLost(error) => lost(error),
            other => StreamErrorIncoming::Unknown(Box::new(other)),
        })?;
        self.bytes_left -= chunk.as_ref().map_or(0, |chunk| chunk.bytes.len() as u64);
        Poll::Ready(Ok(chunk.map(|chunk| chunk.bytes)))
    }

    fn stop_sending(&mut self, error_code: u64) {
        // Fails only when the stream is over already.
        let _ = self.quinn.stop(varint(error_code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.quinn.id())
    }
}

type Shared = Arc<Mutex<Option<quinn::SendStream>>>;

/// The sending halves of a connection's request streams, for those who send bodies past h3.
#[derive(Clone, Default)]
pub struct Bodies(Arc<Mutex<HashMap<quinn::StreamId, Shared>>>);

impl Bodies {
    /// Takes the sending half of request stream `id` out of h3's hands. From then on h3 can neither write to it nor end it.
    pub fn take(&self, id: StreamId) -> Option<quinn::SendStream> {
        let id = quinn::StreamId::from(varint(id.into_inner()));
        let shared = self.0.lock().remove(&id)?;
        shared.lock().take()
    }

    /// Ends when the client has stopped request stream `id`, or has acknowledged all of it, or is gone.
    pub fn stopped(&self, id: StreamId) -> Option<impl Future + Send + use<>> {
        let id = quinn::StreamId::from(varint(id.into_inner()));
        let shared = self.0.lock().get(&id)?.clone();
        let stopped = shared.lock().as_ref()?.stopped();
        Some(stopped)
    }
}

/// A sending half.
pub struct SendStream {
    id: quinn::StreamId,
    /// `None` once its body is sent past h3.
    quinn: Shared,
    pending: Option<WriteBuf<Bytes>>,
    /// Where the stream is listed, if it is a request stream.
    bodies: Option<Bodies>,
}

impl SendStream {
    fn uni(quinn: quinn::SendStream) -> Self {
        Self { id: quinn.id(), quinn: Arc::new(Mutex::new(Some(quinn))), pending: None, bodies: None }
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if let Some(bodies) = &self.bodies {
            bodies.0.lock().remove(&self.id);
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        let Some(pending) = &mut self.pending else { return Poll::Ready(Ok(())) };
        let mut quinn = self.quinn.lock();
        let Some(quinn) = quinn.as_mut() else { return Poll::Ready(Err(taken())) };
        while pending.has_remaining() {
            let written = ready!(Pin::new(&mut *quinn).poll_write(cx, pending.chunk())).map_err(|error| match error {
                WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
                WriteError::ConnectionLost(error) => lost(error),
                other => StreamErrorIncoming::Unknown(Box::new(other)),
            })?;
            pending.advance(written);
        }
        self.pending = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        // A send that was dropped half-way stays here and goes out first; h3 asks `poll_ready` before each send.
        if self.pending.is_some() {
            return Err(StreamErrorIncoming::Unknown("a send before the last one was done".into()));
        }
        self.pending = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        if let Some(quinn) = self.quinn.lock().as_mut() {
            // Fails only when the stream is over already.
            let _ = quinn.finish();
        }
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, reset_code: u64) {
        if let Some(quinn) = self.quinn.lock().as_mut() {
            // Fails only when the stream is over already.
            let _ = quinn.reset(varint(reset_code));
        }
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.id)
    }
}

fn stream_id(id: quinn::StreamId) -> StreamId {
    VarInt::from(id).into_inner().try_into().expect("a QUIC stream id is one of HTTP/3")
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

fn taken() -> StreamErrorIncoming {
    StreamErrorIncoming::Unknown("the stream's body is sent past h3".into())
}

fn lost(error: quinn::ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
}

fn connection_error(error: quinn::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into_inner() }
        }
        quinn::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}
