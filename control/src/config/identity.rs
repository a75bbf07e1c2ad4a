//! `[viewers]`, `[[operators]]` and `[proxies]`: whom control recognises, and by what.

use std::{collections::HashSet, fmt, iter, path::PathBuf, str::FromStr, time::Duration};

use http::Uri;
use wire::config::Document;

use super::duration;
pub use crate::identity::{
    address::{NotAProxyHeader, Proxies, ProxyHeader},
    jwt::Rules,
    operators::{NoRole, NotAName, OperatorName, Role},
    viewers::Refresh,
};

/// The most operators: each is compared with whatever secret is presented.
const OPERATORS_MAX: usize = 64;
/// The bounds of `viewers.clock_skew`.
const CLOCK_SKEW: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(600));

/// The bounds of `viewers.jwks_refresh` and `viewers.jwks_pause`.
const JWKS_REFRESH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(7 * 86_400));
const JWKS_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));

/// The most of `viewers.tokens_remembered`: 2.5 GB.
const TOKENS_REMEMBERED_MAX: usize = 1 << 24;

/// Whose tokens make a viewer.
#[derive(Debug, Clone)]
pub struct ViewersConfig {
    /// Where the keys are that verify them, at least one.
    pub keys: Vec<KeySource>,
    /// How many verified tokens are remembered.
    pub tokens_remembered: usize,
    /// When they are asked for anew.
    pub refresh: Refresh,
    /// What they must say.
    pub rules: Rules,
}

/// Where a JWK set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file of this machine.
    File(PathBuf),
    /// A server, whose certificate comes from an authority in the file, or from one of the public web's.
    Url { url: KeysUrl, ca_file: Option<PathBuf> },
}

/// Where a key set is fetched: `https://id.example/keys.json`, or `http` on a network that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysUrl(Uri);

impl KeysUrl {
    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for KeysUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for KeysUrl {
    type Err = NotAKeysUrl;

    fn from_str(text: &str) -> Result<Self, NotAKeysUrl> {
        let uri: Uri = text.parse().map_err(|_| NotAKeysUrl)?;
        let is_web = matches!(uri.scheme_str(), Some("https" | "http"));
        // What stands before "@" would go to the log.
        let has_host =
            uri.host().is_some_and(|host| !host.is_empty()) && !uri.authority().is_some_and(|at| at.as_str().contains('@'));
        if is_web && has_host { Ok(Self(uri)) } else { Err(NotAKeysUrl) }
    }
}

/// Not such a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a URL such as https://id.example/keys.json, without a user in it")]
pub struct NotAKeysUrl;

/// An operator besides the one of `operator_token_file`.
#[derive(Debug, Clone)]
pub struct OperatorConfig {
    /// What the audit log calls him.
    pub name: OperatorName,
    /// What he may do.
    pub role: Role,
    /// The file with his secret.
    pub token_file: PathBuf,
}

pub(super) fn viewers(doc: &mut Document) -> Option<ViewersConfig> {
    const FILE: &str = "the path of a file";
    const TEXT: &str = "a text";
    let file = doc.optional::<String>("viewers.jwks_file", FILE);
    let url = doc.optional::<KeysUrl>("viewers.jwks_url", "a URL such as https://id.example/keys.json");
    let ca_file = doc.optional::<String>("viewers.jwks_ca_file", FILE).map(PathBuf::from);
    let every = duration(doc, "viewers.jwks_refresh", Duration::from_secs(600), JWKS_REFRESH);
    let pause = duration(doc, "viewers.jwks_pause", Duration::from_secs(10), JWKS_PAUSE);
    let issuer = doc.optional::<String>("viewers.issuer", TEXT);
    let other_issuers = doc.list::<String>("viewers.other_issuers", TEXT);
    let audience = doc.optional::<String>("viewers.audience", TEXT);
    let other_audiences = doc.list::<String>("viewers.other_audiences", TEXT);
    let clock_skew = duration(doc, "viewers.clock_skew", Duration::from_secs(60), CLOCK_SKEW);
    let profile_claim = doc.optional::<String>("viewers.profile_claim", "the name of a claim");
    let tokens_remembered = doc.value("viewers.tokens_remembered", Some(262_144_usize), "a whole number");
    if tokens_remembered.is_some_and(|number| number > TOKENS_REMEMBERED_MAX) {
        doc.problem("viewers.tokens_remembered", format!("a number from 0 to {TOKENS_REMEMBERED_MAX}"));
    }
    let file = file.map(|file| KeySource::File(file.into()));
    let keys: Vec<_> = file.into_iter().chain(url.map(|url| KeySource::Url { url, ca_file })).collect();
    if keys.is_empty() {
        return None;
    }
    // RFC 8725 §3.8 and §3.9: what is not made for us, by whom we trust, is not for us.
    for (key, given) in [("viewers.issuer", &issuer), ("viewers.audience", &audience)] {
        if given.is_none() {
            doc.problem(key, "a text, as there is a key set");
        }
    }
    let issuers = iter::once(issuer?).chain(other_issuers).collect();
    let audiences = iter::once(audience?).chain(other_audiences).collect();
    let refresh = Refresh { every: every?, pause: pause? };
    let rules = Rules { issuers, audiences, clock_skew: clock_skew?, profile_claim };
    Some(ViewersConfig { keys, tokens_remembered: tokens_remembered?, refresh, rules })
}

pub(super) fn proxies(doc: &mut Document) -> Option<Proxies> {
    let from = doc.list("proxies.from", "a network such as 10.0.0.0/8 or 2001:db8::/32");
    let header = doc.value("proxies.header", Some(ProxyHeader::XForwardedFor), "\"x-forwarded-for\" or \"forwarded\"");
    Some(Proxies { from, header: header? })
}

pub(super) fn operators(doc: &mut Document) -> Vec<OperatorConfig> {
    let tables = doc.tables("operators", "a table with name, role and token_file");
    if tables.len() > OPERATORS_MAX {
        doc.problem("operators", format!("at most {OPERATORS_MAX}"));
    }
    let mut names = HashSet::from([OperatorName::of_the_first()]);
    let mut operators = Vec::new();
    for table in tables {
        let key = format!("{table}.name");
        let name = doc.value::<OperatorName>(&key, None, "1 to 64 of A-Z, a-z, 0-9, '.', '_', '-' and '@'");
        let role = doc.value::<Role>(&format!("{table}.role"), None, "\"viewer\", \"operator\" or \"admin\"");
        let token_file = doc.value::<String>(&format!("{table}.token_file"), None, "the path of a file");
        if name.as_ref().is_some_and(|name| !names.insert(name.clone())) {
            doc.problem(&key, "a name that no other operator has (the one of operator_token_file is called \"operator\")");
        }
        if let (Some(name), Some(role), Some(token_file)) = (name, role, token_file) {
            operators.push(OperatorConfig { name, role, token_file: token_file.into() });
        }
    }
    operators
}
