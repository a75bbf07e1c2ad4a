//! Bearer secrets of operators and edges: read from files, compared in constant time, never kept in clear.

use std::{fs, io, path::Path};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, header::AUTHORIZATION};
use wire::object::Digest;

/// The longest file a secret is read from, in bytes.
const FILE_BYTES_MAX: u64 = 4096;
/// The shortest secret, in bytes: fewer could be tried one after the other.
const SECRET_BYTES_MIN: usize = 16;

/// A secret, known by its digest: comparing digests is constant in time whatever the length of what a stranger sends.
pub(crate) struct Secret(Digest);

impl Secret {
    /// Reads a secret; white space around it is not part of it.
    pub(crate) fn read(path: &Path) -> Result<Self, SecretError> {
        if fs::metadata(path)?.len() > FILE_BYTES_MAX {
            return Err(SecretError::TooLong);
        }
        let text = fs::read(path)?;
        let secret = text.trim_ascii();
        if secret.is_empty() {
            return Err(SecretError::Empty);
        }
        if secret.len() < SECRET_BYTES_MIN {
            return Err(SecretError::TooShort);
        }
        if !secret.iter().all(u8::is_ascii_graphic) {
            return Err(SecretError::Characters);
        }
        Ok(Self(Digest::of(secret)))
    }

    /// Whether `headers` carry this secret as `Authorization: Bearer …` (RFC 6750 §2.1).
    pub(crate) fn is_presented(&self, headers: &HeaderMap) -> bool {
        let Some((scheme, secret)) = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.split_once(' '))
        else {
            return false;
        };
        let presented = Digest::of(secret.trim().as_bytes());
        scheme.eq_ignore_ascii_case("bearer") && verify_slices_are_equal(presented.as_bytes(), self.0.as_bytes()).is_ok()
    }
}

/// Why a file holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Missing or unreadable.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// Nothing but white space.
    #[error("it is empty; put a long random secret into it (for example: openssl rand -hex 32)")]
    Empty,
    /// Shorter than 16 bytes.
    #[error("it is shorter than {SECRET_BYTES_MIN} characters; make a long random one (for example: openssl rand -hex 32)")]
    TooShort,
    /// Spaces inside, or not ASCII: no HTTP header carries it.
    #[error("it has a space or a character that is not visible ASCII")]
    Characters,
    /// Longer than 4096 bytes.
    #[error("it is longer than {FILE_BYTES_MAX} bytes")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn secret(text: &str) -> Result<Secret, SecretError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, text).unwrap();
        Secret::read(&path)
    }

    #[test]
    fn only_the_whole_secret_in_a_bearer_header_opens() {
        let secret = secret(" 0123456789-s3cret\n").unwrap();
        for (header, opens) in [
            ("Bearer 0123456789-s3cret", true),
            ("bearer  0123456789-s3cret", true),
            ("Bearer 0123456789-s3cre", false),
            ("Bearer 0123456789-s3cretx", false),
            ("Bearer", false),
            ("Bearer ", false),
            ("Basic 0123456789-s3cret", false),
            ("0123456789-s3cret", false),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(header))]);
            assert_eq!(secret.is_presented(&headers), opens, "{header}");
        }
        assert!(!secret.is_presented(&HeaderMap::new()));
    }

    #[test]
    fn files_without_a_usable_secret_are_refused() {
        assert!(matches!(secret(" \n"), Err(SecretError::Empty)));
        assert!(matches!(secret(" 0123456789abcde\n"), Err(SecretError::TooShort)));
        assert!(matches!(secret("two words, not one"), Err(SecretError::Characters)));
        assert!(matches!(secret(&"x".repeat(5000)), Err(SecretError::TooLong)));
        assert!(matches!(Secret::read(Path::new("/nowhere/token")), Err(SecretError::Unreadable(_))));
    }
}
