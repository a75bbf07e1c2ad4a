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

use std::{fs, io, net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wire::secret::{Secret, SecretError};

pub use answer::Counters;
pub use config::Config;
pub use demo::demo_clip;
pub use package::{PackageError, SegmentError, ToolError};

use answer::Answerer;
use store::FileStore;

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
    #[error(transparent)]
    FillToken(#[from] SecretError),
}

impl Origin {
    /// Opens the store and binds the listener.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let Config { listen, state_dir, fill_token_file, connections_max, control: _ } = config;
        let secret = Secret::read(&fill_token_file, "fill_token_file", fs::File::open(&fill_token_file))?;
        let store = FileStore::open(&state_dir)?;
        let refused = |reason| OpenError::Listen { addr: listen, reason };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, addr, answerer: Arc::new(Answerer::new(store, secret.expected())), connections_max })
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
