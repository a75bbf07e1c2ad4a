//! One process of an edge takes over from another, and nobody who watches notices: an upgrade.
//!
//! The elder starts the heir, gives it the very sockets that it listens on, and waits until it could serve. Then it stops reading datagrams, says so, and takes
//! nobody new; the heir serves whoever comes, and hands on the datagrams of connections that the elder still has. Whatever goes wrong before that
//! word, the elder serves on as before. Sockets are given and not bound again, since connections that wait in the queue of a listener end with it.
//!
//! Knows no configuration: what may not change from one process to the next is asked by whoever opens an edge.

mod link;

use std::{
    env, fmt, fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::stdio::dup2_stdin;
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use self::link::{Hello, Link, Message, PROTOCOL};
use crate::{
    config::Config,
    http::{Orderer, Secrets, quic},
    listener::{Epoch, Parts, Sockets},
};

pub use link::pair;

/// How long an heir may take to read its configuration and to be ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long it may take an heir that is ready, or its elder, to hear the next word.
const WORD_MAX: Duration = Duration::from_secs(60);
/// Set in an heir: its standard input is the link to its elder.
const ENVIRONMENT: &str = "LARDER_HANDOVER";

/// Gives a running edge's place to another process.
#[derive(Clone)]
pub struct Handover(Arc<Elder>);

/// What an elder has to give.
struct Elder {
    stage: Mutex<Stage>,
    orderer: Orderer,
    /// Whoever runs the edge learns that it is the heir's now.
    given: mpsc::Sender<Given>,
}

/// How far it has come.
enum Stage {
    Keeps(Box<Kept>),
    Gives,
    /// It gave, or is about to end.
    Over,
}

/// The sockets are duplicates: they must be gone once the edge takes nobody any more, since a socket listens as long as one of them is there.
pub(crate) struct Kept {
    pub(crate) parts: Vec<Parts>,
    pub(crate) admin: TcpListener,
    pub(crate) facts: Facts,
}

/// What must be the same in both processes, and what the heir goes on with.
#[derive(Clone)]
pub(crate) struct Facts {
    pub(crate) listen: SocketAddr,
    pub(crate) addr: SocketAddr,
    pub(crate) listen_plain: Option<SocketAddr>,
    pub(crate) admin_listen: SocketAddr,
    pub(crate) epoch: Epoch,
    pub(crate) generation: u64,
    pub(crate) secrets: Secrets,
}

/// The sockets are the heir's. What is left to say.
pub(crate) struct Given(Link);

/// Why another process did not take over. This one serves on.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The program.
    #[error("cannot start {}: {error}", .program.display())]
    Start {
        /// Which.
        program: std::path::PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// The way to the new process.
    #[error("cannot speak with the new process: {0}")]
    Link(#[from] io::Error),
    /// It said so.
    #[error("the new process cannot serve: {0}")]
    Refused(String),
    /// It crashed, or is another program.
    #[error("the new process ended before it was ready{0}")]
    Ended(How),
    /// It hangs.
    #[error("the new process was not ready within {} s", .0.as_secs())]
    Late(Duration),
    /// One is tried already or has been done, or this process ends.
    #[error("another process is taking over already, or this one ends")]
    Underway,
    /// A worker did not do its part.
    #[error("this process cannot give its sockets away: {0}")]
    Divert(io::Error),
}

/// How a process ended, if that is known.
#[derive(Debug, Default)]
pub struct How(Option<std::process::ExitStatus>);

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |status| write!(f, " ({status})"))
    }
}

/// Why this process cannot take over. The one that runs serves on.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// The way to the elder.
    #[error("cannot speak with the process that runs: {0}")]
    Link(#[from] io::Error),
    /// It gave up, or has ended.
    #[error("the process that runs does not want to be relieved any more")]
    Gone,
    /// It is too old or too new.
    #[error("this version cannot take over from the one that runs; restart the edge instead")]
    Protocol,
    /// What the sockets depend on.
    #[error("{key} is {wanted}, and {was} in the process that runs; such a change needs a restart of the edge")]
    Changed {
        /// The configuration's.
        key: &'static str,
        /// What runs.
        was: String,
        /// What is configured now.
        wanted: String,
    },
}

