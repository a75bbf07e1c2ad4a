//! A reader: the bytes of a range, slice by slice, at the pace of whoever polls it.
//!
//! A slice is found in RAM, in a flight, or on SSD in parts. Parts are for readers who want little of it, and for all when memory is short: then a reader
//! holds no more than the piece that it handed out.

use std::{
    collections::VecDeque,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use futures_util::{Stream, stream};

use crate::{
    Ask, Cache, Errand, FillError, Opened, Source, Verdict, Wanted,
    disk::Disk,
    flight::{Ahead, Handle},
    object::Known,
    pace::{Pace, Stood},
    pieces::Pieces,
    slab::{Permit, Priority, Slab},
    ssd::{Place, SliceName},
};

/// Who wants no more than this part of a slice reads no more of it from SSD.
const LITTLE: usize = 4;
/// What checksums on SSD are for, in bytes: pieces begin and end there.
const PIECE_BYTES: usize = 64 << 10;

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
        let Opened { known, first, verdict } = opened;
        assert!(range.end <= known.generation.length, "a range lies within the object");
        let is_empty = range.is_empty();
        let pace = Pace::new(cache.0.config.rules.read_ahead_max);
        let mut cursor = Cursor {
            cache,
            key,
            known,
            at: range.start,
            end: range.end,
            source,
            slice: None,
            first,
            pace,
            ahead: VecDeque::new(),
            pieces: Pieces::default(),
        };
        let verdict = if is_empty { verdict } else { cursor.turn().await? };
        let chunks = stream::unfold(cursor, async |mut cursor| {
            if cursor.at >= cursor.end {
                return None;
            }
            let chunk = cursor.chunk().await;
            if chunk.is_err() {
                cursor.at = cursor.end;
            }
            Some((chunk, cursor))
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
struct Cursor<S> {
    cache: Cache,
    key: Arc<str>,
    known: Known,
    at: u64,
    end: u64,
    source: Arc<S>,
    slice: Option<Current>,
    /// The flight that the version was learnt from.
    first: Option<Handle>,
    pace: Pace,
    /// What is fetched ahead, in order.
    ahead: VecDeque<Ahead>,
    pieces: Pieces,
}

/// The slice that a reader is in.
struct Current {
    index: u64,
    way: Way,
    verdict: Verdict,
}

/// How a slice's bytes come.
enum Way {
    Ram(Arc<Slab>),
    Flight(Handle),
    Parts(Place),
    /// Given up between two chunks, to be looked for again.
    Lost,
    /// The same, and not to be looked for on SSD, where it could not be read.
    NotOnSsd,
}

impl<S: Source> Cursor<S> {
    async fn chunk(&mut self) -> Result<Bytes, FillError> {
        if self.slice.is_none() {
            self.turn().await?;
        }
        loop {
            if let Some(chunk) = self.next_bytes().await? {
                self.at += chunk.len() as u64;
                self.leave(chunk.len() as u64);
                return Ok(chunk);
            }
        }
    }

    /// The next bytes of the current slice; `None` where it was lost, and has been found again, or can be.
    async fn next_bytes(&mut self) -> Result<Option<Bytes>, FillError> {
        let Current { index, way, .. } = self.slice.as_ref().expect("turned to before");
        let index = *index;
        let wanted = self.wanted_of(index);
        let (from, to) = (wanted.start, wanted.end);
        Ok(match way {
            Way::Ram(slab) => Some(slab.view(from, self.chunk_end(index, from, to))),
            Way::Flight(handle) => Some(handle.flight.bytes(from, self.chunk_end(index, from, to)).await?),
            Way::Parts(place) => {
                let place = *place;
                let piece = self.piece(place, index, from, to).await?;
                if piece.is_none() {
                    self.become_way(Way::NotOnSsd);
                }
                piece
            }
            way @ (Way::Lost | Way::NotOnSsd) => {
                let may_be_on_ssd = matches!(way, Way::Lost);
                let (way, verdict) = self.find(index, may_be_on_ssd).await?;
                self.slice = Some(Current { index, way, verdict });
                None
            }
        })
    }

    fn become_way(&mut self, way: Way) {
        if let Some(current) = &mut self.slice {
            current.way = way;
        }
    }

    /// After a chunk of so many bytes: holds no slice that is done with, nor, when memory is short, one that is to be had again from SSD.
    fn leave(&mut self, bytes: u64) {
        let Some(Current { index, way, verdict }) = &self.slice else { return };
        let (index, counters) = (*index, &self.cache.0.counters);
        match verdict {
            Verdict::Ram => counters.bytes_ram.add(bytes),
            Verdict::Ssd => counters.bytes_ssd.add(bytes),
            Verdict::Filled | Verdict::Collapsed | Verdict::Revalidated => {}
        }
        if self.at >= self.end || self.at / self.slice_bytes() != index {
            self.slice = None;
        } else if matches!(way, Way::Ram(_) | Way::Flight(_)) && self.gives_way(index) {
            self.become_way(Way::Lost);
        }
    }

    fn slice_bytes(&self) -> u64 {
        self.cache.0.config.slice_bytes as u64
    }

    fn name(&self, index: u64) -> SliceName<'_> {
        SliceName { key: &self.key, index }
    }

    /// Bytes within the slice that are wanted from where the reader is on.
    fn wanted_of(&self, index: u64) -> Range<usize> {
        let slice_start = index * self.slice_bytes();
        let within = |at: u64| usize::try_from(at - slice_start).expect("within a slice");
        within(self.at.max(slice_start))..within(self.end.min(slice_start + self.slice_bytes()))
    }

    fn wants_little_of(&self, index: u64) -> bool {
        self.wanted_of(index).len() * LITTLE <= self.cache.0.slice_length(&self.known.generation, index)
    }

    /// A view holds all of its slice's memory. When that is short views are small, so that they are soon sent.
    fn chunk_end(&self, index: u64, from: usize, to: usize) -> usize {
        if self.gives_way(index) { to.min(piece_end(from, 2)) } else { to }
    }

    fn gives_way(&self, index: u64) -> bool {
        self.cache.0.is_short_of_memory() && self.cache.0.is_on_ssd(self.name(index))
    }

    /// Comes to the slice at the reader's place: one that was fetched ahead, or else wherever it is found. If it is not in RAM those after it are
    /// fetched ahead.
    async fn turn(&mut self) -> Result<Verdict, FillError> {
        let index = self.at / self.slice_bytes();
        let ahead = self.take_ahead(index);
        let (way, verdict) = match self.come_to(index, ahead).await {
            Some(found) => found,
            None => self.find(index, true).await?,
        };
        let counters = &self.cache.0.counters;
        match verdict {
            Verdict::Ram | Verdict::Revalidated => counters.hits.add(1),
            Verdict::Ssd => counters.ssd_hits.add(1),
            Verdict::Filled => counters.misses.add(1),
            Verdict::Collapsed => {
                counters.misses.add(1);
                counters.collapsed.add(1);
            }
        }
        self.slice = Some(Current { index, way, verdict });
        if matches!(verdict, Verdict::Ram | Verdict::Ssd)
            && let Some(ssd) = self.cache.0.ssd.get()
        {
            ssd.used(self.name(index));
        }
        if verdict != Verdict::Ram {
            self.look_ahead(index);
        }
        Ok(verdict)
    }

    /// The slice was fetched for this reader: by the flight that it learnt the version from, or ahead. `None` if that came to nothing.
    async fn come_to(&mut self, index: u64, ahead: Option<Ahead>) -> Option<(Way, Verdict)> {
        let first = self.first.take().filter(|first| first.flight.index == index);
        let handle = first.or_else(|| ahead.as_ref()?.handle());
        if let Some(handle) = handle
            && handle.flight.known().await.is_ok_and(|known| self.is_mine(&known))
            && handle.flight.carries_bytes()
        {
            self.count_use(ahead.as_ref());
            let verdict = handle.verdict();
            return Some((Way::Flight(handle), verdict));
        }
        let verdict = ahead.as_ref()?.verdict()?;
        let slab = self.cache.0.memory.slice(self.known.id, index)?;
        self.count_use(ahead.as_ref());
        Some((Way::Ram(slab), verdict))
    }

    fn count_use(&self, ahead: Option<&Ahead>) {
        if ahead.is_some_and(Ahead::leads) {
            self.cache.0.counters.read_ahead_used.add(1);
        }
    }

    async fn find(&self, index: u64, may_be_on_ssd: bool) -> Result<(Way, Verdict), FillError> {
        let shared = &self.cache.0;
        loop {
            if let Some(slab) = shared.memory.slice(self.known.id, index) {
                return Ok((Way::Ram(slab), Verdict::Ram));
            }
            let place = if may_be_on_ssd { shared.find_on_ssd(self.name(index)) } else { None };
            let mut permit = None;
            if let Some(place) = place
                && !shared.flights.would_join(&self.key, index, &self.wanted(), self.known.number)
            {
                permit = self.memory_for_all_of(index);
                if permit.is_none() {
                    return Ok((Way::Parts(place), Verdict::Ssd));
                }
            }
            let handle = self.join(index, Errand::Viewer, place, permit);
            let known = handle.flight.known().await?;
            if !self.is_mine(&known) {
                if !known.generation.same_bytes(&self.known.generation) {
                    return Err(FillError::Changed);
                }
                // It was purged before this reader began, which could not be told before: the next flight is another.
                continue;
            }
            if handle.flight.carries_bytes() {
                let verdict = handle.verdict();
                return Ok((Way::Flight(handle), verdict));
            }
            // A revalidation of the same slice, which found nothing new: look again once it is over.
            handle.flight.end().await?;
        }
    }

    /// Memory for a slice that is on SSD, unless little of it is wanted. It must leave to others what speculation leaves: what is there can be
    /// read in pieces, and they need that memory.
    fn memory_for_all_of(&self, index: u64) -> Option<Permit> {
        if self.wants_little_of(index) {
            return None;
        }
        self.cache.0.budget.try_acquire(self.cache.0.config.slice_bytes, Priority::Speculation)
    }

    fn wanted(&self) -> Wanted {
        Wanted::Exactly(self.known.clone())
    }

    fn join(&self, index: u64, errand: Errand, place: Option<Place>, permit: Option<Permit>) -> Handle {
        let (key, number) = (&self.key, self.known.number);
        self.cache.join(Ask { key, index, wanted: self.wanted(), number, errand, place, permit }, &self.source)
    }

    /// Whether a flight's bytes are good for this reader: its version, not purged before the reader began.
    fn is_mine(&self, known: &Known) -> bool {
        known.id == self.known.id
            || known.generation.same_bytes(&self.known.generation)
                && (known.number >= self.known.number || !self.cache.0.objects.is_purged(&self.key, known))
    }

    /// The next piece from SSD. `None` if it cannot be read there.
    async fn piece(&mut self, place: Place, index: u64, from: usize, to: usize) -> Result<Option<Bytes>, FillError> {
        let shared = self.cache.0.clone();
        let Some(ssd) = shared.ssd.get() else { return Ok(None) };
        let (to, permit) = self.memory_for_piece(index, from, to).await?;
        let read = ssd.load_part(self.name(index), place, &self.known.generation, from..to, permit).await;
        let Some((slab, at)) = read else { return Ok(None) };
        Ok(Some(self.pieces.hand_out(slab.view(at, at + (to - from)))))
    }

    /// Memory for a piece of `from..to`, and where that ends: two blocks, or all of it where it is little. When memory is short it is one block, after all
    /// pieces that were handed out before came back, or as good as that in the time that one waits for memory.
    async fn memory_for_piece(&self, index: u64, from: usize, to: usize) -> Result<(usize, Permit), FillError> {
        let (budget, wait_max) = (&self.cache.0.budget, self.cache.0.config.memory_wait_max);
        let end = if self.wants_little_of(index) { to } else { to.min(piece_end(from, 2)) };
        if let Some(permit) = budget.try_acquire(Disk::part_bytes(&(from..end)), Priority::Speculation) {
            return Ok((end, permit));
        }
        self.pieces.come_back(wait_max).await;
        let end = to.min(piece_end(from, 1));
        let permit = budget.acquire(Disk::part_bytes(&(from..end)), Priority::Viewer, wait_max).await;
        let permit = permit.ok_or_else(|| {
            self.cache.0.counters.refused_busy.add(1);
            FillError::Busy
        })?;
        Ok((end, permit))
    }

    /// What was fetched ahead for the slice, and how the window follows from how that stood.
    fn take_ahead(&mut self, index: u64) -> Option<Ahead> {
        while self.ahead.front().is_some_and(|ahead| ahead.index < index) {
            self.ahead.pop_front();
        }
        let ahead = self.ahead.pop_front_if(|ahead| ahead.index == index);
        let stood = match &ahead {
            None => Stood::NotAhead,
            Some(ahead) => ahead.ended().map_or(Stood::Filling, |ended| Stood::Ended(ended.at)),
        };
        self.pace.turn(Instant::now(), stood);
        ahead
    }

    /// Has the slices after `index` fetched as far as the window and the range go, with memory that nobody else needs.
    fn look_ahead(&mut self, index: u64) {
        let last = ((self.end - 1) / self.slice_bytes()).min(index + self.pace.window());
        let first = self.ahead.back().map_or(index + 1, |ahead| ahead.index + 1);
        for index in first..=last {
            if self.cache.0.memory.contains(self.known.id, index) {
                continue;
            }
            let Some(handle) = self.fetch_ahead(index) else { return };
            if handle.leads() {
                self.cache.0.counters.read_ahead_started.add(1);
            }
            self.ahead.push_back(handle.into());
        }
    }

    /// `None` if there is no memory to spare, or if the reader will want so little that it reads that alone.
    fn fetch_ahead(&self, index: u64) -> Option<Handle> {
        let shared = &self.cache.0;
        if shared.flights.would_join(&self.key, index, &self.wanted(), self.known.number) {
            return Some(self.join(index, Errand::Ahead, None, None));
        }
        let place = shared.find_on_ssd(self.name(index));
        let length = match place {
            Some(_) if self.wants_little_of(index) => return None,
            Some(_) => shared.config.slice_bytes,
            None => shared.slice_length(&self.known.generation, index),
        };
        let permit = shared.budget.try_acquire(length, Priority::Speculation);
        if permit.is_none() {
            shared.counters.refused_speculation.add(1);
        }
        Some(self.join(index, Errand::Ahead, place, Some(permit?)))
    }
}

/// The end of the `blocks`th block from the one that `from` is in.
fn piece_end(from: usize, blocks: usize) -> usize {
    (from / PIECE_BYTES + blocks) * PIECE_BYTES
}
