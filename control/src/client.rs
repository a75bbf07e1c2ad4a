//! A server that control asks: HTTP/1.1, with TLS where the URL says so, a connection for each request. Follows no redirect, so that what comes
//! is from where the configuration says and from nowhere else. Bounds of bytes and time are the caller's, who knows what he asks for.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::{
    Request, Response, Uri,
    header::{HOST, HeaderValue, USER_AGENT},
};
use http_body::Body;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

/// What control says that it is.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("larder/", env!("CARGO_PKG_VERSION")));

/// One server.
#[derive(Clone)]
pub(crate) struct Client {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    authority: HeaderValue,
    tls: Option<TlsConnector>,
}

/// A connection, which ends when this is dropped.
pub(crate) struct Connection(JoinHandle<hyper::Result<()>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// The server of `uri`, which has a scheme (`http` or `https`) and a host. Its certificate must come from an authority in `ca_file`, or from
    /// one of the public web's.
    pub(crate) fn new(uri: &Uri, ca_file: Option<&Path>) -> Result<Self, BadAuthorities> {
        let is_https = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            authority: HeaderValue::from_str(authority).expect("an authority is visible ASCII"),
            tls: if is_https { Some(TlsConnector::from(Arc::new(trust(ca_file)?))) } else { None },
        })
    }

    /// What stands in `Host`.
    pub(crate) fn authority(&self) -> &str {
        self.authority.to_str().expect("an authority is visible ASCII")
    }

    /// Sends a request, whose target is a path, and gives the answer, which can be read as long as the connection is held.
    pub(crate) async fn send<B>(&self, request: Request<B>) -> Result<(Response<Incoming>, Connection), ClientError>
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        match &self.tls {
            None => self.exchange(request, stream).await,
            Some(tls) => {
                let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                self.exchange(request, tls.connect(name, stream).await?).await
            }
        }
    }

    async fn exchange<B>(
        &self,
        mut request: Request<B>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(Response<Incoming>, Connection), ClientError>
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        request.headers_mut().insert(HOST, self.authority.clone());
        request.headers_mut().insert(USER_AGENT, AGENT);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = Connection(tokio::spawn(connection));
        Ok((sender.send_request(request).await?, connection))
    }
}

fn trust(ca_file: Option<&Path>) -> Result<ClientConfig, BadAuthorities> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            let unusable = |reason: String| BadAuthorities { file: file.to_owned(), reason };
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))? {
                let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(unusable("there is no certificate in it".into()));
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("the provider has what TLS 1.2 and 1.3 need");
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the exchange failed: {0}")]
    Http(#[from] hyper::Error),
}

/// Why nobody can tell whether a server is who it says.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the certificates in {}: {reason}; it holds one or more PEM certificates of authorities", file.display())]
pub struct BadAuthorities {
    file: PathBuf,
    reason: String,
}
