//! A reader: the bytes of a range, slice by slice, at the pace of whoever polls it.

use std::{
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, stream};

use crate::{Cache, FillError, Opened, Patience, Source, Verdict, Wanted, flight::Handle, object::Known, slab::Slab};

/// A stream of the range's bytes, without copies. After an error it ends; what came before the error is right.
pub struct Reader {
    verdict: Verdict,
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, FillError>> + Send>>,
}

impl Reader {
    pub(crate) async fn start<S: Source>(
        cache: Cache,
        key: Arc<str>,
        opened: Opened,
        range: Range<u64>,
        source: Arc<S>,
    ) -> Result<Self, FillError> {
        let Opened { known, first } = opened;
        assert!(range.end <= known.generation.length, "a range lies within the object");
        let mut place = Place { cache, key, known, at: range.start, end: range.end, source, current: None, ahead: first };
        let verdict = if range.is_empty() { Verdict::Ram } else { place.turn_to_slice().await? };
        let chunks = stream::unfold(place, async |mut place| {
            let chunk = place.next().await?;
            if chunk.is_err() {
                place.at = place.end;
            }
            Some((chunk, place))
        });
        Ok(Self { verdict, chunks: Box::pin(chunks) })
    }

    /// Where the first bytes come from.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }
}

impl Stream for Reader {
    type Item = Result<Bytes, FillError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.as_mut().poll_next(cx)
    }
}

/// Where a reader is.
struct Place<S> {
    cache: Cache,
    key: Arc<str>,
    known: Known,
    at: u64,
    end: u64,
    source: Arc<S>,
    current: Option<Current>,
    /// The fill of the slice to come.
    ahead: Option<Handle>,
}

enum Current {
    Memory(Arc<Slab>),
    Flight(Handle),
}

impl<S: Source> Place<S> {
    async fn next(&mut self) -> Option<Result<Bytes, FillError>> {
        if self.at >= self.end {
            return None;
        }
        let mut chunk = self.chunk().await;
        if matches!(chunk, Err(FillError::Unavailable(_) | FillError::Short { .. })) {
            // The version is known and what was read of the slice stays right: one more fill may bring the rest.
            self.current = None;
            chunk = self.chunk().await;
        }
        Some(chunk)
    }

    async fn chunk(&mut self) -> Result<Bytes, FillError> {
        if self.current.is_none() {
            self.turn_to_slice().await?;
        }
        let slice_start = self.index() * self.slice_bytes();
        let from = usize::try_from(self.at - slice_start).expect("within a slice");
        let to = usize::try_from(self.end.min(slice_start + self.slice_bytes()) - slice_start).expect("within a slice");
        let chunk = match self.current.as_ref().expect("turned to above") {
            Current::Memory(slab) => {
                self.cache.0.counters.bytes_ram.add((to - from) as u64);
                slab.view(from, to)
            }
            Current::Flight(handle) => handle.flight.bytes(from, to).await?,
        };
        self.at += chunk.len() as u64;
        if from + chunk.len() == to {
            self.current = None;
        }
        Ok(chunk)
    }

    fn slice_bytes(&self) -> u64 {
        self.cache.0.config.slice_bytes as u64
    }

    fn index(&self) -> u64 {
        self.at / self.slice_bytes()
    }

    /// Finds the slice at the reader's place: in RAM, in the flight that was started ahead, or in another one. A slice that is not
    /// in RAM has the next one fetched too, if there is memory to spare: the reader will want it by the time it is there.
    async fn turn_to_slice(&mut self) -> Result<Verdict, FillError> {
        let index = self.index();
        let ahead = self.ahead.take().filter(|handle| handle.flight.index() == index);
        let found = match ahead {
            Some(handle) if self.is_right(&handle).await => Current::Flight(handle),
            _ => self.find(index).await?,
        };
        let counters = &self.cache.0.counters;
        let verdict = match &found {
            Current::Memory(_) => Verdict::Ram,
            Current::Flight(handle) => handle.verdict,
        };
        match verdict {
            Verdict::Ram | Verdict::Ssd => counters.hits.add(1),
            Verdict::Filled => counters.misses.add(1),
            Verdict::Collapsed => {
                counters.misses.add(1);
                counters.collapsed.add(1);
            }
        }
        self.current = Some(found);
        if verdict != Verdict::Ram {
            self.look_ahead(index + 1);
        }
        Ok(verdict)
    }

    async fn find(&self, index: u64) -> Result<Current, FillError> {
        loop {
            if let Some(slab) = self.cache.0.memory.slice(self.known.id, index) {
                return Ok(Current::Memory(slab));
            }
            let wanted = Wanted::Exactly(self.known.clone());
            let handle = self.cache.join(&self.key, index, wanted, &self.source, Patience::Viewer).ok_or(FillError::Busy)?;
            if handle.flight.known().await?.id != self.known.id {
                return Err(FillError::Changed);
            }
            if handle.flight.carries_bytes() {
                return Ok(Current::Flight(handle));
            }
            // A revalidation of the same slice, which found nothing new: look again once it is over.
            handle.flight.end().await?;
        }
    }

    /// Whether a fill that was started ahead has turned out well so far.
    async fn is_right(&self, ahead: &Handle) -> bool {
        ahead.flight.known().await.is_ok_and(|known| known.id == self.known.id) && ahead.flight.carries_bytes()
    }

    fn look_ahead(&mut self, index: u64) {
        if index * self.slice_bytes() < self.end && !self.cache.0.memory.contains(self.known.id, index) {
            let wanted = Wanted::Exactly(self.known.clone());
            self.ahead = self.cache.join(&self.key, index, wanted, &self.source, Patience::Speculation);
        }
    }
}
