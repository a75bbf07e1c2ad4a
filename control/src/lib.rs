//! The control role: the catalogue, playback (ranked edges, signed URLs), the fleet, and the embedded player.
//!
//! Start at [`Control`]. Requests run `server → api → {catalogue, finder, playback, steering, fleet, viewers, discover} → db`; the modules in braces
//! know no HTTP, and only `db` knows SQL. Edges speak on streams that they open (`converse`). What viewers do besides goes from `api` to the
//! crate `activity`, whose threads run beside. Control never carries a byte of video, and reaches out to nobody but the server that has the
//! keys of viewers' tokens and the bucket of the lake, where they are configured.

mod api;
mod bucket;
mod canary;
mod catalogue;
mod client;
pub mod config;
mod converse;
mod db;
mod discover;
mod finder;
mod fleet;
mod hot;
mod housekeeping;
mod identity;
mod inputs;
mod limits;
mod manifest;
mod metrics;
mod misses;
mod playback;
mod player;
mod purges;
mod recorder;
mod resilience;
mod server;
mod session;
mod sites;
pub mod steering;
#[cfg(any(test, feature = "synthetic"))]
pub mod synthetic;
mod view;
mod viewers;

use std::{
    convert::Infallible,
    fs, io, iter,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use activity::{Activity, Workers};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use search::IndexError;
use tokio::{net::TcpListener, runtime::Handle, sync::Semaphore, task::spawn_blocking, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wire::{
    secret::{Expected, Secret, SecretError},
    token::{KeyError, SigningKey},
};

pub use client::{BadAuthorities, ClientError};
pub use config::Config;
pub use db::{Backup, BackupError, BackupStep, DatabaseError, back_up};
pub use identity::{fetch::FetchError, jwks::JwksError};
pub use inputs::InputsError;

use crate::{
    api::{App, BATCHES_MAX, Once},
    bucket::{Bucket, Puts},
    canary::Canary,
    config::{BucketConfig, KeySource, OperatorConfig, OperatorName, Role, SteeringConfig, ViewersConfig},
    db::{DATABASE, Db, DbError, KeptEdge},
    discover::Discover,
    finder::Finder,
    fleet::{Fleet, streams::Streams},
    hot::Hot,
    identity::{
        Identity,
        fetch::Source,
        operators::{Operator, Operators},
        viewers::Viewers,
    },
    inputs::Inputs,
    limits::Limits,
    metrics::Metrics,
    playback::Signer,
    purges::Purges,
    recorder::Recorder,
    resilience::{
        Needs,
        admission::{Admission, Priority, Queue},
    },
    session::Sealer,
    sites::Sites,
    steering::{Steering, decide::Rules, prefixes::Announcement},
    view::Views,
    viewers::{Ledger, OpenLedgerError},
};

/// The longest file a signing key is read from, in bytes.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// The search index's directory in the state directory.
const INDEX: &str = "search";
/// What the titles that are kept at hand may weigh in all.
const TITLES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What the names of titles' segments may weigh in all, and titles' timelines.
const FILES_BYTES_MAX: usize = 16 * 1024 * 1024;
const PERIODS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Answers to steered players of which is known that they were accounted for: some minutes of a hundred thousand players.
const ACCOUNTED_MAX: usize = 500_000;
/// The folder of recorded decisions, in the state directory.
const DECISIONS: &str = "decisions";
/// How long writes and background work may still take after the last connection.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A control that is bound to its port and ready to run.
pub struct Control {
    listener: TcpListener,
    addr: SocketAddr,
    router: axum::Router,
    app: Arc<App>,
    activity: Workers,
    lake_bucket: Option<Arc<Bucket>>,
    audit_keep: Duration,
}

impl Control {
    /// Reads keys and secrets, opens the database in the state directory, and binds the port.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let key = signing_key(&config.signing_key_file)?;
        let keys = public_keys(&key);
        let identity = identity(&config).await?;
        let state_dir = &config.state_dir;
        usable(state_dir).map_err(|source| OpenError::StateDir { path: state_dir.clone(), source })?;
        let database = state_dir.join(DATABASE);
        let db = Db::open(&database)?;
        let finder = Finder::open(state_dir.join(INDEX), config.search_timeout).await?;
        let unreadable = |error: DbError| OpenError::Edges { path: database.clone(), reason: error.to_string() };
        let edges = db.edges().await.map_err(unreadable)?;
        let sites = Sites::new(config.steering.sites.clone(), db.sites().await.map_err(unreadable)?);
        let steering = Arc::new(Steering::new(rules(&config)));
        steering.describe(sites.steered());
        let inputs = inputs(&config.steering, &sites, &edges, &steering)?;
        let recorder = recorder(&config.steering, state_dir.join(DECISIONS))?;
        let lake_bucket = config.lake_bucket.as_ref().map(bucket).transpose()?;
        let (activity, workers) = Activity::open(&config.activity)?;
        let listener = TcpListener::bind(config.listen).await.map_err(|source| OpenError::listen(config.listen, source))?;
        let addr = listener.local_addr().map_err(|source| OpenError::listen(config.listen, source))?;

        let metrics = Metrics::new();
        let ledger = Ledger::open(db.clone(), state_dir, config.history, metrics.viewers.clone());
        let ledger = Arc::new(ledger.await.map_err(OpenError::ledger)?);
        let (router, openapi, docs) = api::routes();
        let app = Arc::new(App {
            db,
            finder,
            purges: Purges::new(edges.iter().map(|edge| (edge.id.clone(), edge.purged_to))),
            fleet: RwLock::new(fleet(edges, &sites)),
            edge_timeout: config.edge_timeout,
            steering,
            inputs: Arc::new(inputs),
            sites: RwLock::new(sites),
            views: Views::default(),
            streams: Arc::default(),
            conversations: TaskTracker::new(),
            files: Hot::new(FILES_BYTES_MAX, |_, files| files.weight()),
            periods: Hot::new(PERIODS_BYTES_MAX, |_, period| period.len()),
            sealer: Sealer::new(key.to_jwk().as_bytes()),
            public_url: config.steering.public_url,
            steering_ttl: config.steering.ttl,
            misses: Mutex::default(),
            accounted: Hot::new(ACCOUNTED_MAX, |_, ()| 1),
            recorder,
            signer: Signer::new(key, config.token_issuer, config.token_lifetime),
            keys,
            titles: Hot::new(TITLES_BYTES_MAX, |_, entry| entry.weight()),
            identity,
            proxies: config.proxies,
            limits: Limits::new(config.limits),
            once: Once::default(),
            needs: Needs::default(),
            admission: Admission::new(config.overload),
            canary: config.canary.map(|config| Arc::new(Canary::new(config))),
            writes: TaskTracker::new(),
            ledger,
            metrics,
            activity,
            batches: Semaphore::new(BATCHES_MAX),
            discover: Discover::default(),
            openapi,
            docs,
        });
        let router = api::service(router, Arc::clone(&app), &config.allowed_origins);
        Ok(Self { listener, addr, router, app, activity: workers, lake_bucket, audit_keep: config.audit_keep })
    }

    /// Where it listens, with the real port when the configuration says 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `stop`; then takes nobody new, finishes what it has for up to ten seconds, and returns. Once it is open
    /// nothing makes it fail: what goes wrong later is a problem of single requests.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        tracing::info!(addr = %self.addr, "control serves");
        let background = TaskTracker::new();
        if let Some(viewers) = self.app.identity.viewers.clone() {
            let stop = stop.clone();
            background.spawn(async move { viewers.run(stop).await });
        }
        let app = Arc::clone(&self.app);
        let admission_stop = stop.clone();
        background.spawn(async move {
            let (reads, searches) = (|| app.db.take_shortest_wait(), || app.finder.take_shortest_wait());
            let queues = [
                Queue { most_urgent: Priority::Playback, shortest_wait: &reads },
                Queue { most_urgent: Priority::Search, shortest_wait: &searches },
            ];
            app.admission.run(&queues, admission_stop).await;
        });
        let (app, following) = (Arc::clone(&self.app), stop.clone());
        background.spawn(async move { app.finder.run(&app.db, following).await });
        background.spawn(housekeeping::run(Arc::clone(&self.app), self.audit_keep, stop.clone()));
        background.spawn(Arc::clone(&self.app.inputs).run(Arc::clone(&self.app.steering), stop.clone()));
        background.spawn(ending(Arc::clone(&self.app.streams), stop.clone()));
        let (ledger, served) = (Arc::clone(&self.app.ledger), CancellationToken::new());
        let ledger = tokio::spawn(ledger.run(api::now_unix_ms, served.clone()));
        background.spawn(discover::run(Arc::clone(&self.app), stop.clone()));
        background.spawn(discover::rank(Arc::clone(&self.app), stop.clone()));
        let puts = stop.child_token();
        if let Some(bucket) = self.lake_bucket {
            let (runtime, stop) = (Handle::current(), puts.clone());
            self.activity.keep_lake_in(Box::new(Puts { bucket, runtime, stop }));
        }
        let activity = self.activity.start();
        // Dropped before the thread is waited for that puts: it needs this runtime.
        let _no_more_puts = puts.drop_guard();
        if let Err(error) = &activity {
            tracing::error!(%error, "what viewers do is not kept");
        }
        server::serve(self.listener, self.router, stop).await;
        for tasks in [&self.app.writes, &self.app.conversations, &background] {
            tasks.close();
            if timeout(STOP_TIMEOUT, tasks.wait()).await.is_err() {
                tracing::warn!(tasks = tasks.len(), "stopped with work still in progress after {STOP_TIMEOUT:?}");
            }
        }
        // What viewers did in the last requests is brought to the database too.
        served.cancel();
        if let Err(error) = ledger.await {
            tracing::error!(%error, "what viewers did may wait in the journal for the next start");
        }
        // What was acknowledged is on disk; this is what need not be done again.
        if let Ok(activity) = activity
            && spawn_blocking(|| activity.stop()).await.is_err()
        {
            tracing::warn!("what viewers did was not folded to its end");
        }
        let app = Arc::clone(&self.app);
        let flushing = spawn_blocking(move || app.recorder.as_ref().map(Recorder::flush));
        if let Err(error) = flushing.await {
            tracing::error!(%error, "the last decisions are not recorded");
        }
        tracing::info!("control stopped");
        Ok(())
    }
}

