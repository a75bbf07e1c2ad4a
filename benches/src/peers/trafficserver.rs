//! Apache Traffic Server with its cache in a file and all of it in its memory too. Debian builds it without QUIC.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use super::{
    case::Via,
    place::{Place, write},
    process::{Failure, io_failure},
    server::{PLAIN, Peer, Server, TLS, configure, listening, program},
};

pub(super) const PEER: Peer = Peer { name: "trafficserver", release: "bookworm", packages: &["trafficserver"], start };

fn start(place: &Place, origin: u16) -> Result<Server, Failure> {
    let runroot = configure(place, "runroot.yaml", include_str!("../../peers/trafficserver.runroot"), origin)?;
    configure(place, "ats/records.config", include_str!("../../peers/trafficserver.records"), origin)?;
    let dir = place.work.display();
    for (file, text) in [
        ("remap.config", format!("map / http://127.0.0.1:{origin}/\n")),
        ("storage.config", format!("{dir}/ats 4G\n")),
        ("ip_allow.yaml", "ip_allow:\n  - apply: in\n    ip_addrs: 0/0\n    action: allow\n    methods: ALL\n".to_owned()),
        ("ssl_multicert.config", "dest_ip=* ssl_cert_name=server.crt ssl_key_name=server.key\n".to_owned()),
    ] {
        write(&place.work.join("ats").join(file), text.as_bytes())?;
    }
    // It serves nothing as root, and writes here.
    let folder = place.work.join("ats");
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).map_err(io_failure("open a directory to Traffic Server"))?;
    let program = program(place, &PEER, "traffic_server").args([format!("--run-root={}", runroot.display())]);
    let running = listening(program, &place.work.join("ats.log"), &[PLAIN, TLS])?;
    Ok(Server::new(PEER.name, vec![running], &[Via::H1, Via::H1Tls, Via::H2]))
}
