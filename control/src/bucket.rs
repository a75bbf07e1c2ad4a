//! The bucket of an object store that speaks S3: where files of the lake go when they do not stay on the machine. Puts objects, and does nothing
//! else: what is too old there is for the bucket's own lifecycle rules.
//!
//! Objects are named by path (`https://store.example/bucket/key`), which every such store understands. An object is there when the store
//! says 200, and then for good, as far as stores promise; putting it again puts the same bytes.

mod sign;

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::digest::{Context, SHA256};
use futures_util::TryStreamExt as _;
use http::{
    Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::Frame;
use http_body_util::{BodyExt as _, Limited, StreamBody};
use tokio::{runtime::Handle, time::timeout};
use tokio_util::{io::ReaderStream, sync::CancellationToken};
use wire::secret::Secret;

use crate::{
    client::{BadAuthorities, Client, ClientError},
    config::BucketConfig,
};
use sign::{Signer, encoded, hex};

/// From connecting to the answer.
const PUT_TIMEOUT: Duration = Duration::from_secs(600);
/// Of an answer that is a refusal, so much is read.
const REFUSAL_BYTES_MAX: usize = 4096;
/// Of which so much is told.
const REFUSAL_CHARS_MAX: usize = 300;
/// Files are read so much at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// A bucket, and a prefix in it.
pub(crate) struct Bucket {
    client: Client,
    signer: Signer,
    /// "/bucket/prefix/".
    path: String,
}

impl Bucket {
    pub(crate) fn new(config: &BucketConfig, secret: Secret) -> Result<Self, BadAuthorities> {
        let uri = config.url.uri();
        Ok(Self {
            client: Client::new(uri, config.ca_file.as_deref())?,
            signer: Signer { key_id: config.access_key_id.clone(), secret, region: config.region.clone() },
            path: format!("{}/", uri.path().trim_end_matches('/')),
        })
    }

    /// Puts a file, and returns when the store has it.
    async fn put(&self, name: &str, file: &Path) -> Result<(), PutError> {
        let path = file.to_owned();
        let (digest, bytes) = tokio::task::spawn_blocking(move || digest(&path)).await.map_err(io::Error::other)??;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamp = sign::stamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let target = encoded(&format!("{}{name}", self.path));
        let signed =
            [("host", self.client.authority()), ("x-amz-content-sha256", digest.as_str()), ("x-amz-date", stamp.as_str())];
        let authorization = self.signer.authorization(&Method::PUT, &target, &signed, &digest, &stamp);
        let file = tokio::fs::File::open(file).await?;
        let body = StreamBody::new(ReaderStream::with_capacity(file, CHUNK_BYTES).map_ok(Frame::data));
        let request = Request::put(&target)
            .header(AUTHORIZATION, authorization)
            .header("x-amz-content-sha256", &digest)
            .header("x-amz-date", &stamp)
            .header(CONTENT_LENGTH, bytes)
            .header(CONTENT_TYPE, "application/vnd.apache.parquet")
            .body(body)
            .expect("encoded path and visible ASCII");
        let (answer, _connection) = self.client.send(request).await?;
        if answer.status() == StatusCode::OK {
            return Ok(());
        }
        let status = answer.status();
        let body = Limited::new(answer.into_body(), REFUSAL_BYTES_MAX).collect().await;
        let said = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        let said = said.chars().filter(|c| !c.is_control()).take(REFUSAL_CHARS_MAX).collect();
        Err(PutError::Refused { status, said })
    }
}

/// The SHA-256 of a file in hexadecimal, and its bytes.
fn digest(path: &Path) -> io::Result<(String, u64)> {
    let (mut file, mut context, mut bytes) = (File::open(path)?, Context::new(&SHA256), 0);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex(context.finish().as_ref()), bytes));
        }
        context.update(&buffer[..read]);
        bytes += read as u64;
    }
}

/// A bucket for threads: what they put is put by `runtime`, until `stop`.
pub(crate) struct Puts {
    pub(crate) bucket: Arc<Bucket>,
    pub(crate) runtime: Handle,
    pub(crate) stop: CancellationToken,
}

impl activity::Store for Puts {
    fn put(&self, name: &str, file: &Path) -> io::Result<()> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(io::Error::new(io::ErrorKind::Interrupted, "control stops")),
                put = timeout(PUT_TIMEOUT, self.bucket.put(name, file)) => match put {
                    Ok(put) => put.map_err(io::Error::other),
                    Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("it took longer than {PUT_TIMEOUT:?}"))),
                },
            }
        })
    }
}

/// Why an object is not there.
#[derive(Debug, thiserror::Error)]
enum PutError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Exchange(#[from] ClientError),
    #[error("the store answered {status}: {said}")]
    Refused { status: StatusCode, said: String },
}
