//! The two halves of a stream.
//!
//! What is written is not copied: the protocol keeps the `Bytes` until they are acknowledged. One task at a time reads a stream, one
//! writes it, and one waits for it to be stopped; of several the last to ask is woken.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use quinn_proto::{ConnectionError, FinishError, StreamId, VarInt, Written};

use super::Connection;

/// The half that sends. Dropped, it is finished; if the other side has stopped it, it is reset.
#[derive(Debug)]
pub struct SendStream {
    connection: Connection,
    id: StreamId,
}

/// The half that receives. Dropped before its end, it is stopped with code 0.
#[derive(Debug)]
pub struct RecvStream {
    connection: Connection,
    id: StreamId,
    /// There is nothing more to read.
    ended: bool,
}

/// Ends when the other side has stopped a stream (its code), or has acknowledged all of it (`None`), or the connection is over.
#[derive(Debug)]
pub struct Stopped {
    connection: Connection,
    id: StreamId,
}

/// Why nothing can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The other side does not want more.
    #[error("the other side stopped the stream with code {0}")]
    Stopped(VarInt),
    /// It was finished or reset here.
    #[error("the stream is closed")]
    Closed,
    /// The connection is over.
    #[error(transparent)]
    Lost(#[from] ConnectionError),
}

/// Why nothing can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The other side gave up sending.
    #[error("the other side reset the stream with code {0}")]
    Reset(VarInt),
    /// It was stopped here.
    #[error("the stream is closed")]
    Closed,
    /// The connection is over.
    #[error(transparent)]
    Lost(#[from] ConnectionError),
}

impl SendStream {
    pub(super) fn new(connection: Connection, id: StreamId) -> Self {
        Self { connection, id }
    }

    /// Its number.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Writes as much of `chunks` as there is room for, at least a byte. What is written of a chunk is taken off its front.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn poll_write_chunks(&mut self, cx: &mut Context<'_>, chunks: &mut [Bytes]) -> Poll<Result<Written, WriteError>> {
        self.poll_write_with(cx, |stream| stream.write_chunks(chunks))
    }

    /// Writes as much of `bytes` as there is room for, at least a byte. These are copied.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, WriteError>> {
        self.poll_write_with(cx, |stream| stream.write(bytes))
    }

    /// As [`Self::poll_write_chunks`]. Dropped before it ends, it has written nothing.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Written, WriteError> {
        poll_fn(|cx| self.poll_write_chunks(cx, chunks)).await
    }

    /// Nothing more will be written. Without effect if that is known already.
    pub fn finish(&mut self) {
        let mut state = self.connection.lock();
        if state.quic.send_stream(self.id).finish().is_ok() {
            self.connection.list(&mut state);
        }
    }

    /// Gives up: what is not yet sent is dropped, what is lost is not sent again. Without effect once it is over.
    pub fn reset(&mut self, code: VarInt) {
        let mut state = self.connection.lock();
        if state.quic.send_stream(self.id).reset(code).is_ok() {
            self.connection.list(&mut state);
        }
    }

    /// Sets how urgent it is: the highest number goes first, equals go in turns; 0 unless set. Of what is written already some more may go as
    /// before. Without effect once it is over.
    pub fn prioritize(&mut self, priority: i32) {
        let _ = self.connection.lock().quic.send_stream(self.id).set_priority(priority);
    }

    /// Waits for the other side to stop it, or to have it all.
    pub fn stopped(&self) -> Stopped {
        Stopped { connection: self.connection.clone(), id: self.id }
    }

    /// Gives back who waited to write, to be dropped without the lock.
    fn end(&mut self) -> Option<Waker> {
        let mut state = self.connection.lock();
        let waker = state.writers().remove(&self.id);
        if state.error().is_none() {
            let mut stream = state.quic.send_stream(self.id);
            let news = match stream.finish() {
                Ok(()) => true,
                Err(FinishError::Stopped(code)) => stream.reset(code).is_ok(),
                Err(FinishError::ClosedStream) => false,
            };
            if news {
                self.connection.list(&mut state);
            }
        }
        waker
    }

    fn poll_write_with<T>(
        &mut self,
        cx: &Context<'_>,
        write: impl FnOnce(&mut quinn_proto::SendStream<'_>) -> Result<T, quinn_proto::WriteError>,
    ) -> Poll<Result<T, WriteError>> {
        let mut state = self.connection.lock();
        if let Some(error) = state.error() {
            return Poll::Ready(Err(error.clone().into()));
        }
        Poll::Ready(match write(&mut state.quic.send_stream(self.id)) {
            Ok(written) => {
                self.connection.list(&mut state);
                Ok(written)
            }
            Err(quinn_proto::WriteError::Blocked) => {
                wait(state.writers(), self.id, cx);
                return Poll::Pending;
            }
            Err(quinn_proto::WriteError::Stopped(code)) => Err(WriteError::Stopped(code)),
            Err(quinn_proto::WriteError::ClosedStream) => Err(WriteError::Closed),
        })
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let waker = self.end();
        drop(waker);
    }
}

