//! What a token opens: the `cdniuc` claim, ready to be compared with URIs (RFC 9246 §2.1.15).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use regex::bytes::{Regex, RegexBuilder};

use super::{CONTAINER_BYTES_MAX, REGEX_BYTES_MAX, ere};
use crate::object::Digest;

/// How deep the parentheses of a pattern may be nested.
const NESTING_MAX: u32 = 64;

/// A URI container. Compiling one takes as long as a signature check; comparing takes time linear in the URI, whatever the
/// pattern.
#[derive(Debug)]
pub(super) enum Container {
    /// `hash:`: one URI.
    Hash([u8; 32]),
    /// `regex:`: every URI that the pattern matches whole.
    Regex(Regex),
}

impl Container {
    /// Reads a claim. The error says what is wrong with it.
    ///
    /// §2.1.15.2: "it is RECOMMENDED to only execute after verifying the JWT to ensure its authenticity."
    pub(super) fn parse(claim: &str) -> Result<Self, String> {
        if claim.len() > CONTAINER_BYTES_MAX {
            return Err(format!("has {} bytes, more than {CONTAINER_BYTES_MAX}", claim.len()));
        }
        // "The URI Container (cdniuc) claim takes one of the following forms: 'hash:' or 'regex:'."
        if let Some(hash) = claim.strip_prefix("hash:") {
            return Self::hash(hash);
        }
        let pattern = claim.strip_prefix("regex:").ok_or("is neither hash: nor regex:")?;
        let translated = ere::translated(pattern).map_err(|why| format!("is not a POSIX extended regular expression: {why}"))?;
        let regex = RegexBuilder::new(&translated)
            .unicode(false)
            .dot_matches_new_line(true)
            .nest_limit(NESTING_MAX)
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_BYTES_MAX)
            .build();
        match regex {
            Ok(regex) => Ok(Self::Regex(regex)),
            Err(regex::Error::CompiledTooBig(_)) => Err(format!("needs more than {REGEX_BYTES_MAX} bytes when compiled")),
            Err(_) => Err("is not a regular expression: its parentheses are unbalanced or nested too deeply".into()),
        }
    }

    /// "Prefixed with 'hash:', this string is a URL Segment form (Section 5 of [RFC6920]) of the URI."
    fn hash(segment: &str) -> Result<Self, String> {
        let digest = segment.strip_prefix("sha-256;").ok_or("hashes by something else than sha-256")?;
        let digest = URL_SAFE_NO_PAD.decode(digest).ok().and_then(|bytes| bytes.try_into().ok());
        digest.map(Self::Hash).ok_or("has no SHA-256 digest in base64url".into())
    }

    /// The claim that holds `uri`, which is normal, alone.
    pub(super) fn hash_of(uri: &str) -> String {
        format!("hash:sha-256;{}", URL_SAFE_NO_PAD.encode(Digest::of(uri.as_bytes()).as_bytes()))
    }

    /// Whether `uri`, which is normal, is in it.
    pub(super) fn holds(&self, uri: &str) -> bool {
        match self {
            Self::Hash(digest) => Digest::of(uri.as_bytes()).as_bytes() == digest,
            Self::Regex(regex) => regex.is_match(uri.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(claim: &str, uri: &str) -> bool {
        Container::parse(claim).unwrap().holds(uri)
    }

    #[test]
    fn containers_of_the_rfc_hold_what_they_should() {
        // RFC 9246 A.1.
        let hash = "hash:sha-256;2tderfWPa86Ku7YnzW51YUp7dGUjBS_3SW3ELx4hmWY";
        assert_eq!(Container::hash_of("http://cdni.example/foo/bar"), hash);
        assert!(holds(hash, "http://cdni.example/foo/bar") && !holds(hash, "http://cdni.example/foo/baz"));
        // RFC 9246 §2.1.15.2.
        let example = r"regex:[^:]*\://[^/]*/dir/content/quality_[^/]*/segment.{3}\.mp4(\?.*)?";
        assert!(holds(example, "https://cdn.example/dir/content/quality_hd/segment001.mp4?a=b"));
        assert!(!holds(example, "https://cdn.example/dir/content/quality_hd/segment0001.mp4"));
    }

    #[test]
    fn containers_that_are_bad_or_too_big_are_refused() {
        for (claim, why) in [
            ("", "neither"),
            ("prefix:/a", "neither"),
            ("HASH:sha-256;x", "neither"),
            ("hash:md5;AAAA", "sha-256"),
            ("hash:sha-256-32;AAAAAA", "sha-256"),
            ("hash:sha-256;AAAA", "digest"),
            (r"regex:\d+", "POSIX"),
            ("regex:(a", "parentheses"),
            ("regex:a)", "parentheses"),
            ("regex:((a{200}){200}){200}", "bytes when compiled"),
            (&format!("regex:{}", "a".repeat(CONTAINER_BYTES_MAX)), "more than"),
            (&format!("regex:{}a{}", "(".repeat(200), ")".repeat(200)), "nested"),
        ] {
            let error = Container::parse(claim).unwrap_err();
            assert!(error.contains(why), "{claim}: {error}");
        }
    }
}
