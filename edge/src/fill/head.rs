//! What an origin's answer says, and whether it is believed. Pure, but for a line in the log.
//!
//! Nothing of an answer reaches the cache unless it is what was asked for: these bytes, of this version, and as many of them. Two rules of
//! RFC 9111 are not followed: `no-store` is read as `no-cache` (§5.2.2.5; the origin is the operator's own, and what it does not want kept
//! is asked for anew each time), and `Vary` is ignored, since every request for an object is the same one.

use std::{sync::Once, time::Duration};

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use cache::{FillError, Generation, Want};

use wire::range::OBJECT_BYTES_MAX;

/// What players get to see of an origin's headers.
const REPLAYED: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CACHE_CONTROL,
    header::LAST_MODIFIED,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_DISPOSITION,
];
/// The longest entity tag and the longest replayed value, in bytes. Longer ones would fill the memory for what is known of objects.
const ETAG_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 1024;
/// The most tags of an object, and all their bytes together.
const TAGS_MAX: usize = 32;
const TAGS_BYTES_MAX: usize = 1024;
/// How long an answer that does not say is taken for fresh.
const FRESH_FOR_DEFAULT: Duration = Duration::from_secs(60);

/// An answer that is what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// The wanted bytes of this version follow, this many.
    Bytes(Generation, u64),
    /// The version is still the current one.
    Unchanged,
    /// The object has no bytes, so no range of it was good; a request without a range will say which version that is.
    Empty,
}

/// Judges an answer to `want`.
pub(super) fn judge(want: &Want, status: StatusCode, headers: &HeaderMap) -> Result<Answered, FillError> {
    match status {
        StatusCode::PARTIAL_CONTENT => part(want, headers),
        StatusCode::OK => whole(want, headers),
        StatusCode::NOT_MODIFIED if want.revalidate => unchanged(want, headers),
        StatusCode::PRECONDITION_FAILED if want.generation.is_some() => Err(FillError::Changed),
        StatusCode::RANGE_NOT_SATISFIABLE => out_of_range(want, headers),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(FillError::NotFound),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            refused(format!("it does not accept our secret ({status}); see origin.token_file"))
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Err(FillError::Unavailable(format!("the origin answered {status}").into()))
        }
        _ => refused(format!("it answered {status}")),
    }
}

fn part(want: &Want, headers: &HeaderMap) -> Result<Answered, FillError> {
    let Some(ContentRange::Part { first, last, length }) = content_range(headers) else {
        return refused("it answered 206 without a Content-Range that can be read".into());
    };
    let end = want.range.end.min(length);
    if first != want.range.start || last.checked_add(1) != Some(end) || end <= first {
        return refused(format!("it was asked for bytes {:?} and answered with {first}-{last}/{length}", want.range));
    }
    checked(want, headers, length, end - first)
}

fn whole(want: &Want, headers: &HeaderMap) -> Result<Answered, FillError> {
    let Some(length) = content_length(headers)? else {
        return refused("it answered 200 without a Content-Length".into());
    };
    if want.range.start > 0 || length > want.range.end {
        return refused(format!("it was asked for bytes {:?} and answered with all of them; it must serve ranges", want.range));
    }
    checked(want, headers, length, length)
}

fn checked(want: &Want, headers: &HeaderMap, length: u64, bytes: u64) -> Result<Answered, FillError> {
    if length > OBJECT_BYTES_MAX {
        return refused(format!("it says that the object has {length} bytes"));
    }
    if content_length(headers)?.is_some_and(|announced| announced != bytes) {
        return refused(format!("its Content-Length is not that of the {bytes} bytes that it says it sends"));
    }
    let generation = Generation {
        validator: strong_etag(headers)?,
        length,
        headers: REPLAYED.iter().filter_map(|name| replayed(headers, name)).collect(),
        fresh_for: fresh_for(headers),
        initial_age: initial_age(headers),
        tags: tags(&want.key, headers),
    };
    match &want.generation {
        Some(wanted) if !want.revalidate && !wanted.same_bytes(&generation) => Err(FillError::Changed),
        _ => Ok(Answered::Bytes(generation, bytes)),
    }
}

fn unchanged(want: &Want, headers: &HeaderMap) -> Result<Answered, FillError> {
    // RFC 9110 §15.4.5: a 304 has the ETag that a 200 would have had.
    let is_other =
        |etag: &HeaderValue| want.generation.as_ref().is_none_or(|known| etag.as_bytes() != known.validator.as_bytes());
    if headers.get(header::ETAG).is_some_and(is_other) {
        return refused("it says that nothing changed, with another ETag".into());
    }
    Ok(Answered::Unchanged)
}

