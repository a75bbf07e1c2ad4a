//! nginx: a caching proxy with its cache in files, which the kernel holds in memory.

use super::{
    case::Via,
    place::Place,
    process::Failure,
    server::{PLAIN, Peer, Server, TLS, configure, listening, program},
};

pub(super) const PEER: Peer = Peer { name: "nginx", release: "forky", packages: &["nginx"], start };

fn start(place: &Place, origin: u16) -> Result<Server, Failure> {
    let config = configure(place, "nginx.conf", include_str!("../../peers/nginx.conf"), origin)?;
    let program = program(place, &PEER, "nginx").args(["-c".as_ref(), config.as_os_str()]);
    let running = listening(program, &place.work.join("nginx.log"), &[PLAIN, TLS])?;
    Ok(Server::new(PEER.name, vec![running], &Via::ALL))
}
