//! Paths: lossy ones, ones that change, ones that end, systems that do not take batches.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::task::JoinHandle;

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
