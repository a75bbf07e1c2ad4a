//! Events as bytes: a *chunk* holds those of one batch, texts that come back written once.
//!
//! ```text
//! chunk  when it was received (ms) · number of texts · texts · events
//! text   length × 4 + tag (0 text, 1 UUID, 2 user) · bytes
//! event  flags · time before the chunk's (ms) · id (as a text) · session · what the flags say, in their order
//! flags  kind in the low four bits, then one bit each: user, region, title, rendition, position, from, played, row, rank, cmcd, sampled
//! cmcd   bits of the keys that are there · cdn · ec · the numbers in the order of their bits
//! ```
//!
//! Session, user, region, title, rendition, row, cdn and ec are places in the list of texts. An event's id is its own. Of our own and not
//! a serde format: those write every text in every event (or compress to get rid of them), and names of columns or tags besides; a
//! heartbeat is about 40 bytes so, 16 of them its id, and a recount of the log reads it without an allocation an event.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    event::{Cmcd, Event, KEYS, Kind, NAME_BYTES_MAX, Name, User},
    pack::{Damaged, Unpack, put, put_signed},
};

const USER: u64 = 1 << 4;
const REGION: u64 = 1 << 5;
const TITLE: u64 = 1 << 6;
const RENDITION: u64 = 1 << 7;
const POSITION: u64 = 1 << 8;
const FROM: u64 = 1 << 9;
const PLAYED: u64 = 1 << 10;
const ROW: u64 = 1 << 11;
const RANK: u64 = 1 << 12;
const CMCD: u64 = 1 << 13;
const SAMPLED: u64 = 1 << 14;

/// No event stands for more than two to this.
const SAMPLED_MAX: u8 = 16;

const TAG_TEXT: u64 = 0;
const TAG_UUID: u64 = 1;
const TAG_USER: u64 = 2;

/// An event in a chunk that is being made: where it ends, and what it is told from others by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) end: u32,
    pub(crate) identity: u64,
    pub(crate) kind: Kind,
}

/// The events of one batch, ready for the log.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    head: Vec<u8>,
    events: Vec<u8>,
    pub(crate) spans: Vec<Span>,
}

impl Chunk {
    pub(crate) fn bytes(&self) -> usize {
        self.head.len() + self.events.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Leaves out the events that `keep` does not want.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        let (mut start, mut end, mut left_out) = (0, 0, false);
        let events = &mut self.events;
        self.spans.retain_mut(|span| {
            let event = start..span.end as usize;
            start = event.end;
            if !keep(span.identity) {
                left_out = true;
                return false;
            }
            if left_out {
                events.copy_within(event.clone(), end);
            }
            end += event.len();
            span.end = end as u32;
            true
        });
        events.truncate(end);
    }

    /// Appends it to a frame, with its length and the number of its events before it.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put(out, self.bytes() as u64);
        put(out, self.spans.len() as u64);
        out.extend(&self.head);
        out.extend(&self.events);
    }
}

/// Makes a chunk.
pub(crate) struct Encoder {
    received_ms: u64,
    seed: u64,
    texts: Vec<u8>,
    places: HashMap<Vec<u8>, u64, RandomState>,
    /// A text with its tag before it, as `places` has it.
    scratch: Vec<u8>,
    events: Vec<u8>,
    spans: Vec<Span>,
}

