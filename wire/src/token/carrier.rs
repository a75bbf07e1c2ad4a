//! Where a token stands in a request: path, query or cookie. Putting it there, and taking it out.

use std::iter;

use super::{PACKAGE, Refusal, TARGET_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::object::ObjectPath;

/// How a token came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// In a segment or a `;` parameter of the path: relative URLs inherit it.
    Path,
    /// In the query.
    Query,
    /// In a cookie.
    Cookie,
}

/// A token as a client presents it. Nothing about it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// The JWT in compact form.
    pub token: String,
    /// The absolute URI of the request without the package.
    pub uri: String,
    pub carrier: Carrier,
}

/// A request's target, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The path without the package, otherwise as it came: nothing is decoded or normalised. A token is checked against the
    /// *normalised* URI, so serve only paths for which that is the same, such as an [`ObjectPath`].
    pub path: String,
    /// The query without the package.
    pub query: Option<String>,
    /// The token, if there is one.
    pub presented: Option<Presented>,
}

/// Looks for a token in a request, first in the path, then in the query, then in the `Cookie` headers.
///
/// RFC 9246 §2: "The URI Signing Package will be found by parsing any path-style parameters and form-style parameters looking
/// for a key name matching the URI Signing Package Attribute. Both parameter styles MUST be supported [...] The first matching
/// parameter SHOULD be taken". A token may also stand in a path segment of its own, as Traffic Server has it, which leaves no
/// trace when it is taken out. Cookies are those of §3.3.
pub fn find<'a>(
    scheme: &str,
    authority: &str,
    path_and_query: &str,
    mut cookies: impl Iterator<Item = &'a str>,
) -> Result<Found, Refusal> {
    // Else a Host of `e/titles/x` would lend its path to the URI that is checked, and not to the one that is served.
    if !matches!(scheme, "http" | "https") || authority.is_empty() || authority.contains(['/', '?', '#', '@', '\\']) {
        return Err(Refusal::Target("it has no proper scheme and authority"));
    }
    if !path_and_query.starts_with('/') {
        return Err(Refusal::Target("it does not begin with a slash"));
    }
    if path_and_query.len() > TARGET_BYTES_MAX {
        return Err(Refusal::Target("it is too long"));
    }
    let (path, query) = path_and_query.split_once('?').map_or((path_and_query, None), |(path, query)| (path, Some(query)));
    let (token, carrier, path, query) = if let Some(package) = Package::in_path(path)? {
        let rest = package.without(path);
        let path = if rest.starts_with('/') { rest } else { format!("/{rest}") };
        (package.token, Carrier::Path, path, query.map(Into::into))
    } else if let Some(package) = query.map_or(Ok(None), Package::in_query)? {
        let rest = query.map(|query| package.without(query)).filter(|rest| !rest.is_empty());
        (package.token, Carrier::Query, path.into(), rest)
    } else if let Some(token) = cookies.find_map(in_cookie) {
        (token, Carrier::Cookie, path.into(), query.map(Into::into))
    } else {
        return Ok(Found { path: path.into(), query: query.map(Into::into), presented: None });
    };
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refusal::TooLong(token.len()));
    }
    let mut uri = [scheme, "://", authority, &path].concat();
    if let Some(query) = &query {
        uri.push('?');
        uri.push_str(query);
    }
    Ok(Found { path, query, presented: Some(Presented { token: token.into(), uri, carrier }) })
}

/// A package inside a path or a query: from the first character of its name to the last of its token.
struct Package<'a> {
    start: usize,
    end: usize,
    token: &'a str,
}

impl<'a> Package<'a> {
    /// Path-style parameters (RFC 6570 §3.2.7) begin with a semicolon, segments with a slash.
    fn in_path(path: &'a str) -> Result<Option<Self>, Refusal> {
        Self::at_one_of(path, path.bytes().enumerate().filter(|(_, byte)| matches!(byte, b'/' | b';')).map(|(at, _)| at + 1))
    }

