//! Whom a viewer's rows belong to: an account, and a profile of it where the token names one.
//!
//! The text is made from a token's claims, each escaped, so that no two people have one text. It is opaque to all who keep it, but
//! readable: `alice`, `alice/kids`, and `alice!https:%2F%2Fother.example` for an account of another issuer than the first.

use std::{fmt, fmt::Write as _, str::FromStr, sync::Arc};

/// The longest text, in bytes.
pub(crate) const USER_BYTES_MAX: usize = 200;
/// Between an account and its profile; escaped inside of both.
const PROFILE: char = '/';
/// Between a subject and its issuer; escaped inside of both.
const ISSUER: char = '!';

/// Whom a viewer's rows belong to. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UserId(Arc<str>);

impl UserId {
    /// The user that a token's claims name; `issuer` is there unless it is the first of those that are accepted.
    pub(crate) fn new(subject: &str, issuer: Option<&str>, profile: Option<&str>) -> Result<Self, NotAUser> {
        let mut text = String::with_capacity(subject.len());
        push(&mut text, subject)?;
        for (separator, part) in [(ISSUER, issuer), (PROFILE, profile)] {
            if let Some(part) = part {
                text.push(separator);
                push(&mut text, part)?;
            }
        }
        if text.len() > USER_BYTES_MAX { Err(NotAUser) } else { Ok(Self(text.into())) }
    }

    /// As it is kept.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The account without the profile.
    pub(crate) fn account(&self) -> &str {
        self.0.split_once(PROFILE).map_or(&self.0, |(account, _)| account)
    }
}

/// Appends `part`, escaped as in a URI (RFC 3986 §2.1).
fn push(text: &mut String, part: &str) -> Result<(), NotAUser> {
    if part.is_empty() || part.len() > USER_BYTES_MAX {
        return Err(NotAUser);
    }
    for byte in part.bytes() {
        match is_plain(byte) {
            true => text.push(char::from(byte)),
            false => write!(text, "%{byte:02X}").expect("a String takes all"),
        }
    }
    Ok(())
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'@' | b'|' | b':' | b'+' | b'=')
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserId {
    type Err = NotAUser;

    /// Takes only what [`Self::new`] could have made.
    fn from_str(text: &str) -> Result<Self, NotAUser> {
        let (account, profile) = text.split_once(PROFILE).map_or((text, None), |(account, profile)| (account, Some(profile)));
        let (subject, issuer) = account.split_once(ISSUER).map_or((account, None), |(subject, issuer)| (subject, Some(issuer)));
        let is_good = text.len() <= USER_BYTES_MAX
            && is_escaped(subject)
            && issuer.is_none_or(is_escaped)
            && profile.is_none_or(is_escaped);
        if is_good { Ok(Self(text.into())) } else { Err(NotAUser) }
    }
}

/// Whether `part` is what [`push`] makes of some text.
fn is_escaped(part: &str) -> bool {
    if part.bytes().all(is_plain) {
        return !part.is_empty();
    }
    let mut bytes = part.bytes();
    let hex = |byte: Option<u8>| match byte? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    let mut original = Vec::with_capacity(part.len());
    while let Some(byte) = bytes.next() {
        original.push(match byte {
            b'%' => match hex(bytes.next()).zip(hex(bytes.next())) {
                Some((high, low)) if !is_plain(high << 4 | low) => high << 4 | low,
                _ => return false,
            },
            plain if is_plain(plain) => plain,
            _ => return false,
        });
    }
    String::from_utf8(original).is_ok()
}

/// Not a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a user is 1 to {USER_BYTES_MAX} bytes: a subject, \"!\" and its issuer if that is not the first, \"/\" and a profile if there is one"
)]
pub(crate) struct NotAUser;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_comes_back_as_it_went() {
        for (subject, issuer, profile, text) in [
            ("alice", None, None, "alice"),
            ("auth0|42", None, Some("kids"), "auth0|42/kids"),
            ("a/b!c", None, Some("d/e"), "a%2Fb%21c/d%2Fe"),
            ("bob", Some("https://other.example"), None, "bob!https:%2F%2Fother.example"),
            ("Änne 100%", None, None, "%C3%84nne%20100%25"),
            ("a\0b", None, None, "a%00b"),
        ] {
            let user = UserId::new(subject, issuer, profile).unwrap();
            assert_eq!(user.as_str(), text);
            assert_eq!(text.parse(), Ok(user));
        }
    }

    #[test]
    fn people_with_different_claims_are_different_users() {
        let of = |subject, profile| UserId::new(subject, None, profile).unwrap();
        assert_ne!(of("a/b", None), of("a", Some("b")));
        assert_ne!(of("a!b", None), UserId::new("a", Some("b"), None).unwrap());
        assert_ne!(of("a%2Fb", None), of("a/b", None));
        assert_eq!((of("a", Some("b")).account(), of("a", None).account()), ("a", "a"));
    }

    #[test]
    fn what_no_token_can_name_is_no_user() {
        let long = "x".repeat(USER_BYTES_MAX + 1);
        for bad in ["", "/", "a/", "/a", "a/b/c", "a!", "!a", "a!b!c", "a b", "a%", "a%2", "a%2f", "a%41", "%FF", "é", &long] {
            assert_eq!(bad.parse::<UserId>(), Err(NotAUser), "{bad}");
        }
        assert!(long[1..].parse::<UserId>().is_ok());
        assert_eq!(UserId::new("", None, None), Err(NotAUser));
        assert_eq!(UserId::new("a", None, Some("")), Err(NotAUser));
        assert_eq!(UserId::new(&"é".repeat(100), None, None), Err(NotAUser), "too long once escaped");
    }
}
