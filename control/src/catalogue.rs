//! Titles: what may be catalogued, what is kept of it, and how lists of it are paged.
//!
//! Knows no HTTP and no SQL. A title comes from an operator, but is checked like anyone's: whatever is catalogued has
//! valid paths below its root, and every file that it mentions is among its objects.

use std::{collections::HashSet, fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::{
    object::{Digest, ObjectPath},
    title::{Media, Rendition, Title, TitleId, TitleKind, YEARS, is_language_tag},
};

const TITLE_CHARS_MAX: usize = 300;
const DESCRIPTION_CHARS_MAX: usize = 10_000;
const CAST_MAX: usize = 200;
const RATING_CHARS_MAX: usize = 32;
const GENRES_MAX: usize = 16;
const GENRE_CHARS_MAX: usize = 64;
/// The longest name of a player, codec string or content type.
const WORD_CHARS_MAX: usize = 200;
const RENDITIONS_MAX: usize = 64;
const OBJECTS_MAX: usize = 200_000;
/// A hundred days, so that times in milliseconds fit every integer on their way.
const DURATION_MS_MAX: u64 = 100 * 86_400_000;
/// What JSON numbers carry exactly (RFC 8259 §6).
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// What lists show of a title.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Summary {
    pub(crate) id: TitleId,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) cast: Vec<String>,
    pub(crate) rating: Option<String>,
    pub(crate) genres: Vec<String>,
    pub(crate) year: Option<u16>,
    pub(crate) language: Option<String>,
    pub(crate) kind: Option<TitleKind>,
    pub(crate) duration_ms: u64,
    /// When it was first catalogued, in milliseconds since 1970.
    pub(crate) created_at_ms: u64,
    /// Another whenever anything else here but the duration is: what search compares its index by.
    pub(crate) stamp: u64,
}

/// What is said of a title, and may be said anew without publishing it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Metadata {
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) cast: Vec<String>,
    pub(crate) rating: Option<String>,
    #[serde(default)]
    pub(crate) genres: Vec<String>,
    pub(crate) year: Option<u16>,
    pub(crate) language: Option<String>,
    pub(crate) kind: Option<TitleKind>,
}

impl Metadata {
    /// What a title that is published says of itself.
    pub(crate) fn of(title: &Title) -> Self {
        Self {
            title: title.title.clone(),
            description: title.description.clone(),
            cast: title.cast.clone(),
            rating: title.rating.clone(),
            genres: title.genres.clone(),
            year: title.year,
            language: title.language.clone(),
            kind: title.kind,
        }
    }

    /// What is catalogued.
    pub(crate) fn catalogued(summary: &Summary) -> Self {
        Self {
            title: summary.title.clone(),
            description: summary.description.clone(),
            cast: summary.cast.clone(),
            rating: summary.rating.clone(),
            genres: summary.genres.clone(),
            year: summary.year,
            language: summary.language.clone(),
            kind: summary.kind,
        }
    }

    /// These words with `patch` applied (RFC 7396): members that are null there are as if they had never been said.
    pub(crate) fn patched(&self, patch: &Value) -> Result<Self, Flaw> {
        let mut words = serde_json::to_value(self).expect("text and numbers always become JSON");
        merge(&mut words, patch);
        let patched: Self = serde_json::from_value(words).or_else(|error| flaw("", error.to_string()))?;
        patched.check()?;
        Ok(patched)
    }

    fn check(&self) -> Result<(), Flaw> {
        line("/title", &self.title, TITLE_CHARS_MAX)?;
        if self.description.chars().count() > DESCRIPTION_CHARS_MAX {
            return flaw("/description", format!("it is longer than {DESCRIPTION_CHARS_MAX} characters"));
        }
        lines("/cast", &self.cast, CAST_MAX, WORD_CHARS_MAX)?;
        if let Some(rating) = &self.rating {
            line("/rating", rating, RATING_CHARS_MAX)?;
        }
        lines("/genres", &self.genres, GENRES_MAX, GENRE_CHARS_MAX)?;
        if self.year.is_some_and(|year| !YEARS.contains(&year)) {
            return flaw("/year", format!("it must be from {} to {}", YEARS.start(), YEARS.end()));
        }
        match &self.language {
            Some(tag) if !is_language_tag(tag) => {
                flaw("/language", "it is not a language tag such as \"en\" or \"pt-BR\" (BCP 47)")
            }
            _ => Ok(()),
        }
    }