    /// Form-style parameters (RFC 6570 §3.2.8, §3.2.9) begin with a question mark, which `query` is without, or an ampersand.
    fn in_query(query: &'a str) -> Result<Option<Self>, Refusal> {
        let ampersands = query.bytes().enumerate().filter(|(_, byte)| *byte == b'&').map(|(at, _)| at + 1);
        match Self::at_one_of(query, iter::once(0).chain(ampersands))? {
            // By the letter of §2.1.15 the question mark would go too, and the rest would join a path that is not what is served.
            Some(package) if package.end < query.len() && !is_sub_delimiter(query.as_bytes()[package.end]) => {
                Err(Refusal::Target("its token is followed by something that is not another parameter"))
            }
            package => Ok(package),
        }
    }

    fn at_one_of(text: &'a str, mut starts: impl Iterator<Item = usize>) -> Result<Option<Self>, Refusal> {
        let value_at = |start: usize| text.as_bytes()[start..].strip_prefix(PACKAGE.as_bytes())?.strip_prefix(b"=");
        let Some((start, value)) = starts.find_map(|start| Some((start, value_at(start)?))) else { return Ok(None) };
        let token_bytes = value.iter().position(|byte| !IS_TOKEN_BYTE[usize::from(*byte)]).unwrap_or(value.len());
        let begin = text.len() - value.len();
        let end = begin + token_bytes;
        match text.as_bytes().get(end) {
            Some(next) if !is_sub_delimiter(*next) && !b":/?#[]@".contains(next) => {
                Err(Refusal::Target("its token runs into something else"))
            }
            _ => Ok(Some(Self { start, end, token: &text[begin..end] })),
        }
    }

    /// RFC 9246 §2.1.15: "If the signed JWT is terminated by anything other than a sub-delimiter [...], everything from the
    /// reserved character [...] that precedes the URI Signing Package Attribute to the last character of the signed JWT will be
    /// removed, inclusive. Otherwise, everything from the first character of the URI Signing Package Attribute to the
    /// sub-delimiter that terminates the signed JWT will be removed, inclusive."
    fn without(&self, text: &str) -> String {
        let (start, end) = match text.as_bytes().get(self.end) {
            Some(next) if is_sub_delimiter(*next) => (self.start, self.end + 1),
            _ => (self.start.saturating_sub(1), self.end),
        };
        [&text[..start], &text[end..]].concat()
    }
}

/// The token in a `Cookie` header's value (RFC 6265 §4.2.1).
fn in_cookie(header: &str) -> Option<&str> {
    let pairs = header.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == PACKAGE).map(|(_, token)| token).next()
}

/// The characters of a compact JWT (RFC 7515 §7.1), as a table: tokens are long, and each request is searched.
const IS_TOKEN_BYTE: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        byte += 1;
    }
    table
};

/// RFC 3986 §2.2.
fn is_sub_delimiter(byte: u8) -> bool {
    b"!$&'()*+,;=".contains(&byte)
}

/// The URL of `path` at `base_url` (`https://edge.example:8443`), with the token in a path segment: what a playlist there names
/// by relative URLs has the token too.
pub fn in_path(base_url: &str, token: &str, path: &ObjectPath) -> String {
    format!("{}/{PACKAGE}={token}{path}", base_url.trim_end_matches('/'))
}

/// `url` with the token in its query.
pub fn in_query(url: &str, token: &str) -> String {
    let (url, fragment) = url.split_once('#').map_or((url, String::new()), |(url, fragment)| (url, format!("#{fragment}")));
    let joint = if url.contains('?') { '&' } else { '?' };
    format!("{url}{joint}{PACKAGE}={token}{fragment}")
}

