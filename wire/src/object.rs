//! Objects: what a path names, and the digest that says which bytes it means.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest object path, in bytes.
pub const PATH_BYTES_MAX: usize = 1024;

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The 32 bytes themselves.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest as a strong entity tag, quotes included (RFC 9110 §8.8.3).
    pub fn etag(&self) -> String {
        format!("\"{self}\"")
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let text = text.as_bytes();
        if text.len() != 64 {
            return Err(DigestError);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

const fn nibble(digit: u8) -> Result<u8, DigestError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(DigestError),
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 64 lower-case hexadecimal digits (SHA-256)")]
pub struct DigestError;

/// Makes a [`Digest`] of bytes that come in pieces.
pub struct Hasher(aws_lc_rs::digest::Context);

impl Hasher {
    /// A digest of nothing yet.
    pub fn new() -> Self {
        Self(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }

    /// Adds the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Digest(bytes)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// Where an object is, the same at every tier: an absolute path of safe segments, without token, query or percent-encoding.
///
/// Segments are made of `A-Z a-z 0-9 . _ - ~ =`, are not empty, and do not begin with a dot, so a path can be a file's name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ObjectPath(String);

impl ObjectPath {
    /// Checks `path`.
    pub fn new(path: impl Into<String>) -> Result<Self, PathError> {
        let path = path.into();
        if path.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong(path.len()));
        }
        let Some(rest) = path.strip_prefix('/') else {
            return Err(PathError::NotAbsolute);
        };
        for segment in rest.split('/') {
            if segment.is_empty() || segment.starts_with('.') {
                return Err(PathError::Segment);
            }
            if let Some(bad) = segment.chars().find(|c| !is_path_char(*c)) {
                return Err(PathError::Character(bad));
            }
        }
        Ok(Self(path))
    }

    /// The path with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without its leading slash: relative to a store's root.
    pub fn relative(&self) -> &str {
        &self.0[1..]
    }

    /// This path with `rest`, a relative path, below it.
    pub fn join(&self, rest: &str) -> Result<Self, PathError> {
        Self::new(format!("{}/{rest}", self.0))
    }
}

const fn is_path_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '=')
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for ObjectPath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        Self::new(path)
    }
}

impl<'de> Deserialize<'de> for ObjectPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Why a path names no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Longer than [`PATH_BYTES_MAX`].
    #[error("a path of {0} bytes is longer than {PATH_BYTES_MAX}")]
    TooLong(usize),
    /// Does not begin with a slash.
    #[error("a path begins with a slash")]
    NotAbsolute,
    /// Empty, or hidden, or climbing (`.`, `..`).
    #[error("a path has a segment that is empty or begins with a dot")]
    Segment,
    /// A character that no object path has.
    #[error("a path has the character {0:?}; only letters, digits and . _ - ~ = are allowed")]
    Character(char),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_round_trips_through_text() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!("BA7816BF".parse::<Digest>(), Err(DigestError));
        assert_eq!(digest.to_string().to_uppercase().parse::<Digest>(), Err(DigestError));
    }

    #[test]
    fn paths_that_climb_hide_or_encode_are_refused() {
        assert_eq!(ObjectPath::new("/a/b-1.m4s").map(|p| p.relative().to_owned()), Ok("a/b-1.m4s".into()));
        for (path, error) in [
            ("a/b", PathError::NotAbsolute),
            ("", PathError::NotAbsolute),
            ("/", PathError::Segment),
            ("/a//b", PathError::Segment),
            ("/a/../b", PathError::Segment),
            ("/a/.hidden", PathError::Segment),
            ("/a/", PathError::Segment),
            ("/a%2fb", PathError::Character('%')),
            ("/a\\b", PathError::Character('\\')),
            ("/ä", PathError::Character('ä')),
        ] {
            assert_eq!(ObjectPath::new(path), Err(error), "{path}");
        }
        assert_eq!(ObjectPath::new(format!("/{}", "a".repeat(1024))), Err(PathError::TooLong(1025)));
    }
}
