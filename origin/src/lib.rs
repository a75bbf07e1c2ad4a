//! The origin: keeps titles for good, packages new ones, and serves both to edges over plain HTTP/1.1.
//!
//! `ingest` → `package` (ffmpeg and ffprobe as child processes) → `store`; `server` → `answer` → `store`. It knows no
//! catalogue, no tokens of players and no edges beyond the secret that they share with it.

mod answer;
pub mod config;
mod demo;
pub mod ingest;
mod package;
mod server;
pub mod store;

use std::{fs, io, io::Read as _, net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use answer::Counters;
pub use config::Config;
pub use demo::demo_clip;
pub use package::{PackageError, SegmentError, ToolError};

use answer::Answerer;
use store::FileStore;

/// A fill token, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=4096;

/// An origin that is bound and ready to run.
pub struct Origin {
    listener: TcpListener,
    addr: SocketAddr,
    answerer: Arc<Answerer>,
    connections_max: u32,
}

/// Why an origin does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] store::file::OpenError),
    /// The address.
    #[error("cannot listen on {addr}: {reason}; choose another address for listen, or stop what uses this one")]
    Listen { addr: SocketAddr, reason: io::Error },
    /// The file with the secret.
    #[error("cannot use the fill token file {}: {reason}; it holds a secret of 16 to 4096 bytes on one line", path.display())]
    FillToken { path: PathBuf, reason: io::Error },
}

impl Origin {
    /// Opens the store and binds the listener.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let Config { listen, state_dir, fill_token_file: path, connections_max, control: _ } = config;
        let secret = secret(&path).map_err(|reason| OpenError::FillToken { path, reason })?;
        let store = FileStore::open(&state_dir)?;
        let refused = |reason| OpenError::Listen { addr: listen, reason };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, addr, answerer: Arc::new(Answerer::new(store, &secret)), connections_max })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it has done so far; to be read while it runs.
    pub fn counters(&self) -> Arc<Counters> {
        self.answerer.counters()
    }

    /// Serves until `stop`, then finishes what is being sent. An error means that the listener broke.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        tracing::info!(addr = %self.addr, "the origin serves");
        server::serve(self.listener, self.answerer, self.connections_max, stop).await
    }
}

fn secret(path: &std::path::Path) -> io::Result<String> {
    let mut secret = String::new();
    fs::File::open(path)?.take(*SECRET_BYTES.end() as u64 + 2).read_to_string(&mut secret)?;
    let secret = secret.trim().to_owned();
    match SECRET_BYTES.contains(&secret.len()) && !secret.contains(char::is_whitespace) {
        true => Ok(secret),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} bytes", secret.len()))),
    }
}
