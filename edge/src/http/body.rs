//! Bodies of answers: nothing, a few bytes, or a stream of cache memory of a known length.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use http_body::{Frame, SizeHint};

/// A body whose length is known from the start.
pub struct Body {
    bytes_left: u64,
    source: Source,
}

enum Source {
    Full(Bytes),
    Stream(BoxStream<'static, Result<Bytes, Box<dyn Error + Send + Sync>>>),
}

/// Why a body broke off. Our fault or the origin's, not the client's.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Its stream failed.
    #[error("the body broke off: {0}")]
    Source(#[source] Box<dyn Error + Send + Sync>),
    /// Its stream ended early.
    #[error("the body ended {0} bytes early")]
    Short(u64),
    /// Its stream went on after the announced length; nothing of that was sent.
    #[error("the body is longer than announced")]
    Long,
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { bytes_left: bytes.len() as u64, source: Source::Full(bytes) }
    }

    /// `length_bytes` bytes, in the chunks that `stream` gives, which are sent without being copied.
    pub fn stream<E: Into<Box<dyn Error + Send + Sync>> + 'static>(
        length_bytes: u64,
        stream: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Self {
        Self { bytes_left: length_bytes, source: Source::Stream(stream.map_err(Into::into).boxed()) }
    }

    /// Bytes still to come.
    pub fn bytes_left(&self) -> u64 {
        self.bytes_left
    }

    /// The next chunk; `None` after the last.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.bytes_left == 0 {
            return Poll::Ready(None);
        }
        let chunk = match &mut self.source {
            Source::Full(bytes) => Some(Ok(std::mem::take(bytes))),
            Source::Stream(stream) => ready!(stream.poll_next_unpin(cx)),
        };
        Poll::Ready(Some(match chunk {
            Some(Ok(chunk)) if chunk.len() as u64 > self.bytes_left => Err(BodyError::Long),
            Some(Ok(chunk)) => {
                self.bytes_left -= chunk.len() as u64;
                Ok(chunk)
            }
            Some(Err(error)) => Err(BodyError::Source(error)),
            None => Err(BodyError::Short(self.bytes_left)),
        }))
    }

    /// The next chunk; `None` after the last.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, BodyError>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes_left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left)
    }
}
