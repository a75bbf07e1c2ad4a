//! What an operator writes in `control.toml`, and what the code trusts.

mod activity;
mod canary;
mod history;
mod identity;
mod steering;

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use http::HeaderValue;
use wire::config::{Document, Seconds};

pub use self::activity::{BucketConfig, BucketUrl, NotABucketUrl};
pub use crate::{
    canary::Config as CanaryConfig,
    limits::{Rate, Rates},
    resilience::admission::Overload,
    sites::SiteRecord,
};
pub use history::HistoryConfig;
pub use identity::{
    KeySource, KeysUrl, NoRole, NotAKeysUrl, NotAName, NotAProxyHeader, OperatorConfig, OperatorName, Proxies, ProxyHeader,
    Refresh, Role, Rules, ViewersConfig,
};
pub use steering::{NotAPublicUrl, PublicUrl, SteeringConfig};

/// The bounds of `token_lifetime`: shorter breaks playback between two requests, longer outlives a change of keys.
const TOKEN_LIFETIME: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(7 * 86_400));
/// The bounds of `search.timeout`: shorter finds too little on a busy machine, longer is not waited for by anyone who types.
const SEARCH_TIMEOUT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));
/// The bounds of `edge_timeout`.
const EDGE_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));

/// The bounds of a rate: the numbers that headers carry stay small, and a bucket's arithmetic exact.
const RATE_MAX: u32 = 1_000_000;
/// The bounds of `overload.lag`: the kernel's own scheduling is coarser than a millisecond.
const LAG: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(10));
/// The bounds of `overload.requests_max`.
const REQUESTS_MAX: (usize, usize) = (16, 1_000_000);
/// The bounds of `audit.keep`.
const AUDIT_KEEP: (Duration, Duration) = (Duration::from_secs(86_400), Duration::from_secs(3650 * 86_400));

/// A checked configuration of the control role.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the API and the player are served, plain HTTP/1.1 and HTTP/2. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the database is kept; made when missing.
    pub state_dir: PathBuf,
    /// The private key (JWK) that signs viewers' URLs.
    pub signing_key_file: PathBuf,
    /// The `iss` claim of every token; edges accept the issuers they are told.
    pub token_issuer: String,
    /// How long a signed URL is good.
    pub token_lifetime: Duration,
    /// The bearer secret of the first operator, who is called "operator" and is an admin.
    pub operator_token_file: PathBuf,
    /// All other operators.
    pub operators: Vec<OperatorConfig>,
    /// Whose tokens make a viewer; none are taken where it is absent.
    pub viewers: Option<ViewersConfig>,
    /// Whether whoever sends no token may read what viewers may.
    pub anonymous: bool,
    /// Who is believed about where a client is.
    pub proxies: Proxies,
    /// How many requests a caller may send.
    pub limits: Rates,
    /// When requests are shed.
    pub overload: Overload,
    /// A second control that is tried out.
    pub canary: Option<CanaryConfig>,
    /// How long it is kept who did what.
    pub audit_keep: Duration,
    /// The bearer secret of edges.
    pub edge_token_file: PathBuf,
    /// An edge whose last report is older leaves the rankings.
    pub edge_timeout: Duration,
    /// How what viewers do is kept.
    pub history: HistoryConfig,
    /// From a search to its answer, which then has what was found until then.
    pub search_timeout: Duration,
    /// How viewers are sent to edges.
    pub steering: SteeringConfig,
    /// Web origins whose scripts may call the API; none unless configured.
    pub allowed_origins: Vec<AllowedOrigin>,
    /// How what viewers do is kept.
    pub activity: ::activity::Config,
    /// Where the lake's files go, if they do not stay on the machine.
    pub lake_bucket: Option<BucketConfig>,
}

