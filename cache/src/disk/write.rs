//! Writing: one task a device takes what is offered, appends it to an open segment, and seals what is full. [`super::reclaim`] makes room.
//!
//! Nothing is written twice in a segment's life: head, records one after the other, footer. A slice is in the index only after all of it was
//! written.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot};

use super::{
    Offer,
    device::{self, Fault, Volume},
    engine::{Engine, Queued, Refusal},
    far::Tag,
    index::Place,
    layout::{Class, Entry, Footer, Life, PAGE, RecordHead, SegmentHead, checksums},
    plan::{Planned, ToPlan},
    reclaim::Leaving,
    recover::Recovered,
};
use crate::{
    policy::{Hits, Verdict},
    slab::{IoBuf, record_bytes},
};

/// Writes under way at once on a device.
pub(super) const WRITES_MAX: usize = 8;

/// What a writer is asked.
pub(super) enum Job {
    Write(Box<Offer>, Queued),
    /// Write the footers of open segments, and say when they stand.
    Seal(oneshot::Sender<()>),
    /// Make planned content of it.
    Plan(Box<ToPlan>),
    /// Nothing more comes.
    End,
    /// Go on with this.
    TakeUp(Arc<Volume>, Recovered),
}

/// A device's writer.
pub(super) struct Writing {
    pub(super) engine: Arc<Engine>,
    pub(super) device: usize,
    volume: Option<Arc<Volume>>,
    pub(super) free: VecDeque<u32>,
    /// By class; the oldest first.
    pub(super) sealed: [VecDeque<u32>; Class::ALL.len()],
    /// What can be opened after all that is free; the first that was reclaimed first.
    pub(super) leaving: VecDeque<Leaving>,
    /// By class.
    pub(super) open: [Option<Open>; Class::ALL.len()],
    /// By class: open ones that were too full for some record.
    pub(super) tails: [Option<Open>; Class::ALL.len()],
    under_way: FuturesUnordered<Pin<Box<dyn Future<Output = Written> + Send>>>,
}

/// A segment that records are appended to.
pub(super) struct Open {
    number: u32,
    pub(super) life: Life,
    /// The first free page.
    page: usize,
    /// Records appended, written or not yet.
    records: usize,
    entries: Vec<Entry>,
    oldest: u64,
    newest: u64,
}

/// A record that is about to be written.
pub(super) struct Record {
    pub(super) hash: u64,
    pub(super) pages: usize,
    pub(super) hits: Hits,
    pub(super) tag: Tag,
    pub(super) number: u64,
    pub(super) class: Class,
    /// What waits until it is written.
    pub(super) queued: Option<Queued>,
    /// Where it was, if it is written again.
    pub(super) from: Option<Place>,
}

/// A record that was written, or not.
struct Written {
    entry: Entry,
    number: u64,
    class: Class,
    queued: Option<Queued>,
    from: Option<Place>,
    volume: Arc<Volume>,
    segment: u32,
    life: Life,
    result: Result<(), Fault>,
}

/// Why a record is not written.
pub(super) enum Refused {
    Why(Refusal),
    Device(Fault),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Device(fault)
    }
}

impl Writing {
    pub(super) fn new(engine: Arc<Engine>, device: usize) -> Self {
        Self {
            engine,
            device,
            volume: None,
            free: VecDeque::new(),
            sealed: Default::default(),
            leaving: VecDeque::new(),
            open: Default::default(),
            tails: Default::default(),
            under_way: FuturesUnordered::new(),
        }
    }

    /// Does all jobs until there will be no more.
    pub(super) async fn run(mut self, jobs: &mut mpsc::UnboundedReceiver<Job>) {
        loop {
            tokio::select! {
                biased;
                Some(written) = self.under_way.next(), if !self.under_way.is_empty() => self.landed(written),
                job = jobs.recv(), if self.under_way.len() < WRITES_MAX => match job {
                    Some(Job::End) | None => break,
                    Some(_) if self.engine.is_ending.load(Ordering::Acquire) => {}
                    Some(job) => self.work(job).await,
                },
            }
        }
        self.land_all().await;
    }

    async fn work(&mut self, job: Job) {
        match job {
            Job::Write(offer, queued) => {
                let bytes = offer.slab.length() as u64;
                let mut queued = Some(queued);
                match self.write(*offer, &mut queued).await {
                    Ok(()) => self.engine.counters.bytes_admitted.add(bytes),
                    // What is refused waits until that is counted.
                    Err(refused) => self.refuse(refused),
                }
            }
            Job::Plan(wanted) => {
                let planned = match self.plan(&wanted).await {
                    Ok(planned) => planned,
                    Err(refused) => {
                        self.refuse(refused);
                        Planned::Refused
                    }
                };
                wanted.is(planned);
            }
            Job::Seal(done) => {
                if let Err(fault) = self.seal_all().await {
                    self.give_up(&fault);
                }
                // Whoever asked may be gone.
                let _ = done.send(());
            }
            Job::TakeUp(volume, recovered) => {
                // What was under way when the device was given up has nothing to do with what it is now.
                self.land_all().await;
                self.volume = Some(volume);
                self.free = recovered.free;
                self.sealed = recovered.sealed;
                self.leaving.clear();
                self.open = Default::default();
                self.tails = Default::default();
            }
            Job::End => {}
        }
    }

