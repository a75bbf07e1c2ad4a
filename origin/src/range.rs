//! Byte ranges and conditions (RFC 9110 §13, §14), decided from a request's headers and an object's validator alone.
//!
//! Objects have strong entity tags and no modification date, so `If-Modified-Since` and `If-Unmodified-Since` do not
//! apply (§13.1.3: "A recipient MUST ignore the If-Modified-Since header field if the resource does not have a
//! modification date available"). A request for several ranges is answered with the whole object, which §14.2 allows.

use std::ops::Range;

use http::{HeaderMap, Method, header};

/// What a `GET` or `HEAD` gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200, all of it.
    Whole,
    /// 206, these bytes.
    Part(Range<u64>),
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
    /// 416.
    Unsatisfiable,
}

/// Decides in the order of RFC 9110 §13.2.2. `etag` is strong, quotes included; `length` is in bytes.
pub fn decide(method: &Method, headers: &HeaderMap, etag: &str, length: u64) -> Answer {
    // §13.1.1: If-Match compares strongly; a weak tag never matches.
    if headers.contains_key(header::IF_MATCH) && !tags(headers, header::IF_MATCH).any(|tag| tag.is("*", etag)) {
        return Answer::PreconditionFailed;
    }
    // §13.1.2: If-None-Match compares weakly.
    if tags(headers, header::IF_NONE_MATCH).any(|tag| tag.opaque().is("*", etag)) {
        return Answer::NotModified;
    }
    // §14.2: "A server MUST ignore a Range header field received with a request method that is unrecognized or for
    // which range handling is not defined": it is defined for GET only.
    if *method != Method::GET {
        return Answer::Whole;
    }
    // §13.1.5: the range counts only if the representation is still the one the client has.
    if headers.get(header::IF_RANGE).is_some_and(|tag| tag.as_bytes() != etag.as_bytes()) {
        return Answer::Whole;
    }
    let mut ranges = headers.get_all(header::RANGE).iter();
    match (ranges.next().and_then(|range| range.to_str().ok()), ranges.next()) {
        (Some(range), None) => resolve(range, length),
        _ => Answer::Whole,
    }
}

/// One `Range` header against a length. What is not well-formed is ignored (§14.2), what is beyond the end is 416.
fn resolve(range: &str, length: u64) -> Answer {
    let Some((unit, spec)) = range.split_once('=') else { return Answer::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Answer::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Answer::Whole };
    match (position(first), position(last)) {
        (Some(Position::At(first)), Some(Position::At(last))) if first > last => Answer::Whole,
        (Some(Position::At(first)), Some(_)) if first >= length => Answer::Unsatisfiable,
        (Some(Position::At(first)), Some(Position::At(last))) => Answer::Part(first..last.saturating_add(1).min(length)),
        (Some(Position::At(first)), Some(Position::Absent)) => Answer::Part(first..length),
        (Some(Position::Absent), Some(Position::At(0))) => Answer::Unsatisfiable,
        (Some(Position::Absent), Some(Position::At(_))) if length == 0 => Answer::Unsatisfiable,
        (Some(Position::Absent), Some(Position::At(count))) => Answer::Part(length.saturating_sub(count)..length),
        _ => Answer::Whole,
    }
}

enum Position {
    Absent,
    At(u64),
}

/// Digits only (no sign, no space inside); more than a `u64` holds is beyond any end.
fn position(text: &str) -> Option<Position> {
    match text {
        "" => Some(Position::Absent),
        _ if text.bytes().all(|b| b.is_ascii_digit()) => Some(Position::At(text.parse().unwrap_or(u64::MAX))),
        _ => None,
    }
}

/// An entity tag of a list, as written, or `*`.
#[derive(Clone, Copy)]
struct Tag<'a>(&'a str);

impl<'a> Tag<'a> {
    fn is(self, any: &str, etag: &str) -> bool {
        self.0 == any || self.0 == etag
    }

