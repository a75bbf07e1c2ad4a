//! A batch as a client sends it (JSON), and the check that makes events of it.
//!
//! The rules: an event that breaks one is refused alone, with the place and the reason, and the rest of the batch is taken. A member that
//! is not known is refused, not kept: what nobody understands nobody misses, and a misspelt one is found on the first day. A member that
//! its kind of event does not have is refused too. `null` is the same as nothing.
//!
//! Times: a client's clock may be wrong by years, so a batch may say when it was sent by that clock (`sentAt`), and its events are moved by
//! the difference to ours, as Snowplow's derived timestamps are. A time that is still after the arrival is the arrival. Older than
//! [`Limits::age_max`] is refused.

use std::{borrow::Cow, collections::HashMap, fmt, time::Duration};

use foldhash::fast::RandomState;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use wire::title::TitleId;

use crate::{
    event::{Cmcd, Event, KEYS, Kind, Name, Unit, User},
    pseudonym::Pseudonyms,
    time::{DAY_MS, parse_rfc3339},
};

/// The longest id of a rendition, or error code, in bytes.
pub const WORD_BYTES_MAX: usize = 64;
/// The longest name of a row, in bytes: a kind and a title's id.
pub const ROW_BYTES_MAX: usize = 128;
/// The longest id of a delivery network. CTA-5004-A gives it as many characters.
pub const CDN_BYTES_MAX: usize = 128;
/// The longest id of a user, in bytes.
pub const USER_BYTES_MAX: usize = 200;
/// The longest name of a region, in bytes.
pub const REGION_BYTES_MAX: usize = 64;
/// Error codes in one report.
pub const ERRORS_MAX: usize = 4;
/// As the catalogue has it: a title is at most a hundred days long.
const POSITION_MS_MAX: u64 = 100 * DAY_MS;
/// Nobody plays more than a day between two reports.
const PLAYED_MS_MAX: u64 = DAY_MS;
/// The largest place in a row.
const RANK_MAX: u64 = 10_000;
/// How many refused events an answer describes; all are counted.
pub const FLAWS_MAX: usize = 10;
/// How long the description of a flaw may be, in characters.
const DETAIL_CHARS_MAX: usize = 200;

/// What batches may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Events in a batch.
    pub events_max: usize,
    /// How old an event may be when it arrives.
    pub age_max: Duration,
}

/// Who sends a batch, as control knows him.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// The viewer, when he said who he is.
    pub user: Option<&'a str>,
    /// Where the request came from; empty when it is not known.
    pub region: &'a str,
    /// Of a relay, which sends for many viewers and may say whose and where each event is: whether a text names a viewer.
    pub relay: Option<fn(&str) -> bool>,
}

/// Why an event is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is not an object, or a member has another type than it should.
    Malformed,
    /// A member is not known, or not one of this kind of event.
    UnknownField,
    /// A member that this kind of event must have is missing.
    MissingField,
    /// A member's value is outside of its bounds.
    BadValue,
    /// It happened too long ago.
    TooOld,
    /// It says whose it is or where, and its sender may not.
    NotAllowed,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Malformed, Self::UnknownField, Self::MissingField, Self::BadValue, Self::TooOld, Self::NotAllowed];

    /// Its name for answers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownField => "unknown-field",
            Self::MissingField => "missing-field",
            Self::BadValue => "bad-value",
            Self::TooOld => "too-old",
            Self::NotAllowed => "not-allowed",
        }
    }
}

/// A refused event: which, where in the batch's JSON (RFC 6901), and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The kind of flaw.
    pub reason: Reason,
    /// Where it is.
    pub pointer: String,
    /// What it is.
    pub detail: String,
}

/// What is wrong with an event, before it is known which one it is.
type Fault = (Reason, &'static str, String);

fn fault<T>(reason: Reason, member: &'static str, detail: impl Into<String>) -> Result<T, Fault> {
    Err((reason, member, detail.into()))
}

/// Why a whole batch is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// It is not JSON, or not a batch.
    #[error("it is not a batch of events: {0}")]
    NotABatch(String),
    /// `sentAt` is not a time.
    #[error("/sentAt: it is not a time as RFC 3339 writes it")]
    BadSentAt,
    /// It has more events than a batch may have.
    #[error("it has {found} events, a batch has at most {max}")]
    TooMany {
        /// Events in it.
        found: usize,
        /// Events that it may have.
        max: usize,
    },
}

