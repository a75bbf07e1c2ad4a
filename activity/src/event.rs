//! Events: what a viewer did, and how the picture was while he did it.
//!
//! An [`Event`] was checked (`check.rs`) or comes out of the log (`codec.rs`), and borrows its texts from there. What a report of quality
//! may say is one table, [`KEYS`]: the check, the log, the lake and the description of the API all read it.

use std::fmt;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Playback of a title began or went on.
    Play,
    /// The viewer paused it.
    Pause,
    /// The viewer went to another place of it.
    Seek,
    /// It ended: by the viewer, at the end, or by a failure.
    Stop,
    /// The viewer chose a title from a row.
    Click,
    /// The viewer liked it.
    Like,
    /// The viewer disliked it.
    Dislike,
    /// A title was shown to the viewer in a row.
    Impression,
    /// A report of the quality of experience, as players send them every few seconds.
    Quality,
    /// All that is known of a user is to be forgotten. Ours alone: nobody can send it.
    Forget,
}

impl Kind {
    /// All that can be sent, in the order of their numbers.
    pub const SENT: [Self; 9] = [
        Self::Play,
        Self::Pause,
        Self::Seek,
        Self::Stop,
        Self::Click,
        Self::Like,
        Self::Dislike,
        Self::Impression,
        Self::Quality,
    ];

    /// Its name, as `type` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Play => "play",
            Self::Pause => "pause",
            Self::Seek => "seek",
            Self::Stop => "stop",
            Self::Click => "click",
            Self::Like => "like",
            Self::Dislike => "dislike",
            Self::Impression => "impression",
            Self::Quality => "quality",
            Self::Forget => "forget",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::SENT.into_iter().find(|kind| kind.name() == name)
    }

    pub(crate) fn numbered(number: u8) -> Option<Self> {
        Self::SENT.into_iter().chain([Self::Forget]).find(|kind| *kind as u8 == number)
    }
}

/// An id that a client made: most are UUIDs (RFC 9562), and those take 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Name<'a> {
    /// A UUID that was written in lower case with hyphens.
    Uuid([u8; 16]),
    /// Anything else.
    Text(&'a str),
}

/// The longest name, in bytes. CTA-5004-A gives session ids as many.
pub const NAME_BYTES_MAX: usize = 64;

impl<'a> Name<'a> {
    /// `text` as a name: 1 to 64 of `A-Z a-z 0-9 - . _ : ~`.
    pub(crate) fn new(text: &'a str) -> Option<Self> {
        if let Some(uuid) = uuid(text) {
            return Some(Self::Uuid(uuid));
        }
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~".contains(&byte);
        ((1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(safe)).then_some(Self::Text(text))
    }
}

/// As it was written.
impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Uuid(bytes) => f.write_str(str::from_utf8(&uuid_text(bytes)).expect("hexadecimal digits")),
        }
    }
}

const HYPHENS: [usize; 4] = [8, 13, 18, 23];

fn uuid(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (mut uuid, mut at) = ([0; 16], 0);
    for byte in &mut uuid {
        if HYPHENS.contains(&at) {
            if text[at] != b'-' {
                return None;
            }
            at += 1;
        }
        *byte = digit(text[at])? << 4 | digit(text[at + 1])?;
        at += 2;
    }
    Some(uuid)
}

