//! HTTP/3 over our own QUIC, for servers.

use std::task::{Context, Poll};

use bytes::Bytes;
use h3::quic::StreamErrorIncoming;

use super::transport::{Receiver, Sender, Transport, lost};
use crate::http::quic::{Connection, ConnectionError, ReadError, RecvStream, SendStream, StreamId, VarInt, WriteError};

impl Transport for Connection {
    type Sender = SendStream;
    type Receiver = RecvStream;

    fn again(&self) -> Self {
        self.clone()
    }

    fn poll_accept_bi(&mut self, cx: &mut Context<'_>) -> Poll<Result<(SendStream, RecvStream), ConnectionError>> {
        Self::poll_accept_bi(self, cx)
    }

    fn poll_accept_uni(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionError>> {
        Self::poll_accept_uni(self, cx)
    }

    fn poll_open_bi(&mut self, cx: &mut Context<'_>) -> Poll<Result<(SendStream, RecvStream), ConnectionError>> {
        Self::poll_open_bi(self, cx)
    }

    fn poll_open_uni(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, ConnectionError>> {
        Self::poll_open_uni(self, cx)
    }

    fn close(&self, code: VarInt, reason: &[u8]) {
        Self::close(self, code, reason);
    }

    fn prioritize(&self, id: StreamId, priority: i32) {
        Self::prioritize(self, id, priority);
    }
}

impl Sender for SendStream {
    fn id(&self) -> StreamId {
        Self::id(self)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, StreamErrorIncoming>> {
        Self::poll_write(self, cx, bytes).map_err(|error| match error {
            WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
            WriteError::Lost(error) => lost(error),
            WriteError::Closed => StreamErrorIncoming::Unknown(Box::new(error)),
        })
    }

    fn finish(&mut self) {
        Self::finish(self);
    }

    fn reset(&mut self, code: VarInt) {
        Self::reset(self, code);
    }

    fn prioritize(&mut self, priority: i32) {
        Self::prioritize(self, priority);
    }
}

impl Receiver for RecvStream {
    fn id(&self) -> StreamId {
        Self::id(self)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.poll_read_chunk(cx, bytes_max).map_err(|error| match error {
            ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() },
            ReadError::Lost(error) => lost(error),
            ReadError::Closed => StreamErrorIncoming::Unknown(Box::new(error)),
        })
    }

    fn stop(&mut self, code: VarInt) {
        Self::stop(self, code);
    }
}
