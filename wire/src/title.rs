//! A title as the origin publishes it and control catalogues it: what it is, its renditions, and every object with size and digest.

use std::{fmt, str::FromStr};

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
}

impl FromStr for TitleId {
    type Err = TitleIdError;

    fn from_str(id: &str) -> Result<Self, TitleIdError> {
        let safe = id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if id.is_empty() || id.len() > 64 || id.starts_with('-') || !safe {
            return Err(TitleIdError);
        }
        Ok(Self(id.to_owned()))
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