    fn opaque(self) -> Self {
        Self(self.0.strip_prefix("W/").unwrap_or(self.0))
    }
}

/// The entity tags of all lines of a header. A tag may contain commas, so the list is split outside of quotes.
fn tags(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = Tag<'_>> {
    headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| {
        let mut quoted = false;
        line.split(move |c| {
            quoted ^= c == '"';
            c == ',' && !quoted
        })
        .map(|tag| Tag(tag.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide_get(headers: &[(&'static str, &str)], length: u64) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        decide(&Method::GET, &map, "\"tag\"", length)
    }

    #[test]
    fn ranges_resolve_against_the_length() {
        for (range, answer) in [
            ("bytes=0-0", Answer::Part(0..1)),
            ("bytes=10-19", Answer::Part(10..20)),
            ("Bytes=90-1000", Answer::Part(90..100)),
            ("bytes=90-", Answer::Part(90..100)),
            ("bytes=-1", Answer::Part(99..100)),
            ("bytes=-1000", Answer::Part(0..100)),
            ("bytes=0-18446744073709551615", Answer::Part(0..100)),
            ("bytes=0-99999999999999999999999", Answer::Part(0..100)),
            ("bytes=100-", Answer::Unsatisfiable),
            ("bytes=99999999999999999999999-", Answer::Unsatisfiable),
            ("bytes=-0", Answer::Unsatisfiable),
            ("bytes=5-4", Answer::Whole),
            ("bytes=-", Answer::Whole),
            ("bytes=+1-2", Answer::Whole),
            ("bytes=1-2,4-5", Answer::Whole),
            ("bytes 1-2", Answer::Whole),
            ("items=1-2", Answer::Whole),
        ] {
            assert_eq!(decide_get(&[("range", range)], 100), answer, "{range}");
        }
        assert_eq!(decide_get(&[("range", "bytes=0-0"), ("range", "bytes=1-1")], 100), Answer::Whole);
    }

    #[test]
    fn an_empty_object_has_no_range() {
        assert_eq!(decide_get(&[("range", "bytes=0-")], 0), Answer::Unsatisfiable);
        assert_eq!(decide_get(&[("range", "bytes=-5")], 0), Answer::Unsatisfiable);
        assert_eq!(decide_get(&[], 0), Answer::Whole);
    }

    #[test]
    fn conditions_come_before_ranges() {
        let range = ("range", "bytes=0-9");
        assert_eq!(decide_get(&[("if-match", "\"other\""), range], 100), Answer::PreconditionFailed);
        assert_eq!(decide_get(&[("if-match", "W/\"tag\""), range], 100), Answer::PreconditionFailed);
        assert_eq!(decide_get(&[("if-match", "\"a,b\", \"tag\""), range], 100), Answer::Part(0..10));
        assert_eq!(decide_get(&[("if-match", "\"other\""), ("if-match", "*"), range], 100), Answer::Part(0..10));
        assert_eq!(decide_get(&[("if-none-match", "W/\"tag\""), range], 100), Answer::NotModified);
        assert_eq!(decide_get(&[("if-none-match", "\"x,\"tag\",y\""), range], 100), Answer::Part(0..10));
        assert_eq!(decide_get(&[("if-none-match", "*")], 100), Answer::NotModified);
        assert_eq!(decide_get(&[("if-range", "\"tag\""), range], 100), Answer::Part(0..10));
        assert_eq!(decide_get(&[("if-range", "W/\"tag\""), range], 100), Answer::Whole);
        assert_eq!(decide_get(&[("if-range", "Sat, 01 Jan 2000 00:00:00 GMT"), range], 100), Answer::Whole);
    }

    #[test]
    fn head_has_no_ranges() {
        let headers = HeaderMap::from_iter([(header::RANGE, "bytes=0-9".parse().unwrap())]);
        assert_eq!(decide(&Method::HEAD, &headers, "\"tag\"", 100), Answer::Whole);
    }
}