impl Handover {
    pub(crate) fn new(kept: Kept, orderer: Orderer) -> (Self, mpsc::Receiver<Given>) {
        let (given, is_given) = mpsc::channel(1);
        (Self(Arc::new(Elder { stage: Mutex::new(Stage::Keeps(kept.into())), orderer, given })), is_given)
    }

    /// Starts `command`, which must be another `larder edge`, has it take over, and says its process ID. From then on the edge that this belongs to takes nobody new,
    /// and its [`crate::Edge::run`] returns once it has finished what it has.
    ///
    /// # Errors
    /// Why the new process did not take over. Nothing has changed then, and the new process has ended.
    pub async fn start(&self, mut command: Command) -> Result<u32, HandoverError> {
        let (ours, theirs) = pair()?;
        let program = command.get_program().into();
        let started = spawn_blocking(move || command.stdin(Stdio::from(theirs)).env(ENVIRONMENT, "stdin").spawn()).await;
        let started = started.map_err(io::Error::other)?;
        let mut child = started.map_err(|error| HandoverError::Start { program, error })?;
        let id = child.id();
        let error = match self.give(ours).await {
            Ok(()) => return Ok(id),
            Err(error) => error,
        };
        let ended = spawn_blocking(move || {
            // One that ends by itself keeps its own exit status.
            let _ = child.kill();
            (child.wait().ok(), error)
        });
        match ended.await {
            Ok((status, HandoverError::Ended(_))) => Err(HandoverError::Ended(How(status))),
            Ok((_, error)) => Err(error),
            Err(error) => Err(io::Error::other(error).into()),
        }
    }

    /// The same for an heir that is there already, at the other end of `socket` ([`pair`]).
    ///
    /// # Errors
    /// As of [`Self::start`].
    ///
    /// # Panics
    /// Outside of a runtime with I/O and time.
    pub async fn give(&self, socket: OwnedFd) -> Result<(), HandoverError> {
        let kept = {
            let mut stage = self.0.stage.lock();
            match std::mem::replace(&mut *stage, Stage::Gives) {
                Stage::Keeps(kept) => kept,
                other => {
                    *stage = other;
                    return Err(HandoverError::Underway);
                }
            }
        };
        let given = self.give_kept(socket, &kept).await;
        match given {
            Ok(link) => {
                self.end();
                drop(kept);
                self.0.orderer.leave();
                // If nobody runs the edge any more, its devices are free.
                let _ = self.0.given.send(Given(link)).await;
                Ok(())
            }
            Err(error) => {
                let mut stage = self.0.stage.lock();
                if matches!(*stage, Stage::Gives) {
                    *stage = Stage::Keeps(kept);
                }
                Err(error)
            }
        }
    }

    /// Nothing is given any more.
    pub(crate) fn end(&self) {
        *self.0.stage.lock() = Stage::Over;
    }

    async fn give_kept(&self, socket: OwnedFd, kept: &Kept) -> Result<Link, HandoverError> {
        let late = Instant::now() + READY_MAX;
        let link = Link::new(socket)?;
        let (mut ends, mut passages) = (Vec::new(), Vec::new());
        for _ in &kept.parts {
            let (end, passage) = quic::pair()?;
            ends.push(end);
            passages.push(passage);
        }
        let said = timeout_at(late, introduce(&link, kept, &ends)).await.map_err(|_| HandoverError::Late(READY_MAX))?;
        drop(ends);
        let heard = match said {
            // Whatever it did not want to hear, it may have said why.
            Ok(()) | Err(_) => timeout_at(late, next(&link)).await.map_err(|_| HandoverError::Late(READY_MAX))?,
        };
        match (heard, said) {
            (Ok(Some(Message::Ready)), Ok(())) => {}
            (Ok(Some(Message::Refused { reason })), _) => return Err(HandoverError::Refused(reason)),
            (Ok(None), _) => return Err(HandoverError::Ended(How::default())),
            (Ok(Some(_)), Ok(())) => return Err(HandoverError::Refused("it says what makes no sense".into())),
            (Err(error), _) | (_, Err(error)) => return Err(error.into()),
        }
        // The point of no return is the word; until then all can be undone.
        let orderer = &self.0.orderer;
        orderer.divert(passages).await.map_err(HandoverError::Divert)?;
        if let Err(error) = link.say(&Message::Go, &[]).await {
            orderer.undo().await;
            return Err(if error.kind() == io::ErrorKind::BrokenPipe {
                HandoverError::Ended(How::default())
            } else {
                error.into()
            });
        }
        Ok(link)
    }
}

