//! What a player gets: which rendition suits it, and URLs that one token opens.
//!
//! The token stands in the path before the title's root, so every relative URL in a playlist inherits it, and one
//! signature serves a whole answer.

use std::{str::FromStr, time::Duration};

use wire::{
    object::{ObjectPath, PathError},
    title::{Media, Rendition},
    token::{self, Claims, SignError, SigningKey},
};

/// Signs passes to titles.
pub(crate) struct Signer {
    key: SigningKey,
    issuer: String,
    lifetime: Duration,
}

impl Signer {
    pub(crate) fn new(key: SigningKey, issuer: String, lifetime: Duration) -> Self {
        Self { key, issuer, lifetime }
    }

    /// A pass to everything below `root`, good for the configured lifetime from `now_unix_s` on.
    pub(crate) fn pass<'a>(&self, root: &'a ObjectPath, now_unix_s: u64) -> Result<Pass<'a>, SignError> {
        self.pass_until(root, now_unix_s.saturating_add(self.lifetime.as_secs()))
    }

    /// A pass to everything below `root` that is good until then.
    pub(crate) fn pass_until<'a>(&self, root: &'a ObjectPath, expires_unix_s: u64) -> Result<Pass<'a>, SignError> {
        let claims = Claims { iss: Some(self.issuer.clone()), ..Claims::for_tree(root, expires_unix_s) };
        Ok(Pass { token: token::sign(&self.key, &claims)?, root, expires_unix_s })
    }
}

/// One token and the title that it opens.
pub(crate) struct Pass<'a> {
    token: String,
    root: &'a ObjectPath,
    pub(crate) expires_unix_s: u64,
}

impl Pass<'_> {
    /// The URL of the title's file `path` at the edge reached by `base`.
    pub(crate) fn url(&self, base: &str, path: &str) -> Result<String, PathError> {
        Ok(token::in_path(base, &self.token, &self.root.join(path)?))
    }

    /// The URL of the title's folder there, with a slash at its end: relative addresses lead to its files.
    pub(crate) fn folder(&self, base: &str) -> String {
        format!("{}/", token::in_path(base, &self.token, self.root))
    }
}

/// A picture size as applications write it: "720p" or "1280x720".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resolution {
    width: Option<u32>,
    height: u32,
}

impl FromStr for Resolution {
    type Err = NotAResolution;

    fn from_str(text: &str) -> Result<Self, NotAResolution> {
        let number = |text: &str| text.parse().ok().filter(|n| *n > 0).ok_or(NotAResolution);
        if let Some(height) = text.strip_suffix(['p', 'P']) {
            return Ok(Self { width: None, height: number(height)? });
        }
        let (width, height) = text.split_once(['x', 'X']).ok_or(NotAResolution)?;
        Ok(Self { width: Some(number(width)?), height: number(height)? })
    }
}

/// Not a picture size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a resolution is a height such as 720p, or width and height such as 1280x720")]
pub(crate) struct NotAResolution;

/// What a viewer's application asks a rendition to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The beginning of an RFC 6381 codec string ("avc1", "mp4a.40.2"), or its everyday name ("h264", "aac").
    pub(crate) codec: Option<String>,
    pub(crate) resolution: Option<Resolution>,
}

/// Everyday names of codecs and the RFC 6381 ones that they stand for.
const CODEC_NAMES: &[(&str, &[&str])] = &[
    ("h264", &["avc1", "avc3"]),
    ("h265", &["hvc1", "hev1"]),
    ("hevc", &["hvc1", "hev1"]),
    ("av1", &["av01"]),
    ("vp9", &["vp09"]),
    ("aac", &["mp4a"]),
];

impl Wanted {
    /// The best rendition that is as wanted: the first, since video stands before audio and better before worse.
    pub(crate) fn choose<'a>(&self, renditions: &'a [Rendition]) -> Option<&'a Rendition> {
        renditions.iter().find(|rendition| self.has_codec(rendition) && self.has_resolution(rendition))
    }

    fn has_codec(&self, rendition: &Rendition) -> bool {
        let Some(wanted) = self.codec.as_deref().map(str::to_ascii_lowercase) else {
            return true;
        };
        let named = CODEC_NAMES.iter().find(|(name, _)| *name == wanted).map(|(_, codecs)| *codecs);
        let mut codecs = rendition.codecs.split(',').map(|codec| codec.trim().to_ascii_lowercase());
        codecs.any(|codec| {
            named.map_or_else(|| codec.starts_with(&wanted), |named| named.iter().any(|name| codec.starts_with(name)))
        })
    }

    fn has_resolution(&self, rendition: &Rendition) -> bool {
        match (self.resolution, &rendition.media) {
            (None, _) => true,
            (Some(wanted), Media::Video { width, height, .. }) => {
                wanted.height == *height && wanted.width.is_none_or(|wanted| wanted == *width)
            }
            (Some(_), Media::Audio { .. }) => false,
        }
    }
}

/// A rendition in a few words, for those who asked for one that is not there: "v720 (avc1.64001f, 1280x720)".
pub(crate) fn describe(rendition: &Rendition) -> String {
    let Rendition { id, codecs, .. } = rendition;
    match &rendition.media {
        Media::Video { width, height, .. } => format!("{id} ({codecs}, {width}x{height})"),
        Media::Audio { language, .. } => format!("{id} ({codecs}, {language})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::tests::title;

    #[test]
    fn resolutions_are_heights_or_sizes() {
        assert_eq!("720p".parse(), Ok(Resolution { width: None, height: 720 }));
        assert_eq!("1280x720".parse(), Ok(Resolution { width: Some(1280), height: 720 }));
        for bad in ["", "p", "720", "x720", "1280x", "0p", "-1p", "1280x720p", "99999999999p"] {
            assert_eq!(bad.parse::<Resolution>(), Err(NotAResolution), "{bad}");
        }
    }

    #[test]
    fn the_first_rendition_that_is_as_wanted_is_chosen() {
        let renditions = title("demo").renditions;
        for (codec, resolution, chosen) in [
            (None, None, Some("v720")),
            (None, Some("360p"), Some("v360")),
            (None, Some("640x360"), Some("v360")),
            (None, Some("641x360"), None),
            (Some("avc1"), None, Some("v720")),
            (Some("AVC1.64001E"), None, Some("v360")),
            (Some("h264"), Some("360p"), Some("v360")),
            (Some("aac"), None, Some("a1")),
            (Some("mp4a.40.2"), None, Some("a1")),
            (Some("mp4a"), Some("720p"), None),
            (Some("av1"), None, None),
        ] {
            let wanted = Wanted { codec: codec.map(String::from), resolution: resolution.map(|text| text.parse().unwrap()) };
            assert_eq!(wanted.choose(&renditions).map(|rendition| rendition.id.as_str()), chosen, "{wanted:?}");
        }
        assert_eq!(describe(&renditions[0]), "v720 (avc1.64001f, 1280x720)");
        assert_eq!(describe(&renditions[2]), "a1 (mp4a.40.2, und)");
    }
}