    /// The stamp of a title that says this and was catalogued then: 63 bits of the digest.
    pub(crate) fn stamp(&self, created_at_ms: u64) -> u64 {
        let words = serde_json::to_vec(&(self, created_at_ms)).expect("text and numbers always become JSON");
        let digest = Digest::of(&words).to_string();
        u64::from_str_radix(&digest[..16], 16).expect("hexadecimal digits") >> 1
    }
}

/// RFC 7396, section 2: "If the provided merge patch contains members that do not appear within the target, those members are
/// added. If the target does contain the member, the value is replaced. Null values in the merge patch are given special meaning
/// to indicate the removal of existing values in the target."
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let object = target.as_object_mut().expect("it was just made one");
    for (name, value) in members {
        if value.is_null() {
            object.remove(name);
        } else {
            merge(object.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// A catalogued title without its segments and objects, which are looked up one by one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) summary: Summary,
    pub(crate) root: ObjectPath,
    pub(crate) hls: String,
    pub(crate) dash: String,
    pub(crate) poster: String,
    pub(crate) storyboard: String,
    /// As published, with `segments` empty.
    pub(crate) renditions: Vec<Rendition>,
}

impl Entry {
    /// About how many bytes it takes in memory.
    pub(crate) fn weight(&self) -> usize {
        let Summary { title, description, cast, genres, .. } = &self.summary;
        let names = cast.iter().chain(genres).map(|name| name.len() + size_of::<String>()).sum::<usize>();
        let texts = title.len() + description.len() + names;
        let paths = self.hls.len() + self.dash.len() + self.poster.len() + self.storyboard.len() + self.root.as_str().len();
        let rendition = |rendition: &Rendition| {
            let texts = [&rendition.id, &rendition.codecs, &rendition.playlist, &rendition.init];
            size_of::<Rendition>() + texts.iter().map(|text| text.len()).sum::<usize>()
        };
        size_of::<Self>() + texts + paths + self.renditions.iter().map(rendition).sum::<usize>()
    }
}

/// Where a list goes on: after this title, newest first. Titles that come or go meanwhile shift nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) created_at_ms: u64,
    pub(crate) id: TitleId,
}

impl Cursor {
    /// The cursor that goes on after `last`.
    pub(crate) fn after(last: &Summary) -> Self {
        Self { created_at_ms: last.created_at_ms, id: last.id.clone() }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(format!("{}.{}", self.created_at_ms, self.id)))
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NotACursor)?;
        let (created_at_ms, id) = str::from_utf8(&bytes).ok().and_then(|text| text.split_once('.')).ok_or(NotACursor)?;
        let created_at_ms = created_at_ms.parse().ok().filter(|ms| *ms <= NUMBER_MAX).ok_or(NotACursor)?;
        Ok(Self { created_at_ms, id: id.parse().map_err(|_| NotACursor)? })
    }
}

/// Not a cursor that a list gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a cursor that this list gave; take the last answer's nextCursor as it is, or begin without one")]
pub(crate) struct NotACursor;

/// What is wrong with a title, and where in its JSON (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {detail}")]
pub(crate) struct Flaw {
    pub(crate) pointer: String,
    pub(crate) detail: String,
}

fn flaw<T>(pointer: impl Into<String>, detail: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw { pointer: pointer.into(), detail: detail.into() })
}

/// Checks a title that is to be catalogued as `id`.
pub(crate) fn check(title: &Title, id: &TitleId) -> Result<(), Flaw> {
    if title.id != *id {
        return flaw("/id", format!("it says {:?}, the address says {:?}", title.id.as_str(), id.as_str()));
    }
    Metadata::of(title).check()?;
    if !(1..=DURATION_MS_MAX).contains(&title.duration_ms) {
        return flaw("/durationMs", format!("it must be from 1 to {DURATION_MS_MAX}"));
    }
    let objects = objects(title)?;
    let known = |pointer: &str, path: &str| match objects.contains(path) {
        true => Ok(()),
        false => flaw(pointer, format!("{path:?} is not among the title's objects")),
    };
    known("/hls", &title.hls)?;
    known("/dash", &title.dash)?;
    known("/poster", &title.poster)?;
    known("/storyboard", &title.storyboard)?;
    renditions(title, known)
}