/// A batch as it was sent. `E` is an event, or one that is not read yet.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Batch<'a, E> {
    #[serde(borrow, default)]
    sent_at: Option<Text<'a>>,
    events: Vec<E>,
}

/// What the check made of a batch, and calls of it.
pub(crate) struct Checked<'a> {
    received_ms: u64,
    limits: Limits,
    sender: Sender<'a>,
}

impl<'a> Checked<'a> {
    pub(crate) const fn new(limits: Limits, sender: Sender<'a>, received_ms: u64) -> Self {
        Self { received_ms, limits, sender }
    }

    /// Reads `body` and calls `good` for each event in order, and `bad` for each that is refused.
    pub(crate) fn each(
        &self,
        body: &[u8],
        pseudonyms: &Pseudonyms,
        mut good: impl FnMut(&Event<'_>),
        mut bad: impl FnMut(Flaw),
    ) -> Result<(), BatchError> {
        // Once for all of it, and not for each text in it.
        let body = str::from_utf8(body).map_err(|error| BatchError::NotABatch(error.to_string()))?;
        let mut users = Users { known: HashMap::default(), pseudonyms };
        let mut check = |at: usize, sent: Result<Sent<'_>, String>, skew_ms: i64| {
            let checked = match &sent {
                Ok(sent) => self.event(sent, skew_ms, &mut users),
                Err(error) => fault(Reason::Malformed, "", error),
            };
            match checked {
                Ok(event) => good(&event),
                Err((reason, member, detail)) => {
                    let detail = detail.chars().take(DETAIL_CHARS_MAX).collect();
                    bad(Flaw { reason, pointer: format!("/events/{at}{member}"), detail });
                }
            }
        };
        // Nearly all batches are right, and are read in one go. Where one is not, its events are read one by one.
        if let Ok(batch) = serde_json::from_str::<Batch<'_, Sent<'_>>>(body) {
            let skew_ms = self.skew_ms(&batch)?;
            batch.events.into_iter().enumerate().for_each(|(at, sent)| check(at, Ok(sent), skew_ms));
            return Ok(());
        }
        let batch =
            serde_json::from_str::<Batch<'_, &RawValue>>(body).map_err(|error| BatchError::NotABatch(error.to_string()))?;
        let skew_ms = self.skew_ms(&batch)?;
        for (at, raw) in batch.events.into_iter().enumerate() {
            // A line number inside an event helps nobody.
            let sent = serde_json::from_str(raw.get()).map_err(|error: serde_json::Error| {
                let text = error.to_string();
                text.rsplit_once(" at line ").map_or(text.clone(), |(text, _)| text.to_owned())
            });
            check(at, sent, skew_ms);
        }
        Ok(())
    }

    /// How far our clock is ahead of the sender's.
    fn skew_ms<E>(&self, batch: &Batch<'_, E>) -> Result<i64, BatchError> {
        let (found, max) = (batch.events.len(), self.limits.events_max);
        if found > max {
            return Err(BatchError::TooMany { found, max });
        }
        let Some(Text(sent_at)) = &batch.sent_at else { return Ok(0) };
        let sent_ms = parse_rfc3339(sent_at).ok_or(BatchError::BadSentAt)?;
        Ok(self.received_ms as i64 - sent_ms as i64)
    }

