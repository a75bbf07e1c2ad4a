//! Who may tell an edge what to do: whoever reaches its address for operators, but no web page that runs where such a one is.
//!
//! A page can make a browser send requests to any address. What it cannot do is send JSON to another origin without asking first
//! (the Fetch standard §4.9), and nobody here says yes; nor can it name another host than its own, so a name that was pointed to this
//! address (DNS rebinding) is found out.

use std::{net::IpAddr, time::Duration};

use ::http::{HeaderMap, Request, StatusCode, header, uri::Authority};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// The longest body.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How long it may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an operator's request is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotTaken(pub(super) StatusCode, pub(super) String);

fn not_taken<T>(status: StatusCode, why: impl Into<String>) -> Result<T, NotTaken> {
    Err(NotTaken(status, why.into()))
}

/// Whether it names this edge by an address, or as localhost.
pub(super) fn is_direct(headers: &HeaderMap) -> Result<(), NotTaken> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().filter(|_| hosts.next().is_none()).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let is_direct = host.is_some_and(|authority| {
        let host = authority.host();
        host.eq_ignore_ascii_case("localhost") || host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
    });
    let why = "name this edge by its address, or as localhost: a web page could have pointed any other name here";
    if is_direct { Ok(()) } else { not_taken(StatusCode::MISDIRECTED_REQUEST, why) }
}

/// The body of a request that was sent on purpose.
pub(super) async fn json<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, NotTaken> {
    is_json(request.headers())?;
    let reading = timeout(BODY_TIMEOUT, Limited::new(request.into_body(), BODY_BYTES_MAX).collect());
    let body = match reading.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return not_taken(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {} KiB", BODY_BYTES_MAX >> 10));
        }
        Ok(Err(error)) => return not_taken(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")),
        Err(_) => return not_taken(StatusCode::REQUEST_TIMEOUT, "the body did not come"),
    };
    serde_json::from_slice(&body)
        .or_else(|error| not_taken(StatusCode::BAD_REQUEST, format!("the body is not understood: {error}")))
}

fn is_json(headers: &HeaderMap) -> Result<(), NotTaken> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    not_taken(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_addresses_and_localhost_are_this_edge() {
        for host in ["127.0.0.1", "127.0.0.1:9440", "[::1]:9440", "[::1]", "10.1.2.3:80", "localhost", "LocalHost:9440"] {
            assert_eq!(is_direct(&headers(header::HOST, &[host])), Ok(()), "{host}");
        }
        for host in
            ["evil.example", "evil.example:9440", "localhost.evil.example", "127.0.0.1.evil.example", "127.1", "2130706433", ""]
        {
            let NotTaken(status, _) = is_direct(&headers(header::HOST, &[host])).unwrap_err();
            assert_eq!(status, StatusCode::MISDIRECTED_REQUEST, "{host}");
        }
        assert!(is_direct(&HeaderMap::new()).is_err());
        assert!(is_direct(&headers(header::HOST, &["127.0.0.1", "evil.example"])).is_err());
    }

    #[test]
    fn what_a_page_may_send_without_asking_is_no_json() {
        for content_type in ["application/json", "Application/JSON; charset=utf-8"] {
            assert_eq!(is_json(&headers(header::CONTENT_TYPE, &[content_type])), Ok(()), "{content_type}");
        }
        // The CORS-safelisted ones (the Fetch standard §2.2.2), and what is near to ours.
        for content_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "text/plain; application/json",
            "application/json2",
            "",
        ] {
            assert!(is_json(&headers(header::CONTENT_TYPE, &[content_type])).is_err(), "{content_type}");
        }
        assert!(is_json(&HeaderMap::new()).is_err());
    }
}