impl Encoder {
    /// `seed` is what identities are hashed with: the same in all chunks that are held against each other.
    pub(crate) fn new(received_ms: u64, seed: u64) -> Self {
        Self {
            received_ms,
            seed,
            texts: Vec::new(),
            places: HashMap::default(),
            scratch: Vec::new(),
            events: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// A hash of the event's session, to take samples by.
    pub(crate) fn session_hash(&self, event: &Event<'_>) -> u64 {
        xxh3_64_with_seed(tagged(&event.session).1, self.seed)
    }

    fn place(&mut self, tag: u64, bytes: &[u8]) -> u64 {
        self.scratch.clear();
        self.scratch.push(tag as u8);
        self.scratch.extend(bytes);
        if let Some(place) = self.places.get(&self.scratch) {
            return *place;
        }
        let place = self.places.len() as u64;
        self.places.insert(self.scratch.clone(), place);
        put(&mut self.texts, (bytes.len() as u64) << 2 | tag);
        self.texts.extend(bytes);
        place
    }

    pub(crate) fn put(&mut self, event: &Event<'_>) {
        let is_there = [
            (USER, event.user.is_some()),
            (REGION, !event.region.is_empty()),
            (TITLE, !event.title.is_empty()),
            (RENDITION, !event.rendition.is_empty()),
            (POSITION, event.position_ms.is_some()),
            (FROM, event.from_ms.is_some()),
            (PLAYED, event.played_ms.is_some()),
            (ROW, !event.row.is_empty()),
            (RANK, event.rank.is_some()),
            (CMCD, event.cmcd.is_some()),
            (SAMPLED, event.sampled > 0),
        ];
        let flags = is_there.iter().fold(event.kind as u64, |flags, (flag, is_there)| flags | if *is_there { *flag } else { 0 });
        put(&mut self.events, flags);
        put_signed(&mut self.events, self.received_ms as i64 - event.at_ms as i64);
        let (tag, id) = tagged(&event.id);
        put(&mut self.events, (id.len() as u64) << 2 | tag);
        self.events.extend(id);
        let (tag, session) = tagged(&event.session);
        let identity = identity(session, id, self.seed);
        self.put_place(tag, session);
        if let Some(User(user)) = event.user {
            self.put_place(TAG_USER, &user);
        }
        for text in [event.region, event.title, event.rendition] {
            self.put_text(text);
        }
        for number in [event.position_ms, event.from_ms, event.played_ms.map(u64::from)].into_iter().flatten() {
            put(&mut self.events, number);
        }
        self.put_text(event.row);
        if let Some(rank) = event.rank {
            put(&mut self.events, u64::from(rank));
        }
        if let Some(cmcd) = &event.cmcd {
            put(&mut self.events, u64::from(cmcd.present));
            self.put_place(TAG_TEXT, cmcd.cdn.as_bytes());
            self.put_place(TAG_TEXT, cmcd.ec.as_bytes());
            for number in (0..KEYS.len()).filter_map(|place| cmcd.number(place)) {
                put(&mut self.events, u64::from(number));
            }
        }
        if event.sampled > 0 {
            self.events.push(event.sampled);
        }
        self.spans.push(Span { end: self.events.len() as u32, identity, kind: event.kind });
    }

    /// A text where there is one; the flags say whether.
    fn put_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.put_place(TAG_TEXT, text.as_bytes());
        }
    }

    fn put_place(&mut self, tag: u64, bytes: &[u8]) {
        let place = self.place(tag, bytes);
        put(&mut self.events, place);
    }

    pub(crate) fn finish(self) -> Chunk {
        let mut head = Vec::with_capacity(self.texts.len() + 16);
        put(&mut head, self.received_ms);
        put(&mut head, self.places.len() as u64);
        head.extend(self.texts);
        Chunk { head, events: self.events, spans: self.spans }
    }
}

fn tagged<'e>(name: &'e Name<'_>) -> (u64, &'e [u8]) {
    match name {
        Name::Uuid(uuid) => (TAG_UUID, uuid),
        Name::Text(text) => (TAG_TEXT, text.as_bytes()),
    }
}

/// What an event is told from others by: its id in its session. Two events have the same one with a chance of 2⁻⁶⁴, and nobody can
/// make it happen, as the seed is secret.
fn identity(session: &[u8], id: &[u8], seed: u64) -> u64 {
    let mut bytes = [0; 2 * NAME_BYTES_MAX + 1];
    bytes[0] = session.len() as u8;
    bytes[1..=session.len()].copy_from_slice(session);
    let end = 1 + session.len() + id.len();
    bytes[1 + session.len()..end].copy_from_slice(id);
    xxh3_64_with_seed(&bytes[..end], seed)
}

/// The identity of a decoded event.
pub(crate) fn identity_of(event: &Event<'_>, seed: u64) -> u64 {
    identity(tagged(&event.session).1, tagged(&event.id).1, seed)
}

/// Calls `each` for every event of a chunk.
pub(crate) fn decode(bytes: &[u8], events: u64, mut each: impl FnMut(&Event<'_>)) -> Result<(), Damaged> {
    let mut unpack = Unpack::new(bytes, "a chunk of the log");
    let received_ms = unpack.number()?;
    let texts = (0..unpack.count()?).map(|_| tagged_text(&mut unpack)).collect::<Result<Vec<_>, _>>()?;
    for _ in 0..events {
        each(&event(&mut unpack, received_ms, &Texts(&texts))?);
    }
    if unpack.is_empty() { Ok(()) } else { Err(unpack.damaged()) }
}

type Tagged<'a> = (u64, &'a [u8]);