impl Config {
    /// Reads and checks a document. `None` when anything in it is wrong: `doc.finish()` then says everything that is.
    pub fn read(doc: &mut Document) -> Option<Self> {
        const FILE: &str = "the path of a file";
        let listen =
            doc.value("listen", Some(SocketAddr::from(([127, 0, 0, 1], 8080))), "an address and port such as 127.0.0.1:8080");
        let state_dir = doc.value::<String>("state_dir", None, "the path of a directory");
        let signing_key_file = doc.value::<String>("signing_key_file", None, FILE);
        let token_issuer = doc.value::<String>("token_issuer", None, "a name that edges trust, such as \"larder.example\"");
        let token_lifetime = duration(doc, "token_lifetime", Duration::from_secs(6 * 3600), TOKEN_LIFETIME);
        let operator_token_file = doc.value::<String>("operator_token_file", None, FILE);
        let operators = identity::operators(doc);
        let viewers = identity::viewers(doc);
        let anonymous = doc.value("viewers.anonymous", Some(true), "true or false");
        let proxies = identity::proxies(doc);
        let limits = limits(doc);
        let overload = overload(doc);
        let canary = canary::read(doc);
        let audit_keep = duration(doc, "audit.keep", Duration::from_secs(400 * 86_400), AUDIT_KEEP);
        let edge_token_file = doc.value::<String>("edge_token_file", None, FILE);
        let edge_timeout = duration(doc, "edge_timeout", Duration::from_secs(10), EDGE_TIMEOUT);
        let history = history::history(doc);
        let search_timeout = duration(doc, "search.timeout", Duration::from_millis(250), SEARCH_TIMEOUT);
        let steering = steering::steering(doc);
        let allowed_origins = doc.list("cors.allowed_origins", AllowedOrigin::EXPECTED);
        let (activity, lake_bucket) = activity::read(doc, state_dir.as_deref()).unzip();
        Some(Self {
            listen: listen?,
            state_dir: state_dir?.into(),
            signing_key_file: signing_key_file?.into(),
            token_issuer: token_issuer?,
            token_lifetime: token_lifetime?,
            operator_token_file: operator_token_file?.into(),
            operators,
            viewers,
            anonymous: anonymous?,
            proxies: proxies?,
            limits: limits?,
            overload: overload?,
            canary,
            audit_keep: audit_keep?,
            edge_token_file: edge_token_file?.into(),
            edge_timeout: edge_timeout?,
            history: history?,
            search_timeout: search_timeout?,
            steering: steering?,
            allowed_origins,
            activity: activity?,
            lake_bucket: lake_bucket?,
        })
    }
}

fn overload(doc: &mut Document) -> Option<Overload> {
    let default = Overload::default();
    let lag = duration(doc, "overload.lag", default.lag, LAG);
    let requests_max = doc.value("overload.requests_max", Some(default.requests_max), "a whole number");
    if requests_max.is_some_and(|number| !(REQUESTS_MAX.0..=REQUESTS_MAX.1).contains(&number)) {
        doc.problem("overload.requests_max", format!("a number from {} to {}", REQUESTS_MAX.0, REQUESTS_MAX.1));
    }
    Some(Overload { lag: lag?, requests_max: requests_max? })
}

fn limits(doc: &mut Document) -> Option<Rates> {
    let viewer = rate(doc, "viewer", Rate { per_second: 20, burst: 100 });
    let operator = rate(doc, "operator", Rate { per_second: 100, burst: 1000 });
    let address = rate(doc, "address", Rate { per_second: 100, burst: 500 });
    Some(Rates { viewer: viewer?, operator: operator?, address: address? })
}

fn rate(doc: &mut Document, who: &str, default: Rate) -> Option<Rate> {
    let mut number = |what: &str, default: u32, least: u32| {
        let key = format!("limits.{who}_{what}");
        let number = doc.value(&key, Some(default), "a whole number")?;
        if number < least || number > RATE_MAX {
            doc.problem(&key, format!("a number from {least} to {RATE_MAX}"));
            return None;
        }
        Some(number)
    };
    let (per_second, burst) = (number("per_second", default.per_second, 0), number("burst", default.burst, 1));
    Some(Rate { per_second: per_second?, burst: burst? })
}

fn duration(doc: &mut Document, key: &str, default: Duration, (min, max): (Duration, Duration)) -> Option<Duration> {
    let Seconds(value) = doc.value(key, Some(Seconds(default)), "a duration such as 10s, 250ms or 6h")?;
    if value < min || value > max {
        doc.problem(key, format!("a duration from {} to {}", Seconds(min), Seconds(max)));
        return None;
    }
    Some(value)
}

/// `*`, or a web origin as browsers write it: scheme, host, port unless it is the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedOrigin(String);

impl AllowedOrigin {
    const EXPECTED: &str = "\"*\" or an origin such as \"https://app.example\"";

    pub(crate) fn is_any(&self) -> bool {
        self.0 == "*"
    }

    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("checked to be a URI, which is ASCII")
    }
}