fn out_of_range(want: &Want, headers: &HeaderMap) -> Result<Answered, FillError> {
    match content_range(headers) {
        Some(ContentRange::Length(length)) if length > want.range.start => {
            refused(format!("it says that bytes {:?} are beyond the end of {length} bytes", want.range))
        }
        _ if want.generation.is_some() && !want.revalidate => Err(FillError::Changed),
        _ if want.range.start > 0 => Err(FillError::OutOfRange),
        _ => Ok(Answered::Empty),
    }
}

fn refused<T>(reason: String) -> Result<T, FillError> {
    Err(FillError::Refused(reason.into()))
}

/// RFC 9110 §8.8.3. Slices can be put together only under a strong one (§13.1.5).
fn strong_etag(headers: &HeaderMap) -> Result<String, FillError> {
    let Some(etag) = headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()) else {
        return refused("it sends no ETag; a strong one must tell versions apart".into());
    };
    let opaque = etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"'));
    if opaque.is_none_or(|opaque| opaque.contains('"')) || etag.len() > ETAG_BYTES_MAX {
        return refused(format!("its ETag is not a strong one of at most {ETAG_BYTES_MAX} bytes: {etag:.64}"));
    }
    Ok(etag.to_owned())
}

/// RFC 9110 §14.4.
#[derive(Debug, PartialEq, Eq)]
enum ContentRange {
    /// Positions are inclusive; `length` is the whole object's.
    Part { first: u64, last: u64, length: u64 },
    /// Of an object whose bytes were not sent.
    Length(u64),
}

fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let (unit, rest) = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.split_once(' ')?;
    let (range, length) = rest.split_once('/')?;
    let length = number(length)?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    if range == "*" {
        return Some(ContentRange::Length(length));
    }
    let (first, last) = range.split_once('-')?;
    Some(ContentRange::Part { first: number(first)?, last: number(last)?, length })
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, FillError> {
    match headers.get(header::CONTENT_LENGTH) {
        None => Ok(None),
        Some(value) => match value.to_str().ok().and_then(number) {
            Some(length) => Ok(Some(length)),
            None => refused("its Content-Length is no number".into()),
        },
    }
}

fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

fn replayed(headers: &HeaderMap, name: &HeaderName) -> Option<(String, String)> {
    let value = headers.get(name)?.to_str().ok()?;
    (value.len() <= VALUE_BYTES_MAX).then(|| (name.as_str().to_owned(), value.to_owned()))
}

/// How long it may be served at all (RFC 9111 §4.2.1), its age included: a shared cache's own lifetime or else everyone's.
fn fresh_for(headers: &HeaderMap) -> Duration {
    let lines = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let (mut shared, mut common) = (None, None);
    for directive in lines.flat_map(|line| line.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let seconds = || delta_seconds(value.trim().trim_matches('"'));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-cache" | "no-store" | "private" => return Duration::ZERO,
            "s-maxage" => shared = seconds(),
            "max-age" => common = seconds(),
            _ => {}
        }
    }
    shared.or(common).unwrap_or(FRESH_FOR_DEFAULT)
}

/// What the origin says of its age. RFC 9111 §5.1: of several the first one counts, and "if the field value is invalid […], a cache SHOULD
/// ignore the field".
fn initial_age(headers: &HeaderMap) -> Duration {
    let age = headers.get(header::AGE).and_then(|age| age.to_str().ok()).and_then(|age| age.split(',').next());
    age.and_then(|age| delta_seconds(age.trim())).unwrap_or_default()
}

/// RFC 9111 §1.2.2: what is too large to be represented is 2147483648 seconds.
fn delta_seconds(digits: &str) -> Option<Duration> {
    const MAX: u64 = 1 << 31;
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| Duration::from_secs(digits.parse().unwrap_or(MAX).min(MAX)))
}