/// A line of text for people: something, not too much, no control characters.
fn line(pointer: impl Into<String>, text: &str, chars_max: usize) -> Result<(), Flaw> {
    if text.trim().is_empty() {
        return flaw(pointer, "it is empty");
    }
    if text.chars().count() > chars_max {
        return flaw(pointer, format!("it is longer than {chars_max} characters"));
    }
    if text.chars().any(char::is_control) {
        return flaw(pointer, "it has a control character");
    }
    Ok(())
}

/// A list of such lines.
fn lines(pointer: &str, texts: &[String], most: usize, chars_max: usize) -> Result<(), Flaw> {
    if texts.len() > most {
        return flaw(pointer, format!("it has more than {most} entries"));
    }
    texts.iter().enumerate().try_for_each(|(n, text)| line(format!("{pointer}/{n}"), text, chars_max))
}

/// The paths of a title's objects, each checked.
fn objects(title: &Title) -> Result<HashSet<&str>, Flaw> {
    if title.objects.len() > OBJECTS_MAX {
        return flaw("/objects", format!("it has more than {OBJECTS_MAX} objects"));
    }
    let mut paths = HashSet::with_capacity(title.objects.len());
    for (n, object) in title.objects.iter().enumerate() {
        if let Err(error) = title.root.join(&object.path) {
            return flaw(format!("/objects/{n}/path"), error.to_string());
        }
        if !paths.insert(object.path.as_str()) {
            return flaw(format!("/objects/{n}/path"), format!("{:?} is there twice", object.path));
        }
        if object.bytes > NUMBER_MAX {
            return flaw(format!("/objects/{n}/bytes"), format!("it is larger than {NUMBER_MAX}"));
        }
        line(format!("/objects/{n}/contentType"), &object.content_type, WORD_CHARS_MAX)?;
    }
    Ok(paths)
}

