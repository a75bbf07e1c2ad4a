//! Control's API, as operators' commands and the demo's player use it: plain HTTP/1.1, JSON.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use wire::secret::Secret;

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long one exchange may take.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(30);

/// A control plane, and the secret that opens it.
pub(crate) struct Api {
    client: Client<HttpConnector, Full<Bytes>>,
    /// Scheme, host and port.
    base: String,
    secret: HeaderValue,
}

impl Api {
    /// Nothing is sent yet. `secret` is an operator's.
    pub(crate) fn new(base: &str, secret: &Secret) -> anyhow::Result<Self> {
        let base = base.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().with_context(|| format!("control's URL {base:?} is not a URL"))?;
        ensure!(
            uri.scheme_str() == Some("http") && uri.path() == "/",
            "control's URL {base:?} is not of the form http://host:port; control speaks plain HTTP, so stay on its machine or network"
        );
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { client, base, secret: secret.bearer() })
    }

    /// The JSON at `path`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let body = self.exchange(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&body).with_context(|| format!("control's answer to GET {path} is not understood"))
    }

    /// Sends JSON to `path`.
    pub(crate) async fn put(&self, path: &str, value: &impl Serialize) -> anyhow::Result<()> {
        self.exchange(Method::PUT, path, serde_json::to_vec(value)?.into()).await.map(drop)
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        let Self { base, secret, .. } = self;
        let request = Request::builder()
            .method(&method)
            .uri(format!("{base}{path}"))
            .header(header::AUTHORIZATION, secret)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .with_context(|| format!("{base}{path} is not a URL"))?;
        let exchange = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| anyhow!(error))?;
            anyhow::Ok(Response::from_parts(head, body.to_bytes()))
        };
        let answer = match tokio::time::timeout(EXCHANGE_TIME_MAX, exchange).await {
            Ok(answer) => answer.with_context(|| format!("control does not answer at {base}"))?,
            Err(_) => bail!("control at {base} does not answer in {} s", EXCHANGE_TIME_MAX.as_secs()),
        };
        if !answer.status().is_success() {
            bail!("control answers {} to {method} {path}{}", answer.status(), reason(answer.body()));
        }
        Ok(answer.into_body())
    }
}

/// What a problem document (RFC 9457) says.
fn reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        title: Option<String>,
        detail: Option<String>,
    }
    match serde_json::from_slice::<Problem>(body) {
        Ok(Problem { title, detail }) => detail.or(title).map_or_else(String::new, |said| format!(": {said}")),
        Err(_) => String::new(),
    }
}

/// `GET /videos/{id}/playback`, as far as a player needs it here.
#[derive(Debug, Deserialize)]
pub(crate) struct Playback {
    pub(crate) edges: Vec<PlaybackEdge>,
}

/// An edge that a player may use, with signed URLs.
#[derive(Debug, Deserialize)]
pub(crate) struct PlaybackEdge {
    pub(crate) edge: String,
    pub(crate) hls: String,
}

/// `GET /videos/{id}/cdn-url`.
#[derive(Debug, Deserialize)]
pub(crate) struct CdnUrl {
    pub(crate) urls: Vec<String>,
}

/// `GET /fleet/edges`.
#[derive(Debug, Deserialize)]
pub(crate) struct Fleet {
    pub(crate) edges: Vec<FleetEdge>,
}

/// An edge as operators see it.
#[derive(Debug, Deserialize)]
pub(crate) struct FleetEdge {
    pub(crate) edge: String,
    pub(crate) report: Option<wire::report::Report>,
}
