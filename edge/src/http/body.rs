//! Bodies of answers: nothing, a few bytes, or a stream of cache memory of a known length.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream::BoxStream};
use http_body::{Frame, SizeHint};

use super::pace::{Gate, Passage};

/// A body whose length is known from the start.
pub struct Body {
    bytes_left: u64,
    source: Source,
    /// `None` if nothing holds it back.
    paced: Option<Box<Paced>>,
}

/// A body that is held to rates.
struct Paced {
    passage: Passage,
    /// What has come and not yet passed.
    chunk: Bytes,
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
        Self { bytes_left: bytes.len() as u64, source: Source::Full(bytes), paced: None }
    }

    /// `length_bytes` bytes, in the chunks that `stream` gives, which are sent without being copied.
    pub fn stream<E: Into<Box<dyn Error + Send + Sync>> + 'static>(
        length_bytes: u64,
        stream: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Self {
        Self { bytes_left: length_bytes, source: Source::Stream(stream.map_err(Into::into).boxed()), paced: None }
    }

    /// The same, held to the rates of `gates`. Its chunks are no larger then than lets others pass between them.
    pub fn paced(self, gates: Vec<Arc<Gate>>) -> Self {
        let paced = Paced { passage: Passage::new(gates), chunk: Bytes::new() };
        Self { paced: Some(Box::new(paced)), ..self }
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
        let chunk = match &mut self.paced {
            None => ready!(self.source.poll_chunk(self.bytes_left, cx)),
            Some(paced) => ready!(paced.poll_chunk(&mut self.source, self.bytes_left, cx)),
        };
        if let Ok(chunk) = &chunk {
            self.bytes_left -= chunk.len() as u64;
        }
        Poll::Ready(Some(chunk))
    }

    /// The next chunk; `None` after the last.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, BodyError>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }
}

impl Source {
    /// At most `bytes_left` bytes, which there must be.
    fn poll_chunk(&mut self, bytes_left: u64, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        let chunk = match self {
            Self::Full(bytes) => Some(Ok(std::mem::take(bytes))),
            Self::Stream(stream) => ready!(stream.poll_next_unpin(cx)),
        };
        Poll::Ready(match chunk {
            Some(Ok(chunk)) if chunk.len() as u64 > bytes_left => Err(BodyError::Long),
            Some(Ok(chunk)) => Ok(chunk),
            Some(Err(error)) => Err(BodyError::Source(error)),
            None => Err(BodyError::Short(bytes_left)),
        })
    }
}

impl Paced {
    fn poll_chunk(&mut self, source: &mut Source, bytes_left: u64, cx: &mut Context<'_>) -> Poll<Result<Bytes, BodyError>> {
        if self.chunk.is_empty() {
            self.chunk = ready!(source.poll_chunk(bytes_left, cx))?;
        }
        let bytes = self.chunk.len().min(self.passage.piece_bytes);
        ready!(self.passage.poll_pass(bytes, cx));
        Poll::Ready(Ok(self.chunk.split_to(bytes)))
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

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::stream;

    use super::*;
    use crate::http::{Cap, Counters};

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_held_to_a_rate_is_the_same_body_in_smaller_pieces() {
        let gate = Arc::new(Gate::new(80_000_000, Cap::Token, Arc::new(Counters::default())));
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at * 31) as u8).collect();
        let chunks: Vec<_> = bytes.chunks(700_000).map(|chunk| Ok::<_, io::Error>(Bytes::copy_from_slice(chunk))).collect();
        let mut body = Body::stream(bytes.len() as u64, stream::iter(chunks)).paced(vec![gate]);
        let (start, mut all) = (tokio::time::Instant::now(), Vec::new());
        while let Some(chunk) = body.chunk().await {
            let chunk = chunk.expect("no error");
            assert!(!chunk.is_empty() && chunk.len() <= 100_000, "{} bytes at once", chunk.len());
            all.extend_from_slice(&chunk);
            assert_eq!(body.bytes_left(), (bytes.len() - all.len()) as u64);
        }
        assert!(all == bytes);
        // 10 MB/s, less a tenth of a second's worth at once, and the last piece.
        let took = start.elapsed().as_millis();
        assert!((190..=205).contains(&took), "{took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_held_to_a_rate_breaks_off_as_any_other() {
        let paced = |length, bytes: usize| {
            let gate = Arc::new(Gate::new(8_000_000, Cap::Token, Arc::new(Counters::default())));
            Body::stream(length, stream::iter([Ok::<_, io::Error>(Bytes::from(vec![7; bytes]))])).paced(vec![gate])
        };
        assert!(matches!(paced(10, 11).chunk().await, Some(Err(BodyError::Long))));
        let mut short = paced(20_000, 19_000);
        for expected in [16 << 10, 19_000 - (16 << 10)] {
            assert_eq!(short.chunk().await.expect("a chunk").expect("no error").len(), expected);
        }
        assert!(matches!(short.chunk().await, Some(Err(BodyError::Short(1000)))));
    }
}