    fn event<'e>(&self, sent: &'e Sent<'_>, skew_ms: i64, users: &mut Users<'_>) -> Result<Event<'e>, Fault>
    where
        'a: 'e,
    {
        if let Some(member) = &sent.unknown {
            return fault(Reason::UnknownField, "", format!("{member:?} is not a member of events"));
        }
        let Some(Text(kind)) = &sent.kind else { return fault(Reason::MissingField, "/type", "an event has a type") };
        let Some(kind) = Kind::named(kind) else {
            let known = Kind::SENT.map(Kind::name).join(", ");
            return fault(Reason::BadValue, "/type", format!("{kind:?} is not a type of event; there are {known}"));
        };
        sent.fits(kind)?;
        Ok(Event {
            kind,
            at_ms: self.at_ms(sent, skew_ms)?,
            id: name(sent.id.as_ref(), "/id")?,
            session: name(sent.session.as_ref(), "/session")?,
            user: self.user(sent, users)?,
            region: self.region(sent)?,
            title: title(sent)?,
            rendition: word(sent.rendition.as_ref(), "/rendition", WORD_BYTES_MAX)?,
            position_ms: number(sent.position_ms, "/positionMs", POSITION_MS_MAX)?,
            from_ms: number(sent.from_ms, "/fromMs", POSITION_MS_MAX)?,
            played_ms: number(sent.played_ms, "/playedMs", PLAYED_MS_MAX)?.map(|ms| ms as u32),
            row: word(sent.row.as_ref(), "/row", ROW_BYTES_MAX)?,
            rank: number(sent.rank, "/rank", RANK_MAX)?.map(|rank| rank as u32),
            cmcd: sent.cmcd.as_ref().map(SentCmcd::check).transpose()?,
            sampled: 0,
        })
    }

    fn at_ms(&self, sent: &Sent<'_>, skew_ms: i64) -> Result<u64, Fault> {
        let Some(Text(at)) = &sent.at else { return fault(Reason::MissingField, "/at", "an event has a time") };
        let Some(at_ms) = parse_rfc3339(at) else {
            return fault(Reason::BadValue, "/at", format!("{at:?} is not a time as RFC 3339 writes it"));
        };
        let at_ms = at_ms.saturating_add_signed(skew_ms).min(self.received_ms);
        let age_max = self.limits.age_max;
        if u128::from(self.received_ms - at_ms) > age_max.as_millis() {
            return fault(Reason::TooOld, "/at", format!("it happened more than {age_max:?} ago"));
        }
        Ok(at_ms)
    }

    fn user(&self, sent: &Sent<'_>, users: &mut Users<'_>) -> Result<Option<User>, Fault> {
        match (&sent.user, self.sender.relay) {
            (None, _) => Ok(self.sender.user.map(|id| users.of(id))),
            (Some(_), None) => {
                fault(Reason::NotAllowed, "/user", "a viewer is known by his token; only a relay says whose an event is")
            }
            (Some(id), Some(is_viewer)) => match users.known.get(&*id.0) {
                Some(user) => Ok(Some(*user)),
                None => match word(Some(id), "/user", USER_BYTES_MAX)? {
                    id if is_viewer(id) => Ok(Some(users.of(id))),
                    _ => fault(Reason::BadValue, "/user", "no viewer is named so: take what control calls her when she asks it"),
                },
            },
        }
    }

    fn region<'e>(&self, sent: &'e Sent<'_>) -> Result<&'e str, Fault>
    where
        'a: 'e,
    {
        match &sent.region {
            None => Ok(self.sender.region),
            Some(_) if self.sender.relay.is_none() => {
                fault(Reason::NotAllowed, "/region", "where a viewer is, is found out; only a relay says where an event was")
            }
            Some(region) => word(Some(region), "/region", REGION_BYTES_MAX),
        }
    }
}

/// The users of a batch. What stands here is sound.
struct Users<'a> {
    known: HashMap<String, User, RandomState>,
    pseudonyms: &'a Pseudonyms,
}

impl Users<'_> {
    fn of(&mut self, id: &str) -> User {
        match self.known.get(id) {
            Some(user) => *user,
            None => *self.known.entry(id.to_owned()).or_insert(self.pseudonyms.of(id)),
        }
    }
}

fn name<'e>(text: Option<&'e Text<'_>>, member: &'static str) -> Result<Name<'e>, Fault> {
    let Some(Text(text)) = text else {
        return fault(Reason::MissingField, member, "an event has one");
    };
    match Name::new(text) {
        Some(name) => Ok(name),
        None => fault(Reason::BadValue, member, "it must be 1 to 64 of A-Z, a-z, 0-9, '-', '.', '_', ':' and '~'"),
    }
}

fn title<'e>(sent: &'e Sent<'_>) -> Result<&'e str, Fault> {
    let Some(Text(title)) = &sent.title else { return Ok("") };
    match TitleId::is_valid(title) {
        true => Ok(title),
        false => fault(Reason::BadValue, "/title", "a title's id is 1 to 64 of a-z, 0-9 and -, and does not begin with -"),
    }
}

