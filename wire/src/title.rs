//! A title as the origin publishes it and control catalogues it: what it is, its renditions, and every object with size and digest.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};

use crate::object::{Digest, ObjectPath};

/// Names a title in the catalogue: 1 to 64 of `a-z 0-9 -`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TitleId(String);

impl TitleId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `id` may name a title.
    pub fn is_valid(id: &str) -> bool {
        let safe = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=64).contains(&id.len()) && !id.starts_with('-') && id.bytes().all(safe)
    }
}

impl FromStr for TitleId {
    type Err = TitleIdError;

    fn from_str(id: &str) -> Result<Self, TitleIdError> {
        if Self::is_valid(id) { Ok(Self(id.to_owned())) } else { Err(TitleIdError) }
    }
}

impl fmt::Display for TitleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TitleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TitleId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Not a title's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a title's id is 1 to 64 of a-z, 0-9 and -, and does not begin with -")]
pub struct TitleIdError;

/// A published title. Everything in it is immutable: other bytes are another `root`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Title {
    /// The catalogue's name for it.
    pub id: TitleId,
    /// What viewers read.
    pub title: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub cast: Vec<String>,
    /// The age rating, as the service writes it ("PG-13", "FSK 12").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rating: Option<String>,
    /// As the service names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub genres: Vec<String>,
    /// When it came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub year: Option<u16>,
    /// Of the original: a language tag (BCP 47).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TitleKind>,
    pub duration_ms: u64,
    /// The folder of all its objects, `/titles/<content digest>`; the other paths here are relative to it.
    pub root: ObjectPath,
    /// SHA-256 of the source file: the same source is the same title.
    pub fingerprint: Digest,
    /// The HLS multivariant playlist.
    pub hls: String,
    /// The DASH manifest.
    pub dash: String,
    /// The poster picture.
    pub poster: String,
    /// The storyboard (WebVTT that points into a sprite).
    pub storyboard: String,
    /// Video renditions, best first, then audio renditions.
    pub renditions: Vec<Rendition>,
    /// Every object of the title, renditions' segments included, sorted by path.
    pub objects: Vec<TitleObject>,
}

/// What a title is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TitleKind {
    /// Whole by itself, and long.
    Film,
    /// One of a series.
    Episode,
    /// Whole by itself, and not long.
    Short,
    /// A concert, a match, a show that is not one of a series.
    Special,
    /// What makes one curious about another title.
    Trailer,
    /// A piece of another title, or about it.
    Clip,
}

impl TitleKind {
    /// All there are.
    pub const ALL: [Self; 6] = [Self::Film, Self::Episode, Self::Short, Self::Special, Self::Trailer, Self::Clip];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Film => "film",
            Self::Episode => "episode",
            Self::Short => "short",
            Self::Special => "special",
            Self::Trailer => "trailer",
            Self::Clip => "clip",
        }
    }
}

impl fmt::Display for TitleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TitleKind {
    type Err = TitleKindError;

    fn from_str(kind: &str) -> Result<Self, TitleKindError> {
        Self::ALL.into_iter().find(|known| known.as_str() == kind).ok_or(TitleKindError)
    }
}

/// Not a kind of title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a title's kind is film, episode, short, special, trailer or clip")]
pub struct TitleKindError;

/// When a title can have come out: from the first moving pictures to what may be announced.
pub const YEARS: RangeInclusive<u16> = 1870..=2200;

/// RFC 5646, section 4.4.1: 35 characters hold any tag but private ones.
const LANGUAGE_TAG_CHARS_MAX: usize = 35;

/// Whether `tag` has the shape of a language tag: a language of two to eight letters, and subtags of one to eight letters or digits
/// (RFC 5646, section 2.1). Whether it is registered is not asked.
pub fn is_language_tag(tag: &str) -> bool {
    let mut subtags = tag.split('-');
    let language = subtags.next().unwrap_or_default();
    let is =
        |subtag: &str, least: usize, of: fn(&u8) -> bool| (least..=8).contains(&subtag.len()) && subtag.as_bytes().iter().all(of);
    tag.len() <= LANGUAGE_TAG_CHARS_MAX
        && is(language, 2, u8::is_ascii_alphabetic)
        && subtags.all(|subtag| is(subtag, 1, u8::is_ascii_alphanumeric))
}

/// One object of a title.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TitleObject {
    /// Relative to the title's root.
    pub path: String,
    pub bytes: u64,
    pub digest: Digest,
    pub content_type: String,
}

/// One codec × resolution × bitrate of a title, or one audio track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rendition {
    /// "v720", "a1": unique in the title, and the folder of its segments.
    pub id: String,
    #[serde(flatten)]
    pub media: Media,
    /// RFC 6381: "avc1.64001f", "mp4a.40.2".
    pub codecs: String,
    /// Peak bits per second of any segment.
    pub bits_per_second_peak: u64,
    /// Mean bits per second over the title.
    pub bits_per_second_mean: u64,
    /// The HLS media playlist, relative to the root.
    pub playlist: String,
    /// The initialisation segment, relative to the root.
    pub init: String,
    /// The media segments in play order.
    pub segments: Vec<Segment>,
}

/// What a rendition carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub enum Media {
    /// Pixels, and frames per second.
    Video { width: u32, height: u32, frame_rate: f64 },
    /// Channels, samples per second, and the BCP 47 language ("und" when unknown).
    Audio { channels: u32, sample_rate: u32, language: String },
}

/// A few seconds of a rendition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Segment {
    /// Relative to the title's root.
    pub path: String,
    pub start_ms: u64,
    pub duration_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it was published before titles had genres, a year, a language and a kind.
    const EARLIER: &str = r#"{"id":"demo","title":"Demo","description":"","cast":[],"durationMs":1000,
        "root":"/titles/2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        "fingerprint":"2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        "hls":"master.m3u8","dash":"manifest.mpd","poster":"poster.jpg","storyboard":"storyboard.vtt","renditions":[],"objects":[]}"#;

    #[test]
    fn what_was_published_earlier_is_read_and_written_as_it_was() {
        let title: Title = serde_json::from_str(EARLIER).unwrap();
        assert_eq!((title.genres.len(), title.year, &title.language, title.kind), (0, None, &None, None));
        let earlier: serde_json::Value = serde_json::from_str(EARLIER).unwrap();
        assert_eq!(serde_json::to_value(&title).unwrap(), earlier);
        let later = Title { genres: vec!["Drama".into()], year: Some(1999), kind: Some(TitleKind::Episode), ..title };
        assert_eq!(serde_json::from_str::<Title>(&serde_json::to_string(&later).unwrap()).unwrap(), later);
    }

    #[test]
    fn language_tags_have_their_shape() {
        for good in ["en", "pt-BR", "zh-Hant-TW", "de-CH-1901", "sl-rozaj-biske", "tlh"] {
            assert!(is_language_tag(good), "{good}");
        }
        for bad in ["", "e", "en-", "-en", "en_GB", "en GB", "english-language-of-the-people-1234567", "überlang", "123"] {
            assert!(!is_language_tag(bad), "{bad}");
        }
    }

    #[test]
    fn kinds_are_written_and_read_alike() {
        for kind in TitleKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("Film".parse::<TitleKind>(), Err(TitleKindError));
    }
}
