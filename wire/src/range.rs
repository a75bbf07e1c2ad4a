//! Byte ranges and conditions (RFC 9110 §13, §14): read once from a request's headers, decided once the version is known. An edge
//! answers players by it, and the origin answers edges.
//!
//! Pure. A request for several ranges gets the whole object, which §14.2 allows ("A server MAY ignore the Range header field").

use std::{ops::Range, time::SystemTime};

use http::{HeaderMap, HeaderName, Method, header};

/// No object is longer, in bytes: positions can be added without overflow.
pub const OBJECT_BYTES_MAX: u64 = 1 << 60;

/// Which bytes a request wants, and of which versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    range: Option<Spec>,
    if_range: Option<String>,
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    if_modified_since: Option<SystemTime>,
    if_unmodified_since: Option<SystemTime>,
}

/// What a wish comes to for one version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// 200: all of it.
    Whole,
    /// 206: these bytes, at least one.
    Part(Range<u64>),
    /// 304: the client has it.
    NotModified,
    /// 412: the client wants another version.
    PreconditionFailed,
    /// 416: the client wants bytes beyond the end.
    Unsatisfiable,
}

/// What is known of the version, to be compared.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// Strong, quotes included.
    pub etag: &'a str,
    /// Bytes.
    pub length: u64,
    /// As `Last-Modified` says it.
    pub modified: Option<&'a str>,
}

/// One range of bytes, before the length is known (§14.1.2). Positions are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spec {
    FromTo(u64, u64),
    From(u64),
    Last(u64),
}

/// A list of entity tags (§8.8.3), or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    /// Weak or not, and the opaque part with its quotes.
    These(Vec<(bool, String)>),
}

impl Wish {
    /// Reads the headers. What is malformed is as if it were not there, except that a malformed `If-Match` matches nothing.
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let date = |name| text(name).and_then(|value| httpdate::parse_http_date(value).ok());
        Self {
            // §14.2: "A server MUST ignore a Range header field received with a request method that is unrecognized or for which range
            // handling is not defined. For this specification, GET is the only method for which range handling is defined."
            range: if *method == Method::GET { spec(headers) } else { None },
            if_range: text(header::IF_RANGE).map(str::to_owned),
            if_match: tags(headers, header::IF_MATCH),
            if_none_match: tags(headers, header::IF_NONE_MATCH),
            if_modified_since: date(header::IF_MODIFIED_SINCE),
            if_unmodified_since: date(header::IF_UNMODIFIED_SINCE),
        }
    }

    /// A byte that will probably be wanted: the first one, where that can be told before the length is known.
    pub fn first_byte(&self) -> u64 {
        match self.range {
            Some(Spec::FromTo(first, _) | Spec::From(first)) if first < OBJECT_BYTES_MAX => first,
            _ => 0,
        }
    }

    /// Decides, in the order of §13.2.2.
    pub fn decide(&self, version: Version<'_>) -> Decision {
        let modified = || version.modified.and_then(|date| httpdate::parse_http_date(date).ok());
        let is_unwanted = match (&self.if_match, self.if_unmodified_since) {
            // §13.1.1: the comparison is strong, so a weak tag matches nothing.
            (Some(tags), _) => !tags.contain(version.etag, false),
            // §13.1.4: "A recipient MUST ignore the If-Unmodified-Since header field if the resource does not have a modification date
            // available."
            (None, Some(since)) => modified().is_some_and(|modified| modified > since),
            (None, None) => false,
        };
        if is_unwanted {
            return Decision::PreconditionFailed;
        }
        let is_known = match (&self.if_none_match, self.if_modified_since) {
            // §13.1.2: the comparison is weak.
            (Some(tags), _) => tags.contain(version.etag, true),
            // §13.1.3: the same for If-Modified-Since.
            (None, Some(since)) => modified().is_some_and(|modified| modified <= since),
            (None, None) => false,
        };
        if is_known {
            return Decision::NotModified;
        }
        match self.range {
            // §13.1.5: the range holds only for the very version that the client has. A date is never taken for a strong validator.
            Some(spec) if self.if_range.as_deref().is_none_or(|tag| tag == version.etag) => spec.resolve(version.length),
            _ => Decision::Whole,
        }
    }
}

