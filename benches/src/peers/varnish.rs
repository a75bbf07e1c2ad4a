//! Varnish Cache in memory, behind Hitch, which speaks TLS for it. No HTTP/3.

use super::{
    case::Via,
    place::Place,
    process::Failure,
    server::{PLAIN, Peer, Server, TLS, configure, listening, program},
};

pub(super) const PEER: Peer = Peer { name: "varnish", release: "trixie", packages: &["varnish", "hitch"], start };

fn start(place: &Place, origin: u16) -> Result<Server, Failure> {
    let vcl = configure(place, "varnish.vcl", include_str!("../../peers/varnish.vcl"), origin)?;
    let dir = place.work.display();
    let args = [
        "-F".to_owned(),
        // It drops no privileges, as there is nobody to be protected from.
        "-jnone".to_owned(),
        format!("-n{dir}/varnish"),
        format!("-f{}", vcl.display()),
        // Without an address it asks what "localhost" is.
        "-T127.0.0.1:0".to_owned(),
        format!("-aplain=127.0.0.1:{PLAIN},HTTP"),
        format!("-atls={dir}/varnish.sock,PROXY,mode=666"),
        // More than all objects.
        "-smalloc,3g".to_owned(),
        "-pfeature=+http2".to_owned(),
        // One core is compared: one pool of threads, which its manual says is enough.
        "-pthread_pools=1".to_owned(),
        // A client that comes after a pause finds its connection open.
        "-ptimeout_idle=3600".to_owned(),
    ];
    let varnish = program(place, &PEER, "varnishd").args(args);
    let varnish = listening(varnish, &place.work.join("varnish.log"), &[PLAIN])?;
    let config = configure(place, "hitch.conf", include_str!("../../peers/hitch.conf"), origin)?;
    let hitch = program(place, &PEER, "hitch").args([format!("--config={}", config.display())]);
    let hitch = listening(hitch, &place.work.join("hitch.log"), &[TLS])?;
    Ok(Server::new(PEER.name, vec![varnish, hitch], &[Via::H1, Via::H1Tls, Via::H2]))
}
