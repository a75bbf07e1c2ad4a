//! What may be kept of answers, by whom, and how it is asked for only if it changed (RFC 9110 §13, RFC 9111).
//!
//! An answer's entity tag is the digest of its body, so it is right whatever the answer is made of.

use axum::{
    body::Body,
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH},
    request::Parts,
};
use serde::Serialize;
use wire::{
    object::Digest,
    range::{Decision, Version, Wish},
};

use super::{
    App,
    problem::{Kind, Problem},
};

/// Good once, and nobody's to keep.
pub(super) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Who may keep an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Anyone, for some seconds without asking: it is the same for all.
    Public,
    /// Whoever asked, and he asks again before he uses it.
    Private,
    /// It may be otherwise at once.
    Nobody,
}

impl Sharing {
    /// Of what everybody who may read sees alike: anyone may keep it where anyone may read.
    pub(super) fn of_catalogue(app: &App) -> Self {
        if app.identity.is_open { Self::Public } else { Self::Private }
    }

    const fn cache_control(self) -> HeaderValue {
        match self {
            // A title that is published or taken away shows everywhere in this time.
            Self::Public => HeaderValue::from_static("public, max-age=10"),
            Self::Private => HeaderValue::from_static("private, no-cache"),
            Self::Nobody => NO_STORE,
        }
    }
}

/// The conditions under which a request is made. Malformed ones are as RFC 9110 has them: no match.
pub(super) struct Conditions {
    wish: Wish,
    has_if_match: bool,
    is_any: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(parts))
    }
}

impl Conditions {
    fn of(parts: &Parts) -> Self {
        let has = |name| parts.headers.contains_key(name);
        Self {
            wish: Wish::of(&parts.method, &parts.headers),
            has_if_match: has(IF_MATCH),
            is_any: has(IF_MATCH) || has(IF_NONE_MATCH),
        }
    }

    /// The answer to a read: 200 with `value`, 304 if the client has it, 412 if it wants another.
    pub(super) fn answer(&self, sharing: Sharing, value: &impl Serialize) -> Response {
        let body = serde_json::to_vec(value).expect("text and numbers always become JSON");
        let etag = etag_of(&body);
        let head = [(CACHE_CONTROL, sharing.cache_control()), (ETAG, HeaderValue::try_from(&etag).expect("hexadecimal digits"))];
        match self.wish.decide(Version { etag: &etag, length: body.len() as u64, modified: None }) {
            Decision::NotModified => (StatusCode::NOT_MODIFIED, head, Body::empty()).into_response(),
            Decision::PreconditionFailed => changed_meanwhile().into_response(),
            // These answers are not served in parts (§14.2: "A server MAY ignore the Range header field").
            _ => (head, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response(),
        }
    }

    /// Whether a write depends on what is there.
    pub(super) fn is_any(&self) -> bool {
        self.is_any
    }

    /// Whether a write may be done where `etag` is there, or nothing is.
    pub(super) fn allow(&self, etag: Option<&str>) -> bool {
        match etag {
            // §13.1.2: for a method that writes, a match of If-None-Match is a failed precondition too.
            Some(etag) => self.wish.decide(Version { etag, length: 0, modified: None }) == Decision::Whole,
            // §13.1.1: with nothing there, If-Match is false even for "*".
            None => !self.has_if_match,
        }
    }
}

/// The entity tag of `value` as [`Conditions::answer`] gives it.
pub(super) fn etag(value: &impl Serialize) -> String {
    etag_of(&serde_json::to_vec(value).expect("text and numbers always become JSON"))
}

fn etag_of(body: &[u8]) -> String {
    Digest::of(body).etag()
}

pub(super) fn changed_meanwhile() -> Problem {
    Problem::new(Kind::PreconditionFailed, "what is there is not what If-Match or If-None-Match asks for; nothing was changed")
}

/// For answers that were made before: the page of the reference, the description.
pub(super) fn fixed(headers: &HeaderMap, etag: &HeaderValue, mut response: Response) -> Response {
    response.headers_mut().insert(ETAG, etag.clone());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, no-cache"));
    let wish = Wish::of(&http::Method::HEAD, headers);
    let version = Version { etag: etag.to_str().unwrap_or_default(), length: 0, modified: None };
    if wish.decide(version) == Decision::NotModified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(CONTENT_TYPE);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(headers: &[(http::HeaderName, &str)]) -> Conditions {
        let mut request = http::Request::put("/x");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        Conditions::of(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_write_depends_on_what_is_there_as_the_headers_say() {
        let (one, other) = (etag(&1), etag(&2));
        assert!(conditions(&[]).allow(Some(&one)) && conditions(&[]).allow(None));
        let if_match = conditions(&[(IF_MATCH, &one)]);
        assert!(if_match.allow(Some(&one)) && !if_match.allow(Some(&other)) && !if_match.allow(None));
        let weak = conditions(&[(IF_MATCH, &format!("W/{one}"))]);
        assert!(!weak.allow(Some(&one)), "a weak tag is never enough to write");
        let must_exist = conditions(&[(IF_MATCH, "*")]);
        assert!(must_exist.allow(Some(&one)) && !must_exist.allow(None));
        let must_be_new = conditions(&[(IF_NONE_MATCH, "*")]);
        assert!(!must_be_new.allow(Some(&one)) && must_be_new.allow(None));
        assert!(must_be_new.is_any() && !conditions(&[]).is_any());
    }
}
