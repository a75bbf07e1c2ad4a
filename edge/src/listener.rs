//! Sockets: for each worker a TCP listener and a UDP socket of its own, all on one port number (SO_REUSEPORT, socket(7)).
//!
//! The kernel spreads TCP connections by their addresses. QUIC connections outlive addresses (a phone leaves its Wi-Fi, a router forgets a
//! mapping), so their datagrams are spread by connection ID, which each worker makes such that it leads back to it ([`Route`]).

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::unix::net::UnixDatagram,
};

use socket2::{Domain, Protocol, Socket, Type};

mod route;

pub(crate) use route::epoch_of;
pub use route::{Epoch, Route};

/// Connections that the kernel keeps ready to be accepted, per worker.
const BACKLOG: i32 = 1024;
/// Buffers of a UDP socket: QUIC's datagrams come in bursts. The kernel may grant less (net.core.rmem_max).
const UDP_BUFFER_BYTES: usize = 4 << 20;
/// How many port numbers are tried when any will do and UDP must get the one that TCP got.
const EPHEMERAL_TRIES: usize = 16;

/// The bound sockets of all workers.
#[derive(Debug)]
pub struct Sockets {
    addr: SocketAddr,
    plain_addr: Option<SocketAddr>,
    epoch: Epoch,
    workers: Vec<Worker>,
}

/// One worker's.
#[derive(Debug)]
pub struct Worker {
    /// Listening.
    pub tcp: TcpListener,
    /// Bound.
    pub udp: UdpSocket,
    /// How its QUIC connections find it.
    pub route: Route,
    /// Listening for clients without TLS.
    pub plain: Option<TcpListener>,
    /// Where to datagrams go of connections that processes before this one still have.
    pub elders: Vec<(Epoch, UnixDatagram)>,
}

/// What of a worker's passes from one process to the next.
pub(crate) struct Parts {
    pub(crate) tcp: TcpListener,
    pub(crate) plain: Option<TcpListener>,
    pub(crate) udp: UdpSocket,
    pub(crate) elders: Vec<(Epoch, UnixDatagram)>,
}

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody has the port.
    #[error("cannot listen on {addr}: the port is in use by another process ({transport})")]
    InUse {
        /// What was wanted.
        addr: SocketAddr,
        /// "TCP" or "UDP".
        transport: &'static str,
    },
    /// The kernel says no.
    #[error("cannot listen on {addr} ({transport}): {error}{}", hint(.error))]
    Refused {
        /// What was wanted.
        addr: SocketAddr,
        /// "TCP" or "UDP".
        transport: &'static str,
        /// Its words.
        error: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "; the address is not one of this machine's",
        _ => "",
    }
}

