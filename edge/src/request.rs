//! What a request asks for, parsed once: object, range and conditions, token. Decides nothing about them.

use std::net::IpAddr;

use ::http::{Method, header};
use wire::{
    object::ObjectPath,
    range::Wish,
    token::{self, Presented},
};

use crate::{http::Request, refused::Refused};

/// The one scheme that players use.
const SCHEME: &str = "https";

/// An object that a client asks for, or what there is to say about it. Nothing of it is verified.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Without token and query: the same object whoever asks.
    pub(crate) path: ObjectPath,
    /// The token, if there is one.
    pub(crate) presented: Option<Presented>,
    /// Who asks.
    pub(crate) client: IpAddr,
    /// Which bytes, and of which versions.
    pub(crate) wish: Wish,
    /// Whether the bytes themselves are not wanted.
    pub(crate) is_head: bool,
}

/// Parses `request`.
pub(crate) fn parse(request: &Request) -> Result<Asked, Refused> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(Refused::Method(request.method.clone()));
    }
    let cookies = request.headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let found = token::find(SCHEME, &request.authority, &request.path_and_query, cookies)?;
    Ok(Asked {
        path: ObjectPath::new(found.path)?,
        presented: found.presented,
        // IPv4 on an IPv6 socket is IPv4 to whoever wrote the token.
        client: request.peer.ip().to_canonical(),
        wish: Wish::of(&request.method, &request.headers),
        is_head: request.method == Method::HEAD,
    })
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderMap, HeaderValue};
    use wire::token::Carrier;

    use super::*;
    use crate::http::{Link, Protocol};

    fn request(method: Method, path_and_query: &str, cookie: Option<&'static str>) -> Request {
        let cookie = cookie.map(|cookie| (header::COOKIE, HeaderValue::from_static(cookie)));
        Request {
            method,
            authority: "edge:443".into(),
            path_and_query: path_and_query.into(),
            headers: HeaderMap::from_iter(cookie),
            protocol: Protocol::Http2,
            peer: "[::ffff:192.0.2.7]:1234".parse().unwrap(),
            link: Link::Silent,
        }
    }

    #[test]
    fn the_object_is_the_same_wherever_the_token_stands_and_whatever_the_query() {
        for (target, cookie, carrier) in [
            ("/URISigningPackage=a.b.c/titles/x/1.m4s", None, Some(Carrier::Path)),
            ("/titles/x/1.m4s?session=7&URISigningPackage=a.b.c", None, Some(Carrier::Query)),
            ("/titles/x/1.m4s", Some("a=b; URISigningPackage=a.b.c"), Some(Carrier::Cookie)),
            ("/titles/x/1.m4s?anything", None, None),
        ] {
            let asked = parse(&request(Method::GET, target, cookie)).unwrap();
            assert_eq!(asked.path.as_str(), "/titles/x/1.m4s");
            assert_eq!(asked.presented.map(|presented| presented.carrier), carrier, "{target}");
            assert_eq!(asked.client.to_string(), "192.0.2.7");
        }
    }

    #[test]
    fn what_names_no_object_is_refused() {
        let refused = |method, target| parse(&request(method, target, None)).err().map(|refused| refused.to_string());
        assert_eq!(refused(Method::POST, "/a").as_deref(), Some("method POST is not for objects"));
        assert!(refused(Method::GET, "/a/../b").is_some_and(|why| why.contains("begins with a dot")));
        assert!(refused(Method::GET, "/a%2fb").is_some_and(|why| why.contains("'%'")));
        assert!(refused(Method::GET, "*").is_some_and(|why| why.contains("slash")));
        assert_eq!(refused(Method::HEAD, "/a"), None);
    }
}