/// What it can be purged by, each once: `Cache-Tag` parts its tags by commas, `Surrogate-Key` by spaces. Those beyond the bounds are left out, and not
/// shortened, since a part of a tag is another one.
fn tags(key: &str, headers: &HeaderMap) -> Vec<String> {
    let lines = |name: &'static str| headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let named = lines("cache-tag").flat_map(|line| line.split(',')).map(str::trim);
    let named = named.chain(lines("surrogate-key").flat_map(str::split_ascii_whitespace));
    let (mut tags, mut bytes, mut left_out) = (Vec::<String>::new(), 0, 0);
    for tag in named.filter(|tag| !tag.is_empty()) {
        if tags.iter().any(|known| known == tag) {
            continue;
        }
        if tags.len() == TAGS_MAX || tag.len() > TAGS_BYTES_MAX - bytes {
            left_out += 1;
            continue;
        }
        bytes += tag.len();
        tags.push(tag.to_owned());
    }
    if left_out > 0 {
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::warn!(
                key,
                left_out,
                "an object has more than {TAGS_MAX} tags or {TAGS_BYTES_MAX} bytes of them: the rest purges nothing; this is said once"
            );
        });
    }
    tags
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn generation(validator: &str, length: u64) -> Generation {
        Generation {
            validator: validator.into(),
            length,
            headers: Vec::new(),
            fresh_for: FRESH_FOR_DEFAULT,
            initial_age: Duration::ZERO,
            tags: Vec::new(),
        }
    }

    /// The second slice of 100 bytes of an object.
    fn want(generation: Option<Generation>, revalidate: bool) -> Want {
        Want { key: "/a".into(), range: 100..200, generation: generation.map(Arc::new), revalidate, attempt: 0 }
    }

    fn answer(want: &Want, status: u16, lines: &[(&'static str, &str)]) -> Result<Answered, FillError> {
        let headers = lines.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect();
        judge(want, StatusCode::from_u16(status).unwrap(), &headers)
    }

    const ETAG: (&str, &str) = ("etag", "\"v1\"");

    #[test]
    fn a_part_is_believed_only_if_it_is_the_one_that_was_asked_for() {
        let cold = want(None, false);
        let part = |content_range| answer(&cold, 206, &[ETAG, ("content-range", content_range)]);
        assert_eq!(part("bytes 100-199/1000"), Ok(Answered::Bytes(generation("\"v1\"", 1000), 100)));
        assert_eq!(part("bytes 100-149/150"), Ok(Answered::Bytes(generation("\"v1\"", 150), 50)), "the last slice is shorter");
        for lie in [
            "bytes 0-99/1000",
            "bytes 100-198/1000",
            "bytes 100-200/1000",
            "bytes 101-200/1000",
            "bytes 100-199/150",
            "bytes 100-99/100",
            "bytes 100-18446744073709551615/1000",
            "bytes 100-199/18446744073709551615",
            "bytes 100-199/*",
            "bytes */1000",
            "items 100-199/1000",
            "100-199/1000",
        ] {
            assert!(matches!(part(lie), Err(FillError::Refused(_))), "{lie}");
        }
        let wrong_length = [ETAG, ("content-range", "bytes 100-199/1000"), ("content-length", "99")];
        assert!(matches!(answer(&cold, 206, &wrong_length), Err(FillError::Refused(_))));
        for etag in [None, Some("W/\"v1\""), Some("v1"), Some("\"a\"b\""), Some("\"")] {
            let etag = etag.map(|etag| ("etag", etag));
            let lines: Vec<_> = etag.into_iter().chain([("content-range", "bytes 100-199/1000")]).collect();
            assert!(matches!(answer(&cold, 206, &lines), Err(FillError::Refused(_))), "{etag:?}");
        }
    }

    #[test]
    fn another_version_than_the_wanted_one_is_a_change() {
        let warm = want(Some(generation("\"v1\"", 1000)), false);
        let part = |etag, range| answer(&warm, 206, &[("etag", etag), ("content-range", range)]);
        assert!(part("\"v1\"", "bytes 100-199/1000").is_ok());
        assert_eq!(part("\"v2\"", "bytes 100-199/1000"), Err(FillError::Changed));
        assert_eq!(part("\"v1\"", "bytes 100-199/1001"), Err(FillError::Changed));
        assert_eq!(answer(&warm, 412, &[]), Err(FillError::Changed));
        assert_eq!(answer(&warm, 416, &[("content-range", "bytes */50")]), Err(FillError::Changed));
        assert!(matches!(answer(&warm, 416, &[("content-range", "bytes */1000")]), Err(FillError::Refused(_))));
        assert!(matches!(answer(&warm, 304, &[]), Err(FillError::Refused(_))), "nobody asked whether it changed");
    }

    #[test]
    fn a_revalidation_takes_the_old_version_or_a_new_one() {
        let stale = want(Some(generation("\"v1\"", 1000)), true);
        assert_eq!(answer(&stale, 304, &[]), Ok(Answered::Unchanged));
        assert_eq!(answer(&stale, 304, &[ETAG]), Ok(Answered::Unchanged));
        assert!(matches!(answer(&stale, 304, &[("etag", "\"v2\"")]), Err(FillError::Refused(_))));
        let new = [("etag", "\"v2\""), ("content-range", "bytes 100-199/300")];
        assert_eq!(answer(&stale, 206, &new), Ok(Answered::Bytes(generation("\"v2\"", 300), 100)));
        assert_eq!(answer(&stale, 416, &[("content-range", "bytes */50")]), Err(FillError::OutOfRange));
    }

    #[test]
    fn all_of_an_object_is_taken_where_all_of_it_is_the_slice() {
        let first = Want { range: 0..100, ..want(None, false) };
        let all = |length| answer(&first, 200, &[ETAG, ("content-length", length)]);
        assert_eq!(all("100"), Ok(Answered::Bytes(generation("\"v1\"", 100), 100)));
        assert_eq!(all("0"), Ok(Answered::Bytes(generation("\"v1\"", 0), 0)));
        assert!(matches!(all("101"), Err(FillError::Refused(_))));
        assert!(matches!(all("-1"), Err(FillError::Refused(_))));
        assert!(matches!(answer(&first, 200, &[ETAG]), Err(FillError::Refused(_))), "without a length");
        assert!(matches!(answer(&want(None, false), 200, &[ETAG, ("content-length", "150")]), Err(FillError::Refused(_))));
        assert_eq!(answer(&first, 416, &[("content-range", "bytes */0")]), Ok(Answered::Empty));
        assert_eq!(answer(&first, 416, &[]), Ok(Answered::Empty));
        assert!(matches!(answer(&first, 416, &[("content-range", "bytes */5")]), Err(FillError::Refused(_))));
        assert_eq!(answer(&want(None, false), 416, &[("content-range", "bytes */50")]), Err(FillError::OutOfRange));
    }

    #[test]
    fn each_refusal_says_who_should_do_what() {
        let cold = want(None, false);
        assert_eq!(answer(&cold, 404, &[]), Err(FillError::NotFound));
        assert_eq!(answer(&cold, 503, &[]), Err(FillError::Unavailable("the origin answered 503 Service Unavailable".into())));
        let told = |status| answer(&cold, status, &[]).unwrap_err().to_string();
        assert!(told(401).ends_with("it does not accept our secret (401 Unauthorized); see origin.token_file"), "{}", told(401));
        assert!(told(500).ends_with("it answered 500 Internal Server Error"));
        assert!(told(302).ends_with("it answered 302 Found"));
        assert!(told(412).ends_with("it answered 412 Precondition Failed"), "no condition was made");
    }

    fn lines(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn freshness_and_age_are_what_the_origin_says() {
        for (said, fresh_s, age_s) in [
            (&[][..], 60, 0),
            (&[("cache-control", "public, max-age=31536000, immutable")], 31_536_000, 0),
            (&[("cache-control", "max-age=10, S-MaxAge=\"20\"")], 20, 0),
            (&[("cache-control", "max-age=100"), ("age", "30")], 100, 30),
            (&[("cache-control", "max-age=100"), ("age", "300")], 100, 300),
            (&[("cache-control", "max-age=100, no-cache")], 0, 0),
            (&[("cache-control", "no-store")], 0, 0),
            (&[("cache-control", "max-age=soon"), ("age", "old")], 60, 0),
            (&[("cache-control", "max-age="), ("age", "-1")], 60, 0),
            (&[("age", "7, 9")], 60, 7),
            (&[("cache-control", "max-age=99999999999999999999"), ("age", "99999999999")], 1 << 31, 1 << 31),
        ] {
            let headers = lines(said);
            let seconds = (fresh_for(&headers).as_secs(), initial_age(&headers).as_secs());
            assert_eq!(seconds, (fresh_s, age_s), "{said:?}");
        }
        let told = answer(&want(None, false), 206, &[ETAG, ("content-range", "bytes 100-199/1000"), ("age", "5")]).unwrap();
        let Answered::Bytes(generation, _) = told else { panic!("{told:?}") };
        assert_eq!(generation.initial_age, Duration::from_secs(5));
    }

    #[test]
    fn tags_are_read_from_both_headers_and_bounded() {
        let both = [("cache-tag", "film, 2026 ,,film"), ("cache-tag", "a b"), ("surrogate-key", "film  site-1")];
        assert_eq!(tags("/a", &lines(&both)), ["film", "2026", "a b", "site-1"]);
        let many = (0..40).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let kept = tags("/a", &lines(&[("cache-tag", &many)]));
        assert_eq!((kept.len(), kept.last().map(String::as_str)), (TAGS_MAX, Some("31")));
        let long = format!("{} short {}", "x".repeat(TAGS_BYTES_MAX - 5), "y".repeat(TAGS_BYTES_MAX));
        let kept = tags("/a", &lines(&[("surrogate-key", &long)]));
        assert_eq!(kept.len(), 2, "what fits is kept whole, and what does not is left out");
        assert_eq!(kept[1], "short");
        let told = answer(&want(None, false), 206, &[ETAG, ("content-range", "bytes 100-199/1000"), ("cache-tag", "t")]).unwrap();
        let Answered::Bytes(generation, _) = told else { panic!("{told:?}") };
        assert_eq!((generation.tags, generation.headers), (vec!["t".to_owned()], Vec::new()), "players do not get to see it");
    }
}