fn tagged_text<'a>(unpack: &mut Unpack<'a>) -> Result<Tagged<'a>, Damaged> {
    let head = unpack.number()?;
    let length = usize::try_from(head >> 2).map_err(|_| unpack.damaged())?;
    Ok((head & 3, unpack.take(length)?))
}

fn name<'a>((tag, bytes): Tagged<'a>, damaged: Damaged) -> Result<Name<'a>, Damaged> {
    match tag {
        TAG_UUID => bytes.try_into().map(Name::Uuid).map_err(|_| damaged),
        TAG_TEXT if bytes.len() <= NAME_BYTES_MAX => str::from_utf8(bytes).map(Name::Text).map_err(|_| damaged),
        _ => Err(damaged),
    }
}

/// The texts of a chunk, by their places.
struct Texts<'t, 'a>(&'t [Tagged<'a>]);

impl<'a> Texts<'_, 'a> {
    fn next(&self, unpack: &mut Unpack<'a>) -> Result<Tagged<'a>, Damaged> {
        let place: usize = unpack.small()?;
        self.0.get(place).copied().ok_or(unpack.damaged())
    }

    fn text(&self, unpack: &mut Unpack<'a>) -> Result<&'a str, Damaged> {
        match self.next(unpack)? {
            (TAG_TEXT, bytes) => str::from_utf8(bytes).map_err(|_| unpack.damaged()),
            _ => Err(unpack.damaged()),
        }
    }

    fn user(&self, unpack: &mut Unpack<'a>) -> Result<User, Damaged> {
        match self.next(unpack)? {
            (TAG_USER, bytes) => bytes.try_into().map(User).map_err(|_| unpack.damaged()),
            _ => Err(unpack.damaged()),
        }
    }
}

fn event<'a>(unpack: &mut Unpack<'a>, received_ms: u64, texts: &Texts<'_, 'a>) -> Result<Event<'a>, Damaged> {
    let flags = unpack.number()?;
    let has = |flag: u64| flags & flag != 0;
    let damaged = unpack.damaged();
    let text = |flag: u64, unpack: &mut Unpack<'a>| if has(flag) { texts.text(unpack) } else { Ok("") };
    let number = |flag: u64, unpack: &mut Unpack<'a>| if has(flag) { unpack.number().map(Some) } else { Ok(None) };
    let small = |number: Option<u64>| number.map(u32::try_from).transpose().map_err(|_| damaged);
    Ok(Event {
        kind: Kind::numbered(flags as u8 & 15).ok_or(damaged)?,
        at_ms: received_ms.saturating_add_signed(unpack.signed()?.saturating_neg()),
        id: name(tagged_text(unpack)?, damaged)?,
        session: name(texts.next(unpack)?, damaged)?,
        user: has(USER).then(|| texts.user(unpack)).transpose()?,
        region: text(REGION, unpack)?,
        title: text(TITLE, unpack)?,
        rendition: text(RENDITION, unpack)?,
        position_ms: number(POSITION, unpack)?,
        from_ms: number(FROM, unpack)?,
        played_ms: small(number(PLAYED, unpack)?)?,
        row: text(ROW, unpack)?,
        rank: small(number(RANK, unpack)?)?,
        cmcd: has(CMCD).then(|| cmcd(unpack, texts)).transpose()?,
        sampled: match has(SAMPLED).then(|| unpack.byte()).transpose()? {
            Some(power) if power > SAMPLED_MAX => return Err(damaged),
            power => power.unwrap_or(0),
        },
    })
}

fn cmcd<'a>(unpack: &mut Unpack<'a>, texts: &Texts<'_, 'a>) -> Result<Cmcd<'a>, Damaged> {
    let present: u32 = unpack.small()?;
    if present >> KEYS.len() != 0 {
        return Err(unpack.damaged());
    }
    let mut cmcd = Cmcd { cdn: texts.text(unpack)?, ec: texts.text(unpack)?, ..Cmcd::default() };
    for place in (0..KEYS.len()).filter(|place| present >> place & 1 == 1) {
        cmcd.set(place, unpack.small()?);
    }
    Ok(cmcd)
}