impl Spec {
    fn resolve(self, length: u64) -> Decision {
        let part = match self {
            Self::FromTo(first, last) => first..last.saturating_add(1).min(length),
            Self::From(first) => first..length,
            Self::Last(count) => length.saturating_sub(count)..length,
        };
        if part.is_empty() { Decision::Unsatisfiable } else { Decision::Part(part) }
    }
}

/// The one range that is asked for, if it is well-formed.
fn spec(headers: &HeaderMap) -> Option<Spec> {
    let mut lines = headers.get_all(header::RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (unit, set) = line.to_str().ok()?.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    match set.trim_matches([' ', '\t']).split_once('-')? {
        ("", count) => Some(Spec::Last(number(count)?)),
        (first, "") => Some(Spec::From(number(first)?)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            // "An int-range is invalid if the last-pos value is present and less than the first-pos."
            (first <= last).then_some(Spec::FromTo(first, last))
        }
    }
}

/// Digits. More than 64 bits hold is beyond any end.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

impl Tags {
    fn contain(&self, etag: &str, weakly: bool) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|(is_weak, tag)| tag == etag && (weakly || !is_weak)),
        }
    }
}

/// All tags of all lines of a header; `None` if there is no such line.
fn tags(headers: &HeaderMap, name: HeaderName) -> Option<Tags> {
    let mut lines = headers.get_all(name).iter().peekable();
    lines.peek()?;
    let mut tags = Vec::new();
    for mut rest in lines.filter_map(|line| line.to_str().ok()) {
        if rest.trim() == "*" {
            return Some(Tags::Any);
        }
        while let Some((tag, after)) = next_tag(rest) {
            tags.push(tag);
            rest = after;
        }
    }
    Some(Tags::These(tags))
}

