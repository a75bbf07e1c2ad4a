//! Which answer goes first (RFC 9218): what clients say by `Priority` and by PRIORITY_UPDATE, and the order that QUIC is told. Pure.
//!
//! A connection sends what is more urgent first. Of what is equally urgent, answers that are of use only when they are whole go one after the
//! other, in the order in which they were asked for, and then the others, in turns.

use ::http::{HeaderMap, HeaderName};
use quinn_proto::VarInt;

const PRIORITY: HeaderName = HeaderName::from_static("priority");
/// §4.1: "The urgency (u) parameter takes an integer between 0 and 7, in descending order of priority." "The default value is 3."
const URGENCY_MAX: u8 = 7;
const URGENCY: u8 = 3;
/// The room that each urgency has for the order of streams.
const ORDER_BITS: u32 = 27;
/// H3_FRAME_UNEXPECTED, H3_FRAME_ERROR and H3_ID_ERROR (RFC 9114 §8.1).
const FRAME_UNEXPECTED: VarInt = VarInt::from_u32(0x105);
const FRAME_ERROR: VarInt = VarInt::from_u32(0x106);
const ID_ERROR: VarInt = VarInt::from_u32(0x108);

/// What a client says of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Priority {
    urgency: u8,
    /// Its first bytes are of use without the last.
    incremental: bool,
}

impl Default for Priority {
    fn default() -> Self {
        Self { urgency: URGENCY, incremental: false }
    }
}

impl Priority {
    /// Of an answer of which nothing is said. §10 leaves it to the server, and whoever does not know of priorities waits for first bytes: those answers share.
    const UNSAID: Self = Self { urgency: URGENCY, incremental: true };

    /// What a request's header fields say. One that cannot be parsed says nothing (RFC 8941 §4.2).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(PRIORITY).iter();
        let Some(first) = lines.next() else { return Self::UNSAID };
        let parsed = match lines.next() {
            None => Self::parse(first.as_bytes()),
            // RFC 8941 §4.2: several lines are one list.
            Some(second) => {
                let lines: Vec<_> = [first, second].into_iter().chain(lines).map(|line| line.as_bytes()).collect();
                Self::parse(&lines.join(&b", "[..]))
            }
        };
        parsed.unwrap_or(Self::UNSAID)
    }

    /// A Priority Field Value: a dictionary (RFC 8941 §3.2). §4: "unknown priority parameters, priority parameters with out-of-range values, or
    /// values of unexpected types MUST be ignored."
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut priority = Self::default();
        Text(text).dictionary(|key, value| match (key, value) {
            (b"u", value) => {
                let urgency = value.integer().and_then(|urgency| u8::try_from(urgency).ok());
                priority.urgency = urgency.filter(|urgency| *urgency <= URGENCY_MAX).unwrap_or(URGENCY);
            }
            (b"i", value) => priority.incremental = value == Value::Boolean(true),
            _ => {}
        })?;
        Some(priority)
    }

    /// What QUIC is told of the answer on request stream `id`: higher goes first, and equals in turns. Never 0, which is a stream of which
    /// nothing was said.
    pub(super) fn rank(self, id: u64) -> i32 {
        let urgency = i32::from(URGENCY_MAX + 1 - self.urgency) << ORDER_BITS;
        if self.incremental {
            return urgency;
        }
        // §10: "Non-incremental responses of the same urgency SHOULD be served by prioritizing bandwidth allocation in ascending order of the
        // stream ID". The hundred millionth goes with those that follow.
        let number = i32::try_from(id / 4).unwrap_or(i32::MAX);
        urgency + ((1 << ORDER_BITS) - 1 - number).max(1)
    }
}

/// A PRIORITY_UPDATE frame that is against the rules. Each ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUpdate {
    /// It came on a request stream.
    #[error("a PRIORITY_UPDATE frame that is not on the control stream")]
    Misplaced,
    /// It ends before the number of the stream does.
    #[error("a PRIORITY_UPDATE frame without a stream")]
    Truncated,
    /// It names a stream that no request can be on.
    #[error("a PRIORITY_UPDATE frame for stream {0}, which is no request's")]
    NoRequest(u64),
    /// It names a stream that the client may not open yet.
    #[error("a PRIORITY_UPDATE frame for stream {0}, which is beyond the limit")]
    BeyondLimit(u64),
    /// It is about a push, and nothing is pushed.
    #[error("a PRIORITY_UPDATE frame for a push that was never promised")]
    Push,
}