/// Ends edges' streams on stop: connections are waited for, and these would last for ever.
async fn ending(streams: Arc<Streams>, stop: CancellationToken) {
    stop.cancelled().await;
    streams.close();
}

/// The edges that were known before.
fn fleet(edges: Vec<KeptEdge>, sites: &Sites) -> Fleet {
    let mut fleet = Fleet::known(edges.into_iter().map(|edge| (edge.id, edge.registration, edge.is_drained)));
    fleet.limit_sites(sites.capacities());
    fleet
}

fn rules(config: &Config) -> Rules {
    let SteeringConfig { reach_km, cost_max, shed_from_permille, full_at_permille, .. } = config.steering;
    Rules { silent_after: config.edge_timeout, reach_km, cost_max, shed_from_permille, full_at_permille }
}

fn inputs(config: &SteeringConfig, sites: &Sites, edges: &[KeptEdge], steering: &Steering) -> Result<Inputs, InputsError> {
    let of_edges = edges.iter().map(|edge| {
        let site: Arc<str> = edge.registration.site.as_str().into();
        let prefixes = edge.registration.prefixes.iter();
        (edge.id.clone(), prefixes.map(|prefix| Announcement::new(*prefix, Arc::clone(&site))).collect())
    });
    Inputs::open(config.prefixes_file.clone(), config.places_file.clone(), sites.announcements(), of_edges, steering)
}