impl FromStr for AllowedOrigin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        if text != "*" {
            let base = crate::fleet::base_url(text).map_err(|_| NotAnOrigin)?;
            if base != text {
                return Err(NotAnOrigin);
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not a web origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an origin: expected {}", AllowedOrigin::EXPECTED)]
pub struct NotAnOrigin;

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        state_dir = "/var/lib/larder/control"
        signing_key_file = "/etc/larder/signing-key.jwk"
        token_issuer = "larder.example"
        operator_token_file = "/etc/larder/operator.token"
        edge_token_file = "/etc/larder/edge.token"
        "#;

    fn problems(text: &str) -> Vec<String> {
        let mut doc = Document::parse(text).unwrap();
        Config::read(&mut doc);
        doc.finish().unwrap_err().iter().map(|problem| problem.to_string()).collect()
    }

    #[test]
    fn what_need_not_be_written_has_a_default() {
        let mut doc = Document::parse(WHOLE).unwrap();
        let config = Config::read(&mut doc).unwrap();
        doc.finish().unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!((config.token_lifetime, config.edge_timeout), (Duration::from_secs(21_600), Duration::from_secs(10)));
        assert_eq!(config.search_timeout, Duration::from_millis(250));
        assert_eq!(config.allowed_origins, []);
        assert!(config.viewers.is_none() && config.anonymous && config.operators.is_empty());
        assert_eq!((config.limits.viewer.per_second, config.limits.viewer.burst), (20, 100));
    }

    #[test]
    fn whom_control_recognises_is_checked() {
        let keys = "[viewers]\njwks_file = \"/k\"\njwks_url = \"https://id.example/k\"\n";
        let text = format!(
            "{WHOLE}operators = [{{ name = \"ada\", role = \"admin\", token_file = \"/a\" }}, {{ name = \"bo\", role = \"viewer\", token_file = \"/b\" }}]\n\
             {keys}issuer = \"i\"\nother_issuers = [\"j\"]\naudience = \"a\"\nprofile_claim = \"p\"\nanonymous = false\n\
             [proxies]\nfrom = [\"10.0.0.0/8\"]\nheader = \"Forwarded\"\n[limits]\naddress_per_second = 0\n"
        );
        let mut doc = Document::parse(&text).unwrap();
        let config = Config::read(&mut doc).unwrap();
        doc.finish().unwrap();
        let viewers = config.viewers.unwrap();
        assert_eq!(
            (viewers.keys.len(), viewers.rules.issuers, viewers.rules.audiences),
            (2, vec!["i".into(), "j".into()], vec!["a".into()])
        );
        assert_eq!(config.operators.iter().map(|operator| operator.role).collect::<Vec<_>>(), [Role::Admin, Role::Viewer]);
        assert_eq!((config.proxies.header, config.anonymous), (ProxyHeader::Forwarded, false));

        let one = |text: &str| problems(&format!("{WHOLE}{text}")).join("\n");
        for (text, expected) in [
            (keys, "viewers.issuer: expected a text, as there is a key set, found nothing"),
            ("[viewers]\njwks_url = \"ftp://x/k\"", "viewers.jwks_url: expected a URL such as https://id.example/keys.json"),
            ("[viewers]\njwks_url = \"https://me:secret@x/k\"", "viewers.jwks_url: expected a URL"),
            ("[viewers]\nclock_skew = \"1h\"", "viewers.clock_skew: expected a duration from 0s to 10m"),
            ("[viewers]\ntokens_remembered = 16777217", "viewers.tokens_remembered: expected a number from 0 to 16777216"),
            (
                "operators = [{ name = \"a b\", role = \"admin\", token_file = \"/a\" }]",
                "operators[0].name: expected 1 to 64 of A-Z",
            ),
            ("operators = [{ name = \"operator\", role = \"admin\", token_file = \"/a\" }]", "a name that no other operator has"),
            (
                "operators = [{ name = \"a\", role = \"king\", token_file = \"/a\" }]",
                "operators[0].role: expected \"viewer\", \"operator\" or \"admin\"",
            ),
            ("operators = [{ name = \"a\", role = \"admin\" }]", "operators[0].token_file: expected the path of a file"),
            ("[proxies]\nfrom = [\"10.0.0.0\"]", "proxies.from: expected a network such as 10.0.0.0/8"),
            ("[proxies]\nheader = \"via\"", "proxies.header: expected \"x-forwarded-for\" or \"forwarded\""),
            ("[limits]\nviewer_burst = 0", "limits.viewer_burst: expected a number from 1 to 1000000"),
            ("[limits]\nviewer_per_second = -1", "limits.viewer_per_second: expected a whole number"),
            ("[audit]\nkeep = \"1h\"", "audit.keep: expected a duration from 1d to 3650d"),
        ] {
            assert!(one(text).contains(expected), "{text}: {}", one(text));
        }
    }

    #[test]
    fn every_problem_is_told_with_its_line() {
        let text = format!(
            "{WHOLE}token_lifetime = \"1s\"\nedge_timeout = \"soon\"\n[cors]\nallowed_origins = [\"*\", \"app.example\"]"
        );
        assert_eq!(
            problems(&text),
            [
                "7: token_lifetime: expected a duration from 1m to 7d, found \"1s\"",
                "8: edge_timeout: expected a duration such as 10s, 250ms or 6h, found \"soon\"",
                "10: cors.allowed_origins: expected \"*\" or an origin such as \"https://app.example\", found \"app.example\"",
            ]
        );
        assert_eq!(problems("").len(), 5, "what has no default must be written");
    }

    #[test]
    fn origins_are_as_browsers_write_them() {
        for good in ["*", "https://app.example", "http://localhost:3000"] {
            assert_eq!(good.parse::<AllowedOrigin>().map(|origin| origin.to_string()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "app.example",
            "https://app.example/",
            "https://App.example",
            "https://app.example/x",
            "null",
            "https://*.example ",
        ] {
            assert_eq!(bad.parse::<AllowedOrigin>(), Err(NotAnOrigin), "{bad}");
        }
    }
}
