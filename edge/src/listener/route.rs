//! Which worker's a QUIC datagram is: told by the first byte of the connection ID that it is for, modulo the number of workers. And which process's, while one
//! takes over from another: told by bits of the second byte.
//!
//! That byte is random in a client's first datagrams, so connections spread evenly. In all later ones it is in an ID that the worker made,
//! and leads back to it, from whatever address the datagram comes.

use std::{io, net::UdpSocket, os::fd::AsRawFd};

use aws_lc_rs::rand;
use quinn_proto::{ConnectionId, ConnectionIdGenerator};
use serde::{Deserialize, Serialize};

/// Long enough not to be guessed or hit by chance.
const CONNECTION_ID_BYTES: usize = 8;
/// Workers that one byte can tell apart.
const WORKERS_MAX: usize = 256;
/// RFC 9000 §17.2, Header Form: set in packets that state their version and the length of their IDs.
const LONG_HEADER: u32 = 0x80;

/// Which of the processes that serve one set of sockets a connection is with, told by the first three bits of the second byte of its IDs. Each process that
/// takes over from another is of the next epoch; after the last comes the first again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Epoch(u8);

/// Bits of a byte that are not an epoch's.
const EPOCH_SHIFT: u32 = 5;

impl Epoch {
    /// Epochs that can be told apart.
    pub const COUNT: usize = 8;
    /// A process that took over from nobody.
    pub const FIRST: Self = Self(0);

    /// That of the process that takes over.
    #[must_use]
    pub fn next(self) -> Self {
        Self((self.0 + 1) % Self::COUNT as u8)
    }

    pub(crate) fn index(self) -> usize {
        self.0.into()
    }

    /// The ID as one of this epoch.
    pub(crate) fn mark(self, mut id: [u8; CONNECTION_ID_BYTES]) -> [u8; CONNECTION_ID_BYTES] {
        id[1] = id[1] & (u8::MAX >> (u8::BITS - EPOCH_SHIFT)) | self.0 << EPOCH_SHIFT;
        id
    }

    fn of(id: &[u8]) -> Self {
        Self(id[1] >> EPOCH_SHIFT)
    }
}

impl From<Epoch> for u8 {
    fn from(epoch: Epoch) -> Self {
        epoch.0
    }
}

impl TryFrom<u8> for Epoch {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        if usize::from(number) < Self::COUNT { Ok(Self(number)) } else { Err(format!("there is no epoch {number}")) }
    }
}

/// The epoch that the ID in a datagram's first packet would be of if a server made it, and whether it may be the client's own instead: those of a client's
/// first packets are random. `None` if no server of ours made it.
pub(crate) fn epoch_of(datagram: &[u8]) -> Option<(Epoch, bool)> {
    // RFC 9000 §17.2: flags, version, the ID's length, the ID. §17.3.1: flags, the ID.
    let first = *datagram.first()?;
    if first & LONG_HEADER as u8 == 0 {
        return Some((Epoch::of(datagram.get(1..=CONNECTION_ID_BYTES)?), false));
    }
    if usize::from(*datagram.get(5)?) != CONNECTION_ID_BYTES {
        return None;
    }
    // Initial and 0-RTT (§17.2.2, §17.2.3); what follows them has an ID of the server's.
    let may_be_first = matches!(first >> 4 & 3, 0 | 1);
    Some((Epoch::of(datagram.get(6..6 + CONNECTION_ID_BYTES)?), may_be_first))
}

/// Makes connection IDs that lead to one worker.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    worker: usize,
    workers: usize,
    epoch: Epoch,
}

impl Route {
    /// To `worker` of `workers`, in a process of this epoch.
    pub(super) fn new(worker: usize, workers: usize, epoch: Epoch) -> Self {
        Self { worker, workers, epoch }
    }

    /// The byte that leads to the worker, as random as can be.
    fn first_byte(&self, random: u8) -> u8 {
        if self.workers > WORKERS_MAX {
            return random;
        }
        let byte = usize::from(random) - usize::from(random) % self.workers + self.worker;
        u8::try_from(byte).or_else(|_| u8::try_from(byte - self.workers)).expect("a worker has a byte of its own")
    }
}