fn recorder(config: &SteeringConfig, folder: PathBuf) -> Result<Option<Recorder>, OpenError> {
    if config.record_bytes == 0 {
        return Ok(None);
    }
    let recorder = Recorder::start(folder.clone(), config.record_bytes, config.record_share);
    recorder.map(Some).map_err(|source| OpenError::Record { path: folder, source })
}

/// Everyone whom the configuration names.
async fn identity(config: &Config) -> Result<Identity, OpenError> {
    let first =
        OperatorConfig { name: OperatorName::of_the_first(), role: Role::Admin, token_file: config.operator_token_file.clone() };
    let keys = iter::once("operator_token_file").chain(iter::repeat("operators.token_file"));
    let operators = iter::once(first).chain(config.operators.iter().cloned()).zip(keys);
    let operators = operators
        .map(|(OperatorConfig { name, role, token_file }, key)| Ok((Operator { name, role }, secret(&token_file, key)?)));
    let viewers = match &config.viewers {
        Some(viewers) => Some(Arc::new(recognising(viewers).await?)),
        None => None,
    };
    Ok(Identity {
        operators: Operators::new(operators.collect::<Result<_, SecretError>>()?),
        edge_secret: secret(&config.edge_token_file, "edge_token_file")?,
        viewers,
        is_open: config.anonymous,
    })
}

/// A file must have its keys now; a server may be away for a while, and is asked once control runs.
async fn recognising(config: &ViewersConfig) -> Result<Viewers, OpenError> {
    let mut sources = Vec::new();
    for keys in &config.keys {
        sources.push(match keys {
            KeySource::File(path) => {
                let source = Source::File(path.clone());
                source.fetch().await?;
                source
            }
            KeySource::Url { url, ca_file } => Source::url(url.uri().clone(), ca_file.as_deref())?,
        });
    }
    Ok(Viewers::new(config.rules.clone(), sources, config.refresh, config.tokens_remembered))
}