/// A UUID in hexadecimal with hyphens.
pub(crate) fn uuid_text(uuid: &[u8; 16]) -> [u8; 36] {
    let (mut text, mut at) = ([b'-'; 36], 0);
    for byte in uuid {
        at += usize::from(HYPHENS.contains(&at));
        text[at] = b"0123456789abcdef"[usize::from(byte >> 4)];
        text[at + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
        at += 2;
    }
    text
}

/// A viewer, by a pseudonym: see `pseudonym.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct User(pub(crate) [u8; 16]);

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event<'a> {
    /// What.
    pub(crate) kind: Kind,
    /// When, by our clock: see `check.rs` for how a client's clock is corrected.
    pub(crate) at_ms: u64,
    /// The client's name for the event. It is counted once, however often it is sent.
    pub(crate) id: Name<'a>,
    /// The playback session, or the visit in which no title played.
    pub(crate) session: Name<'a>,
    /// Who, when it is known.
    pub(crate) user: Option<User>,
    /// Where the viewer is, as steering has it; empty when it is not known.
    pub(crate) region: &'a str,
    /// The title's id; empty when the event has none.
    pub(crate) title: &'a str,
    /// The id of the rendition in the title; empty when it is not known.
    pub(crate) rendition: &'a str,
    /// Where in the title, in milliseconds from its beginning.
    pub(crate) position_ms: Option<u64>,
    /// Of a seek: where the viewer was before.
    pub(crate) from_ms: Option<u64>,
    /// How much of the title was shown since the session's last event that said so, in milliseconds.
    pub(crate) played_ms: Option<u32>,
    /// Of a click or an impression: the row of the page.
    pub(crate) row: &'a str,
    /// Of a click or an impression: the place in the row, from 0.
    pub(crate) rank: Option<u32>,
    /// How the picture was.
    pub(crate) cmcd: Option<Cmcd<'a>>,
    /// For how many events like it this one stands, as a power of two: others were left out while the log was behind.
    pub(crate) sampled: u8,
}

impl<'a> Event<'a> {
    /// An event that says no more than it must.
    pub(crate) const fn new(kind: Kind, at_ms: u64, id: Name<'a>, session: Name<'a>) -> Self {
        Self {
            kind,
            at_ms,
            id,
            session,
            user: None,
            region: "",
            title: "",
            rendition: "",
            position_ms: None,
            from_ms: None,
            played_ms: None,
            row: "",
            rank: None,
            cmcd: None,
            sampled: 0,
        }
    }

    /// The same for tests, to which names do not matter.
    #[cfg(test)]
    pub(crate) const fn of(kind: Kind, at_ms: u64) -> Self {
        Self::new(kind, at_ms, Name::Text("1"), Name::Text("s"))
    }

    /// For how many events it stands.
    pub(crate) const fn weight(&self) -> u64 {
        1 << self.sampled
    }
}

/// What a key's number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Kilobits per second.
    Kbps,
    /// Milliseconds.
    Ms,
    /// A number of things.
    Count,
    /// A decimal with up to three digits after the point, kept in thousandths.
    Thousandths,
    /// True or false, kept as 1 or 0.
    Truth,
    /// One of these words, kept as its place.
    Token(&'static [&'static str]),
}

/// A key of Common Media Client Data.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As CTA-5004-A writes it.
    pub name: &'static str,
    /// What its values are.
    pub unit: Unit,
    /// What it says.
    pub about: &'static str,
}

const fn key(name: &'static str, unit: Unit, about: &'static str) -> Key {
    Key { name, unit, about }
}

/// The keys of CTA-5004-A (CMCD version 2) that reports may have, with its names and units, besides `cdn` and `ec`. Its inner lists by
/// object type are one number here: of video, or of all that plays where that is muxed.
///
/// Left out: `cid`, `sid`, `ts`, `pt` and `e`, which are an event's own `title`, `session`, `at`, `positionMs` and `type`; `v`, which is
/// always 2; what describes one request to a server (`d`, `dl`, `nor`, `rtp`, `su`, `url`, `cmsdd`, `cmsds`, `smrt`, `ttfbb`, `h`), as that
/// server sees it itself; what tells one device from others (`tpb`); and custom keys.
///
/// The place in this table is the number of the key in the log: new keys go to the end.
pub const KEYS: [Key; 22] = [
    key("br", Unit::Kbps, "Encoded bitrate of what is selected."),
    key("ab", Unit::Kbps, "Aggregate encoded bitrate, where `br` is not known."),
    key("pb", Unit::Kbps, "Encoded bitrate of what is shown."),
    key("tb", Unit::Kbps, "The highest bitrate that there is."),
    key("lb", Unit::Kbps, "The lowest bitrate that there is."),
    key("mtp", Unit::Kbps, "Measured throughput."),
    key("bl", Unit::Ms, "Buffer length."),
    key("tbl", Unit::Ms, "Target buffer length."),
    key("msd", Unit::Ms, "Media start delay: from the order to play to the first picture. Once a session."),
    key("ltc", Unit::Ms, "Live stream latency."),
    key("bsd", Unit::Ms, "Buffer starvation duration: how long stalls took that ended since the last report, together."),
    key("bsda", Unit::Ms, "Buffer starvation duration since the session began."),
    key("bsa", Unit::Count, "Buffer starvations since the session began."),
    key("dfa", Unit::Count, "Dropped frames since the session began."),
    key("ttfb", Unit::Ms, "Time to the first byte of the last response."),
    key("ttlb", Unit::Ms, "Time to the last byte of the last response."),
    key("rc", Unit::Count, "Status of the last response; 0 when there was none."),
    key("sn", Unit::Count, "Sequence number of the report in its session."),
    key("pr", Unit::Thousandths, "Playback rate."),
    key("bs", Unit::Truth, "Whether the buffer starved since the last report."),
    key("bg", Unit::Truth, "Whether the player is in the background."),
    key("sta", Unit::Token(&["s", "p", "k", "r", "a", "w", "e", "f", "q", "d"]), "State of the player."),
];