fn renditions(title: &Title, known: impl Fn(&str, &str) -> Result<(), Flaw>) -> Result<(), Flaw> {
    if title.renditions.len() > RENDITIONS_MAX {
        return flaw("/renditions", format!("it has more than {RENDITIONS_MAX} renditions"));
    }
    if !title.renditions.iter().any(|rendition| matches!(rendition.media, Media::Video { .. })) {
        return flaw("/renditions", "none of them is video");
    }
    let mut ids = HashSet::new();
    for (n, rendition) in title.renditions.iter().enumerate() {
        let at = format!("/renditions/{n}");
        line(format!("{at}/id"), &rendition.id, WORD_CHARS_MAX)?;
        if !ids.insert(&rendition.id) {
            return flaw(format!("{at}/id"), format!("{:?} is there twice", rendition.id));
        }
        line(format!("{at}/codecs"), &rendition.codecs, WORD_CHARS_MAX)?;
        known(&format!("{at}/playlist"), &rendition.playlist)?;
        known(&format!("{at}/init"), &rendition.init)?;
        if rendition.segments.is_empty() {
            return flaw(format!("{at}/segments"), "there is none");
        }
        let mut start_ms_min = 0;
        for (m, segment) in rendition.segments.iter().enumerate() {
            let at = format!("{at}/segments/{m}");
            known(&format!("{at}/path"), &segment.path)?;
            if !(start_ms_min..=DURATION_MS_MAX).contains(&segment.start_ms) {
                return flaw(format!("{at}/startMs"), "segments must stand in play order, each beginning after the one before");
            }
            if !(1..=DURATION_MS_MAX).contains(&segment.duration_ms) {
                return flaw(format!("{at}/durationMs"), format!("it must be from 1 to {DURATION_MS_MAX}"));
            }
            start_ms_min = segment.start_ms + 1;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use wire::{
        object::Digest,
        title::{Segment, TitleObject},
    };

    use super::*;

    /// What lists show of such a title.
    pub(crate) fn summary(id: &str) -> Summary {
        let Title { id, title, description, cast, rating, genres, year, language, kind, duration_ms, .. } = title(id);
        Summary { id, title, description, cast, rating, genres, year, language, kind, duration_ms, created_at_ms: 0, stamp: 0 }
    }

    /// A small title: two video renditions and one of audio, three segments each.
    pub(crate) fn title(id: &str) -> Title {
        let rendition = |id: &str, media, codecs: &str, bits_per_second_peak| Rendition {
            id: id.into(),
            media,
            codecs: codecs.into(),
            bits_per_second_peak,
            bits_per_second_mean: bits_per_second_peak / 2,
            playlist: format!("{id}/playlist.m3u8"),
            init: format!("{id}/init.mp4"),
            segments: (0..3)
                .map(|n| Segment { path: format!("{id}/{:05}.m4s", n + 1), start_ms: n * 4000, duration_ms: 4000 })
                .collect(),
        };
        let video = |width, height| Media::Video { width, height, frame_rate: 25.0 };
        let renditions = vec![
            rendition("v720", video(1280, 720), "avc1.64001f", 3_000_000),
            rendition("v360", video(640, 360), "avc1.64001e", 800_000),
            rendition("a1", Media::Audio { channels: 2, sample_rate: 48_000, language: "und".into() }, "mp4a.40.2", 128_000),
        ];
        let mut paths: Vec<String> =
            ["master.m3u8", "manifest.mpd", "poster.jpg", "storyboard.vtt", "storyboard.jpg"].map(String::from).into();
        for rendition in &renditions {
            paths.extend([rendition.playlist.clone(), rendition.init.clone()]);
            paths.extend(rendition.segments.iter().map(|segment| segment.path.clone()));
        }
        paths.sort();
        let object =
            |path: String| TitleObject { bytes: 10, digest: Digest::of(path.as_bytes()), content_type: "video/mp4".into(), path };
        Title {
            id: id.parse().unwrap(),
            title: format!("The Title {id}"),
            description: "About nothing.".into(),
            cast: vec!["Änne Somebody".into()],
            rating: Some("PG-13".into()),
            genres: vec!["Drama".into()],
            year: Some(1999),
            language: Some("en".into()),
            kind: Some(TitleKind::Film),
            duration_ms: 12_000,
            root: ObjectPath::new(format!("/titles/{}", Digest::of(id.as_bytes()))).unwrap(),
            fingerprint: Digest::of(format!("source of {id}").as_bytes()),
            hls: "master.m3u8".into(),
            dash: "manifest.mpd".into(),
            poster: "poster.jpg".into(),
            storyboard: "storyboard.vtt".into(),
            renditions,
            objects: paths.into_iter().map(object).collect(),
        }
    }

    #[test]
    fn a_flawed_title_is_refused_with_the_place_of_its_flaw() {
        let id = "demo".parse().unwrap();
        assert_eq!(check(&title("demo"), &id), Ok(()));
        type Spoil = fn(&mut Title);
        let cases: [(&str, Spoil); 28] = [
            ("/id", |t| t.id = "other".parse().unwrap()),
            ("/title", |t| t.title = " ".into()),
            ("/title", |t| t.title = "x".repeat(TITLE_CHARS_MAX + 1)),
            ("/title", |t| t.title = "a\u{0}".into()),
            ("/description", |t| t.description = "x".repeat(DESCRIPTION_CHARS_MAX + 1)),
            ("/cast", |t| t.cast = vec!["x".into(); CAST_MAX + 1]),
            ("/cast/1", |t| t.cast.push(String::new())),
            ("/rating", |t| t.rating = Some(String::new())),
            ("/genres", |t| t.genres = vec!["x".into(); GENRES_MAX + 1]),
            ("/genres/1", |t| t.genres.push("x".repeat(GENRE_CHARS_MAX + 1))),
            ("/year", |t| t.year = Some(1869)),
            ("/language", |t| t.language = Some("e".into())),
            ("/language", |t| t.language = Some("en_GB".into())),
            ("/language", |t| t.language = Some(format!("en{}", "-abc".repeat(10)))),
            ("/durationMs", |t| t.duration_ms = 0),
            ("/durationMs", |t| t.duration_ms = u64::MAX),
            ("/hls", |t| t.hls = "missing.m3u8".into()),
            ("/poster", |t| t.poster = "../../etc/passwd".into()),
            ("/objects/0/path", |t| t.objects[0].path = "../x".into()),
            ("/objects/1/path", |t| t.objects[1].path = t.objects[0].path.clone()),
            ("/objects/0/bytes", |t| t.objects[0].bytes = u64::MAX),
            ("/renditions", |t| t.renditions.drain(..2).for_each(drop)),
            ("/renditions/1/id", |t| t.renditions[1].id = "v720".into()),
            ("/renditions/0/init", |t| t.renditions[0].init = "x".into()),
            ("/renditions/2/segments", |t| t.renditions[2].segments.clear()),
            ("/renditions/0/segments/2/path", |t| t.renditions[0].segments[2].path = "x".into()),
            ("/renditions/0/segments/2/startMs", |t| t.renditions[0].segments[2].start_ms = 4000),
            ("/renditions/0/segments/0/durationMs", |t| t.renditions[0].segments[0].duration_ms = 0),
        ];
        for (pointer, spoil) in cases {
            let mut title = title("demo");
            spoil(&mut title);
            assert_eq!(check(&title, &id).map_err(|flaw| flaw.pointer), Err(pointer.to_owned()));
        }
    }

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let words = Metadata::of(&title("demo"));
        let patched = |patch: &str| words.patched(&serde_json::from_str(patch).unwrap());
        assert_eq!(patched("{}"), Ok(words.clone()));
        assert_eq!(
            patched(r#"{"title": "Other", "year": 2001, "rating": null, "genres": ["A", "B"], "description": null}"#),
            Ok(Metadata {
                title: "Other".into(),
                year: Some(2001),
                rating: None,
                genres: vec!["A".into(), "B".into()],
                description: String::new(),
                ..words.clone()
            })
        );
        for (bad, pointer) in [
            (r#"{"title": null}"#, ""),
            (r#"{"title": ""}"#, "/title"),
            (r#"{"unknown": 1}"#, ""),
            (r#"{"durationMs": 1}"#, ""),
            (r#"{"year": "x"}"#, ""),
            (r#"{"kind": "poem"}"#, ""),
            (r#"{"cast": [""]}"#, "/cast/0"),
            ("[]", ""),
            ("null", ""),
        ] {
            assert_eq!(patched(bad).map_err(|flaw| flaw.pointer), Err(pointer.to_owned()), "{bad}");
        }
    }

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn patches_are_merged_as_the_rfc_has_it() {
        for (original, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            let [mut target, patch, result] = [original, patch, result].map(|json| serde_json::from_str::<Value>(json).unwrap());
            merge(&mut target, &patch);
            assert_eq!(target, result, "{original} with {patch}");
        }
    }

    #[test]
    fn a_stamp_is_another_when_anything_is() {
        let words = Metadata::of(&title("demo"));
        let stamp = words.stamp(1);
        assert_eq!(stamp, words.clone().stamp(1));
        assert!(stamp <= i64::MAX as u64, "it fits every integer on its way");
        let others = [
            words.stamp(2),
            Metadata { title: "x".into(), ..words.clone() }.stamp(1),
            Metadata { cast: vec![], ..words.clone() }.stamp(1),
            Metadata { kind: None, ..words.clone() }.stamp(1),
            Metadata { year: None, ..words }.stamp(1),
        ];
        assert!(others.iter().all(|other| *other != stamp));
    }

    #[test]
    fn cursors_come_back_as_they_went_and_forged_ones_do_not() {
        let cursor = Cursor { created_at_ms: 1_700_000_000_123, id: "demo".parse().unwrap() };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        let forged = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text).parse::<Cursor>();
        for bad in ["", "1", "x.demo", "1.", "1.UPPER", "-1.demo", "99999999999999999999.demo", "18446744073709551615.demo"] {
            assert_eq!(forged(bad), Err(NotACursor), "{bad}");
        }
        assert_eq!("not base64!".parse::<Cursor>(), Err(NotACursor));
    }
}
