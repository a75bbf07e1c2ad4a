//! Signed Token Renewal (RFC 9246 §3): a token that asks for a successor gets one with each answer.
//!
//! §3.2: "As part of the JWT verification procedure, the CDN can generate a new signed JWT that the UA can use to do a subsequent
//! request." It can: an edge that holds public keys alone cannot, and serves without; the token is then good until its own end.

use super::{Claims, PACKAGE, SignError, SigningKey, sign};

/// How a renewed token travels (RFC 9246 §6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// "transported to the UA via a 'URISigningPackage' cookie added to the HTTP 2xx Successful message along with the content
    /// [...] or to the HTTP 3xx Redirection message" (§3.3): [`Renewed::set_cookie`].
    Cookie,
    /// In the query of a redirection to another domain (§3.3.1): [`super::in_query`].
    Query,
}

/// A renewal that a verified token asks for. Whoever has a signing key can grant it.
#[derive(Debug, Clone, PartialEq)]
pub struct Renewal {
    claims: Claims,
    transport: Transport,
    lifetime_s: u64,
    cookie_path: String,
    is_https: bool,
}

impl Renewal {
    /// What `claims`, verified `now_unix_s` for the normal URI `uri`, ask for.
    pub(super) fn of(claims: &Claims, uri: &str, now_unix_s: u64) -> Option<Self> {
        let transport = match claims.cdnistt? {
            1 => Transport::Cookie,
            2 => Transport::Query,
            _ => return None,
        };
        let lifetime_s = claims.cdniets?;
        let cookie_path = cookie_path(uri, claims.cdnistd.unwrap_or(0))?;
        // §2.1.12: "It denotes the number of seconds to be added to the time at which the JWT is verified that gives the value of
        // the Expiry Time (exp) claim of the next signed JWT." (A.3 adds it to the old exp instead, and is an example.)
        let exp = now_unix_s.saturating_add(lifetime_s);
        let iat = claims.iat.map(|_| now_unix_s);
        let claims = Claims { exp: Some(exp), iat, ..claims.clone() };
        Some(Self { claims, transport, lifetime_s, cookie_path, is_https: uri.starts_with("https:") })
    }

    /// How the new token should travel.
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Signs the new token. `issuer` is the `iss` of `key`'s owner, if the old token has an `iss` at all.
    pub fn sign(&self, key: &SigningKey, issuer: Option<&str>) -> Result<Renewed, SignError> {
        let mut claims = self.claims.clone();
        if let (Some(iss), Some(issuer)) = (&mut claims.iss, issuer) {
            *iss = issuer.into();
        }
        Ok(Renewed { token: sign(key, &claims)?, renewal: self.clone() })
    }
}

/// A renewed token.
#[derive(Debug, Clone, PartialEq)]
pub struct Renewed {
    /// The JWT in compact form.
    pub token: String,
    renewal: Renewal,
}

impl Renewed {
    /// The value of a `Set-Cookie` header (RFC 6265 §4.1) that brings the token back with requests for the same part of the path.
    pub fn set_cookie(&self) -> String {
        let Renewal { lifetime_s, cookie_path, is_https, .. } = &self.renewal;
        // A player's page may be on another site than the edge.
        let cross_site = if *is_https { "; Secure; SameSite=None" } else { "" };
        format!("{PACKAGE}={}; Path={cookie_path}; Max-Age={lifetime_s}; HttpOnly{cross_site}", self.token)
    }
}

/// The path that a cookie is bound to: the first `depth` segments of the URI's, or all for 0.
///
/// §2.1.14: "If the URI path to match contains fewer segments than the CDNI Signed Token Depth claim, a signed JWT MUST NOT be
/// generated for the purposes of Signed Token Renewal." Nor is one that a `Path` attribute cannot say.
fn cookie_path(uri: &str, depth: u64) -> Option<String> {
    let (_, rest) = uri.split_once("://")?;
    let path = rest.find('/').map_or("", |slash| &rest[slash + 1..]);
    let path = path.split('?').next().unwrap_or(path);
    let segments: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').filter(|_| !path.is_empty()).collect();
    let depth = usize::try_from(depth).ok()?;
    let significant = segments.get(..depth)?.join("/");
    Some(format!("/{significant}")).filter(|path| !path.contains(';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_bound_to_as_many_segments_as_the_token_says() {
        for (uri, depth, path) in [
            ("http://cdni.example/foo/bar/123.ts", 2, Some("/foo/bar")),
            ("http://cdni.example/foo/bar/123.ts?a=/b/c", 3, Some("/foo/bar/123.ts")),
            ("http://cdni.example/foo/bar/123.ts?a=/b/c", 4, None),
            ("http://cdni.example/foo/bar/123.ts", 0, Some("/")),
            ("http://cdni.example/foo/", 1, Some("/foo")),
            ("http://cdni.example/foo/", 2, None),
            ("http://cdni.example/", 0, Some("/")),
            ("http://cdni.example/", 1, None),
            ("http://cdni.example/a;Domain=x/b", 1, None),
            ("http://cdni.example/a", u64::MAX, None),
        ] {
            assert_eq!(cookie_path(uri, depth).as_deref(), path, "{uri} {depth}");
        }
    }
}