#[cfg(test)]
pub(crate) mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    const NOW_MS: u64 = 1_795_254_355_700;
    const WORDS: [&str; 5] = ["", "a", "dark-days", "v720", "München"];

    /// Any event at all.
    pub(crate) fn any(random: &mut StdRng) -> Event<'static> {
        let mut maybe = |max: u64| random.random_bool(0.5).then(|| random.random_range(0..=max));
        let (position_ms, from_ms, played_ms, rank) = (maybe(u64::MAX), maybe(9), maybe(86_400_000), maybe(10));
        let mut word = || WORDS[random.random_range(0..WORDS.len())];
        let (region, title, rendition, row) = (word(), word(), word(), word());
        let mut cmcd = Cmcd { cdn: word(), ec: word(), ..Cmcd::default() };
        for place in 0..KEYS.len() {
            if random.random_bool(0.3) {
                cmcd.set(place, random.random());
            }
        }
        Event {
            kind: Kind::numbered(random.random_range(0..10)).unwrap(),
            at_ms: random.random_range(NOW_MS - 100_000_000..NOW_MS + 10_000),
            id: if random.random_bool(0.7) { Name::Uuid(random.random()) } else { Name::Text("event:7") },
            session: if random.random_bool(0.7) { Name::Uuid([random.random_range(0..4); 16]) } else { Name::Text("s") },
            user: random.random_bool(0.5).then(|| User([random.random_range(0..4); 16])),
            region,
            title,
            rendition,
            position_ms,
            from_ms,
            played_ms: played_ms.map(|ms| ms as u32),
            row,
            rank: rank.map(|rank| rank as u32),
            cmcd: random.random_bool(0.5).then_some(cmcd),
            sampled: random.random_range(0..3),
        }
    }

    fn chunk(events: &[Event<'_>]) -> Chunk {
        let mut encoder = Encoder::new(NOW_MS, 7);
        events.iter().for_each(|event| encoder.put(event));
        encoder.finish()
    }

    fn bytes(chunk: &Chunk) -> Vec<u8> {
        [&chunk.head[..], &chunk.events].concat()
    }

    #[test]
    fn events_come_out_of_a_chunk_as_they_went_in_whatever_is_left_out() {
        let mut random = StdRng::seed_from_u64(1);
        for n in [0, 1, 2, 50] {
            let events: Vec<_> = (0..n).map(|_| any(&mut random)).collect();
            for modulo in [1, 2, 3, 5] {
                let mut chunk = chunk(&events);
                let kept: Vec<_> =
                    events.iter().filter(|event| !identity_of(event, 7).is_multiple_of(modulo) || modulo == 1).cloned().collect();
                chunk.retain(|identity| !identity.is_multiple_of(modulo) || modulo == 1);
                assert_eq!(chunk.spans.len(), kept.len());
                let mut expected = kept.iter();
                decode(&bytes(&chunk), kept.len() as u64, |event| assert_eq!(Some(event), expected.next())).unwrap();
                assert!(expected.next().is_none());
            }
        }
    }

    #[test]
    fn a_damaged_chunk_is_an_error_or_other_events_and_never_a_panic() {
        let mut random = StdRng::seed_from_u64(2);
        let events: Vec<_> = (0..8).map(|_| any(&mut random)).collect();
        let good = bytes(&chunk(&events));
        for _ in 0..20_000 {
            let mut bad = good.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bad.len());
                bad[at] = random.random();
            }
            bad.truncate(random.random_range(bad.len() / 2..=bad.len()));
            let _ = decode(&bad, 8, |_| {});
        }
        assert!(decode(&good, 9, |_| {}).is_err());
        assert!(decode(&good, 7, |_| {}).is_err());
    }

    #[test]
    fn a_heartbeat_in_a_batch_of_its_session_takes_about_forty_bytes() {
        let mut random = StdRng::seed_from_u64(3);
        let mut cmcd = Cmcd { cdn: "edge-7", ..Cmcd::default() };
        for (name, value) in [("br", 4500), ("bl", 12_300), ("mtp", 23_400), ("sn", 40), ("dfa", 3)] {
            cmcd.set(KEYS.iter().position(|key| key.name == name).unwrap(), value);
        }
        let session = Name::Uuid(random.random());
        let beat = |random: &mut StdRng| Event {
            id: Name::Uuid(random.random()),
            session,
            user: Some(User([1; 16])),
            region: "de-by",
            title: "dark-days",
            rendition: "v720",
            position_ms: Some(1_234_000),
            played_ms: Some(10_000),
            cmcd: Some(cmcd.clone()),
            ..Event::of(Kind::Quality, NOW_MS - random.random_range(0..10_000))
        };
        let events: Vec<_> = (0..100).map(|_| beat(&mut random)).collect();
        let each = bytes(&chunk(&events)).len() / events.len();
        assert!((35..=48).contains(&each), "{each}");
    }
}
