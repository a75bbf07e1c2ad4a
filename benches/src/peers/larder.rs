//! Larder: an edge with everything on that one has at an ISP.

use std::{fs, net::SocketAddr, os::unix::net::UnixDatagram, path::Path, time::Duration};

use super::{
    case::Via,
    content,
    place::Place,
    process::{Failure, Program, Running, io_failure},
    server::Server,
};

/// How long a role may take to get ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than all objects.
const RAM: (&str, &str) = ("3GiB", "64MiB");

/// An origin that runs.
pub(super) struct Origin {
    pub(super) port: u16,
    _running: Running,
}

/// An origin of its own, where no other is at hand.
pub(super) fn origin(place: &Place, binary: &Path) -> Result<Origin, Failure> {
    let config = place.configure("origin.toml", include_str!("../../peers/origin.toml"), &[])?;
    let program = Program::new(binary).args(["origin".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let running = ready(program, &config)?;
    let port = said(&running, "addr=")?.port();
    Ok(Origin { port, _running: running })
}

/// An edge before the origin at that port.
pub(super) fn start(place: &Place, binary: &Path, origin: u16) -> Result<Server, Failure> {
    let ram = if place.server_core().is_some() { RAM.0 } else { RAM.1 };
    let values = [("PLAIN", "0"), ("TLS", "0"), ("ADMIN", "0"), ("ORIGIN", &origin.to_string()), ("RAM", ram)];
    // What tokens are for is a path, at whichever host.
    let token = content::signed(place, "")?;
    let config = place.configure("edge.toml", include_str!("../../peers/larder.toml"), &values)?;
    let program = Program::new(binary).args(["edge".as_ref(), "--config".as_ref(), config.as_os_str()]);
    let running = ready(program.core(place.server_core()), &config)?;
    let (tls, plain) = (said(&running, "addr=")?, said(&running, "plain_addr=")?);
    Ok(Server {
        tls_url: format!("https://{tls}{token}"),
        plain_url: format!("http://{plain}{token}"),
        ..Server::new("larder", vec![running], &Via::ALL)
    })
}

/// Starts a role and waits until it says that it is ready, as it would to systemd (sd_notify(3)).
fn ready(program: Program, config: &Path) -> Result<Running, Failure> {
    let path = config.with_extension("notify");
    let _ = fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).map_err(io_failure("make a socket to be notified on"))?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(io_failure("limit the time of a socket"))?;
    let running = program.env("NOTIFY_SOCKET", &path).start(&config.with_extension("log"))?;
    let mut message = [0; 1024];
    loop {
        let length = socket.recv(&mut message).map_err(|error| running.failure(format!("it is not ready: {error}")))?;
        if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            break;
        }
    }
    Ok(running)
}

/// The address that a role logged by that name.
fn said(running: &Running, name: &str) -> Result<SocketAddr, Failure> {
    let log = running.log();
    let addr = log.split_whitespace().find_map(|word| word.strip_prefix(name)?.parse().ok());
    addr.ok_or_else(|| Failure::Place(format!("it does not say where it listens ({name}): {log}")))
}
