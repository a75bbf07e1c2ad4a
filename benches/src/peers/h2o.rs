//! H2O, which serves the files themselves: a cache for proxied answers it does not have. Debian's is too old for HTTP/3.

use super::{
    case::Via,
    place::Place,
    process::Failure,
    server::{PLAIN, Peer, Server, TLS, configure, listening, program},
};

pub(super) const PEER: Peer = Peer { name: "h2o", release: "bookworm", packages: &["h2o"], start };

fn start(place: &Place, origin: u16) -> Result<Server, Failure> {
    let config = configure(place, "h2o.conf", include_str!("../../peers/h2o.conf"), origin)?;
    let program = program(place, &PEER, "h2o").args(["-m".as_ref(), "worker".as_ref(), "-c".as_ref(), config.as_os_str()]);
    let running = listening(program, &place.work.join("h2o.log"), &[PLAIN, TLS])?;
    Ok(Server::new(PEER.name, vec![running], &[Via::H1, Via::H1Tls, Via::H2]))
}