/// Says who is there and gives the sockets.
async fn introduce(link: &Link, kept: &Kept, ends: &[UnixDatagram]) -> io::Result<()> {
    let Facts { listen, addr, listen_plain, admin_listen, epoch, generation, secrets } = &kept.facts;
    let hello = Hello {
        protocol: PROTOCOL,
        generation: generation + 1,
        epoch: epoch.next(),
        listen: *listen,
        addr: *addr,
        listen_plain: *listen_plain,
        admin_listen: *admin_listen,
        workers: kept.parts.len(),
        reset_key: secrets.reset,
        token_key: secrets.token,
    };
    link.say(&Message::Hello(Box::new(hello)), &[kept.admin.as_fd()]).await?;
    for (part, end) in kept.parts.iter().zip(ends) {
        // One that is as old as there are epochs has had its time: its connections cannot be told from the heir's.
        let others = part.elders.iter().filter(|(of, _)| *of != epoch.next());
        let (elders, passages): (Vec<_>, Vec<_>) =
            others.map(|(of, end)| (*of, end.as_fd())).chain([(*epoch, end.as_fd())]).unzip();
        let own = [Some(part.tcp.as_fd()), Some(part.udp.as_fd()), part.plain.as_ref().map(TcpListener::as_fd)];
        let descriptors: Vec<_> = own.into_iter().flatten().chain(passages).collect();
        link.say(&Message::Worker { elders }, &descriptors).await?;
    }
    Ok(())
}

async fn next(link: &Link) -> io::Result<Option<Message>> {
    Ok(link.hear().await?.map(|(message, _)| message))
}

impl Given {
    /// Says that the cache's devices are closed.
    pub(crate) async fn devices_are_free(self) {
        if let Err(error) = self.0.say(&Message::Devices, &[]).await {
            tracing::warn!(%error, "the new process does not listen any more");
        }
    }
}

/// What a process gets that is to take over from another.
pub struct Inheritance {
    elder: Predecessor,
    pub(crate) facts: Facts,
    pub(crate) admin: TcpListener,
    pub(crate) parts: Vec<Parts>,
}

/// The process that runs.
pub(crate) struct Predecessor(Link);

impl Inheritance {
    /// From the process that started this one; `None` if that was not an edge.
    ///
    /// # Errors
    /// When this process is to take over and cannot.
    ///
    /// # Panics
    /// Outside of a runtime with I/O and time.
    pub async fn from_environment() -> Result<Option<Self>, InheritError> {
        if env::var_os(ENVIRONMENT).is_none() {
            return Ok(None);
        }
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        dup2_stdin(fs::File::open("/dev/null")?).map_err(io::Error::from)?;
        Self::over(socket).await.map(Some)
    }

    /// The same over one side of a [`pair`].
    ///
    /// # Errors
    /// As of [`Self::from_environment`].
    ///
    /// # Panics
    /// Outside of a runtime with I/O and time.
    pub async fn over(socket: OwnedFd) -> Result<Self, InheritError> {
        let link = Link::new(socket)?;
        let heard = timeout_at(Instant::now() + WORD_MAX, take(&link)).await;
        let taken = heard.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        match taken {
            Ok((facts, admin, parts)) => Ok(Self { elder: Predecessor(link), facts, admin, parts }),
            Err(error) => {
                Predecessor(link).refuse(&error.to_string()).await;
                Err(error)
            }
        }
    }