/// The value of a `Cookie` header with the token.
pub fn cookie(token: &str) -> String {
    format!("{PACKAGE}={token}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, query, and token with its carrier.
    type Parts = (String, Option<String>, Option<(Carrier, String)>);

    fn found(target: &str, cookies: &[&str]) -> Result<Parts, Refusal> {
        let found = find("https", "e", target, cookies.iter().copied())?;
        let query = found.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
        if let Some(presented) = &found.presented {
            assert_eq!(presented.uri, format!("https://e{}{query}", found.path));
        }
        Ok((found.path, found.query, found.presented.map(|presented| (presented.carrier, presented.token))))
    }

    #[test]
    fn the_package_is_found_and_removed_as_the_rfc_says() {
        let pkg = "URISigningPackage=a.b-_.c";
        for (target, path, query, carrier) in [
            ("/PKG/titles/x/1.ts", "/titles/x/1.ts", None, Carrier::Path),
            ("/hello/PKG/Something/Else", "/hello/Something/Else", None, Carrier::Path),
            ("/titles/x;PKG/1.ts", "/titles/x/1.ts", None, Carrier::Path),
            ("/titles/x;PKG;v=1/1.ts", "/titles/x;v=1/1.ts", None, Carrier::Path),
            ("/titles/1.ts;PKG", "/titles/1.ts", None, Carrier::Path),
            ("/PKG", "/", None, Carrier::Path),
            ("/a/PKG?come=data", "/a", Some("come=data"), Carrier::Path),
            ("/media/path?come=data&PKG&other=data", "/media/path", Some("come=data&other=data"), Carrier::Query),
            ("/media/path?come=data&PKG", "/media/path", Some("come=data"), Carrier::Query),
            ("/media/path?PKG&other=data", "/media/path", Some("other=data"), Carrier::Query),
            ("/media/path?PKG", "/media/path", None, Carrier::Query),
        ] {
            let expected = (path.into(), query.map(Into::into), Some((carrier, "a.b-_.c".into())));
            assert_eq!(found(&target.replace("PKG", pkg), &[]), Ok(expected), "{target}");
        }
    }

    #[test]
    fn cookies_are_searched_when_the_uri_has_no_token() {
        let cookies = ["a=b", "x=y; URISigningPackage=a.b.c; z"];
        assert_eq!(found("/p?q", &cookies), Ok(("/p".into(), Some("q".into()), Some((Carrier::Cookie, "a.b.c".into())))));
        let both = found("/URISigningPackage=d.e.f/p", &cookies).unwrap();
        assert_eq!(both.2, Some((Carrier::Path, "d.e.f".into())));
    }

    #[test]
    fn names_that_only_look_like_the_package_are_not_it() {
        for target in
            ["/", "/a?xURISigningPackage=a.b.c", "/aURISigningPackage=a.b.c/", "/URISigningPackageX=a/", "/URISigningPackage"]
        {
            let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q.to_owned())));
            assert_eq!(found(target, &["URISigningPackages=a.b.c"]), Ok((path.into(), query, None)), "{target}");
        }
    }

    #[test]
    fn targets_that_would_be_read_in_two_ways_are_refused() {
        for target in [
            "*",
            "a/URISigningPackage=a.b.c/b",
            "/a?URISigningPackage=a.b.c/../x",
            "/a?URISigningPackage=a.b.c?x",
            "/URISigningPackage=a.b.c%41/b",
            "/a;URISigningPackage=a.b.c~/b",
        ] {
            assert!(matches!(found(target, &[]), Err(Refusal::Target(_))), "{target}");
        }
        assert!(matches!(found(&format!("/{}", "a".repeat(TARGET_BYTES_MAX)), &[]), Err(Refusal::Target(_))));
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        assert_eq!(found(&format!("/URISigningPackage={long}/b"), &[]), Err(Refusal::TooLong(TOKEN_BYTES_MAX + 1)));
        assert_eq!(found("/b", &[&format!("URISigningPackage={long}")]), Err(Refusal::TooLong(TOKEN_BYTES_MAX + 1)));
    }

    #[test]
    fn an_authority_lends_nothing_to_the_path() {
        let target = "/URISigningPackage=a.b.c/secret";
        for (scheme, authority) in [
            ("https", "e/titles/x"),
            ("https", "e?q"),
            ("https", "e#f"),
            ("https", "e\\x"),
            ("https", "u@e"),
            ("https", ""),
            ("https://e/titles/x?", "e"),
            ("HTTPS", "e"),
        ] {
            let refused = find(scheme, authority, target, iter::empty());
            assert!(matches!(refused, Err(Refusal::Target(_))), "{scheme} {authority}");
        }
    }

    #[test]
    fn tokens_are_put_where_they_are_found() {
        let path = ObjectPath::new("/titles/x/master.m3u8").unwrap();
        assert_eq!(in_path("https://e:1/", "a.b.c", &path), "https://e:1/URISigningPackage=a.b.c/titles/x/master.m3u8");
        assert_eq!(in_query("https://e/p", "a.b.c"), "https://e/p?URISigningPackage=a.b.c");
        assert_eq!(in_query("https://e/p?q=1#t", "a.b.c"), "https://e/p?q=1&URISigningPackage=a.b.c#t");
        assert_eq!(in_cookie(&cookie("a.b.c")), Some("a.b.c"));
    }
}
