//! What a server is to the comparison, and which there are.

use std::{
    io,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    caddy,
    case::{Case, Cipher, Via},
    h2o, haproxy, nginx,
    place::Place,
    process::{CpuTime, Failure, Program, Running},
    trafficserver, varnish,
};

/// Ports of a peer, which is alone in its network but for Larder.
pub(super) const PLAIN: u16 = 8080;
pub(super) const TLS: u16 = 8443;
/// Of the origin.
const ORIGIN: u16 = 9000;
/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is tried meanwhile.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// A server that Larder is compared with.
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// The Debian that it is taken from.
    pub(super) release: &'static str,
    /// Its packages there.
    pub(super) packages: &'static [&'static str],
    /// Starts it before the origin at that port.
    pub(super) start: fn(&Place, u16) -> Result<Server, Failure>,
}

/// All of them.
pub(super) const PEERS: [Peer; 6] = [nginx::PEER, varnish::PEER, trafficserver::PEER, caddy::PEER, haproxy::PEER, h2o::PEER];

/// A server that runs.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) running: Vec<Running>,
    /// What stands before an object's path, without TLS and with it.
    pub(super) plain_url: String,
    pub(super) tls_url: String,
    /// What it speaks.
    pub(super) vias: &'static [Via],
    /// The largest object that it is asked for.
    pub(super) bytes_max: u64,
    /// The cipher suites that were agreed on.
    pub(super) ciphers: Vec<(Via, Cipher, String)>,
}

impl Server {
    /// A peer at its ports.
    pub(super) fn new(name: &'static str, running: Vec<Running>, vias: &'static [Via]) -> Self {
        Self {
            name,
            running,
            plain_url: format!("http://127.0.0.1:{PLAIN}"),
            tls_url: format!("https://127.0.0.1:{TLS}"),
            vias,
            bytes_max: u64::MAX,
            ciphers: Vec::new(),
        }
    }

    /// Whether it can be asked so.
    pub(super) fn takes(&self, case: Case) -> bool {
        self.vias.contains(&case.via) && case.size.bytes() <= self.bytes_max
    }

    /// What stands before an object's path.
    pub(super) fn url(&self, via: Via) -> String {
        if via == Via::H1 { self.plain_url.clone() } else { self.tls_url.clone() }
    }

    /// The CPU time of all its processes.
    pub(super) fn cpu_time(&mut self) -> Result<CpuTime, Failure> {
        let mut time = CpuTime::default();
        for running in &mut self.running {
            running.check()?;
            time.extend(running.cpu_time());
        }
        Ok(time)
    }

    /// The most memory that its processes had resident, in bytes.
    pub(super) fn resident_bytes_max(&self) -> u64 {
        self.running.iter().map(Running::resident_bytes_max).sum()
    }

    /// Forgets what was logged.
    pub(super) fn trim_logs(&self) {
        self.running.iter().for_each(Running::trim_log);
    }
}

/// The origin of all servers: nginx on files.
pub(super) struct Origin {
    pub(super) port: u16,
    _running: Running,
}

impl Origin {
    pub(super) fn start(place: &Place) -> Result<Self, Failure> {
        let template = include_str!("../../peers/origin-nginx.conf");
        let config = place.configure("origin.conf", template, &[("ORIGIN", &ORIGIN.to_string())])?;
        let program = Program::new("nginx").args(["-c".as_ref(), config.as_os_str()]).core(place.client_core());
        let running = listening(program.root(place.root(nginx::PEER.release)), &place.work.join("origin.log"), &[ORIGIN])?;
        Ok(Self { port: ORIGIN, _running: running })
    }
}

/// The values that the peers' configurations have.
pub(super) fn configure(place: &Place, name: &str, template: &str, origin: u16) -> Result<PathBuf, Failure> {
    let (plain, tls, origin) = (PLAIN.to_string(), TLS.to_string(), origin.to_string());
    place.configure(name, template, &[("PLAIN", &plain), ("TLS", &tls), ("ORIGIN", &origin)])
}

/// A peer's program, in its Debian and on the servers' core.
pub(super) fn program(place: &Place, peer: &Peer, name: &str) -> Program {
    Program::new(name).root(place.root(peer.release)).core(place.server_core())
}

/// Starts a server and waits until it listens.
#[expect(clippy::disallowed_methods, reason = "nobody tells when a foreign server is ready, and this thread serves no viewers")]
pub(super) fn listening(program: Program, log: &Path, ports: &[u16]) -> Result<Running, Failure> {
    let mut running = program.start(log)?;
    let deadline = Instant::now() + PATIENCE;
    for port in ports {
        let connect = || -> io::Result<TcpStream> { TcpStream::connect((Ipv4Addr::LOCALHOST, *port)) };
        while let Err(reason) = connect() {
            running.check()?;
            if Instant::now() > deadline {
                return Err(running.failure(format!("nothing listens on port {port}: {reason}")));
            }
            thread::sleep(TRY_EVERY);
        }
    }
    Ok(running)
}
