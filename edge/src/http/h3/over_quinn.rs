//! HTTP/3 over quinn, for clients.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{BoxStream, unfold},
};
use h3::quic::StreamErrorIncoming;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, StreamId, VarInt, WriteError};

use super::transport::{Receiver, Sender, Transport, lost};

/// Made once somebody asks.
type Accepting<T> = Option<BoxStream<'static, Result<T, ConnectionError>>>;
type Opening<T> = Option<BoxFuture<'static, Result<T, ConnectionError>>>;

/// A connection of quinn's with what it is being asked for.
pub struct Quinn {
    connection: quinn::Connection,
    bi: Accepting<(SendStream, RecvStream)>,
    uni: Accepting<RecvStream>,
    opening_bi: Opening<(SendStream, RecvStream)>,
    opening_uni: Opening<SendStream>,
}

impl Quinn {
    /// Takes an established connection.
    pub fn new(connection: quinn::Connection) -> Self {
        Self { connection, bi: None, uni: None, opening_bi: None, opening_uni: None }
    }
}

impl Transport for Quinn {
    type Sender = SendStream;
    type Receiver = RecvStream;

    fn again(&self) -> Self {
        Self::new(self.connection.clone())
    }

    fn poll_accept_bi(&mut self, cx: &mut Context<'_>) -> Poll<Result<(SendStream, RecvStream), ConnectionError>> {
        let quinn = &self.connection;
        let accepting =
            self.bi.get_or_insert_with(|| unfold(quinn.clone(), async |quinn| Some((quinn.accept_bi().await, quinn))).boxed());
        accepting.poll_next_unpin(cx).map(|accepted| accepted.expect("the stream of streams does not end"))
    }

    fn poll_accept_uni(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionError>> {
        let quinn = &self.connection;
        let accepting =
            self.uni.get_or_insert_with(|| unfold(quinn.clone(), async |quinn| Some((quinn.accept_uni().await, quinn))).boxed());
        accepting.poll_next_unpin(cx).map(|accepted| accepted.expect("the stream of streams does not end"))
    }

    fn poll_open_bi(&mut self, cx: &mut Context<'_>) -> Poll<Result<(SendStream, RecvStream), ConnectionError>> {
        let quinn = self.connection.clone();
        let opening = self.opening_bi.get_or_insert_with(|| Box::pin(async move { quinn.open_bi().await }));
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening_bi = None;
        Poll::Ready(opened)
    }

    fn poll_open_uni(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, ConnectionError>> {
        let quinn = self.connection.clone();
        let opening = self.opening_uni.get_or_insert_with(|| Box::pin(async move { quinn.open_uni().await }));
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening_uni = None;
        Poll::Ready(opened)
    }

    fn close(&self, code: VarInt, reason: &[u8]) {
        self.connection.close(code, reason);
    }
}

impl Sender for SendStream {
    fn id(&self) -> StreamId {
        Self::id(self)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, StreamErrorIncoming>> {
        Pin::new(self).poll_write(cx, bytes).map_err(|error| match error {
            WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
            WriteError::ConnectionLost(error) => lost(error),
            other => StreamErrorIncoming::Unknown(Box::new(other)),
        })
    }

    fn finish(&mut self) {
        // Fails only when the stream is over already.
        let _ = Self::finish(self);
    }

    fn reset(&mut self, code: VarInt) {
        // Fails only when the stream is over already.
        let _ = Self::reset(self, code);
    }

    fn prioritize(&mut self, priority: i32) {
        // Fails only when the stream is over already.
        let _ = self.set_priority(priority);
    }
}

impl Receiver for RecvStream {
    fn id(&self) -> StreamId {
        Self::id(self)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        // quinn keeps no state in this future, so making it anew at each poll loses nothing.
        let read = std::pin::pin!(self.read_chunk(bytes_max, true));
        let chunk = ready!(read.poll(cx)).map_err(|error| match error {
            ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
            ReadError::ConnectionLost(error) => lost(error),
            other => StreamErrorIncoming::Unknown(Box::new(other)),
        })?;
        Poll::Ready(Ok(chunk.map(|chunk| chunk.bytes)))
    }

    fn stop(&mut self, code: VarInt) {
        // Fails only when the stream is over already.
        let _ = Self::stop(self, code);
    }
}
