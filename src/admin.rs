//! An edge's address for operators, as commands use it: plain HTTP/1.1, JSON.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited, combinators::UnsyncBoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::TcpStream, time::timeout};
use wire::operate::Failed;

/// The largest answer, or line of one, that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long an edge may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);

type Body = UnsyncBoxBody<Bytes, anyhow::Error>;

/// An edge, for operators.
pub(crate) struct Admin {
    client: Client<HttpConnector, Full<Bytes>>,
    /// Scheme, host and port.
    base: String,
}

impl Admin {
    /// Asks nothing of the edge yet, but looks a name up: edges want to be called by their address.
    pub(crate) async fn new(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
        let (Some("http"), Some(authority), "/") = (uri.scheme_str(), uri.authority(), uri.path()) else {
            bail!("{url:?} is not of the form http://host:port");
        };
        let (host, port) = (authority.host(), authority.port_u16().unwrap_or(80));
        let is_direct = host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let base = if is_direct { format!("http://{host}:{port}") } else { format!("http://{}", reachable(host, port).await?) };
        Ok(Self { client: Client::builder(TokioExecutor::new()).build_http(), base })
    }

    /// The JSON at `path`.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.answer(Method::GET, path, Bytes::new()).await
    }

    /// Sends JSON to `path` and gets JSON back.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, value: &impl Serialize) -> anyhow::Result<T> {
        self.answer(Method::POST, path, serde_json::to_vec(value)?.into()).await
    }

    /// Sends JSON to `path` and gets JSON back line by line, as it comes.
    pub(crate) async fn post_for_lines(&self, path: &str, value: &impl Serialize) -> anyhow::Result<Lines> {
        let answer = self.send(Method::POST, path, serde_json::to_vec(value)?.into()).await?;
        Ok(Lines { body: answer.into_body(), read: BytesMut::new() })
    }

    async fn answer<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<T> {
        let what = format!("{method} {path}");
        let body = read(self.send(method, path, body).await?).await?;
        serde_json::from_slice(&body).with_context(|| format!("the edge's answer to {what} is not understood"))
    }

    /// An answer that is a success.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Response<Body>> {
        let base = &self.base;
        let request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let sending = timeout(SILENCE_MAX, self.client.request(request)).await;
        let sent = sending.map_err(|_| anyhow!("it is silent for {} s", SILENCE_MAX.as_secs())).and_then(|sent| Ok(sent?));
        let answer = sent.with_context(|| format!("no edge answers operators at {base} (its admin_listen)"))?;
        let answer = answer.map(|body| body.map_err(anyhow::Error::from).boxed_unsync());
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = read(answer).await.ok().and_then(|body| serde_json::from_slice::<Failed>(&body).ok());
        match said {
            Some(Failed { error }) => bail!(error),
            None => bail!("what answers at {base} is no edge, or one of another version: {status}"),
        }
    }
}

async fn read(answer: Response<Body>) -> anyhow::Result<Bytes> {
    let reading = timeout(SILENCE_MAX, Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect()).await;
    let read = reading.context("the edge fell silent")?;
    Ok(read.map_err(|error| anyhow!("the edge's answer broke off: {error}"))?.to_bytes())
}

/// The first of the host's addresses that takes a connection.
async fn reachable(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let found = timeout(SILENCE_MAX, tokio::net::lookup_host((host, port))).await;
    let addresses = found.context("no answer")?.with_context(|| format!("cannot find the host {host:?}"))?;
    for addr in addresses {
        if let Ok(Ok(_)) = timeout(SILENCE_MAX, TcpStream::connect(addr)).await {
            return Ok(addr);
        }
    }
    bail!("no edge answers operators at {host}:{port} (its admin_listen)")
}

/// An answer that comes line by line.
pub(crate) struct Lines {
    body: Body,
    read: BytesMut,
}

impl Lines {
    /// The next line; `None` after the last.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                return serde_json::from_slice(&line).context("a line of the edge's answer is not understood").map(Some);
            }
            if self.read.len() > ANSWER_BYTES_MAX {
                bail!("a line of the edge's answer is too long");
            }
            match timeout(SILENCE_MAX, self.body.frame()).await.context("the edge fell silent")? {
                None => return Ok(None),
                Some(frame) => {
                    let frame = frame.context("the edge's answer broke off")?;
                    self.read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                }
            }
        }
    }
}
