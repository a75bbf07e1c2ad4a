//! Caddy, which serves the files themselves: a cache it has only by modules that Debian does not build.

use super::{
    case::Via,
    place::Place,
    process::Failure,
    server::{PLAIN, Peer, Server, TLS, configure, listening, program},
};

pub(super) const PEER: Peer = Peer { name: "caddy", release: "forky", packages: &["caddy"], start };

fn start(place: &Place, origin: u16) -> Result<Server, Failure> {
    let config = configure(place, "Caddyfile", include_str!("../../peers/Caddyfile"), origin)?;
    let args = ["run".as_ref(), "--adapter".as_ref(), "caddyfile".as_ref(), "--config".as_ref(), config.as_os_str()];
    let program = program(place, &PEER, "caddy").args(args).env("HOME", &place.work);
    let running = listening(program, &place.work.join("caddy.log"), &[PLAIN, TLS])?;
    Ok(Server::new(PEER.name, vec![running], &Via::ALL))
}
