//! Datagrams that pass from one process to another, when both serve connections of one UDP socket: the younger one reads it, and hands its elders what is
//! for them. Each elder goes on sending on the socket itself.
//!
//! Knows a connection's owner by its ID ([`Epoch`]). A datagram that an elder has no room for is dropped, as the network might: QUIC repairs it.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::unix::net::UnixDatagram,
    sync::Arc,
};

use quinn_udp::{EcnCodepoint, RecvMeta};
use socket2::SockRef;

use crate::{
    http::Counters,
    listener::{Epoch, epoch_of},
};

/// What is asked of the system for datagrams that an elder has not taken yet, in bytes. It may grant less (net.core.wmem_max).
const QUEUE_BYTES: usize = 4 << 20;
/// After each datagram: where it came from and went to, and its ECN.
pub(super) const TRAILER_BYTES: usize = 45;

/// A pair of ends: what is sent on the first comes out of the second, and waits there in a queue of bounded size.
pub(crate) fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
    let (sends, receives) = UnixDatagram::pair()?;
    for end in [&sends, &receives] {
        end.set_nonblocking(true)?;
    }
    // Less than asked for is no error.
    let _ = SockRef::from(&sends).set_send_buffer_size(QUEUE_BYTES);
    Ok((sends, receives))
}

/// Processes that still have connections of a socket that this one reads.
pub(crate) struct Elders {
    /// By epoch.
    ends: [Option<UnixDatagram>; Epoch::COUNT],
    counters: Arc<Counters>,
}

impl Elders {
    /// `None` if there are none.
    pub(crate) fn new(elders: Vec<(Epoch, UnixDatagram)>, counters: Arc<Counters>) -> Option<Self> {
        let is_any = !elders.is_empty();
        let mut ends = [const { None }; Epoch::COUNT];
        for (epoch, end) in elders {
            ends[epoch.index()] = Some(end);
        }
        is_any.then_some(Self { ends, counters })
    }

    /// Hands a datagram to the elder whose it is. False if it is for this process, or may be.
    pub(super) fn take(&mut self, meta: &RecvMeta, datagram: &[u8]) -> bool {
        let Some((epoch, may_be_first)) = epoch_of(datagram) else { return false };
        let place = &mut self.ends[epoch.index()];
        let Some(end) = place else { return false };
        let trailer = trailer(meta);
        match SockRef::from(&*end).send_vectored(&[IoSlice::new(datagram), IoSlice::new(&trailer)]) {
            Ok(_) => self.counters.passed.up(),
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) => {
                // It has ended. Whoever still speaks to it is told so by a stateless reset, which has the same key here (RFC 9000 §10.3).
                *place = None;
                return false;
            }
            // No room, mostly.
            Err(_) => self.counters.passed_dropped.up(),
        }
        !may_be_first
    }
}

/// What the system said of a datagram, to be read by the process that it is for.
fn trailer(meta: &RecvMeta) -> [u8; TRAILER_BYTES] {
    let mut bytes = [0; TRAILER_BYTES];
    let (flow, scope) = match meta.addr {
        SocketAddr::V4(_) => (0, 0),
        SocketAddr::V6(addr) => (addr.flowinfo(), addr.scope_id()),
    };
    put_ip(&mut bytes[..17], Some(meta.addr.ip()));
    bytes[17..19].copy_from_slice(&meta.addr.port().to_be_bytes());
    bytes[19..23].copy_from_slice(&flow.to_be_bytes());
    bytes[23..27].copy_from_slice(&scope.to_be_bytes());
    put_ip(&mut bytes[27..44], meta.dst_ip);
    bytes[44] = meta.ecn.map_or(0, |ecn| ecn as u8);
    bytes
}

/// The datagram in `message` and what the system said of it, `None` if it is no message of [`trailer`]'s.
pub(super) fn meta(message: &[u8]) -> Option<RecvMeta> {
    let (datagram, trailer) = message.split_last_chunk::<TRAILER_BYTES>()?;
    let number = |at: usize| u32::from_be_bytes(trailer[at..at + 4].try_into().expect("four bytes"));
    let port = u16::from_be_bytes([trailer[17], trailer[18]]);
    let addr = match ip(&trailer[..17])? {
        IpAddr::V4(ip) => SocketAddr::from((ip, port)),
        IpAddr::V6(ip) => SocketAddrV6::new(ip, port, number(19), number(23)).into(),
    };
    let ecn = EcnCodepoint::from_bits(trailer[44]);
    Some(RecvMeta { addr, len: datagram.len(), stride: datagram.len(), ecn, dst_ip: ip(&trailer[27..44]) })
}

/// Its family, and the address itself.
fn put_ip(bytes: &mut [u8], ip: Option<IpAddr>) {
    match ip {
        None => {}
        Some(IpAddr::V4(ip)) => {
            bytes[0] = 4;
            bytes[1..5].copy_from_slice(&ip.octets());
        }
        Some(IpAddr::V6(ip)) => {
            bytes[0] = 6;
            bytes[1..17].copy_from_slice(&ip.octets());
        }
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes[0] {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[1..5]).expect("four bytes")).into()),
        6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[1..17]).expect("sixteen bytes")).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_said_of_a_datagram_comes_along_with_it() {
        let v6 = SocketAddrV6::new("fe80::7".parse().expect("an address"), 9, 1, 2);
        for (addr, dst_ip, ecn) in [
            ("192.0.2.1:443".parse().expect("an address"), Some("198.51.100.1".parse().expect("an address")), None),
            (SocketAddr::V6(v6), Some("2001:db8::1".parse().expect("an address")), Some(EcnCodepoint::Ce)),
            (SocketAddr::V6(v6), None, Some(EcnCodepoint::Ect0)),
        ] {
            let datagram = [7; 33];
            let sent = RecvMeta { addr, len: 33, stride: 33, ecn, dst_ip };
            let message = [&datagram[..], &trailer(&sent)].concat();
            let read = meta(&message).expect("it is one");
            assert_eq!((read.addr, read.len, read.stride, read.ecn, read.dst_ip), (addr, 33, 33, ecn, dst_ip));
        }
        assert!(meta(&[0; TRAILER_BYTES]).is_none() && meta(&[4; 7]).is_none());
    }

    #[test]
    fn an_elder_gets_what_is_his_until_he_has_no_room_or_is_gone() {
        let counters = Arc::new(Counters::default());
        let (sends, receives) = pair().expect("sockets");
        let elder = Epoch::FIRST.next();
        let mut elders = Elders::new(vec![(elder, sends)], counters.clone()).expect("one");
        let from = RecvMeta { addr: "192.0.2.1:443".parse().expect("an address"), ..RecvMeta::default() };
        let id = elder.mark([1; 8]);
        let short = [&[0x40][..], &id, &[9; 40]].concat();
        let others = [&[0x40][..], &elder.next().mark([1; 8]), &[9; 40]].concat();
        assert!(!elders.take(&from, &others), "nobody's but ours");
        assert!(elders.take(&from, &short));
        let mut message = [0; 2000];
        let length = receives.recv(&mut message).expect("a message");
        assert_eq!(message[..length - TRAILER_BYTES], short);
        while counters.passed_dropped.value() == 0 {
            assert!(elders.take(&from, &short), "his, and dropped where he has no room");
        }
        let sent = counters.passed.value();
        assert!(sent > 10, "{sent}");
        drop(receives);
        assert!(!elders.take(&from, &short), "he is gone");
        assert!(!elders.take(&from, &short));
        assert_eq!(counters.passed.value(), sent);
    }
}