/// A short text without control characters; empty where there is none.
fn word<'e>(text: Option<&'e Text<'_>>, member: &'static str, bytes_max: usize) -> Result<&'e str, Fault> {
    let Some(Text(text)) = text else { return Ok("") };
    if text.is_empty() || text.len() > bytes_max || text.chars().any(char::is_control) {
        return fault(Reason::BadValue, member, format!("it must have 1 to {bytes_max} bytes and no control character"));
    }
    Ok(text)
}

fn number(number: Option<u64>, member: &'static str, max: u64) -> Result<Option<u64>, Fault> {
    match number {
        Some(number) if number > max => fault(Reason::BadValue, member, format!("it must be at most {max}")),
        number => Ok(number),
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Debug)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Strings)
    }
}

/// An event as it was sent: members of the right types, and nothing else is known of them.
#[derive(Default)]
struct Sent<'a> {
    kind: Option<Text<'a>>,
    id: Option<Text<'a>>,
    at: Option<Text<'a>>,
    session: Option<Text<'a>>,
    title: Option<Text<'a>>,
    rendition: Option<Text<'a>>,
    user: Option<Text<'a>>,
    region: Option<Text<'a>>,
    row: Option<Text<'a>>,
    position_ms: Option<u64>,
    from_ms: Option<u64>,
    played_ms: Option<u64>,
    rank: Option<u64>,
    cmcd: Option<SentCmcd<'a>>,
    /// The first member that events do not have.
    unknown: Option<String>,
}

/// Whether a kind of event has a member.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Has {
    No,
    May,
    Must,
}

