//! `[canary]`: a second control that is tried out.

use std::{fmt, str::FromStr, time::Duration};

use http::Uri;
use wire::config::Document;

use super::{CanaryConfig, duration};

/// The bounds of `canary.deadline`.
const DEADLINE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));

pub(super) fn read(doc: &mut Document) -> Option<CanaryConfig> {
    let url = doc.optional::<CanaryUrl>("canary.url", CanaryUrl::EXPECTED);
    let split_percent = percent(doc, "canary.split_percent");
    let mirror_percent = percent(doc, "canary.mirror_percent");
    let deadline = duration(doc, "canary.deadline", Duration::from_secs(1), DEADLINE);
    let CanaryUrl(url) = url?;
    Some(CanaryConfig { url, split_percent: split_percent?, mirror_percent: mirror_percent?, deadline: deadline? })
}

fn percent(doc: &mut Document, key: &str) -> Option<u8> {
    let percent = doc.value(key, Some(0_u8), "a whole number from 0 to 100")?;
    if percent > 100 {
        doc.problem(key, "a whole number from 0 to 100");
        return None;
    }
    Some(percent)
}

/// Where the second control listens.
struct CanaryUrl(Uri);

impl CanaryUrl {
    const EXPECTED: &str = "a URL such as http://10.0.0.2:8080, without a path";
}

impl FromStr for CanaryUrl {
    type Err = NotACanaryUrl;

    fn from_str(text: &str) -> Result<Self, NotACanaryUrl> {
        let base = crate::fleet::base_url(text).map_err(|_| NotACanaryUrl)?;
        let uri: Uri = base.parse().map_err(|_| NotACanaryUrl)?;
        if uri.scheme_str() == Some("http") && uri.path() == "/" { Ok(Self(uri)) } else { Err(NotACanaryUrl) }
    }
}

impl fmt::Display for CanaryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Not such a URL.
#[derive(Debug, thiserror::Error)]
#[error("expected {}", CanaryUrl::EXPECTED)]
struct NotACanaryUrl;
