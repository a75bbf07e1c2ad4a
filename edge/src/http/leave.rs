//! How a running server gives its sockets over to another process: first its workers stop reading datagrams, then they take nobody new and finish what
//! they have. Knows no process and no wire.

use std::{
    io,
    os::unix::net::UnixDatagram,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::try_join_all;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Whether a server is to take nobody new: told to all, and looked at for each answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Leave(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_leaving: AtomicBool,
    told: CancellationToken,
}

impl Leave {
    pub(super) fn begin(&self) {
        self.0.is_leaving.store(true, Ordering::Relaxed);
        self.0.told.cancel();
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.0.is_leaving.load(Ordering::Relaxed)
    }

    pub(super) async fn begun(&self) {
        self.0.told.cancelled().await;
    }
}

/// A worker is to receive datagrams from there, or, with `None`, from its socket again.
pub(super) struct Order {
    pub(super) passage: Option<UnixDatagram>,
    pub(super) done: oneshot::Sender<io::Result<()>>,
}

/// What a server listens to. By default to nobody.
#[derive(Debug, Default)]
pub struct Orders {
    workers: Vec<mpsc::Receiver<Order>>,
    pub(super) leave: Leave,
}

/// The other side of [`Orders`].
#[derive(Debug, Clone)]
pub struct Orderer {
    workers: Vec<mpsc::Sender<Order>>,
    leave: Leave,
}

impl Orders {
    /// For so many workers.
    pub fn new(workers: usize) -> (Orderer, Self) {
        let leave = Leave::default();
        let (senders, workers) = (0..workers).map(|_| mpsc::channel(1)).unzip();
        (Orderer { workers: senders, leave: leave.clone() }, Self { workers, leave })
    }

    /// Each worker's, in order.
    pub(super) fn of_workers(self) -> impl Iterator<Item = mpsc::Receiver<Order>> {
        // To a closed one nobody says anything.
        self.workers.into_iter().chain(std::iter::repeat_with(|| mpsc::channel(1).1))
    }
}

impl Orderer {
    /// Has no worker read its UDP socket any more, but what comes from `passages`, one for each. Once this has returned, another process may read the
    /// sockets. Connections are taken and answered as before, over TCP.
    ///
    /// # Errors
    /// When a worker cannot do that, or the server ends. Then all read their sockets.
    pub async fn divert(&self, passages: Vec<UnixDatagram>) -> io::Result<()> {
        let diverted = self.order(passages.into_iter().map(Some)).await;
        if diverted.is_err() {
            self.undo().await;
        }
        diverted
    }

    /// Has all workers read their UDP sockets again.
    pub async fn undo(&self) {
        if let Err(error) = self.order(self.workers.iter().map(|_| None)).await {
            tracing::error!(%error, "HTTP/3 is not served any more");
        }
    }

    /// Has the server take nobody new and return once those who are there have what they asked for; unlike a drain this refuses nobody, and breaks no
    /// handshake off: whoever comes is the other process's.
    pub fn leave(&self) {
        self.leave.begin();
    }

    async fn order(&self, passages: impl Iterator<Item = Option<UnixDatagram>>) -> io::Result<()> {
        let ends = || io::Error::other("the server ends");
        let orders = self.workers.iter().zip(passages).map(async |(worker, passage)| {
            let (done, is_done) = oneshot::channel();
            worker.send(Order { passage, done }).await.map_err(|_| ends())?;
            is_done.await.map_err(|_| ends())?
        });
        try_join_all(orders).await.map(drop)
    }
}