impl Sockets {
    /// Binds a pair for each of `workers` (at least one) to `addr`. Port 0 means any port that is free for TCP and UDP.
    pub fn bind(addr: SocketAddr, workers: usize) -> Result<Self, BindError> {
        let tries = if addr.port() == 0 { EPHEMERAL_TRIES } else { 1 };
        let mut last = None;
        for _ in 0..tries {
            match Self::bind_once(addr, workers) {
                Ok(sockets) => return Ok(sockets),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there was a try"))
    }

    fn bind_once(addr: SocketAddr, workers: usize) -> Result<Self, BindError> {
        // With SO_REUSEPORT a second edge of the same user would be let in beside the first and take half of its viewers. So the
        // port is asked for without it first.
        let probe = socket(addr, Type::STREAM, false)?;
        let addr = local_addr(&probe, addr, Type::STREAM)?;
        drop(probe);
        drop(socket(addr, Type::DGRAM, false)?);
        let workers = workers.max(1);
        let pair = |worker| {
            let tcp = socket(addr, Type::STREAM, true)?;
            tcp.listen(BACKLOG).map_err(|error| refused(addr, Type::STREAM, error))?;
            let udp = socket(addr, Type::DGRAM, true)?;
            // Less than asked for is no error, and what the kernel grants by default works too.
            let _ = udp.set_recv_buffer_size(UDP_BUFFER_BYTES);
            let _ = udp.set_send_buffer_size(UDP_BUFFER_BYTES);
            let route = Route::new(worker, workers, Epoch::FIRST);
            Ok(Worker { tcp: tcp.into(), udp: udp.into(), route, plain: None, elders: Vec::new() })
        };
        let workers = (0..workers).map(pair).collect::<Result<Vec<_>, _>>()?;
        if let Err(error) = route::attach(&workers[0].udp, workers.len()) {
            tracing::warn!(%error, "QUIC clients that change their address will have to connect anew");
        }
        Ok(Self { addr, plain_addr: None, epoch: Epoch::FIRST, workers })
    }

    /// The same with a listener more for each worker, on another address, for clients without TLS.
    pub fn and_plain(mut self, addr: SocketAddr) -> Result<Self, BindError> {
        let probe = socket(addr, Type::STREAM, false)?;
        let addr = local_addr(&probe, addr, Type::STREAM)?;
        drop(probe);
        for worker in &mut self.workers {
            let plain = socket(addr, Type::STREAM, true)?;
            plain.listen(BACKLOG).map_err(|error| refused(addr, Type::STREAM, error))?;
            worker.plain = Some(plain.into());
        }
        Ok(Self { plain_addr: Some(addr), ..self })
    }

    /// Where clients without TLS are listened for.
    pub fn plain_addr(&self) -> Option<SocketAddr> {
        self.plain_addr
    }

    /// Those of a process that this one takes over from, as [`Self::parts`] gave them.
    pub(crate) fn inherit(addr: SocketAddr, epoch: Epoch, parts: Vec<Parts>) -> Self {
        let count = parts.len();
        let plain_addr = parts.first().and_then(|part| part.plain.as_ref()?.local_addr().ok());
        let inherit = |(worker, Parts { tcp, plain, udp, elders })| {
            let route = Route::new(worker, count, epoch);
            Worker { tcp, udp, route, plain, elders }
        };
        Self { addr, plain_addr, epoch, workers: parts.into_iter().enumerate().map(inherit).collect() }
    }

    /// The same sockets once more, for another process, in the order of the workers.
    pub(crate) fn parts(&self) -> io::Result<Vec<Parts>> {
        let part = |Worker { tcp, udp, plain, elders, .. }: &Worker| {
            let elders = elders.iter().map(|(epoch, end)| Ok((*epoch, end.try_clone()?))).collect::<io::Result<_>>()?;
            let plain = plain.as_ref().map(TcpListener::try_clone).transpose()?;
            Ok(Parts { tcp: tcp.try_clone()?, plain, udp: udp.try_clone()?, elders })
        };
        self.workers.iter().map(part).collect()
    }

    /// Which of several processes these are of.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The address with the port that was bound.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What each worker gets.
    pub fn into_workers(self) -> Vec<Worker> {
        self.workers
    }
}

fn socket(addr: SocketAddr, kind: Type, shared: bool) -> Result<Socket, BindError> {
    let open = || {
        let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
        let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
        if addr.is_ipv6() {
            // `[::]` takes IPv4 too.
            socket.set_only_v6(false)?;
        }
        if kind == Type::STREAM {
            // Connections of an edge that just ended do not keep the port.
            socket.set_reuse_address(true)?;
        }
        socket.set_reuse_port(shared)?;
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        Ok(socket)
    };
    open().map_err(|error| refused(addr, kind, error))
}

fn local_addr(socket: &Socket, addr: SocketAddr, kind: Type) -> Result<SocketAddr, BindError> {
    let local = socket.local_addr().map_err(|error| refused(addr, kind, error))?;
    Ok(local.as_socket().unwrap_or(addr))
}

fn refused(addr: SocketAddr, kind: Type, error: io::Error) -> BindError {
    let transport = if kind == Type::STREAM { "TCP" } else { "UDP" };
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { addr, transport },
        _ => BindError::Refused { addr, transport, error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_one_port_number_on_tcp_and_udp() {
        let sockets = Sockets::bind("127.0.0.1:0".parse().expect("an address"), 3).expect("binds");
        let addr = sockets.addr();
        assert_ne!(addr.port(), 0);
        for Worker { tcp, udp, .. } in sockets.into_workers() {
            assert_eq!((tcp.local_addr().expect("bound"), udp.local_addr().expect("bound")), (addr, addr));
        }
    }

    #[test]
    fn a_port_that_only_udp_has_in_use_is_told_as_such() {
        // Somebody else may have just this port for TCP; not each time.
        let told = (0..EPHEMERAL_TRIES).any(|_| {
            let taken = UdpSocket::bind("127.0.0.1:0").expect("binds");
            let addr = taken.local_addr().expect("bound");
            let error = Sockets::bind(addr, 1).expect_err("in use");
            error.to_string() == format!("cannot listen on {addr}: the port is in use by another process (UDP)")
        });
        assert!(told);
    }

    #[test]
    fn an_address_of_another_machine_is_told_as_such() {
        // TEST-NET-1 (RFC 5737).
        let error = Sockets::bind("192.0.2.1:0".parse().expect("an address"), 1).expect_err("not ours").to_string();
        assert!(
            error.starts_with("cannot listen on 192.0.2.1:0 (TCP): ") && error.ends_with("not one of this machine's"),
            "{error}"
        );
    }

    #[test]
    fn a_port_that_another_edge_has_is_said_to_be_in_use() {
        let first = Sockets::bind("127.0.0.1:0".parse().expect("an address"), 1).expect("binds");
        let error = Sockets::bind(first.addr(), 1).expect_err("in use");
        assert_eq!(error.to_string(), format!("cannot listen on {}: the port is in use by another process (TCP)", first.addr()));
    }
}