fn bucket(config: &BucketConfig) -> Result<Arc<Bucket>, OpenError> {
    let file = &config.secret_key_file;
    let secret = Secret::read(file, "lake.secret_key_file", fs::File::open(file))?;
    Ok(Arc::new(Bucket::new(config, secret)?))
}

fn secret(path: &Path, key: &'static str) -> Result<Expected, SecretError> {
    Secret::read(path, key, fs::File::open(path)).map(|secret| secret.expected())
}

fn signing_key(path: &Path) -> Result<SigningKey, OpenError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => OpenError::NoSigningKey { path: path.to_owned() },
        _ => OpenError::UnreadableSigningKey { path: path.to_owned(), source },
    };
    if fs::metadata(path).map_err(unreadable)?.len() > KEY_BYTES_MAX {
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {KEY_BYTES_MAX} bytes"))));
    }
    let jwk = fs::read_to_string(path).map_err(unreadable)?;
    SigningKey::from_jwk(&jwk).map_err(|source| OpenError::BadSigningKey { path: path.to_owned(), source })
}

/// The JWK set that anyone may see. Only asymmetric keys (RFC 7518 §6.2, RFC 8037) have a public part.
fn public_keys(key: &SigningKey) -> Bytes {
    let jwk = key.public_jwk();
    let keys = if matches!(jwk["kty"].as_str(), Some("EC" | "OKP")) { vec![jwk] } else { Vec::new() };
    serde_json::json!({ "keys": keys }).to_string().into()
}

/// Makes the state directory if need be, and tries it out: a database fails in less clear words.
fn usable(state_dir: &Path) -> io::Result<()> {
    fs::create_dir_all(state_dir)?;
    fs::read_dir(state_dir)?;
    let probe = state_dir.join(".write-probe");
    fs::write(&probe, [])?;
    fs::remove_file(&probe)
}

/// Why control cannot start: what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no signing key yet.
    #[error("there is no signing key at {}: `larder sign --new-key` makes one", path.display())]
    NoSigningKey { path: PathBuf },
    /// The key's file is there and cannot be read.
    #[error("cannot read the signing key {}: {source}", path.display())]
    UnreadableSigningKey { path: PathBuf, source: io::Error },
    /// The key's file holds something else.
    #[error("{} is not a signing key: {source}", path.display())]
    BadSigningKey { path: PathBuf, source: KeyError },
    /// The keys that verify viewers' tokens cannot be had.
    #[error("cannot use the key set of viewers (viewers.jwks_file, viewers.jwks_ca_file): {0}")]
    ViewersKeys(#[from] FetchError),
    /// A bearer secret cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The state directory cannot be made, read or written.
    #[error("cannot use the state directory {}: {source}; it must be a directory that this user can read and write", path.display())]
    StateDir { path: PathBuf, source: io::Error },
    /// The database cannot be opened.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// There can be no search index, not even one in memory.
    #[error(transparent)]
    Search(#[from] IndexError),
    /// What viewers do cannot be kept.
    #[error(transparent)]
    Activity(#[from] activity::OpenError),
    /// Nobody can tell whether the lake's object store is who it says.
    #[error("lake.ca_file: {0}")]
    LakeAuthorities(#[from] BadAuthorities),
    /// The database opens, and the edges in it cannot be read.
    #[error("cannot read the edges in {}: {reason}", path.display())]
    Edges { path: PathBuf, reason: String },
    /// A file of prefixes or places cannot be used.
    #[error("steering: {0}")]
    Inputs(#[from] InputsError),
    /// Decisions cannot be recorded.
    #[error("cannot record decisions in {}: {source}; it must be a directory that this user can write", path.display())]
    Record { path: PathBuf, source: io::Error },
    /// What viewers did cannot be had.
    #[error("cannot use what viewers did: {reason}")]
    Ledger { reason: String },
    /// Someone else listens there.
    #[error("cannot listen on {addr}: the port is in use by another process")]
    PortInUse { addr: SocketAddr },
    /// The address is not ours, or the port is not allowed.
    #[error("cannot listen on {addr}: {source}")]
    Listen { addr: SocketAddr, source: io::Error },
}

impl OpenError {
    fn ledger(error: OpenLedgerError) -> Self {
        Self::Ledger { reason: error.to_string() }
    }

    fn listen(addr: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::PortInUse { addr },
            _ => Self::Listen { addr, source },
        }
    }
}
