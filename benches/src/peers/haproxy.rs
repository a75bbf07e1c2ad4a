//! HAProxy with its cache of small objects in memory.

use super::{
    case::{ObjectSize, Via},
    place::Place,
    process::Failure,
    server::{PLAIN, Peer, Server, TLS, configure, listening, program},
};

pub(super) const PEER: Peer = Peer { name: "haproxy", release: "forky", packages: &["haproxy"], start };

fn start(place: &Place, origin: u16) -> Result<Server, Failure> {
    let config = configure(place, "haproxy.cfg", include_str!("../../peers/haproxy.cfg"), origin)?;
    let program = program(place, &PEER, "haproxy").args(["-db".as_ref(), "-f".as_ref(), config.as_os_str()]);
    let running = listening(program, &place.work.join("haproxy.log"), &[PLAIN, TLS])?;
    Ok(Server { bytes_max: ObjectSize::K64.bytes(), ..Server::new(PEER.name, vec![running], &Via::ALL) })
}