    fn refuse(&mut self, refused: Refused) {
        match refused {
            Refused::Why(refusal) => self.engine.counters.refuse(refusal),
            Refused::Device(fault) => {
                self.engine.counters.refuse(Refusal::Device);
                self.give_up(&fault);
            }
        }
    }

    fn give_up(&mut self, fault: &Fault) {
        self.engine.give_up(self.device, self.volume.as_ref(), fault);
    }

    /// The volume, as long as the device serves from it.
    pub(super) fn volume(&mut self) -> Option<Arc<Volume>> {
        let device = &self.engine.devices[self.device];
        if !self.volume.as_ref().is_some_and(|volume| device.serves_from(volume)) {
            self.volume = None;
            self.open = Default::default();
            self.tails = Default::default();
        }
        self.volume.clone()
    }

    async fn write(&mut self, offer: Offer, queued: &mut Option<Queued>) -> Result<(), Refused> {
        let volume = self.volume().ok_or(Refused::Why(Refusal::Device))?;
        if self.engine.purges.covers(&offer.key, &offer.generation.tags, offer.number) {
            return Err(Refused::Why(Refusal::Purged));
        }
        let slice = offer.slab.whole();
        let pages = record_bytes(slice.len()) / PAGE;
        let hash = self.engine.hash(&offer.key, offer.index);
        let class =
            if offer.is_planned { Class::Planned } else { self.admit(hash, pages).ok_or(Refused::Why(Refusal::Policy))? };
        self.make_room(&volume, pages, class).await?;
        let life = self.room(&volume, pages, class).expect("room was made").life;
        let head = RecordHead {
            life,
            key: (*offer.key).to_owned(),
            index: offer.index,
            slice_bytes: u32::try_from(slice.len()).expect("at most 4 MiB"),
            generation: (*offer.generation).clone(),
            vouched_at: offer.vouched_at,
            number: offer.number,
            checksums: checksums(slice),
        };
        let page = head.to_page().ok_or(Refused::Why(Refusal::Head))?;
        let buf = offer.slab.record(&page).ok_or(Refused::Why(Refusal::Twice))?;
        let (hits, tag, number) = (Hits::default(), self.engine.tag(&offer.key, offer.index), offer.number);
        let record = Record { hash, pages, hits, tag, number, class, queued: queued.take(), from: None };
        self.append(&volume, record, buf);
        Ok(())
    }

    /// Where a slice that was filled on demand goes, if it is let in.
    fn admit(&self, hash: u64, pages: usize) -> Option<Class> {
        let bytes = (pages * PAGE) as u64;
        let verdict = self.engine.devices[self.device].policy().with(|policy| {
            policy.asked(hash, bytes);
            policy.offered(hash, bytes)
        });
        match verdict? {
            Verdict::Write(shelf) => Some(shelf.into()),
            Verdict::Bypass => None,
        }
    }

    /// Starts the write of a record that there is room for.
    pub(super) fn append(&mut self, volume: &Arc<Volume>, record: Record, buf: IoBuf) {
        let Record { hash, pages, hits, tag, number, class, queued, from } = record;
        let open = self.room(volume, pages, class).expect("room was made");
        let page = u16::try_from(open.page).expect("a segment has at most 65,536 pages");
        let entry = Entry { hash, page, pages: u16::try_from(pages).expect("below 2,048"), hits: hits.bits(), tag };
        let (segment, life, at) = (open.number, open.life, volume.at(open.number, open.page));
        open.page += pages;
        open.records += 1;
        let (engine, volume) = (self.engine.clone(), volume.clone());
        self.under_way.push(Box::pin(async move {
            let result = device::write(&engine.io, &volume.file, at, buf, engine.limit()).await;
            Written { entry, number, class, queued, from, volume, segment, life, result }
        }));
    }

    /// Waits until no more than so many writes are under way.
    pub(super) async fn land_to(&mut self, count: usize) {
        while self.under_way.len() > count
            && let Some(written) = self.under_way.next().await
        {
            self.landed(written);
        }
    }

    pub(super) async fn land_all(&mut self) {
        self.land_to(0).await;
    }

    /// A write is over.
    fn landed(&mut self, written: Written) {
        let Written { entry, number, class, queued, from, volume, segment, life, result } = written;
        if let Err(fault) = result {
            return self.engine.give_up(self.device, Some(&volume), &fault);
        }
        if !self.engine.devices[self.device].serves_from(&volume) {
            return;
        }
        let open = [&mut self.open[class as usize], &mut self.tails[class as usize]];
        let Some(open) = open.into_iter().flatten().find(|open| open.life == life) else { return };
        open.entries.push(entry);
        open.oldest = open.oldest.min(number);
        open.newest = open.newest.max(number);
        let place = Place::new(self.device, segment, entry.page, entry.pages, Hits::from_bits(entry.hits));
        self.engine.file_written(&entry, place, from);
        // Only now: who waits for it to be written finds it.
        drop(queued);
    }

