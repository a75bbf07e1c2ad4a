//! Paths: lossy ones, ones that change, ones that end, systems that do not take batches.

use std::{
    io::IoSliceMut,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{io::Interest, task::JoinHandle};

use super::{Served, Setting, bind, patient, soon};
use crate::http::quic::ConnectionError;

/// Passes datagrams on in both directions until it is dropped, and loses one in `one_in`, by chance.
struct Relay {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    fn new(server: SocketAddr, seed: u64, one_in: u32) -> Self {
        let socket = |udp: UdpSocket| {
            udp.set_nonblocking(true).expect("a socket");
            tokio::net::UdpSocket::from_std(udp).expect("a socket")
        };
        let (near, far) = (socket(bind()), socket(bind()));
        let addr = near.local_addr().expect("bound");
        let task = tokio::spawn(async move {
            let (mut up, mut down) = ([0; 2048], [0; 2048]);
            let (mut client, mut chance) = (None, StdRng::seed_from_u64(seed));
            loop {
                tokio::select! {
                    received = near.recv_from(&mut up) => {
                        let (length, from) = received.expect("receives");
                        client = Some(from);
                        if !chance.random_ratio(1, one_in) {
                            far.send_to(&up[..length], server).await.expect("sends");
                        }
                    }
                    received = far.recv(&mut down) => {
                        let (length, to) = (received.expect("receives"), client.expect("the client is first"));
                        if !chance.random_ratio(1, one_in) {
                            near.send_to(&down[..length], to).await.expect("sends");
                        }
                    }
                }
            }
        });
        Self { addr, task }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes datagrams on as they are, and says of every tenth that the server sent so that routers may mark it (ECT, RFC 3168) that there is
/// congestion. Loses nothing.
struct Router {
    addr: SocketAddr,
    down: Arc<Counted>,
    tasks: [JoinHandle<()>; 2],
}

/// What the server sent.
#[derive(Default)]
struct Counted {
    markable: AtomicU64,
    others: AtomicU64,
}

/// A socket that sees and sets what IP says of congestion.
struct Marking {
    io: tokio::net::UdpSocket,
    state: quinn_udp::UdpSocketState,
}

impl Marking {
    fn new() -> Arc<Self> {
        let udp = bind();
        let state = quinn_udp::UdpSocketState::new((&udp).into()).expect("a socket");
        Arc::new(Self { io: tokio::net::UdpSocket::from_std(udp).expect("a socket"), state })
    }

    fn addr(&self) -> SocketAddr {
        self.io.local_addr().expect("bound")
    }

    /// Some datagrams of one sender.
    async fn receive(&self, room: &mut [u8]) -> quinn_udp::RecvMeta {
        let mut meta = quinn_udp::RecvMeta::default();
        loop {
            self.io.readable().await.expect("a socket");
            let received = self.io.try_io(Interest::READABLE, || {
                self.state.recv((&self.io).into(), &mut [IoSliceMut::new(room)], std::slice::from_mut(&mut meta))
            });
            if received.is_ok() {
                return meta;
            }
        }
    }

    async fn send(&self, destination: SocketAddr, ecn: Option<quinn_udp::EcnCodepoint>, contents: &[u8]) {
        let transmit = quinn_udp::Transmit { destination, ecn, contents, segment_size: None, src_ip: None };
        loop {
            self.io.writable().await.expect("a socket");
            if self.io.try_io(Interest::WRITABLE, || self.state.try_send((&self.io).into(), &transmit)).is_ok() {
                return;
            }
        }
    }
}

impl Router {
    fn new(server: SocketAddr) -> Self {
        let (near, far, down) = (Marking::new(), Marking::new(), Arc::<Counted>::default());
        let (addr, client) = (near.addr(), Arc::<Mutex<Option<SocketAddr>>>::default());
        let up = tokio::spawn({
            let (near, far, client) = (near.clone(), far.clone(), client.clone());
            async move {
                let mut room = vec![0; 64 << 10];
                loop {
                    let meta = near.receive(&mut room).await;
                    *client.lock() = Some(meta.addr);
                    for datagram in room[..meta.len].chunks(meta.stride.max(1)) {
                        far.send(server, meta.ecn, datagram).await;
                    }
                }
            }
        });
        let counted = down.clone();
        let down_task = tokio::spawn(async move {
            let mut room = vec![0; 64 << 10];
            loop {
                let meta = far.receive(&mut room).await;
                let to = client.lock().expect("the client is first");
                for datagram in room[..meta.len].chunks(meta.stride.max(1)) {
                    let mut ecn = meta.ecn;
                    if ecn == Some(quinn_udp::EcnCodepoint::Ect0) {
                        let number = counted.markable.fetch_add(1, Ordering::Relaxed);
                        ecn = ecn.filter(|_| number % 10 != 9).or(Some(quinn_udp::EcnCodepoint::Ce));
                    } else {
                        counted.others.fetch_add(1, Ordering::Relaxed);
                    }
                    near.send(to, ecn, datagram).await;
                }
            }
        });
        Self { addr, down, tasks: [up, down_task] }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// RFC 9000 §13.4 and RFC 8899, over this driver.
#[tokio::test]
async fn a_path_that_marks_congestion_is_believed_and_its_mtu_is_found() {
    let served = Served::new(Setting::default());
    let router = Router::new(served.addr);
    let (client, connection) = served.pair(router.addr, patient()).await;
    tokio::spawn(super::answer_all(connection.clone()));
    client.fetch(6_000_000).await;
    let path = connection.stats().path;
    assert!(path.congestion_events > 0 && path.lost_packets <= path.lost_plpmtud_probes + 100, "{path:?}");
    assert_eq!(path.current_mtu, 1452, "what the Internet mostly carries is found: {path:?}");
    let (markable, others) = (router.down.markable.load(Ordering::Relaxed), router.down.others.load(Ordering::Relaxed));
    assert!(
        markable > 3000 && others < markable / 10,
        "the client's counts are right, so that the server goes on: {markable} {others}"
    );
}

#[tokio::test]
async fn what_is_lost_on_the_way_is_sent_again() {
    for (seed, one_in) in [(1, 10), (2, 25), (3, 100)] {
        println!("seed {seed}, one in {one_in}");
        let served = Served::answering(Setting::default());
        let relay = Relay::new(served.addr, seed, one_in);
        let client = served.connect_by(relay.addr, patient()).await;
        join_all([0, 1, 3000, 100_000, 900_000, 900_000].map(|length| client.fetch(length))).await;
        client.connection.close(0_u32.into(), b"");
        soon("the client's end", client.endpoint.wait_idle()).await;
    }
}

#[tokio::test]
async fn a_client_that_changes_its_address_goes_on() {
    let served = Served::new(Setting::default());
    let (client, connection) = served.pair(served.addr, patient()).await;
    tokio::spawn(super::answer_all(connection.clone()));
    assert_eq!(connection.remote_address(), client.endpoint.local_addr().expect("bound"));
    for _ in 0..3 {
        let mut recv = client.ask(3_000_000).await;
        let mut checked = super::Checked::of(&recv);
        while let Some(chunk) = soon("bytes", recv.read_chunk(usize::MAX, true)).await.expect("no error") {
            let before = checked.length;
            checked.next(&chunk.bytes);
            if before < 500_000 && checked.length >= 500_000 {
                client.endpoint.rebind(bind()).expect("moves");
            }
        }
        assert_eq!(checked.length, 3_000_000);
        client.connection.force_key_update();
        client.fetch(100_000).await;
        assert_eq!(connection.remote_address(), client.endpoint.local_addr().expect("bound"));
    }
    drop((client, connection));
    served.emptied().await;
}

#[tokio::test]
async fn a_client_that_vanishes_is_forgotten_after_the_idle_timeout() {
    let served = Served::new(Setting { idle_timeout: Duration::from_secs(3), ..Setting::default() });
    let relay = Relay::new(served.addr, 0, u32::MAX);
    let (client, connection) = served.pair(relay.addr, patient()).await;
    let serving = tokio::spawn(super::answer_all(connection.clone()));
    let mut recv = client.ask(1 << 40).await;
    soon("bytes", recv.read_chunk(1000, true)).await.expect("no error").expect("it goes on");
    drop(relay);
    assert_eq!(soon("the timeout", connection.closed()).await, ConnectionError::TimedOut);
    soon("the server notices", serving).await.expect("no panic");
    drop(connection);
    served.emptied().await;
}

#[tokio::test]
async fn batches_can_be_left_to_no_system() {
    let served = Served::answering(Setting { segmentation: false, ..Setting::default() });
    let client = served.connect().await;
    join_all((0..8).map(|at| client.fetch(1_000_000 + at))).await;
    assert_eq!(served.counters.segmentation_refused.value(), 0);
}

#[tokio::test]
async fn a_system_that_refuses_batches_gets_datagrams_one_by_one() {
    let udp = bind();
    let on: libc::c_int = 1;
    // Linux sends no batch over a socket without checksums (udp_send_skb), as none through IPsec.
    // SAFETY: the option's value is read, and lives until then.
    let outcome = unsafe {
        let (value, length) = ((&raw const on).cast(), size_of_val(&on) as libc::socklen_t);
        libc::setsockopt(udp.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, value, length)
    };
    assert_eq!(outcome, 0);
    let served = Served::answering(Setting { udp, ..Setting::default() });
    let client = served.connect().await;
    join_all((0..8).map(|at| client.fetch(1_000_000 + at))).await;
    assert_eq!(served.counters.segmentation_refused.value(), 1, "tried once");
}

#[tokio::test]
async fn a_datagram_from_nowhere_harms_nobody() {
    let served = Served::answering(Setting::default());
    let noise = Arc::new(bind());
    for length in [1, 20, 21, 22, 100, 1200, 1472, 9000] {
        for first in [0x00, 0x40, 0x80, 0xc0, 0xff] {
            noise.send_to(&vec![first; length], served.addr).expect("sends");
        }
    }
    served.connect().await.fetch(100_000).await;
}
