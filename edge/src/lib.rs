//! The edge: the appliance that serves players, from RAM, over HTTP/3, HTTP/2 and HTTP/1.1.
//!
//! Start at [`Edge`], then read `serve`: the life of a request. Requests run `http → serve → {request, fill, respond}`; serving is on
//! worker threads, one runtime each, and reports to control and answers to operators are on a thread of their own.

mod admin;
mod caps;
pub mod config;
mod fill;
pub mod handover;
mod hint;
pub mod http;
pub mod listener;
mod metrics;
mod parts;
mod purge;
mod refused;
mod report;
mod request;
mod respond;
mod serve;
mod standing;
pub mod tls;
mod upstream;
mod visit;

use std::{
    fs,
    io::{self, Read as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    thread,
    time::Duration,
};

use cache::{Cache, DiskError};
use tokio::{
    runtime,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use wire::{
    report::Registration,
    token::{KeyError, KeySet, Rules, SigningKey, Verifier},
};

use crate::{
    caps::Caps,
    config::Config,
    fill::Origin,
    handover::{Facts, Given, Handover, InheritError, Inheritance, Kept, Predecessor},
    hint::Hints,
    http::{Orders, Secrets, Server},
    listener::{BindError, Sockets},
    metrics::{Gauges, Metrics},
    report::{Prefixes, Reporter},
    respond::Responder,
    serve::{Renewer, Serving},
    standing::{Outlook, Standing},
    tls::{Tls, TlsError},
};

pub use report::PrefixesError;
pub use upstream::UpstreamConfigError;

/// The longest file that keys are read from, in bytes.
const KEYS_BYTES_MAX: u64 = 1 << 20;
/// How long an edge that has ended tries to tell control so.
const LAST_WORD_MAX: Duration = Duration::from_secs(2);

/// An edge that is bound to its ports and ready to run.
pub struct Edge {
    addr: SocketAddr,
    plain_addr: Option<SocketAddr>,
    admin_addr: SocketAddr,
    tls: Tls,
    server: Server,
    serving: Arc<Serving>,
    admin: TcpListener,
    gauges: Arc<Gauges>,
    reporter: Option<Reporter>,
    /// What control says about taking viewers.
    drained: watch::Receiver<bool>,
    handover: Handover,
    given: mpsc::Receiver<Given>,
    /// Whom it took over from, and who may still have its devices.
    predecessor: Option<Predecessor>,
}

/// Why an edge does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Where players should reach it.
    #[error(transparent)]
    Listen(#[from] BindError),
    /// Where operators should reach it.
    #[error(
        "cannot listen on {addr} for operators: {reason}; choose another address for admin_listen, or stop what uses this one"
    )]
    AdminListen {
        /// What was wanted.
        addr: SocketAddr,
        /// The system's words.
        reason: io::Error,
    },
    /// The process that it is to take over from.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// The sockets, once more, for a process that will take over.
    #[error("cannot duplicate its sockets: {0}; there may be too few file descriptors (LimitNOFILE=)")]
    Duplicate(#[source] io::Error),
    /// Its certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file with the keys that tokens are checked with.
    #[error("cannot read the keys in {}: {reason}; tokens.keys_file is a JWK set of at most 1 MiB", .file.display())]
    KeysFile {
        /// Where.
        file: PathBuf,
        /// The system's words.
        reason: io::Error,
    },
    /// The keys themselves.
    #[error("cannot use the keys in {}: {reason}", .file.display())]
    Keys {
        /// Where.
        file: PathBuf,
        /// Which key, and why.
        reason: KeyError,
    },
    /// The key that tokens are renewed with.
    #[error("cannot use the key in {} (tokens.renewal_key_file): {reason}; `larder sign --new-key` makes one", .file.display())]
    RenewalKey {
        /// Where.
        file: PathBuf,
        /// The system's words, or what is wrong with the key.
        reason: String,
    },
    /// Its cache's devices, or their state directory.
    #[error(transparent)]
    Cache(#[from] DiskError),
    /// The origin, as it is configured.
    #[error("origin: {0}")]
    Origin(#[source] UpstreamConfigError),
    /// Control, as it is configured.
    #[error("control: {0}")]
    Control(#[source] UpstreamConfigError),
    /// The file with the prefixes that it announces.
    #[error("prefixes_file: {0}")]
    Prefixes(#[from] PrefixesError),
}

impl Edge {
    /// Reads certificate, keys and secrets, and binds all ports. Asks nobody: neither origin nor control need be up.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        Self::open_as(config, |config| {
            let (listen, listen_plain, admin_listen) = (config.listen, config.listen_plain, config.admin_listen);
            let mut sockets = Sockets::bind(listen, config.workers.get())?;
            if let Some(addr) = listen_plain {
                sockets = sockets.and_plain(addr)?;
            }
            let admin = listen_for_operators(admin_listen)?;
            let (addr, epoch, secrets) = (sockets.addr(), sockets.epoch(), Secrets::new());
            let facts = Facts { listen, addr, listen_plain, admin_listen, epoch, generation: 0, secrets };
            Ok((sockets, admin, facts, false))
        })
        .await
    }

    /// The same with the sockets of a process that runs, which this one takes over from. When this returns, it has: the edge is to be run at once.
    ///
    /// # Errors
    /// Why it cannot; the other process was told, and serves on. So it is if `listen`, `listen_plain`, `admin_listen` or `workers` are not what they are there.
    pub async fn succeed(config: Config, inheritance: Inheritance) -> Result<Self, OpenError> {
        let suits = inheritance.suits(&config);
        let (predecessor, facts, admin, sockets) = inheritance.split();
        let opened = match suits {
            Ok(()) => Self::open_as(config, |_| Ok((sockets, admin, facts, true))).await,
            Err(error) => Err(error.into()),
        };
        match opened {
            Ok(mut edge) => {
                predecessor.relieve().await?;
                edge.predecessor = Some(predecessor);
                Ok(edge)
            }
            Err(error) => {
                predecessor.refuse(&error.to_string()).await;
                Err(error)
            }
        }
    }

    /// `listen` gives the sockets, and says whether another process has the cache's devices.
    async fn open_as(
        config: Config,
        listen: impl FnOnce(&Config) -> Result<(Sockets, TcpListener, Facts, bool), OpenError>,
    ) -> Result<Self, OpenError> {
        let tls = Tls::open(config.tls.clone())?;
        let verifier = verifier(&config.tokens)?;
        let origin = Arc::new(Origin::new(&config.origin).map_err(OpenError::Origin)?);
        let (tell_drained, drained) = watch::channel(false);
        let reporter = match &config.control {
            Some(control) => Some(reporter(&config, control, tell_drained)?),
            None => None,
        };
        let (sockets, admin, facts, is_heir) = listen(&config)?;
        let admin_addr = admin.local_addr().map_err(OpenError::Duplicate)?;
        let (generation, secrets) = (facts.generation, facts.secrets.clone());
        let (orderer, orders) = Orders::new(config.workers.get());
        let duplicate = || Ok(Kept { parts: sockets.parts()?, admin: admin.try_clone()?, facts });
        let (handover, given) = Handover::new(duplicate().map_err(OpenError::Duplicate)?, orderer);
        let cache = match is_heir {
            true => Cache::start_before_devices(config.cache).await?,
            false => Cache::start(config.cache).await?,
        };
        let metrics = Arc::new(Metrics::new());
        let protocols = Arc::default();
        let pacing = &config.pacing;
        let serving = Serving {
            verifier,
            renewer: renewer(&config.tokens)?,
            open_paths: config.tokens.open_paths,
            cache: cache.clone(),
            origin: origin.clone(),
            responder: Responder::new(&config.name, config.allowed_origins),
            caps: Caps::new(pacing.token_bits_per_second_max, pacing.site_bits_per_second_max, Arc::clone(&protocols)),
            hints: Hints::new(pacing.has_hints, &config.name, config.limits.connection_bits_per_second_max),
            metrics: metrics.clone(),
        };
        let connections_max = config.limits.connections_max;
        let gauges = Arc::new(Gauges { metrics, protocols: Arc::clone(&protocols), cache, origin, connections_max, generation });
        Ok(Self {
            addr: sockets.addr(),
            plain_addr: sockets.plain_addr(),
            admin_addr,
            tls: tls.clone(),
            server: Server { sockets, tls, limits: config.limits, counters: protocols, secrets, orders },
            serving: Arc::new(serving),
            admin,
            gauges,
            reporter,
            drained,
            handover,
            given,
            predecessor: None,
        })
    }

    /// Where players reach it, on TCP and UDP.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where players and peers inside a network that is trusted reach it without TLS, if they may.
    pub fn plain_addr(&self) -> Option<SocketAddr> {
        self.plain_addr
    }

    /// Where operators reach it.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Its certificate, which can be read anew while it runs ([`Tls::reload`]).
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Has another process take over while it runs.
    pub fn handover(&self) -> Handover {
        self.handover.clone()
    }

    /// How many processes this one has taken over from, in a row.
    pub fn generation(&self) -> u64 {
        self.gauges.generation
    }

    /// Serves until `stop`, or until another process has taken over; then takes nobody new, finishes what is being sent (for `limits.drain_timeout` at most), and returns.
    ///
    /// # Errors
    /// When a thread cannot be started or a worker broke.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        // The ports are bound: from now on viewers may come, and wait in the system's queue for the workers to start.
        let (standing, seen) = watch::channel(Standing::Ready);
        let (done, minded) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let relieved = CancellationToken::new();
        thread::Builder::new().name("control".into()).spawn({
            let relieved = relieved.clone();
            move || {
                runtime.block_on(mind(self.admin, self.gauges, self.reporter, Outlook::new(seen, self.drained), relieved));
                let _ = done.send(());
            }
        })?;
        let cache = self.serving.cache.clone();
        let mut adopting = tokio::spawn(adopt(self.predecessor, cache.clone()));
        let mut given = self.given;
        let mut server = pin!(self.server.run(self.serving, stop.clone()));
        let mut giving = None;
        let served = loop {
            tokio::select! {
                served = &mut server => break served,
                () = stop.cancelled(), if *standing.borrow() == Standing::Ready => {
                    self.handover.end();
                    standing.send_replace(Standing::Draining);
                }
                Some(heir) = given.recv() => {
                    // Control and operators speak with the heir from now on.
                    relieved.cancel();
                    giving = Some(tokio::spawn(give_devices(heir, std::mem::replace(&mut adopting, tokio::spawn(async {})), cache.clone())));
                }
            }
        };
        self.handover.end();
        match giving {
            Some(giving) => drop(giving.await),
            None => {
                adopting.abort();
                cache.close().await;
            }
        }
        standing.send_replace(Standing::Ended);
        // An error means that the thread is gone already.
        let _ = minded.await;
        served
    }
}

/// Opens the cache's devices once the process before has closed them.
async fn adopt(predecessor: Option<Predecessor>, cache: Cache) {
    let Some(predecessor) = predecessor else { return };
    predecessor.frees_devices().await;
    match cache.adopt().await {
        Ok(()) => tracing::info!("the cache's devices are this process's now"),
        Err(error) => tracing::error!(%error, "the edge serves from RAM and the origin alone; restart it once this is mended"),
    }
}

/// Closes the cache's devices and gives RAM back: whoever is still being sent something gets the rest from the origin.
async fn give_devices(heir: Given, adopting: JoinHandle<()>, cache: Cache) {
    // Before it has them it cannot give them.
    let _ = adopting.await;
    cache.close().await;
    heir.devices_are_free().await;
    cache.forget_slices();
}

/// Minds everything but players, until the edge has ended and control knows, or another process minds it.
async fn mind(
    admin: TcpListener,
    gauges: Arc<Gauges>,
    reporter: Option<Reporter>,
    outlook: Outlook,
    relieved: CancellationToken,
) {
    let mut end = outlook.clone();
    let last_word_max = if reporter.is_some() { LAST_WORD_MAX } else { Duration::ZERO };
    let ended = async {
        end.ended().await;
        sleep(last_word_max).await;
    };
    let told = async {
        if let Some(reporter) = reporter {
            tokio::select! {
                () = reporter.run(&gauges, outlook.clone()) => return,
                // Not a word: the heir has the same name.
                () = relieved.cancelled() => {}
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        served = admin::serve(admin, gauges.clone(), outlook.clone(), relieved.clone()) => {
            if let Err(error) = served {
                tracing::error!(%error, "operators are not answered any more");
            }
        }
        () = told => {}
        () = ended => {}
    }
}

/// Reads all that is on the devices of an edge that does not run, and checks every byte. `progress` gets the bytes read so far and the bytes
/// in all.
///
/// # Errors
/// In words for the operator: there is no device, or one cannot be read.
pub async fn verify_offline(config: &Config, progress: impl FnMut(u64, u64) + Send) -> Result<wire::operate::Verified, String> {
    let disk = config.cache.disk.as_ref().ok_or("the configuration has no cache.devices")?;
    cache::verify_offline(disk, config.cache.slice_bytes, progress).await.map(admin::verified)
}

fn verifier(tokens: &config::Tokens) -> Result<Verifier, OpenError> {
    let file = &tokens.keys_file;
    let text = read_text(file).map_err(|reason| OpenError::KeysFile { file: file.clone(), reason })?;
    let keys = KeySet::from_jwks(&text).map_err(|reason| OpenError::Keys { file: file.clone(), reason })?;
    let rules = Rules {
        issuers: vec![tokens.issuer.clone()],
        audience: tokens.audience.clone(),
        leeway_s: tokens.leeway.as_secs(),
        remembered_max: tokens.remembered_max,
        ..Rules::default()
    };
    Ok(Verifier::new(keys, rules))
}

fn renewer(tokens: &config::Tokens) -> Result<Option<Renewer>, OpenError> {
    let Some(file) = &tokens.renewal_key_file else { return Ok(None) };
    let unusable = |reason| OpenError::RenewalKey { file: file.clone(), reason };
    let text = read_text(file).map_err(|error| unusable(error.to_string()))?;
    let key = SigningKey::from_jwk(&text).map_err(|error| unusable(error.to_string()))?;
    Ok(Some(Renewer { key, issuer: tokens.issuer.clone() }))
}

fn read_text(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(file)?.take(KEYS_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > KEYS_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
    }
    Ok(text)
}

fn reporter(config: &Config, control: &config::Control, drained: watch::Sender<bool>) -> Result<Reporter, OpenError> {
    let prefixes = Prefixes::open(config.prefixes.clone(), config.prefixes_file.clone())?;
    let registration = Registration {
        site: config.site.to_string(),
        url: config.public_url.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        prefixes: Vec::new(),
    };
    let capacity = config.capacity_bits_per_second;
    Reporter::new(control, config.name.clone(), registration, prefixes, capacity, drained).map_err(OpenError::Control)
}

fn listen_for_operators(addr: SocketAddr) -> Result<TcpListener, OpenError> {
    let listen = || {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|reason| OpenError::AdminListen { addr, reason })
}
