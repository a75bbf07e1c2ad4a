//! Secrets that two tiers share: sent as `Authorization: Bearer …` (RFC 6750 §2.1), and compared in constant time.
//!
//! What always holds: a secret is long enough not to be tried out, fits into a header, and is never printed. Opens no file: whoever
//! does hands over what came of it, and gets one sentence for the operator where that is no secret.

use std::{
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

use crate::object::Digest;

/// The most that is read of a file, in bytes.
const FILE_BYTES_MAX: usize = 4096;
/// The shortest secret, in bytes: fewer could be tried one after the other.
const SECRET_BYTES_MIN: usize = 16;

/// A secret in clear, for whoever has to send it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Reads the secret in `file`, which the configuration names by `key`; white space around it is not part of it.
    pub fn read(file: &Path, key: &'static str, opened: io::Result<impl Read>) -> Result<Self, SecretError> {
        let unusable = |flaw| SecretError { file: file.to_owned(), key, flaw };
        let mut bytes = Vec::new();
        let read = opened.and_then(|reader| reader.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|error| unusable(SecretFlaw::Unreadable(error)))?;
        Self::parse(&bytes).map_err(unusable)
    }

    fn parse(bytes: &[u8]) -> Result<Self, SecretFlaw> {
        if bytes.len() > FILE_BYTES_MAX {
            return Err(SecretFlaw::TooLong);
        }
        let secret = bytes.trim_ascii();
        if secret.is_empty() {
            return Err(SecretFlaw::Empty);
        }
        if secret.len() < SECRET_BYTES_MIN {
            return Err(SecretFlaw::TooShort);
        }
        let is_visible = secret.iter().all(u8::is_ascii_graphic);
        let text = String::from_utf8(secret.to_owned()).ok().filter(|_| is_visible);
        text.map(Self).ok_or(SecretFlaw::Characters)
    }

    /// For whoever signs with it and does not send it.
    pub fn in_clear(&self) -> &str {
        &self.0
    }

    /// The value of `Authorization` that presents it, marked so that it is not logged.
    pub fn bearer(&self) -> HeaderValue {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0)).expect("a secret is visible ASCII");
        value.set_sensitive(true);
        value
    }

    /// What recognises it.
    pub fn expected(&self) -> Expected {
        Expected(Digest::of(self.0.as_bytes()))
    }
}

/// Without the secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret as whoever has to recognise it keeps it: not in clear. Digests have one length, so comparing them says nothing about the
/// secret's, whatever a stranger sends.
pub struct Expected(Digest);

impl Expected {
    /// Whether `headers` present the secret.
    pub fn is_presented(&self, headers: &HeaderMap) -> bool {
        Presented::of(headers).is_some_and(|presented| self.is(&presented))
    }

    /// Whether it is this secret that is presented.
    pub fn is(&self, presented: &Presented<'_>) -> bool {
        verify_slices_are_equal(presented.digest.as_bytes(), self.0.as_bytes()).is_ok()
    }
}

/// What a request presents as `Authorization: Bearer …`, digested once for all who may recognise it.
pub struct Presented<'a> {
    bytes: &'a [u8],
    digest: Digest,
}

impl<'a> Presented<'a> {
    /// None where the header is missing, has another scheme, or is there twice, so that nobody before us can have read another one.
    pub fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut sent = headers.get_all(AUTHORIZATION).iter();
        let (Some(sent), None) = (sent.next(), sent.next()) else { return None };
        let (scheme, bytes) = sent.as_bytes().split_at_checked(b"Bearer ".len())?;
        let bytes = bytes.trim_ascii();
        // RFC 9110 §11.1: the scheme is case-insensitive.
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| Self { bytes, digest: Digest::of(bytes) })
    }

    /// The token or secret itself.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its SHA-256.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// A file without a usable secret: the operator's to mend.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the secret in {} ({key}): {flaw}", .file.display())]
pub struct SecretError {
    file: PathBuf,
    key: &'static str,
    flaw: SecretFlaw,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
enum SecretFlaw {
    #[error("{0}")]
    Unreadable(io::Error),
    #[error("it is empty; put a long random secret into it (for example: openssl rand -hex 32)")]
    Empty,
    #[error("it is shorter than {SECRET_BYTES_MIN} characters; make a long random one (for example: openssl rand -hex 32)")]
    TooShort,
    /// No HTTP header carries it, or not as one word.
    #[error("it has a space or a character that is not visible ASCII")]
    Characters,
    #[error("it is longer than {FILE_BYTES_MAX} bytes")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Result<Secret, String> {
        Secret::read(Path::new("/s"), "key", Ok(text.as_bytes())).map_err(|error| error.to_string())
    }

    #[test]
    fn only_the_whole_secret_in_a_bearer_header_is_recognised() {
        let secret = secret(" 0123456789-s3cret\n").unwrap();
        let expected = secret.expected();
        for (header, is_it) in [
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
            assert_eq!(expected.is_presented(&headers), is_it, "{header}");
        }
        assert!(!expected.is_presented(&HeaderMap::new()));
        assert!(expected.is_presented(&HeaderMap::from_iter([(AUTHORIZATION, secret.bearer())])), "what is sent is recognised");
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secret = secret("0123456789-s3cret").unwrap();
        assert_eq!(secret.bearer(), "Bearer 0123456789-s3cret");
        assert!(!format!("{secret:?} {:?}", secret.bearer()).contains("s3cret"));
    }

    #[test]
    fn a_file_without_a_usable_secret_is_named_with_its_key() {
        let long = "x".repeat(FILE_BYTES_MAX + 1);
        for (text, flaw) in [
            (" \n", "it is empty"),
            (" 0123456789abcde\n", "it is shorter than 16 characters"),
            ("two words, but long enough", "it has a space or a character that is not visible ASCII"),
            ("thé-secret-that-is-not-ascii", "it has a space or a character that is not visible ASCII"),
            (&long, "it is longer than 4096 bytes"),
        ] {
            let error = secret(text).unwrap_err();
            assert!(error.starts_with(&format!("cannot use the secret in /s (key): {flaw}")), "{error}");
        }
        let missing = Err::<&[u8], _>(io::Error::from_raw_os_error(2));
        let error = Secret::read(Path::new("/s"), "key", missing).unwrap_err().to_string();
        assert_eq!(error, "cannot use the secret in /s (key): No such file or directory (os error 2)");
        assert_eq!(secret(&long[..FILE_BYTES_MAX]).map(|secret| secret.bearer().len()), Ok(7 + FILE_BYTES_MAX));
    }
}
