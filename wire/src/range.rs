//! Byte ranges and conditions (RFC 9110 §13, §14): read once from a request's headers, decided once the version is known. An edge
//! answers players by it, and the origin answers edges.
//!
//! Pure. Several ranges are several parts (§15.3.7.2), so that none of an object's bytes is sent twice whatever is asked for: ranges that overlap
//! or touch become one ("a server MAY coalesce any of the ranges that overlap"). A request for more than [`RANGES_MAX`] gets the whole
//! object, since many small ranges are "indications of either a broken client or a deliberate denial-of-service attack" (§14.2, §17.15), which a
//! server MAY ignore.

use std::{ops::Range, time::SystemTime};

use http::{HeaderMap, HeaderName, Method, header};

/// No object is longer, in bytes: positions can be added without overflow.
pub const OBJECT_BYTES_MAX: u64 = 1 << 60;
/// A request for more ranges gets the whole object.
pub const RANGES_MAX: usize = 16;

/// Which bytes a request wants, and of which versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// In the order in which they are asked for; none for the whole object.
    ranges: Vec<Spec>,
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
    /// 206 in several parts: at least two and at most [`RANGES_MAX`], in the order in which they were asked for, none of which is empty, touches or
    /// overlaps another.
    Parts(Vec<Range<u64>>),
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
            ranges: if *method == Method::GET { specs(headers).unwrap_or_default() } else { Vec::new() },
            if_range: text(header::IF_RANGE).map(str::to_owned),
            if_match: tags(headers, header::IF_MATCH),
            if_none_match: tags(headers, header::IF_NONE_MATCH),
            if_modified_since: date(header::IF_MODIFIED_SINCE),
            if_unmodified_since: date(header::IF_UNMODIFIED_SINCE),
        }
    }

    /// A byte that will probably be wanted: the first one, where that can be told before the length is known.
    pub fn first_byte(&self) -> u64 {
        match self.ranges.first() {
            Some(Spec::FromTo(first, _) | Spec::From(first)) if *first < OBJECT_BYTES_MAX => *first,
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
        // §13.1.5: the ranges hold only for the very version that the client has. A date is never taken for a strong validator.
        let is_other = self.if_range.as_deref().is_some_and(|tag| tag != version.etag);
        if self.ranges.is_empty() || is_other { Decision::Whole } else { resolve(&self.ranges, version.length) }
    }
}

/// What is left of `specs` in an object of `length` bytes.
fn resolve(specs: &[Spec], length: u64) -> Decision {
    let mut parts: Vec<Range<u64>> = Vec::new();
    // §14.1.1: "A valid ranges-specifier is "satisfiable" if it contains at least one range-spec that is satisfiable"; the others are left out.
    for mut part in specs.iter().map(|spec| spec.resolve(length)).filter(|part| !part.is_empty()) {
        // A part stands where the first of the ranges that it is made of was asked for.
        let mut place = parts.len();
        while let Some(at) = parts.iter().position(|other| other.start <= part.end && part.start <= other.end) {
            let other = parts.remove(at);
            part = part.start.min(other.start)..part.end.max(other.end);
            place = place.min(at);
        }
        parts.insert(place.min(parts.len()), part);
    }
    match parts.pop() {
        None => Decision::Unsatisfiable,
        // §15.3.7.2: where "only one range remained after coalescing" several parts are not needed.
        Some(part) if parts.is_empty() => Decision::Part(part),
        Some(part) => {
            parts.push(part);
            Decision::Parts(parts)
        }
    }
}

impl Spec {
    /// Empty where nothing of it is there.
    fn resolve(self, length: u64) -> Range<u64> {
        match self {
            Self::FromTo(first, last) => first..last.saturating_add(1).min(length),
            Self::From(first) => first..length,
            Self::Last(count) => length.saturating_sub(count)..length,
        }
    }