impl Future for Stopped {
    type Output = Result<Option<VarInt>, ConnectionError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.connection.lock();
        match state.quic.send_stream(self.id).stopped() {
            Ok(Some(code)) => Poll::Ready(Ok(Some(code))),
            Ok(None) => match state.error() {
                Some(error) => Poll::Ready(Err(error.clone())),
                None => {
                    wait(state.stops(), self.id, cx);
                    Poll::Pending
                }
            },
            Err(_) => Poll::Ready(Ok(None)),
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let waker = self.connection.lock().stops().remove(&self.id);
        drop(waker);
    }
}

impl RecvStream {
    pub(super) fn new(connection: Connection, id: StreamId) -> Self {
        Self { connection, id, ended: false }
    }

    /// Its number.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The next bytes in order, at most `bytes_max`; `None` after the last.
    ///
    /// # Errors
    /// See [`ReadError`]. An error is told once; from then on there is nothing.
    pub fn poll_read_chunk(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<Result<Option<Bytes>, ReadError>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let mut state = self.connection.lock();
        let mut stream = state.quic.recv_stream(self.id);
        let (read, news) = match stream.read(true) {
            Ok(mut chunks) => {
                let read = chunks.next(bytes_max);
                (read, chunks.finalize().should_transmit())
            }
            Err(_) => {
                self.ended = true;
                return Poll::Ready(Err(ReadError::Closed));
            }
        };
        if news {
            self.connection.list(&mut state);
        }
        Poll::Ready(match read {
            Ok(chunk) => {
                self.ended = chunk.is_none();
                Ok(chunk.map(|chunk| chunk.bytes))
            }
            Err(quinn_proto::ReadError::Reset(code)) => {
                self.ended = true;
                Err(ReadError::Reset(code))
            }
            Err(quinn_proto::ReadError::Blocked) => match state.error() {
                Some(error) => Err(error.clone().into()),
                None => {
                    wait(state.readers(), self.id, cx);
                    return Poll::Pending;
                }
            },
        })
    }

    /// As [`Self::poll_read_chunk`]. Dropped before it ends, it has read nothing.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_chunk(&mut self, bytes_max: usize) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| self.poll_read_chunk(cx, bytes_max)).await
    }

    /// Wants no more of it: what is not yet read is dropped. Without effect once it is over.
    pub fn stop(&mut self, code: VarInt) {
        let waker = self.end(code);
        drop(waker);
    }

    /// Gives back who waited to read, to be dropped without the lock.
    fn end(&mut self, code: VarInt) -> Option<Waker> {
        if std::mem::replace(&mut self.ended, true) {
            return None;
        }
        let mut state = self.connection.lock();
        if state.quic.recv_stream(self.id).stop(code).is_ok() {
            self.connection.list(&mut state);
        }
        state.readers().remove(&self.id)
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.stop(VarInt::from_u32(0));
    }
}

fn wait(waiting: &mut HashMap<StreamId, Waker>, id: StreamId, cx: &Context<'_>) {
    waiting.entry(id).and_modify(|waker| waker.clone_from(cx.waker())).or_insert_with(|| cx.waker().clone());
}
