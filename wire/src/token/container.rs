//! What a token opens: the `cdniuc` claim, ready to be compared with URIs (RFC 9246 §2.1.15).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use regex::bytes::{Regex, RegexBuilder};

use super::{CONTAINER_BYTES_MAX, REGEX_BYTES_MAX, ere};
use crate::object::{Digest, ObjectPath};

/// How deep the parentheses of a pattern may be nested.
const NESTING_MAX: u32 = 64;

/// A URI container. Compiling a pattern takes longer than a signature check; comparing takes time linear in the URI, whatever
/// the pattern.
#[derive(Debug)]
pub(super) enum Container {
    /// `hash:`: one URI.
    Hash([u8; 32]),
    /// `regex:`, of the shape that [`Self::tree_of`] makes: this folder and all below it on any host. Nearly every token has one,
    /// and it needs neither memory nor time to be compiled.
    Tree(String),
    /// `regex:`: every URI that the pattern matches whole.
    Regex(Regex),
}

/// How the pattern of a tree begins: any authority. Then comes the folder's path, then [`BELOW`].
const ANYWHERE: &str = "https?://[^/?#]+";
const BELOW: &str = "/.*";

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
        Self::tree(pattern).map_or_else(|| Self::regex(pattern), Ok)
    }

    /// Whether [`Self::parse`] has a pattern to compile.
    pub(super) fn is_compiled(claim: &str) -> bool {
        claim.strip_prefix("regex:").is_some_and(|pattern| Self::tree(pattern).is_none())
    }

    fn regex(pattern: &str) -> Result<Self, String> {
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

    fn tree(pattern: &str) -> Option<Self> {
        let root = pattern.strip_prefix(ANYWHERE)?.strip_suffix(BELOW)?;
        let folder = root.replace("\\.", "/");
        let is_literal =
            folder.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'~' | b'='));
        (root.starts_with('/') && is_literal).then(|| Self::Tree(format!("{}/", root.replace("\\.", "."))))
    }

    /// The claim that holds everything below `root`, on any host, with any query.
    pub(super) fn tree_of(root: &ObjectPath) -> String {
        format!("regex:{ANYWHERE}{}{BELOW}", root.as_str().replace('.', "\\."))
    }

    /// The claim that holds `uri`, which is normal, alone.
    pub(super) fn hash_of(uri: &str) -> String {
        format!("hash:sha-256;{}", URL_SAFE_NO_PAD.encode(Digest::of(uri.as_bytes()).as_bytes()))
    }

    /// Whether `uri`, which is normal, is in it.
    pub(super) fn holds(&self, uri: &str) -> bool {
        match self {
            Self::Hash(digest) => Digest::of(uri.as_bytes()).as_bytes() == digest,
            Self::Tree(folder) => {
                let authority = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"));
                // A normal URI has an authority and a path, so its first slash begins the path.
                authority.and_then(|rest| rest.find('/').map(|slash| &rest[slash..])).is_some_and(|path| path.starts_with(folder))
            }
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
    fn trees_are_what_their_pattern_says() {
        let root = ObjectPath::new("/titles/a.b-c_d~e=1/x").unwrap();
        let claim = Container::tree_of(&root);
        let pattern = claim.strip_prefix("regex:").unwrap();
        let (tree, regex) = (Container::parse(&claim).unwrap(), Container::regex(pattern).unwrap());
        assert!(matches!((&tree, &regex), (Container::Tree(_), Container::Regex(_))));
        let inside = "https://e.example:1/titles/a.b-c_d~e=1/x/1.ts?q";
        assert!(tree.holds(inside));
        for at in 0..inside.len() {
            for other in ["", "/", ".", "?", "x", "//", "s"] {
                let uri = format!("{}{other}{}", &inside[..at], &inside[at + 1..]);
                if let Ok(uri) = crate::token::uri::normal(&uri) {
                    assert_eq!(tree.holds(&uri), regex.holds(&uri), "{uri}");
                }
            }
        }
        for other in [
            "https?://[^/?#]+/a(b)/.*",
            "https?://[^/?#]+/a.b/.*",
            "https?://[^/?#]+a/.*",
            "https?://[^/?#]+/.*",
            "https?://e/.*",
        ] {
            assert!(matches!(Container::parse(&format!("regex:{other}")), Ok(Container::Regex(_))), "{other}");
        }
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