/// The places in [`KEYS`] of what is folded.
pub(crate) mod place {
    pub(crate) const BR: usize = 0;
    pub(crate) const AB: usize = 1;
    pub(crate) const MTP: usize = 5;
    pub(crate) const MSD: usize = 8;
    pub(crate) const BSD: usize = 10;
    pub(crate) const DFA: usize = 13;
    pub(crate) const BS: usize = 19;
}

/// Common Media Client Data: what a player says of its session.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Cmcd<'a> {
    /// A bit for each key of [`KEYS`] that is there.
    pub(crate) present: u32,
    pub(crate) numbers: [u32; KEYS.len()],
    /// `cdn`: the edge that the player takes the title from; empty when it does not say.
    pub(crate) cdn: &'a str,
    /// `ec`: codes of the player's errors, with commas between them; empty when there was none.
    pub(crate) ec: &'a str,
}

impl Cmcd<'_> {
    /// The number of the key at `place` of [`KEYS`], if it is there.
    pub(crate) const fn number(&self, place: usize) -> Option<u32> {
        if self.present >> place & 1 == 1 { Some(self.numbers[place]) } else { None }
    }

    pub(crate) const fn set(&mut self, place: usize, number: u32) {
        self.present |= 1 << place;
        self.numbers[place] = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_they_were_written() {
        for text in ["0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9", "0A1B2C3D-4E5F-6071-8293-A4B5C6D7E8F9", "x", "a.b_c:d~e-9"] {
            assert_eq!(Name::new(text).unwrap().to_string(), text);
        }
        assert!(matches!(Name::new("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"), Some(Name::Uuid(_))));
        assert!(matches!(Name::new("0a1b2c3d-4e5f-6071-8293xa4b5c6d7e8f9"), Some(Name::Text(_))));
        for bad in ["", " ", "a b", "ä", "\n", &"x".repeat(65)] {
            assert_eq!(Name::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn kinds_are_found_by_name_and_by_number() {
        for kind in Kind::SENT {
            assert_eq!((Kind::named(kind.name()), Kind::numbered(kind as u8)), (Some(kind), Some(kind)));
        }
        assert_eq!(
            (Kind::named("forget"), Kind::numbered(Kind::Forget as u8), Kind::numbered(10)),
            (None, Some(Kind::Forget), None)
        );
    }

    #[test]
    fn the_keys_that_are_folded_stand_where_folds_look() {
        use place::{AB, BR, BS, BSD, DFA, MSD, MTP};
        for (place, name) in [(BR, "br"), (AB, "ab"), (MTP, "mtp"), (MSD, "msd"), (BSD, "bsd"), (DFA, "dfa"), (BS, "bs")] {
            assert_eq!(KEYS[place].name, name);
        }
        assert!(KEYS.len() <= 32, "there is a bit for each");
    }
}
