//! Roles as processes of their own, as an operator would start them: a configuration file, the binary, and its word that it is ready.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use edge::http::{Protocol, client::Connection};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// How long a role may take to get ready, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A role that runs as a process; killed on drop.
pub(crate) struct Role {
    child: Child,
}

impl Role {
    /// Starts `larder <role> --config <file>` and waits until it says that it is ready, as it would to systemd (sd_notify(3)).
    pub(crate) fn start(role: &str, config: &Path) -> Self {
        let socket_path = config.with_extension("notify");
        let _ = fs::remove_file(&socket_path);
        let socket = UnixDatagram::bind(&socket_path).expect("a notify socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let log = fs::File::create(config.with_extension("log")).expect("a log file");
        let child = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args([role, "--config"])
            .arg(config)
            .env("NOTIFY_SOCKET", &socket_path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let role = Self { child };
        let mut message = [0; 1024];
        loop {
            let length = socket.recv(&mut message).unwrap_or_else(|error| {
                let log = fs::read_to_string(config.with_extension("log")).unwrap_or_default();
                panic!("{} is not ready: {error}; it logged:\n{log}", config.display())
            });
            if message[..length].split(|b| *b == b'\n').any(|line| line == b"READY=1") {
                return role;
            }
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that the process ever had resident, in bytes (`VmHWM`, proc_pid_status(5)).
    pub(crate) fn resident_bytes_max(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a VmHWM line");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of kB");
        kib * 1024
    }

    /// Sends it a signal ("HUP").
    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(kill.success());
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().expect("it was not waited for yet")
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Certificate and key for 127.0.0.1 in `dir`, and the TLS configuration that trusts them.
pub(crate) fn certificate(dir: &Path) -> (PathBuf, PathBuf, Arc<rustls::ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()]).expect("a certificate");
    let (certificate, key) = (dir.join("edge.crt"), dir.join("edge.key"));
    fs::write(&certificate, made.cert.pem()).expect("writes");
    fs::write(&key, made.signing_key.serialize_pem()).expect("writes");
    (certificate.clone(), key, trusting(&certificate))
}

/// An edge that a test describes by what it cares for.
pub(crate) struct EdgeFiles<'a> {
    pub(crate) port: u16,
    /// 0 takes any.
    pub(crate) admin_port: u16,
    pub(crate) origin_port: u16,
    /// Folders that are read without a token.
    pub(crate) open_paths: &'a [&'a str],
    /// The lines of `[cache]`.
    pub(crate) cache: &'a str,
}

impl EdgeFiles<'_> {
    /// Writes `edge.toml` and all that it names to `dir`. Comes back with the TLS configuration that trusts the edge.
    pub(crate) fn write(&self, dir: &Path) -> Arc<rustls::ClientConfig> {
        let Self { port, admin_port, origin_port, open_paths, cache } = self;
        let (certificate, key, tls) = certificate(dir);
        let config = format!(
            r#"role = "edge"
name = "edge-a"
site = "site-1"
listen = "127.0.0.1:{port}"
admin_listen = "127.0.0.1:{admin_port}"
public_url = "https://127.0.0.1:{port}"
tls = {{ certificate_file = "{certificate}", key_file = "{key}" }}
tokens = {{ keys_file = "{dir}/keys.json", issuer = "test", open_paths = {open_paths:?} }}
origin = {{ url = "http://127.0.0.1:{origin_port}", token_file = "{dir}/fill.token" }}
[cache]
{cache}
"#,
            certificate = certificate.display(),
            key = key.display(),
            dir = dir.display(),
        );
        write_all(dir, [("edge.toml", config.as_str()), ("keys.json", "{\"keys\":[]}"), ("fill.token", FILL_TOKEN)]);
        tls
    }
}

/// Writes `origin.toml` to `dir`, whose folder `origin` it serves to edges that have [`EdgeFiles`] there.
pub(crate) fn write_origin_files(dir: &Path, port: u16) {
    let folder = dir.display();
    let config = format!(
        "role = \"origin\"\nlisten = \"127.0.0.1:{port}\"\nstate_dir = \"{folder}/origin\"\nfill_token_file = \"{folder}/fill.token\"\n"
    );
    write_all(dir, [("origin.toml", config.as_str()), ("fill.token", FILL_TOKEN)]);
}

const FILL_TOKEN: &str = "a-secret-between-the-edge-and-its-origin";

fn write_all<const N: usize>(dir: &Path, files: [(&str, &str); N]) {
    for (name, text) in files {
        fs::write(dir.join(name), text).expect("writes");
    }
}

/// A TLS configuration that trusts the certificates in `file` alone.
pub(crate) fn trusting(file: &Path) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).expect("a certificate file") {
        roots.add(certificate.expect("a certificate")).expect("a usable certificate");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS 1.3");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// A connection to an edge on loopback.
pub(crate) async fn connect(protocol: Protocol, addr: SocketAddr, tls: &Arc<rustls::ClientConfig>) -> Connection {
    Connection::connect(protocol, addr, "127.0.0.1", tls.clone()).await.expect("connects")
}