impl Sent<'_> {
    /// Whether it has the members of its kind, and no others. `/docs` has this table too.
    fn fits(&self, kind: Kind) -> Result<(), Fault> {
        use Has::{May, Must, No};
        //                       title  rendition  position  from  played  row   rank  cmcd
        #[rustfmt::skip]
        let has: [Has; 8] = match kind {
            Kind::Play =>       [Must,  May,       May,      No,   No,     No,   No,   May],
            Kind::Pause =>      [Must,  May,       May,      No,   May,    No,   No,   May],
            Kind::Seek =>       [Must,  May,       Must,     May,  May,    No,   No,   May],
            Kind::Stop =>       [Must,  May,       May,      No,   Must,   No,   No,   May],
            Kind::Click =>      [Must,  No,        No,       No,   No,     May,  May,  No],
            Kind::Like =>       [Must,  No,        No,       No,   No,     No,   No,   No],
            Kind::Dislike =>    [Must,  No,        No,       No,   No,     No,   No,   No],
            Kind::Impression => [Must,  No,        No,       No,   No,     May,  May,  No],
            Kind::Quality =>    [Must,  May,       May,      No,   May,    No,   No,   Must],
            Kind::Forget => unreachable!("it has no name to be sent by"),
        };
        let is_there = [
            ("/title", self.title.is_some()),
            ("/rendition", self.rendition.is_some()),
            ("/positionMs", self.position_ms.is_some()),
            ("/fromMs", self.from_ms.is_some()),
            ("/playedMs", self.played_ms.is_some()),
            ("/row", self.row.is_some()),
            ("/rank", self.rank.is_some()),
            ("/cmcd", self.cmcd.is_some()),
        ];
        for (has, (member, is_there)) in has.into_iter().zip(is_there) {
            match (has, is_there) {
                (No, true) => return fault(Reason::UnknownField, member, format!("an event of type {} has none", kind.name())),
                (Must, false) => return fault(Reason::MissingField, member, format!("an event of type {} has one", kind.name())),
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Sent<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Sent<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Sent<'de>, A::Error> {
                let mut sent = Sent::default();
                while let Some(Text(member)) = members.next_key()? {
                    match &*member {
                        "type" => once(&mut sent.kind, &mut members)?,
                        "id" => once(&mut sent.id, &mut members)?,
                        "at" => once(&mut sent.at, &mut members)?,
                        "session" => once(&mut sent.session, &mut members)?,
                        "title" => once(&mut sent.title, &mut members)?,
                        "rendition" => once(&mut sent.rendition, &mut members)?,
                        "user" => once(&mut sent.user, &mut members)?,
                        "region" => once(&mut sent.region, &mut members)?,
                        "row" => once(&mut sent.row, &mut members)?,
                        "positionMs" => once(&mut sent.position_ms, &mut members)?,
                        "fromMs" => once(&mut sent.from_ms, &mut members)?,
                        "playedMs" => once(&mut sent.played_ms, &mut members)?,
                        "rank" => once(&mut sent.rank, &mut members)?,
                        "cmcd" => once(&mut sent.cmcd, &mut members)?,
                        _ => {
                            members.next_value::<IgnoredAny>()?;
                            sent.unknown.get_or_insert_with(|| member.chars().take(WORD_BYTES_MAX).collect());
                        }
                    }
                }
                Ok(sent)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// Reads a member's value. A member that is there twice has no value that all readers agree on (RFC 8259 §4).
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(member: &mut Option<T>, members: &mut A) -> Result<(), A::Error> {
    if member.is_some() {
        return Err(A::Error::custom("a member is there twice"));
    }
    *member = members.next_value()?;
    Ok(())
}

/// A report as it was sent. Its own faults wait until it is known of which event they are.
#[derive(Default)]
struct SentCmcd<'a> {
    cmcd: Cmcd<'static>,
    cdn: Option<Text<'a>>,
    ec: String,
    fault: Option<Fault>,
}

impl SentCmcd<'_> {
    fn check(&self) -> Result<Cmcd<'_>, Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let Cmcd { present, numbers, .. } = self.cmcd;
        Ok(Cmcd { present, numbers, cdn: word(self.cdn.as_ref(), "/cmcd/cdn", CDN_BYTES_MAX)?, ec: &self.ec })
    }

    fn fault(&mut self, reason: Reason, detail: String) {
        self.fault.get_or_insert((reason, "/cmcd", detail));
    }

    fn number<'de, A: MapAccess<'de>>(&mut self, place: usize, members: &mut A) -> Result<(), A::Error> {
        let key = &KEYS[place];
        let number = match key.unit {
            Unit::Kbps | Unit::Ms | Unit::Count => members.next_value::<Option<u64>>()?.map(|number| u32::try_from(number).ok()),
            Unit::Truth => members.next_value::<Option<bool>>()?.map(|truth| Some(u32::from(truth))),
            Unit::Thousandths => members.next_value::<Option<f64>>()?.map(thousandths),
            Unit::Token(tokens) => members
                .next_value::<Option<Text<'_>>>()?
                .map(|Text(token)| tokens.iter().position(|known| *known == token).map(|place| place as u32)),
        };
        match number {
            None => {}
            Some(Some(_)) if self.cmcd.number(place).is_some() => {
                self.fault(Reason::Malformed, format!("{}: a key is there twice", key.name));
            }
            Some(Some(number)) => self.cmcd.set(place, number),
            Some(None) => self.fault(Reason::BadValue, format!("{}: not a value of this key", key.name)),
        }
        Ok(())
    }

    fn errors<'de, A: MapAccess<'de>>(&mut self, members: &mut A) -> Result<(), A::Error> {
        let codes = members.next_value::<Option<Vec<Text<'_>>>>()?.unwrap_or_default();
        let is_good = |Text(code): &Text<'_>| {
            (1..=WORD_BYTES_MAX).contains(&code.len()) && !code.contains(|c: char| c.is_control() || c == ',')
        };
        if codes.len() > ERRORS_MAX || !codes.iter().all(is_good) {
            let detail =
                format!("ec: at most {ERRORS_MAX} codes of 1 to {WORD_BYTES_MAX} bytes, without commas or control characters");
            self.fault(Reason::BadValue, detail);
            return Ok(());
        }
        self.ec = codes.iter().map(|Text(code)| &**code).collect::<Vec<_>>().join(",");
        Ok(())
    }
}

/// A rate of up to a thousand in thousandths.
fn thousandths(number: f64) -> Option<u32> {
    (0.0..=1000.0).contains(&number).then(|| (number * 1000.0).round() as u32)
}