    fn parse(spec: &str) -> Option<Self> {
        match spec.split_once('-')? {
            ("", count) => Some(Self::Last(number(count)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                // "An int-range is invalid if the last-pos value is present and less than the first-pos."
                (first <= last).then_some(Self::FromTo(first, last))
            }
        }
    }
}

/// The ranges that are asked for, if all of them are well-formed and they are not too many.
fn specs(headers: &HeaderMap) -> Option<Vec<Spec>> {
    let mut lines = headers.get_all(header::RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (unit, set) = line.to_str().ok()?.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    // §5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty list elements".
    let elements = set.split(',').take(2 * RANGES_MAX + 1).map(|element| element.trim_matches([' ', '\t']));
    let specs = elements.filter(|element| !element.is_empty()).map(Spec::parse).collect::<Option<Vec<_>>>()?;
    (specs.len() <= RANGES_MAX && set.matches(',').count() < 2 * RANGES_MAX).then_some(specs)
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
    use std::collections::BTreeSet;

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
            ("bytes=0-1,4-3", Decision::Whole),
            ("bytes=0-1;3-4", Decision::Whole),
            ("bytes=,", Decision::Whole),
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
    fn several_ranges_are_parts_in_their_order_none_of_which_touches_another() {
        let parts = |parts: &[Range<u64>]| Decision::Parts(parts.to_vec());
        for (range, decision) in [
            ("bytes=0-1,4-5", parts(&[0..2, 4..6])),
            ("bytes=0-1, 4-5 ,\t,-3", parts(&[0..2, 4..6, 97..100])),
            ("bytes=90-,0-0", parts(&[90..100, 0..1])),
            ("bytes=0-1,2-3", Decision::Part(0..4)),
            ("bytes=0-9,5-14,12-19", Decision::Part(0..20)),
            ("bytes=0-,-1", Decision::Part(0..100)),
            ("bytes=0-1,500-,7-8", parts(&[0..2, 7..9])),
            ("bytes=500-,7-8", Decision::Part(7..9)),
            ("bytes=500-,100-,-0", Decision::Unsatisfiable),
            ("bytes=0-1,50-51,20-21,2-19", parts(&[0..22, 50..52])),
            ("bytes=50-51,0-1,20-21,1-60", Decision::Part(0..61)),
            ("bytes=80-89,0-1,60-61,50-70", parts(&[80..90, 0..2, 50..71])),
        ] {
            assert_eq!(get(&[("range", range)]), decision, "{range}");
        }
        let many =
            |count: usize| format!("bytes={}", (0..count).map(|n| format!("{0}-{0}", n * 2)).collect::<Vec<_>>().join(","));
        assert!(matches!(get(&[("range", &many(RANGES_MAX))]), Decision::Parts(parts) if parts.len() == RANGES_MAX));
        assert_eq!(get(&[("range", &many(RANGES_MAX + 1))]), Decision::Whole, "§14.2: as if there were no Range");
        assert_eq!(
            get(&[("range", &format!("bytes=0-0{},5-5", ",".repeat(2 * RANGES_MAX)))]),
            Decision::Whole,
            "nor too many of nothing"
        );
        let changed = [("range", "bytes=0-1,4-5"), ("if-range", "\"v2\"")];
        assert_eq!(get(&changed), Decision::Whole, "§13.1.5");
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

        /// Against a model that has a set of positions for each range, and joins sets that share or adjoin one.
        #[test]
        fn parts_are_all_the_positions_asked_for_and_each_once(
            wanted in prop::collection::vec((0_u64..60, 0_u64..12, 0..3), 2..=RANGES_MAX),
            length in 0_u64..64,
        ) {
            let text = wanted.iter().map(|(first, more, form)| match form {
                0 => format!("{first}-{}", first + more),
                1 => format!("{}-", first + 30),
                _ => format!("-{more}"),
            });
            let decision = decide(Method::GET, &[("range", &format!("bytes={}", text.collect::<Vec<_>>().join(",")))], length);
            let mut model: Vec<BTreeSet<u64>> = Vec::new();
            for (first, more, form) in &wanted {
                let mut set: BTreeSet<u64> = (0..length).filter(|at| match form {
                    0 => (*first..=first + more).contains(at),
                    1 => *at >= first + 30,
                    _ => at + more >= length,
                }).collect();
                if set.is_empty() {
                    continue;
                }
                let near = |other: &BTreeSet<u64>, set: &BTreeSet<u64>| other.iter().any(|at| (at.saturating_sub(1)..=at + 1).any(|at| set.contains(&at)));
                let mut place = None;
                while let Some(at) = model.iter().position(|other| near(other, &set)) {
                    set.append(&mut std::mem::take(&mut model[at]));
                    place = Some(place.map_or(at, |place: usize| place.min(at)));
                }
                match place {
                    Some(place) => model[place] = set,
                    None => model.push(set),
                }
            }
            let mut expected: Vec<Range<u64>> =
                model.iter().filter_map(|set| Some(*set.first()?..set.last()? + 1)).collect();
            let expected = match expected.len() {
                0 => Decision::Unsatisfiable,
                1 => Decision::Part(expected.remove(0)),
                _ => Decision::Parts(expected),
            };
            prop_assert_eq!(decision, expected);
        }

        #[test]
        fn whatever_is_sent_a_part_lies_within_the_object(
            range in "(bytes=)?[-0-9, ]{0,30}",
            tags in "[W/\"a, *]{0,20}",
            length in 0_u64..100,
        ) {
            let parts = match decide(Method::GET, &[("range", &range), ("if-none-match", &tags)], length) {
                Decision::Part(part) => vec![part],
                Decision::Parts(parts) => parts,
                _ => Vec::new(),
            };
            prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= length));
        }
    }
}