    /// Says why this process cannot take over.
    pub async fn refuse(self, reason: &str) {
        self.elder.refuse(reason).await;
    }

    /// Whether the sockets can be those of an edge that is configured so.
    pub(crate) fn suits(&self, config: &Config) -> Result<(), InheritError> {
        let differs = |key, was: String, wanted: String| {
            if was == wanted { Ok(()) } else { Err(InheritError::Changed { key, was, wanted }) }
        };
        let plain = |addr: Option<SocketAddr>| addr.map_or_else(|| "absent".to_owned(), |addr| addr.to_string());
        differs("listen", self.facts.listen.to_string(), config.listen.to_string())?;
        differs("listen_plain", plain(self.facts.listen_plain), plain(config.listen_plain))?;
        differs("admin_listen", self.facts.admin_listen.to_string(), config.admin_listen.to_string())?;
        differs("workers", self.parts.len().to_string(), config.workers.to_string())
    }

    pub(crate) fn split(self) -> (Predecessor, Facts, TcpListener, Sockets) {
        let Self { elder, facts, admin, parts } = self;
        let sockets = Sockets::inherit(facts.addr, facts.epoch, parts);
        (elder, facts, admin, sockets)
    }
}

type Taken = (Facts, TcpListener, Vec<Parts>);

async fn take(link: &Link) -> Result<Taken, InheritError> {
    let (message, descriptors) = link.hear().await?.ok_or(InheritError::Gone)?;
    let Message::Hello(hello) = message else { return Err(InheritError::Protocol) };
    let Hello { protocol, generation, epoch, listen, addr, listen_plain, admin_listen, workers, reset_key, token_key } = *hello;
    let Ok([admin]) = <[OwnedFd; 1]>::try_from(descriptors) else { return Err(InheritError::Protocol) };
    if protocol != PROTOCOL {
        return Err(InheritError::Protocol);
    }
    let mut parts = Vec::new();
    for _ in 0..workers {
        let (message, descriptors) = link.hear().await?.ok_or(InheritError::Gone)?;
        let Message::Worker { elders } = message else { return Err(InheritError::Protocol) };
        let mut descriptors = descriptors.into_iter();
        let (Some(tcp), Some(udp)) = (descriptors.next(), descriptors.next()) else { return Err(InheritError::Protocol) };
        let plain = listen_plain.and_then(|_| descriptors.next());
        if elders.len() != descriptors.len() || plain.is_some() != listen_plain.is_some() {
            return Err(InheritError::Protocol);
        }
        let elders = elders.into_iter().zip(descriptors.map(UnixDatagram::from)).collect();
        parts.push(Parts { tcp: tcp.into(), plain: plain.map(TcpListener::from), udp: udp.into(), elders });
    }
    let secrets = Secrets { reset: reset_key, token: token_key };
    Ok((Facts { listen, addr, listen_plain, admin_listen, epoch, generation, secrets }, admin.into(), parts))
}

impl Predecessor {
    pub(crate) async fn refuse(&self, reason: &str) {
        // If it does not hear it, it hears that the link ends.
        let _ = timeout_at(Instant::now() + WORD_MAX, self.0.say(&Message::Refused { reason: reason.into() }, &[])).await;
    }

    /// Says that this process is ready, and waits for the word that it shall begin.
    pub(crate) async fn relieve(&self) -> Result<(), InheritError> {
        let relieved = async {
            self.0.say(&Message::Ready, &[]).await?;
            match next(&self.0).await? {
                Some(Message::Go) => Ok(()),
                Some(_) | None => Err(InheritError::Gone),
            }
        };
        timeout_at(Instant::now() + WORD_MAX, relieved).await.unwrap_or(Err(InheritError::Gone))
    }

    /// Waits until the devices are free: it says so, or ends.
    pub(crate) async fn frees_devices(self) {
        loop {
            match next(&self.0).await {
                Ok(Some(Message::Devices) | None) => return,
                Ok(Some(_)) => {}
                Err(error) => return tracing::warn!(%error, "the process before is not understood any more"),
            }
        }
    }
}