impl BadUpdate {
    /// With which code the connection is closed.
    pub(super) fn code(self) -> VarInt {
        match self {
            // §7.2: "Receiving a PRIORITY_UPDATE frame on a stream other than the client control stream MUST be treated as a connection error of
            // type H3_FRAME_UNEXPECTED."
            Self::Misplaced => FRAME_UNEXPECTED,
            // RFC 9114 §7.1: a payload "that terminates before the end of the identified fields MUST be treated as a connection error of type
            // H3_FRAME_ERROR."
            Self::Truncated => FRAME_ERROR,
            // §7.2: "If a server receives a PRIORITY_UPDATE (type=0xF0700) for a stream ID that is not a request stream, this MUST be treated as a
            // connection error of type H3_ID_ERROR." "beyond the stream limits, this SHOULD be"; of a push ID that "has not yet been promised, this
            // MUST be".
            Self::NoRequest(_) | Self::BeyondLimit(_) | Self::Push => ID_ERROR,
        }
    }
}

/// What a dictionary says of a key, as far as it is of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    Integer(i64),
    Boolean(bool),
    Other,
}

impl Value {
    fn integer(self) -> Option<i64> {
        match self {
            Self::Integer(integer) => Some(integer),
            _ => None,
        }
    }
}

/// What is left to parse of a structured field (RFC 8941 §4.2). Everything says `None` to what is none.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Takes `wanted`, if it is next.
    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.0 = &self.0[usize::from(found)..];
        found
    }

    /// Takes all that is next and `is_wanted`.
    fn take_while(&mut self, is_wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.0.iter().position(|byte| !is_wanted(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn spaces(&mut self) {
        self.take_while(|byte| byte == b' ');
    }

    /// OWS (RFC 9110 §5.6.3).
    fn white_space(&mut self) {
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
    }

    /// §4.2.2. `member` is told of each as it comes; what is told last of a key holds.
    fn dictionary(mut self, mut member: impl FnMut(&[u8], Value)) -> Option<()> {
        self.spaces();
        while self.peek().is_some() {
            let key = self.key()?;
            let value = if self.take(b'=') {
                self.member_value()?
            } else {
                self.parameters()?;
                Value::Boolean(true)
            };
            member(key, value);
            self.white_space();
            if self.peek().is_none() {
                break;
            }
            if !self.take(b',') {
                return None;
            }
            self.white_space();
            // A trailing comma is an error.
            self.peek()?;
        }
        Some(())
    }

    /// §4.2.3.3.
    fn key(&mut self) -> Option<&'a [u8]> {
        self.peek().filter(|byte| byte.is_ascii_lowercase() || *byte == b'*')?;
        Some(
            self.take_while(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'.' | b'*')
            }),
        )
    }

    /// §4.2.1.1: an item or an inner list.
    fn member_value(&mut self) -> Option<Value> {
        if !self.take(b'(') {
            return self.item();
        }
        loop {
            self.spaces();
            if self.take(b')') {
                self.parameters()?;
                return Some(Value::Other);
            }
            self.item()?;
            if !matches!(self.peek()?, b' ' | b')') {
                return None;
            }
        }
    }

    /// §4.2.3.
    fn item(&mut self) -> Option<Value> {
        let value = self.bare_item()?;
        self.parameters()?;
        Some(value)
    }

    /// §4.2.3.2.
    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.spaces();
            self.key()?;
            if self.take(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    /// §4.2.3.1.
    fn bare_item(&mut self) -> Option<Value> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'?' => {
                self.0 = &self.0[1..];
                let is_true = self.take(b'1');
                (is_true || self.take(b'0')).then_some(Value::Boolean(is_true))
            }
            b':' => {
                self.0 = &self.0[1..];
                self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
                self.take(b':').then_some(Value::Other)
            }
            byte if byte.is_ascii_alphabetic() || byte == b'*' => {
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
                Some(Value::Other)
            }
            _ => None,
        }
    }

    /// §4.2.4.
    fn number(&mut self) -> Option<Value> {
        let is_negative = self.take(b'-');
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        if whole.is_empty() {
            return None;
        }
        if self.take(b'.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit());
            return (whole.len() <= 12 && (1..=3).contains(&fraction.len())).then_some(Value::Other);
        }
        if whole.len() > 15 {
            return None;
        }
        let number = whole.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
        Some(Value::Integer(if is_negative { -number } else { number }))
    }

    /// §4.2.5.
    fn string(&mut self) -> Option<Value> {
        self.0 = &self.0[1..];
        loop {
            self.take_while(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'));
            if self.take(b'"') {
                return Some(Value::Other);
            }
            if !(self.take(b'\\') && (self.take(b'"') || self.take(b'\\'))) {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    fn parsed(text: &str) -> Option<(u8, bool)> {
        Priority::parse(text.as_bytes()).map(|priority| (priority.urgency, priority.incremental))
    }

    #[test]
    fn urgency_and_incremental_are_read_and_all_else_is_ignored() {
        for (text, urgency, incremental) in [
            ("", 3, false),
            ("  ", 3, false),
            ("u=0", 0, false),
            ("u=5, i", 5, true),
            ("i,u=7", 7, true),
            ("i=?0 ,\tu=1", 1, false),
            ("u=1;a;b=\"c\\\"\\\\\";d=:aGk=:, i=?1;x=tok/en:*", 1, true),
            // Out of range, or of another type.
            ("u=8", 3, false),
            ("u=-1", 3, false),
            ("u=1.0", 3, false),
            ("u=\"1\"", 3, false),
            ("u", 3, false),
            ("u=(1)", 3, false),
            ("i=1", 3, false),
            ("i=true", 3, false),
            // What others may say.
            ("a=(1 \"two\" ?1);b, u=2, *c.d-e_f=123456789012.345, i", 2, true),
            ("a=(), u=2", 2, false),
            ("u=1, u=6", 6, false),
            ("u=1, u=9", 3, false),
        ] {
            assert_eq!(parsed(text), Some((urgency, incremental)), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_dictionary_says_nothing() {
        for text in [
            "u=1,",
            "u=1 i",
            ",u=1",
            "u=",
            "U=1",
            "=1",
            "u=1;",
            "u= 1",
            "u=(1",
            "u=(1,2)",
            "u=\"a",
            "u=\"\\a\"",
            "u=?2",
            "u=:a",
            "u=-",
            "u=1.",
            "u=1.2345",
            "u=1234567890123456",
            "u=1234567890123.1",
            "u=1\0",
            "\tu=1",
            "u=\u{e9}",
        ] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }

    #[test]
    fn no_bytes_are_too_strange() {
        let mut word = 1_u32;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..12)
                .map(|_| {
                    word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    b"ui=;,()\"\\?:*-.0179 \t\xff\0"[(word >> 16) as usize % 22]
                })
                .collect();
            let _ = Priority::parse(&bytes);
        }
    }

    #[test]
    fn several_lines_are_one_dictionary_and_a_broken_one_is_none() {
        let of = |lines: &[&'static str]| {
            let headers = lines.iter().map(|line| (PRIORITY, HeaderValue::from_static(line)));
            let mut all = HeaderMap::new();
            headers.for_each(|(name, value)| {
                all.append(name, value);
            });
            Priority::of(&all)
        };
        assert_eq!(of(&[]), Priority::UNSAID);
        assert_eq!(of(&["u=1", "i"]), Priority { urgency: 1, incremental: true });
        assert_eq!(of(&["u=1", "i;"]), Priority::UNSAID);
    }

    #[test]
    fn the_urgent_go_first_then_the_whole_ones_in_order_then_those_that_share() {
        let rank = |urgency, incremental, id| Priority { urgency, incremental }.rank(id);
        let order = [
            rank(0, false, 4_000_000),
            rank(0, true, 0),
            rank(1, false, 0),
            rank(3, false, 0),
            rank(3, false, 4),
            rank(3, false, 400),
            rank(3, false, (1 << 62) - 4),
            rank(3, true, 8),
            rank(7, false, 0),
            rank(7, true, 0),
            1,
        ];
        assert!(order.is_sorted_by(|earlier, later| earlier > later), "{order:?}");
        assert_eq!(rank(3, true, 0), rank(3, true, 4));
    }
}
