//! Which worker's a QUIC datagram is: told by the first byte of the connection ID that it is for, modulo the number of workers.
//!
//! That byte is random in a client's first datagrams, so connections spread evenly. In all later ones it is in an ID that the worker made,
//! and leads back to it, from whatever address the datagram comes.

use std::{io, net::UdpSocket, os::fd::AsRawFd};

use aws_lc_rs::rand;
use quinn_proto::{ConnectionId, ConnectionIdGenerator};

/// Long enough not to be guessed or hit by chance.
const CONNECTION_ID_BYTES: usize = 8;
/// Workers that one byte can tell apart.
const WORKERS_MAX: usize = 256;

/// Makes connection IDs that lead to one worker.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    worker: usize,
    workers: usize,
}

impl Route {
    /// To `worker` of `workers`.
    pub(super) fn new(worker: usize, workers: usize) -> Self {
        Self { worker, workers }
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
        ConnectionId::new(&bytes)
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
    /// RFC 9000 §17.2, Header Form: set in packets that state their version and the length of their IDs.
    const LONG_HEADER: u32 = 0x80;
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
                let mut route = Route::new(worker, workers);
                for random in 0..=255 {
                    assert_eq!(usize::from(route.first_byte(random)) % workers, worker, "{workers} workers");
                }
                assert_eq!(usize::from(route.generate_cid()[0]) % workers, worker);
            }
        }
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
