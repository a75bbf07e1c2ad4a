//! Brings a key set: a file, or one `GET` of a server. Bounded in bytes and time.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header::ACCEPT};
use http_body_util::{BodyExt as _, Empty, Limited};
use tokio::time::timeout;

use super::jwks::{Jwks, JwksError, Origin};
use crate::client::{BadAuthorities, Client, ClientError};

/// The largest set, in bytes.
const SET_BYTES_MAX: usize = 512 * 1024;
/// From connecting to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a key set is, checked.
pub(crate) enum Source {
    File(PathBuf),
    Url { uri: Uri, client: Client },
}

impl Source {
    /// The server's certificate must come from an authority in `ca_file`, or from one of the public web's.
    pub(crate) fn url(uri: Uri, ca_file: Option<&Path>) -> Result<Self, FetchError> {
        let client = Client::new(&uri, ca_file)?;
        Ok(Self::Url { uri, client })
    }

    pub(crate) async fn fetch(&self) -> Result<Jwks, FetchError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read(&path)).await;
                Ok(Jwks::parse(&read.map_err(io::Error::other)??, Origin::File)?)
            }
            Self::Url { uri, client } => {
                let body = timeout(FETCH_TIMEOUT, get(uri, client)).await.map_err(|_| FetchError::Slow)??;
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

async fn get(uri: &Uri, client: &Client) -> Result<Bytes, FetchError> {
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .body(Empty::<Bytes>::new())
        .expect("a checked URI");
    let (answer, _connection) = client.send(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status()));
    }
    let body = Limited::new(answer.into_body(), SET_BYTES_MAX).collect().await;
    Ok(body.map_err(|error| FetchError::Body(error.to_string()))?.to_bytes())
}

/// Why there is no key set.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Exchange(#[from] ClientError),
    #[error("the answer is {0}, and only 200 has keys")]
    Status(StatusCode),
    #[error("the answer cannot be read: {0}; at most {SET_BYTES_MAX} bytes are")]
    Body(String),
    #[error("it took longer than {FETCH_TIMEOUT:?}")]
    Slow,
    #[error(transparent)]
    Authorities(#[from] BadAuthorities),
    #[error(transparent)]
    Set(#[from] JwksError),
}