    /// Sees to it that an open segment of the class has room for a record of so many pages.
    pub(super) async fn make_room(&mut self, volume: &Arc<Volume>, pages: usize, class: Class) -> Result<(), Refused> {
        if self.room(volume, pages, class).is_some() {
            return Ok(());
        }
        self.close_full(volume, class).await?;
        self.make_free(volume, pages, class).await?;
        // What was written again may have opened one already.
        if self.room(volume, pages, class).is_none() {
            self.close_full(volume, class).await?;
            self.open_segment(volume, class).await?;
        }
        if self.room(volume, pages, class).is_some() { Ok(()) } else { Err(Refused::Why(Refusal::NoRoom)) }
    }

    /// The open segment of the class that has room for a record of so many pages.
    pub(super) fn room(&mut self, volume: &Volume, pages: usize, class: Class) -> Option<&mut Open> {
        let open = [&mut self.tails[class as usize], &mut self.open[class as usize]];
        open.into_iter().flatten().find(|open| volume.cut().has_room(open.page, open.records, pages))
    }

    /// The open segment of the class, if there is one, has no room for a record. On a device of many segments it stays open for smaller ones, until
    /// the next one has none either.
    pub(super) async fn close_full(&mut self, volume: &Arc<Volume>, class: Class) -> Result<(), Fault> {
        // Its entries are complete only then.
        self.land_all().await;
        let Some(open) = self.open[class as usize].take() else { return Ok(()) };
        let full = if volume.cut().keeps_tails() { self.tails[class as usize].replace(open) } else { Some(open) };
        match full {
            Some(full) => self.seal(volume, class, full).await,
            None => Ok(()),
        }
    }

    pub(super) async fn open_segment(&mut self, volume: &Arc<Volume>, class: Class) -> Result<(), Refused> {
        let Some(number) = self.take_free(volume) else { return Err(Refused::Why(Refusal::NoRoom)) };
        let sequence = self.engine.sequence.fetch_add(1, Ordering::AcqRel);
        let life = Life { device: volume.superblock.device, sequence };
        let head = SegmentHead { life, number, class };
        let (io, limit) = (&self.engine.io, self.engine.limit());
        device::write_bytes(io, &volume.file, volume.at(number, 0), &head.to_page(), limit).await?;
        // Else a loss of power could leave the former life's head and footer around records of this one.
        device::sync(io, &volume.file, limit).await?;
        volume.begin(&head);
        let (entries, oldest, newest) = (Vec::new(), u64::MAX, 0);
        self.open[class as usize] = Some(Open { number, life, page: 1, records: 0, entries, oldest, newest });
        Ok(())
    }

    async fn seal_all(&mut self) -> Result<(), Fault> {
        let Some(volume) = self.volume() else { return Ok(()) };
        self.land_all().await;
        for class in Class::ALL {
            let (tail, open) = (&mut self.tails[class as usize], &mut self.open[class as usize]);
            for open in [tail.take(), open.take_if(|open| open.records > 0)].into_iter().flatten() {
                self.seal(&volume, class, open).await?;
            }
        }
        Ok(())
    }

    /// Writes the footer of a segment that was open and has all its records.
    async fn seal(&mut self, volume: &Arc<Volume>, class: Class, open: Open) -> Result<(), Fault> {
        let Open { number, life, oldest, newest, mut entries, .. } = open;
        // As they stand, and not as their writes happened to end.
        entries.sort_unstable_by_key(|entry| entry.page);
        for entry in &mut entries {
            entry.hits = self.engine.index.place(entry.hash).map_or(0, |place| place.hits().bits());
        }
        self.engine.write_footer(volume, number, &Footer { life, oldest, newest, entries }).await?;
        volume.segment(number).is_sealed.store(true, Ordering::Release);
        self.sealed[class as usize].push_back(number);
        Ok(())
    }
}

impl Engine {
    /// Leaves a device alone from now on.
    pub(super) fn give_up(&self, device: usize, volume: Option<&Arc<Volume>>, fault: &Fault) {
        if fault.is_ours() {
            tracing::warn!(device = %self.config.devices[device].path.display(), %fault, "an operation was broken off");
            return;
        }
        // What was asked of it before it was taken back says nothing of what it is now.
        if volume.is_some_and(|volume| !self.devices[device].serves_from(volume)) {
            return;
        }
        let Some(verdict) = self.devices[device].give_up(fault.to_string(), SystemTime::now()) else { return };
        let path = &self.config.devices[device].path;
        tracing::error!(
            device = %path.display(), reason = %verdict.reason,
            "a device is given up; its content is filled anew elsewhere. `larder cache devices --restore` takes it back"
        );
        self.remember();
        self.index.retain(|place| place.device() != device);
    }
}