impl<'de: 'a, 'a> Deserialize<'de> for SentCmcd<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = SentCmcd<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of CMCD keys")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<SentCmcd<'de>, A::Error> {
                let mut sent = SentCmcd::default();
                while let Some(Text(name)) = members.next_key()? {
                    match &*name {
                        "cdn" => once(&mut sent.cdn, &mut members)?,
                        "ec" => sent.errors(&mut members)?,
                        name => match KEYS.iter().position(|key| key.name == name) {
                            Some(place) => sent.number(place, &mut members)?,
                            None => {
                                members.next_value::<IgnoredAny>()?;
                                let name: String = name.chars().take(WORD_BYTES_MAX).collect();
                                sent.fault(Reason::UnknownField, format!("{name:?} is not a key of reports"));
                            }
                        },
                    }
                }
                Ok(sent)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-11-21T09:45:55.700Z";
    const NOW_MS: u64 = 1_795_254_355_700;
    const VIEWER: Sender<'_> = Sender { user: Some("ann"), region: "de-by", relay: None };
    const RELAY: Sender<'_> = Sender { user: None, region: "", relay: Some(|user| !user.contains(' ')) };

    static PSEUDONYMS: LazyLock<Pseudonyms> = LazyLock::new(|| {
        let dir = tempfile::tempdir().unwrap();
        Pseudonyms::open(&dir.path().join("key")).unwrap()
    });

    fn play() -> Value {
        json!({ "type": "play", "id": "e1", "at": NOW, "session": "s1", "title": "dark-days" })
    }

    /// `play` with other members.
    fn with(more: Value) -> Value {
        let mut event = play();
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    }

    fn check_from(sender: Sender<'_>, batch: &str, mut good: impl FnMut(&Event<'_>)) -> Result<Vec<Flaw>, BatchError> {
        let limits = Limits { events_max: 50, age_max: Duration::from_secs(3600) };
        let mut flaws = Vec::new();
        Checked::new(limits, sender, NOW_MS).each(batch.as_bytes(), &PSEUDONYMS, &mut good, |flaw| flaws.push(flaw))?;
        Ok(flaws)
    }

    /// The one flaw of a batch with one event.
    fn flaw(sender: Sender<'_>, event: &Value) -> Option<(Reason, String, String)> {
        let flaws = check_from(sender, &json!({ "events": [event] }).to_string(), |_| {}).unwrap();
        flaws.into_iter().next().map(|flaw| (flaw.reason, flaw.pointer, flaw.detail))
    }

    fn refused(sender: Sender<'_>, event: &Value) -> Option<(Reason, String)> {
        flaw(sender, event).map(|(reason, pointer, _)| (reason, pointer))
    }

    #[test]
    fn a_whole_event_is_read_as_it_was_meant() {
        let cmcd = json!({ "br": 4500, "bl": 12300, "bs": true, "pr": 1.25, "sta": "r", "cdn": "edge-7", "ec": ["E1", "E2"], "bg": null });
        let event = json!({ "type": "seek", "id": "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "at": "2026-11-21T10:45:00+01:00",
            "session": "s\u{31}", "title": "dark-days", "rendition": "v720", "positionMs": 60_000, "fromMs": 1000, "playedMs": 900,
            "row": null, "cmcd": cmcd });
        let mut seen = 0;
        let flaws = check_from(VIEWER, &json!({ "events": [event] }).to_string(), |event| {
            seen += 1;
            assert_eq!((event.kind, event.at_ms), (Kind::Seek, NOW_MS - 55_700));
            assert_eq!(
                (event.id.to_string().as_str(), event.session),
                ("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", Name::Text("s1"))
            );
            assert_eq!((event.user, event.region), (Some(PSEUDONYMS.of("ann")), "de-by"));
            assert_eq!((event.title, event.rendition, event.row, event.rank), ("dark-days", "v720", "", None));
            assert_eq!((event.position_ms, event.from_ms, event.played_ms), (Some(60_000), Some(1000), Some(900)));
            let cmcd = event.cmcd.as_ref().unwrap();
            let of = |name: &str| cmcd.number(KEYS.iter().position(|key| key.name == name).unwrap());
            assert_eq!(
                ["br", "bl", "bs", "pr", "sta", "bg"].map(of),
                [Some(4500), Some(12300), Some(1), Some(1250), Some(3), None]
            );
            assert_eq!((cmcd.cdn, cmcd.ec), ("edge-7", "E1,E2"));
        });
        assert_eq!((flaws, seen), (Ok(vec![]), 1));
    }

    #[test]
    fn every_flaw_is_refused_with_its_reason_and_place() {
        use Reason::{BadValue, Malformed, MissingField, NotAllowed, TooOld, UnknownField};
        let quality = |cmcd: Value| with(json!({ "type": "quality", "cmcd": cmcd }));
        let long = "x".repeat(65);
        for (event, reason, place) in [
            (json!(7), Malformed, ""),
            (json!({}), MissingField, "/type"),
            (with(json!({ "title": 7 })), Malformed, ""),
            (with(json!({ "positionMs": -1 })), Malformed, ""),
            (with(json!({ "positionMs": 1.5 })), Malformed, ""),
            (with(json!({ "colour": "red" })), UnknownField, ""),
            (with(json!({ "type": "dance" })), BadValue, "/type"),
            (with(json!({ "type": "forget" })), BadValue, "/type"),
            (with(json!({ "id": null })), MissingField, "/id"),
            (with(json!({ "id": "" })), BadValue, "/id"),
            (with(json!({ "id": long })), BadValue, "/id"),
            (with(json!({ "session": null })), MissingField, "/session"),
            (with(json!({ "session": "a b" })), BadValue, "/session"),
            (with(json!({ "at": null })), MissingField, "/at"),
            (with(json!({ "at": "yesterday" })), BadValue, "/at"),
            (with(json!({ "at": "2026-11-21T08:45:55.699Z" })), TooOld, "/at"),
            (with(json!({ "title": null })), MissingField, "/title"),
            (with(json!({ "title": "Dark Days" })), BadValue, "/title"),
            (with(json!({ "rendition": "" })), BadValue, "/rendition"),
            (with(json!({ "rendition": "a\nb" })), BadValue, "/rendition"),
            (with(json!({ "rendition": long })), BadValue, "/rendition"),
            (with(json!({ "row": "new" })), UnknownField, "/row"),
            (with(json!({ "playedMs": 1 })), UnknownField, "/playedMs"),
            (with(json!({ "positionMs": 8_640_000_001_u64 })), BadValue, "/positionMs"),
            (with(json!({ "type": "stop" })), MissingField, "/playedMs"),
            (with(json!({ "type": "stop", "playedMs": 86_400_001 })), BadValue, "/playedMs"),
            (with(json!({ "type": "seek" })), MissingField, "/positionMs"),
            (with(json!({ "type": "click", "rank": 10_001 })), BadValue, "/rank"),
            (with(json!({ "type": "like", "rendition": "v720" })), UnknownField, "/rendition"),
            (with(json!({ "type": "quality" })), MissingField, "/cmcd"),
            (with(json!({ "user": "bob" })), NotAllowed, "/user"),
            (with(json!({ "region": "de-be" })), NotAllowed, "/region"),
            (quality(json!(7)), Malformed, ""),
            (quality(json!({ "br": "fast" })), Malformed, ""),
            (quality(json!({ "br": 4_294_967_296_u64 })), BadValue, "/cmcd"),
            (quality(json!({ "pr": -1 })), BadValue, "/cmcd"),
            (quality(json!({ "sta": "x" })), BadValue, "/cmcd"),
            (quality(json!({ "cid": "dark-days" })), UnknownField, "/cmcd"),
            (quality(json!({ "com.example-x": 1 })), UnknownField, "/cmcd"),
            (quality(json!({ "cdn": "x".repeat(129) })), BadValue, "/cmcd/cdn"),
            (quality(json!({ "ec": ["a,b"] })), BadValue, "/cmcd"),
            (quality(json!({ "ec": ["1", "2", "3", "4", "5"] })), BadValue, "/cmcd"),
        ] {
            assert_eq!(refused(VIEWER, &event), Some((reason, format!("/events/0{place}"))), "{event}");
        }
        assert_eq!(refused(VIEWER, &play()), None);
        let (_, _, detail) = flaw(VIEWER, &with(json!({ "x".repeat(5000): 1 }))).unwrap();
        assert!(detail.len() < 100, "{detail}");
    }

    #[test]
    fn one_bad_event_costs_no_other() {
        let batch = format!(r#"{{"events": [{}, 7, {{"type": "play", "type": "stop"}}, {}]}}"#, play(), play());
        let mut good = 0;
        let flaws = check_from(VIEWER, &batch, |_| good += 1).unwrap();
        let flaws: Vec<_> = flaws.into_iter().map(|flaw| (flaw.pointer, flaw.detail)).collect();
        let expected = [("/events/1", "invalid type: integer `7`, expected an event"), ("/events/2", "a member is there twice")];
        assert_eq!((good, flaws), (2, expected.map(|(pointer, detail)| (pointer.to_owned(), detail.to_owned())).into()));
    }

    #[test]
    fn a_relay_says_of_each_event_whose_and_where_it_is() {
        let mut users = Vec::new();
        let events = json!([with(json!({ "user": "ann" })), with(json!({ "user": "bob", "region": "de-be" })), play()]);
        let flaws = check_from(RELAY, &json!({ "events": events }).to_string(), |event| {
            users.push((event.user, event.region.to_owned()));
        });
        let of = |id: &str| Some(PSEUDONYMS.of(id));
        assert_eq!(
            (flaws, users),
            (Ok(vec![]), vec![(of("ann"), String::new()), (of("bob"), "de-be".into()), (None, String::new())])
        );
        for bad in ["", "Ann Else"] {
            assert_eq!(refused(RELAY, &with(json!({ "user": bad }))), Some((Reason::BadValue, "/events/0/user".into())));
        }
        assert_eq!(
            refused(RELAY, &with(json!({ "region": "x".repeat(65) }))),
            Some((Reason::BadValue, "/events/0/region".into()))
        );
    }

    #[test]
    fn a_clock_that_is_wrong_is_corrected_and_the_future_is_now() {
        let at = |batch: Value| {
            let mut at_ms = None;
            check_from(VIEWER, &batch.to_string(), |event| at_ms = Some(event.at_ms)).map(|_| at_ms)
        };
        let event = with(json!({ "at": "2001-01-01T00:00:00Z" }));
        assert_eq!(at(json!({ "sentAt": "2001-01-01T00:00:10Z", "events": [event] })), Ok(Some(NOW_MS - 10_000)));
        assert_eq!(at(json!({ "sentAt": "2000-12-31T23:59:00Z", "events": [event] })), Ok(Some(NOW_MS)));
        assert_eq!(at(json!({ "events": [with(json!({ "at": "2030-01-01T00:00:00Z" }))] })), Ok(Some(NOW_MS)));
        assert_eq!(at(json!({ "events": [event] })), Ok(None), "too old");
        assert_eq!(at(json!({ "sentAt": "now", "events": [event] })), Err(BatchError::BadSentAt));
    }

    #[test]
    fn what_is_no_batch_is_refused_whole() {
        for bad in ["", "[]", "7", "{}", r#"{"events": 7}"#, r#"{"events": [], "more": 1}"#, r#"{"events": [}"#] {
            assert!(matches!(check_from(VIEWER, bad, |_| {}), Err(BatchError::NotABatch(_))), "{bad}");
        }
        assert_eq!(check_from(VIEWER, r#"{"events": []}"#, |_| {}), Ok(vec![]));
        let events = vec![play(); 51];
        assert_eq!(
            check_from(VIEWER, &json!({ "events": events }).to_string(), |_| {}),
            Err(BatchError::TooMany { found: 51, max: 50 })
        );
    }

    #[test]
    fn whatever_the_bytes_they_are_refused_or_events_within_their_bounds() {
        let good = json!({ "sentAt": NOW, "events": [play(), with(json!({ "type": "quality", "playedMs": 9, "cmcd": { "br": 4500, "ec": ["E1"], "pr": 1.5 } }))] });
        let good = good.to_string().into_bytes();
        let mut random = StdRng::seed_from_u64(1);
        let limits = Limits { events_max: 50, age_max: Duration::from_secs(3600) };
        for _ in 0..30_000 {
            let mut bad = good.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bad.len());
                match random.random_range(0..3) {
                    0 => bad[at] = random.random(),
                    1 => bad[at] = *b"0,:\"[]{}e-.\\u".get(random.random_range(0..14)).unwrap_or(&b'9'),
                    _ => drop(bad.remove(at)),
                }
            }
            let _ = Checked::new(limits, VIEWER, NOW_MS).each(
                &bad,
                &PSEUDONYMS,
                |event| {
                    assert!(event.at_ms <= NOW_MS && NOW_MS - event.at_ms <= 3_600_000);
                    assert!(event.title.is_empty() || TitleId::is_valid(event.title));
                },
                |flaw| assert!(flaw.pointer.starts_with("/events/") && flaw.detail.chars().count() <= DETAIL_CHARS_MAX),
            );
        }
    }
}