/// The first entity tag of a list, and what follows it.
fn next_tag(list: &str) -> Option<((bool, String), &str)> {
    let list = list.trim_start_matches([' ', '\t', ',']);
    let (is_weak, tag) = list.strip_prefix("W/").map_or((false, list), |tag| (true, tag));
    let end = tag.strip_prefix('"')?.find('"')? + 2;
    Some(((is_weak, tag[..end].to_owned()), &tag[end..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ETAG: &str = "\"v1\"";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn decide(method: Method, lines: &[(&'static str, &str)], length: u64) -> Decision {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        Wish::of(&method, &headers).decide(Version { etag: ETAG, length, modified: Some(MODIFIED) })
    }

    fn get(lines: &[(&'static str, &str)]) -> Decision {
        decide(Method::GET, lines, 100)
    }

    #[test]
    fn one_range_of_bytes_is_resolved_and_anything_else_is_ignored() {
        for (range, decision) in [
            ("bytes=0-0", Decision::Part(0..1)),
            ("BYTES=10-19", Decision::Part(10..20)),
            ("bytes=99-", Decision::Part(99..100)),
            ("bytes=-7", Decision::Part(93..100)),
            ("bytes=-700", Decision::Part(0..100)),
            ("bytes=50-18446744073709551615", Decision::Part(50..100)),
            ("bytes=50-99999999999999999999999", Decision::Part(50..100)),
            ("bytes=100-", Decision::Unsatisfiable),
            ("bytes=100-200", Decision::Unsatisfiable),
            ("bytes=99999999999999999999999-", Decision::Unsatisfiable),
            ("bytes=-0", Decision::Unsatisfiable),
            ("bytes=2-1", Decision::Whole),
            ("bytes=-", Decision::Whole),
            ("bytes=0-1,3-4", Decision::Whole),
            ("bytes=0x0-1", Decision::Whole),
            ("bytes=+0-1", Decision::Whole),
            ("bytes= 0 - 1", Decision::Whole),
            ("seconds=0-1", Decision::Whole),
            ("0-1", Decision::Whole),
        ] {
            assert_eq!(get(&[("range", range)]), decision, "{range}");
        }
        assert_eq!(get(&[("range", "bytes=0-0"), ("range", "bytes=5-5")]), Decision::Whole);
        assert_eq!(decide(Method::HEAD, &[("range", "bytes=200-")], 100), Decision::Whole);
        for range in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(decide(Method::GET, &[("range", range)], 0), Decision::Unsatisfiable, "nothing has no first byte");
        }
    }

    #[test]
    fn conditions_are_decided_before_the_range() {
        let range = ("range", "bytes=0-9");
        let part = Decision::Part(0..10);
        for (line, decision) in [
            (("if-match", "\"v1\""), part.clone()),
            (("if-match", "\"a, \\\", \"v1\""), part.clone()),
            (("if-match", "*"), part.clone()),
            (("if-match", "W/\"v1\""), Decision::PreconditionFailed),
            (("if-match", "\"v2\", \"v3\""), Decision::PreconditionFailed),
            (("if-match", "v1"), Decision::PreconditionFailed),
            (("if-none-match", "\"v2\", W/\"v1\""), Decision::NotModified),
            (("if-none-match", "*"), Decision::NotModified),
            (("if-none-match", "\"v2\""), part.clone()),
            (("if-none-match", "v1"), part.clone()),
            (("if-modified-since", MODIFIED), Decision::NotModified),
            (("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT"), part.clone()),
            (("if-modified-since", "yesterday"), part.clone()),
            (("if-unmodified-since", MODIFIED), part.clone()),
            (("if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT"), Decision::PreconditionFailed),
            (("if-range", "\"v1\""), part),
            (("if-range", "W/\"v1\""), Decision::Whole),
            (("if-range", "\"v2\""), Decision::Whole),
            (("if-range", MODIFIED), Decision::Whole),
        ] {
            assert_eq!(get(&[line, range]), decision, "{line:?}");
        }
        let both = [("if-none-match", "\"v2\""), ("if-modified-since", MODIFIED), range];
        assert_eq!(get(&both), Decision::Part(0..10), "§13.1.3: If-Modified-Since is ignored beside If-None-Match");
        let both = [("if-match", "\"v2\""), ("if-none-match", "\"v1\"")];
        assert_eq!(get(&both), Decision::PreconditionFailed, "§13.2.2: If-Match comes first");
        assert_eq!(get(&[("if-match", "\"v2\""), ("if-match", "\"v1\"")]), Decision::Whole, "lines of a list are one list");
    }

    proptest! {
        /// Against a model that has the positions themselves.
        #[test]
        fn a_range_is_the_positions_that_it_names(first in 0_u64..70, last in 0_u64..70, length in 0_u64..64, form in 0..3) {
            let (range, wanted): (_, Vec<u64>) = match form {
                0 => (format!("bytes={first}-{last}"), (0..length).filter(|at| (first..=last).contains(at)).collect()),
                1 => (format!("bytes={first}-"), (0..length).filter(|at| *at >= first).collect()),
                _ => (format!("bytes=-{last}"), (0..length).filter(|at| at + last >= length).collect()),
            };
            let expected = match (form, wanted.first().zip(wanted.last())) {
                (0, _) if first > last => Decision::Whole,
                (_, Some((first, last))) => Decision::Part(*first..last + 1),
                (_, None) => Decision::Unsatisfiable,
            };
            prop_assert_eq!(decide(Method::GET, &[("range", &range)], length), expected);
        }

        #[test]
        fn whatever_is_sent_a_part_lies_within_the_object(
            range in "(bytes=)?[-0-9, ]{0,30}",
            tags in "[W/\"a, *]{0,20}",
            length in 0_u64..100,
        ) {
            if let Decision::Part(part) = decide(Method::GET, &[("range", &range), ("if-none-match", &tags)], length) {
                prop_assert!(part.start < part.end && part.end <= length);
            }
        }
    }
}
