//! Control's API, as operators' commands and the demo's player use it: plain HTTP/1.1, JSON.

use std::{fmt::Write as _, fs::File, time::Duration};

use anyhow::{Context as _, anyhow, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use wire::secret::Secret;

use crate::cli::{Misuse, operator::OperatorArgs};

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long one exchange may take.
const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(30);
/// How often a read that came too soon for control's limits (429) is asked again, and the longest wait for it.
const WAITS_MAX: u32 = 10;
const WAIT_MAX: Duration = Duration::from_secs(30);

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

    /// The control that an operator means. Nothing is sent yet.
    pub(crate) fn of(OperatorArgs { control, token_file }: &OperatorArgs) -> anyhow::Result<Self> {
        let secret = Secret::read(token_file, "--token-file", File::open(token_file))?;
        Self::new(control, &secret).map_err(|error| Misuse(format!("--control: {error:#}")).into())
    }

    /// The JSON at `path`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        Ok(self.version(path).await?.value)
    }

    /// The JSON at `path`, and which version of it that is.
    pub(crate) async fn version<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Version<T>> {
        let mut waits = 0;
        loop {
            let answer = self.exchange(Method::GET, path, HeaderMap::new(), Bytes::new()).await;
            let refused = answer.as_ref().err().and_then(|error| error.downcast_ref::<Refused>());
            match refused.and_then(|refused| refused.ask_again_in) {
                Some(pause) if waits < WAITS_MAX => tokio::time::sleep(pause).await,
                _ => return Version::of(&answer?, "GET", path),
            }
            waits += 1;
        }
    }

    /// Sends JSON to `path`.
    pub(crate) async fn put(&self, path: &str, value: &impl Serialize) -> anyhow::Result<()> {
        self.exchange(Method::PUT, path, HeaderMap::new(), serde_json::to_vec(value)?.into()).await.map(drop)
    }

    /// Sends JSON to `path`, where nothing may be yet unless `replace`. Comes back with what is there now, and whether it is new.
    pub(crate) async fn publish<T: DeserializeOwned>(
        &self,
        path: &str,
        json: Bytes,
        replace: bool,
    ) -> anyhow::Result<(Version<T>, bool)> {
        // RFC 9110 §13.1.2: "If-None-Match can also be used with a value of "*" to prevent an unsafe request method […] from
        // inadvertently modifying an existing representation".
        let condition = (!replace).then_some((header::IF_NONE_MATCH, HeaderValue::from_static("*")));
        let answer = self.exchange(Method::PUT, path, HeaderMap::from_iter(condition), json).await?;
        Ok((Version::of(&answer, "PUT", path)?, answer.status() == StatusCode::CREATED))
    }

    /// Has control apply a merge patch (RFC 7396) to what is at `path`, if that is a version of `if_match`. Comes back with what is there
    /// now.
    pub(crate) async fn amend<T: DeserializeOwned>(
        &self,
        path: &str,
        patch: &impl Serialize,
        if_match: Option<&HeaderValue>,
    ) -> anyhow::Result<Version<T>> {
        let mut headers = HeaderMap::from_iter(if_match.map(|tags| (header::IF_MATCH, tags.clone())));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/merge-patch+json"));
        let answer = self.exchange(Method::PATCH, path, headers, serde_json::to_vec(patch)?.into()).await?;
        Version::of(&answer, "PATCH", path)
    }

    /// Has control do what `path` stands for.
    pub(crate) async fn post(&self, path: &str) -> anyhow::Result<()> {
        self.exchange(Method::POST, path, HeaderMap::new(), Bytes::new()).await.map(drop)
    }

    /// Has control forget what is at `path`.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.exchange(Method::DELETE, path, HeaderMap::new(), Bytes::new()).await.map(drop)
    }

    /// An answer that is a success. The body is JSON, unless `headers` say otherwise.
    async fn exchange(&self, method: Method, path: &str, headers: HeaderMap, body: Bytes) -> anyhow::Result<Response<Bytes>> {
        let Self { base, secret, .. } = self;
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("{base}{path}"))
            .header(header::AUTHORIZATION, secret)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .with_context(|| format!("{base}{path} is not a URL"))?;
        request.headers_mut().extend(headers);
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
            let (status, asked) = (answer.status(), format!("{method} {path}"));
            let ask_again_in = if status == StatusCode::TOO_MANY_REQUESTS { pause(answer.headers()) } else { None };
            return Err(Refused { status, asked, reason: reason(answer.body()), ask_again_in }.into());
        }
        Ok(answer)
    }
}

/// What is at a path, and its entity tag (RFC 9110 §8.8.3), which is another whenever that is.
pub(crate) struct Version<T> {
    pub(crate) value: T,
    pub(crate) etag: Option<String>,
}

impl<T: DeserializeOwned> Version<T> {
    fn of(answer: &Response<Bytes>, method: &str, path: &str) -> anyhow::Result<Self> {
        let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        Ok(Self { value: understood(answer.body(), method, path)?, etag })
    }
}

/// Control does not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("control answers {status} to {asked}{reason}")]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    asked: String,
    /// ": " and control's words, or nothing.
    reason: String,
    /// Of one that came too soon.
    ask_again_in: Option<Duration>,
}

/// `Retry-After` (RFC 9110 §10.2.3) in seconds, where it is worth waiting.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|pause| *pause <= WAIT_MAX)
}

fn understood<T: DeserializeOwned>(body: &[u8], method: &str, path: &str) -> anyhow::Result<T> {
    serde_json::from_slice(body).with_context(|| format!("control's answer to {method} {path} is not understood"))
}

/// What a problem document (RFC 9457) says.
fn reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        title: Option<String>,
        detail: Option<String>,
    }
    match serde_json::from_slice::<Problem>(body) {
        // Before what is wrong with a whole body stands its pointer, which is empty (RFC 6901 §5), and a colon.
        Ok(Problem { title, detail }) => {
            detail.or(title).map_or_else(String::new, |said| format!(": {}", said.strip_prefix(": ").unwrap_or(&said)))
        }
        Err(_) => String::new(),
    }
}

/// `text` as one segment of a path, or one value of a query, whatever is in it: all but unreserved characters are escaped (RFC 3986 §2.1,
/// §2.3).
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => escaped.push(char::from(byte)),
            false => write!(escaped, "%{byte:02X}").expect("a String takes all"),
        }
    }
    escaped
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_an_id_it_stays_one_segment() {
        assert_eq!(escaped("edge-a.1_~"), "edge-a.1_~");
        assert_eq!(escaped("a%20b!x/kids"), "a%2520b%21x%2Fkids");
        assert_eq!(escaped("?ö&="), "%3F%C3%B6%26%3D");
    }

    #[test]
    fn a_problem_is_told_in_its_own_words_and_what_is_none_is_not() {
        assert_eq!(reason(br#"{"title":"Kind","detail":"this one","status":404}"#), ": this one");
        assert_eq!(reason(br#"{"title":"Kind","status":404}"#), ": Kind");
        assert_eq!(reason(br#"{"detail":": unknown field","pointer":""}"#), ": unknown field");
        assert_eq!(reason(b"<html>"), "");
    }
}