impl ConnectionIdGenerator for Route {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        rand::fill(&mut bytes).expect("the system has random bytes");
        bytes[0] = self.first_byte(bytes[0]);
        ConnectionId::new(&self.epoch.mark(bytes))
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// Has the kernel hand each datagram to the socket it is for, among those that share the port of `socket`, in the order in which they were
/// bound (`SO_ATTACH_REUSEPORT_CBPF`, socket(7)).
pub(super) fn attach(socket: &UdpSocket, workers: usize) -> io::Result<()> {
    if workers == 1 {
        return Ok(());
    }
    if workers > WORKERS_MAX {
        return Err(io::Error::other(format!("there are more than {WORKERS_MAX} workers")));
    }
    let mut program = program(workers as u32);
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel reads `len` instructions at `filter` and copies them before it returns; both live until then.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Offsets are those of the datagram's payload. One that is too short to have an ID goes to the first worker, which ignores it.
fn program(workers: u32) -> [libc::sock_filter; 7] {
    const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let step = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let branch = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    [
        step(LOAD_BYTE, 0),
        branch(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, LONG_HEADER, 0, 2),
        // Flags, four bytes of version, one of length, then the ID (RFC 9000 §17.2).
        step(LOAD_BYTE, 6),
        step(libc::BPF_JMP | libc::BPF_JA, 1),
        // Flags, then the ID (RFC 9000 §17.3.1).
        step(LOAD_BYTE, 1),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, workers),
        step(libc::BPF_RET | libc::BPF_A, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Sockets;

    #[test]
    fn every_connection_id_leads_to_its_worker() {
        for workers in [1, 2, 3, 7, 96, 255, 256] {
            for worker in [0, workers / 2, workers - 1] {
                let mut route = Route::new(worker, workers, Epoch::FIRST);
                for random in 0..=255 {
                    assert_eq!(usize::from(route.first_byte(random)) % workers, worker, "{workers} workers");
                }
                assert_eq!(usize::from(route.generate_cid()[0]) % workers, worker);
            }
        }
    }

    #[test]
    fn every_connection_id_tells_its_epoch_and_random_ids_are_known_as_such() {
        let mut epoch = Epoch::FIRST;
        for _ in 0..=Epoch::COUNT {
            let id = Route::new(1, 2, epoch).generate_cid();
            assert_eq!(usize::from(id[0]) % 2, 1);
            let short = [&[0x40][..], &id, &[0; 20]].concat();
            assert_eq!(epoch_of(&short), Some((epoch, false)));
            assert_eq!(epoch_of(&short[..8]), None);
            for (kind, may_be_first) in [(0xc0, true), (0xd0, true), (0xe0, false)] {
                let long = [&[kind, 0, 0, 0, 1, 8][..], &id, &[0; 20]].concat();
                assert_eq!(epoch_of(&long), Some((epoch, may_be_first)));
                assert_eq!(epoch_of(&long[..13]), None);
                let longer = [&[kind, 0, 0, 0, 1, 20][..], &id, &[0; 20]].concat();
                assert_eq!(epoch_of(&longer), None);
            }
            epoch = epoch.next();
        }
        assert_eq!(epoch, Epoch::FIRST.next());
        assert_eq!(epoch_of(&[]), None);
        assert!(Epoch::try_from(8).is_err());
    }

    #[test]
    fn the_kernel_hands_datagrams_to_the_worker_that_their_id_names() {
        let sockets = Sockets::bind("127.0.0.1:0".parse().expect("an address"), 3).expect("binds");
        let addr = sockets.addr();
        let workers = sockets.into_workers();
        for id in [0_u8, 1, 2, 100, 255] {
            let (mut long, mut short) = ([0xc0, 0, 0, 0, 1, 8, 9, 9, 9, 9], [0x40, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
            (long[6], short[1]) = (id, id);
            for datagram in [long, short] {
                // A new port each time: it must not matter.
                let client = UdpSocket::bind("127.0.0.1:0").expect("binds");
                client.send_to(&datagram, addr).expect("sends");
                let own = &workers[usize::from(id) % 3].udp;
                own.set_nonblocking(false).expect("a socket");
                own.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a socket");
                let mut received = [0; 16];
                let (length, from) = own.recv_from(&mut received).expect("it came here");
                assert_eq!((&received[..length], from), (&datagram[..], client.local_addr().expect("bound")));
            }
        }
    }
}
