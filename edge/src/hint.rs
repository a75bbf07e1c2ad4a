//! What an answer tells a player about the way to it: Common Media Server Data (CTA-5006), for players that send Common Media Client Data
//! (CTA-5004) and so would read it.
//!
//! `CMSD-Dynamic: "edge1";etp=45000;rtt=30;mb=8000`: a list of one string with parameters (RFC 8941 §3.1). `etp` is the estimated throughput, in
//! kbit/s, `rtt` in milliseconds, `mb` the highest bitrate that makes sense here, in kbit/s. There is no space before a parameter: dash.js
//! and Shaka Player cut the value at its semicolons.

use ::http::{HeaderMap, HeaderName, HeaderValue};

use crate::{config::Name, http::Request};

const CMSD_DYNAMIC: HeaderName = HeaderName::from_static("cmsd-dynamic");
/// What the names of CTA-5004's header fields begin with, and its query argument (§2).
const CMCD_FIELDS: &str = "cmcd-";
const CMCD_QUERY: &str = "CMCD=";
/// The part of a cap that a player should play at, in hundredths: audio is sent beside the picture, and a buffer fills only if more comes than is
/// played.
const PLAYED_PERCENT: u64 = 80;

/// Says it.
pub(crate) struct Hints {
    is_on: bool,
    name: String,
    connection_bits_per_second_max: Option<u64>,
}

impl Hints {
    pub(crate) fn new(is_on: bool, name: &Name, connection_bits_per_second_max: Option<u64>) -> Self {
        Self { is_on, name: name.as_str().to_owned(), connection_bits_per_second_max }
    }

    /// What the answer to `request` says, if anything. `token_bits_per_second_max` is the cap of what it is asked with.
    pub(crate) fn of(&self, request: &Request, token_bits_per_second_max: Option<u64>) -> Option<HeaderValue> {
        if !self.is_on || !sends_cmcd(&request.headers, &request.path_and_query) {
            return None;
        }
        let cap = [self.connection_bits_per_second_max, token_bits_per_second_max].into_iter().flatten().min();
        let estimate = request.link.estimate();
        let mut value = format!("\"{}\"", self.name);
        let mut add = |key: &str, number: u64| value.push_str(&format!(";{key}={number}"));
        if let Some(estimate) = estimate {
            if let Some(rate) = estimate.bits_per_second {
                add("etp", cap.unwrap_or(u64::MAX).min(rate) / 1000);
            }
            add("rtt", u64::try_from(estimate.rtt.as_millis()).unwrap_or(u64::MAX));
        }
        if let Some(cap) = cap {
            add("mb", cap / 100 * PLAYED_PERCENT / 1000);
        }
        // A name alone would say nothing.
        if estimate.is_none() && cap.is_none() {
            return None;
        }
        HeaderValue::try_from(value).ok()
    }
}

/// Puts what [`Hints::of`] said into an answer.
pub(crate) fn tell(hint: Option<HeaderValue>, headers: &mut HeaderMap) {
    if let Some(hint) = hint {
        headers.insert(CMSD_DYNAMIC, hint);
    }
}

fn sends_cmcd(headers: &HeaderMap, path_and_query: &str) -> bool {
    if headers.keys().any(|name| name.as_str().starts_with(CMCD_FIELDS)) {
        return true;
    }
    let query = path_and_query.split_once('?').map(|(_, query)| query);
    query.is_some_and(|query| query.split('&').any(|argument| argument.starts_with(CMCD_QUERY)))
}

#[cfg(test)]
mod tests {
    use ::http::Method;

    use super::*;
    use crate::http::{Link, Protocol};

    fn request(field: Option<&'static str>, path_and_query: &str) -> Request {
        Request {
            method: Method::GET,
            authority: "edge".into(),
            path_and_query: path_and_query.into(),
            headers: field
                .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("sid=\"a\"")))
                .into_iter()
                .collect(),
            protocol: Protocol::Http2,
            peer: "192.0.2.7:1234".parse().unwrap(),
            link: Link::Silent,
        }
    }

    fn said(hints: &Hints, request: &Request, token: Option<u64>) -> Option<String> {
        hints.of(request, token).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn who_sends_cmcd_in_whichever_form_is_told_and_nobody_else() {
        let hints = Hints::new(true, &"edge-1.b".parse().unwrap(), Some(10_000_000));
        for (field, target, is_told) in [
            (None, "/a", false),
            (None, "/a?CMC=1&xCMCD=bl%3D1", false),
            (None, "/CMCD=bl", false),
            (None, "/a?session=7&CMCD=bl%3D1", true),
            (Some("cmcd-session"), "/a", true),
            (Some("cmcd-request"), "/a", true),
            (Some("cmsd-static"), "/a", false),
        ] {
            let expected = is_told.then(|| "\"edge-1.b\";mb=8000".to_owned());
            assert_eq!(said(&hints, &request(field, target), None), expected, "{field:?} {target}");
        }
        let off = Hints::new(false, &"edge".parse().unwrap(), Some(10_000_000));
        assert_eq!(said(&off, &request(Some("cmcd-session"), "/a"), None), None);
    }

    #[test]
    fn the_smallest_cap_is_said_and_without_one_and_without_an_estimate_nothing() {
        let hints = |cap| Hints::new(true, &"e".parse().unwrap(), cap);
        let asked = request(Some("cmcd-session"), "/a");
        assert_eq!(said(&hints(Some(10_000_000)), &asked, Some(2_500_000)).as_deref(), Some("\"e\";mb=2000"));
        assert_eq!(said(&hints(None), &asked, Some(2_500_000)).as_deref(), Some("\"e\";mb=2000"));
        assert_eq!(said(&hints(None), &asked, None), None);
    }
}
