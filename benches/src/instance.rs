//! How a control is configured that benchmarks start: open, on loopback, with no limit on anybody, and with all of its files in one folder.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use control::{
    Config,
    config::{HistoryConfig, Overload, Proxies, ProxyHeader, Rate, Rates, SteeringConfig},
};
use wire::token::{Algorithm, SigningKey};

/// The secret of operators.
pub(crate) const OPERATOR: &str = "the-secret-of-operators";
/// The secret of edges.
pub(crate) const EDGE: &str = "the-secret-of-edges";
const NO_LIMIT: Rate = Rate { per_second: 0, burst: 1 };

/// A configuration, and the files that it names.
pub(crate) fn config(folder: &Path) -> Config {
    fs::create_dir_all(folder).expect("a directory");
    let file = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content).expect("a file");
        path
    };
    let key = SigningKey::generate(Algorithm::EdDsa, "bench").expect("a key");
    let state_dir = folder.join("state");
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        signing_key_file: file("signing.jwk", &key.to_jwk()),
        token_issuer: "larder.example".into(),
        token_lifetime: Duration::from_secs(3600),
        operator_token_file: file("operator", OPERATOR),
        operators: Vec::new(),
        viewers: None,
        anonymous: true,
        proxies: Proxies { from: Vec::new(), header: ProxyHeader::XForwardedFor },
        limits: Rates { viewer: NO_LIMIT, operator: NO_LIMIT, address: NO_LIMIT },
        overload: Overload::default(),
        canary: None,
        audit_keep: Duration::from_secs(86_400),
        edge_token_file: file("edge", EDGE),
        edge_timeout: Duration::from_secs(3600),
        history: HistoryConfig::default(),
        steering: SteeringConfig::default(),
        search_timeout: Duration::from_millis(250),
        allowed_origins: Vec::new(),
        activity: activity::Config::new(state_dir.join("activity"), state_dir.join("activity/lake")),
        lake_bucket: None,
        state_dir,
    }
}
