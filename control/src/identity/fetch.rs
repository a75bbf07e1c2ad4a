//! Brings a key set: a file, or one `GET` over HTTP/1.1 with TLS where the URL says so. Bounded in bytes and time; follows no
//! redirect, so that keys come from where the configuration says and nowhere else.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    Request, StatusCode, Uri,
    header::{ACCEPT, HOST, USER_AGENT},
};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::jwks::{Jwks, JwksError, Origin};

/// The largest set, in bytes.
const SET_BYTES_MAX: usize = 512 * 1024;
/// From connecting to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a key set is, checked.
pub(crate) enum Source {
    File(PathBuf),
    Url { uri: Uri, tls: Option<TlsConnector> },
}

impl Source {
    /// The server's certificate must come from an authority in `ca_file`, or from one of the public web's.
    pub(crate) fn url(uri: Uri, ca_file: Option<&Path>) -> Result<Self, FetchError> {
        let is_https = uri.scheme_str() == Some("https");
        let tls = if is_https { Some(TlsConnector::from(Arc::new(trust(ca_file)?))) } else { None };
        Ok(Self::Url { uri, tls })
    }

    pub(crate) async fn fetch(&self) -> Result<Jwks, FetchError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read(&path)).await;
                Ok(Jwks::parse(&read.map_err(io::Error::other)??, Origin::File)?)
            }
            Self::Url { uri, tls } => {
                let body = timeout(FETCH_TIMEOUT, get(uri, tls.as_ref())).await.map_err(|_| FetchError::Slow)??;
                Ok(Jwks::parse(&body, Origin::Url)?)
            }
        }
    }
}

/// For the log.
impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url { uri, .. } => write!(f, "{uri}"),
        }
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(SET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > SET_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {SET_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

async fn get(uri: &Uri, tls: Option<&TlsConnector>) -> Result<Bytes, FetchError> {
    let host = uri.host().expect("checked with the configuration");
    let port = uri.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((bare, port)).await?;
    match tls {
        None => exchange(uri, stream).await,
        Some(tls) => {
            let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
            exchange(uri, tls.connect(name, stream).await?).await
        }
    }
}

async fn exchange(uri: &Uri, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Bytes, FetchError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("larder/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .expect("a checked URI");
    let body = async {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), SET_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| FetchError::Body(error.to_string()))?.to_bytes())
    }
    .await;
    driver.abort();
    body
}

fn trust(ca_file: Option<&Path>) -> Result<ClientConfig, FetchError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            let unusable = |reason: String| FetchError::Authorities { file: file.to_owned(), reason };
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

/// Why there is no key set.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the exchange failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is {0}, and only 200 has keys")]
    Status(StatusCode),
    #[error("the answer cannot be read: {0}; at most {SET_BYTES_MAX} bytes are")]
    Body(String),
    #[error("it took longer than {FETCH_TIMEOUT:?}")]
    Slow,
    #[error("cannot use the certificates in {}: {reason}; it holds one or more PEM certificates of authorities", file.display())]
    Authorities { file: PathBuf, reason: String },
    #[error(transparent)]
    Set(#[from] JwksError),
}
