//! TLS: one certificate for TCP and QUIC, which can be swapped under running listeners, and who gets which cipher suite and which tickets.

mod choice;
mod tickets;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use quinn_proto::crypto::{self, rustls::QuicServerConfig};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};
use wire::secret::{Secret, SecretError};

use self::{
    choice::Choice,
    tickets::{SECRET_CHARS_MIN, Tickets},
};

/// What an operator says about TLS.
#[derive(Debug, Clone)]
pub struct Options {
    /// The chain, leaf first, PEM.
    pub certificate_file: PathBuf,
    /// The leaf's private key, PEM.
    pub key_file: PathBuf,
    /// A file with the secret that the keys of session tickets are made from; without it they are this process's own.
    pub ticket_secret_file: Option<PathBuf>,
    /// AES-256 before AES-128.
    pub aes_256: bool,
}

impl Options {
    /// With a certificate and its key, and all else as it is unless it is said.
    pub fn new(certificate_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        Self { certificate_file: certificate_file.into(), key_file: key_file.into(), ticket_secret_file: None, aes_256: false }
    }
}

/// What TLS needs to answer handshakes; cloning it is cheap.
#[derive(Clone)]
pub struct Tls {
    options: Arc<Options>,
    provider: Arc<CryptoProvider>,
    certificate: Arc<Current>,
    /// `None` where their keys are this process's own.
    tickets: Option<Arc<Tickets>>,
    tcp: Arc<Choice<ServerConfig>>,
    quic: Arc<Choice<QuicServerConfig>>,
}

/// Why a certificate or a secret cannot be used. Names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read, or holds no PEM of the kind wanted.
    #[error("cannot read {what} from {}: {reason}; it must be a PEM file that this process may read", .file.display())]
    File {
        /// "a certificate" or "a private key".
        what: &'static str,
        /// Where it was looked for.
        file: PathBuf,
        /// What was wrong.
        reason: String,
    },
    /// The key is not the certificate's.
    #[error("the key in {} does not belong to the first certificate in {}: give the key it was issued for", .key.display(), .certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// rustls does not take it.
    #[error("the certificate in {} cannot be used: {reason}; give a certificate of a server with its chain, leaf first", .certificate.display())]
    Unusable {
        /// The certificate's file.
        certificate: PathBuf,
        /// rustls' words.
        reason: rustls::Error,
    },
    /// The file with the secret for tickets has none.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It has one that could be guessed.
    #[error("the secret in {} (tls.ticket_secret_file) is shorter than {SECRET_CHARS_MIN} characters; make one with: openssl rand -hex 32", .file.display())]
    ShortSecret {
        /// The secret's file.
        file: PathBuf,
    },
}

impl Tls {
    /// Reads a certificate chain, leaf first, and its private key, both PEM.
    pub fn load(certificate_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        Self::open(Options::new(certificate_file, key_file))
    }

    /// Reads all files that `options` name.
    pub fn open(options: Options) -> Result<Self, TlsError> {
        let provider = Arc::new(choice::provider(options.aes_256));
        let (key, secret) = read_all(&options, &provider)?;
        let certificate = Arc::new(Current(ArcSwap::from_pointee(key)));
        let unusable = |reason| TlsError::Unusable { certificate: options.certificate_file.clone(), reason };
        let mut tcp = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(certificate.clone());
        let tickets = secret.as_ref().map(|secret| Arc::new(Tickets::new(secret)));
        tcp.ticketer = match &tickets {
            Some(tickets) => tickets.clone(),
            None => aws_lc_rs::Ticketer::new().map_err(unusable)?,
        };
        let mut quic = tcp.clone();
        tcp.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        quic.alpn_protocols = vec![b"h3".to_vec()];
        let (tcp, quic) = (Choice::new(tcp), Choice::new(quic).for_quic());
        Ok(Self { options: Arc::new(options), provider, certificate, tickets, tcp: Arc::new(tcp), quic: Arc::new(quic) })
    }

    /// Reads the files again. New handshakes get what is in them; if any of it cannot be used, all stays as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let (key, secret) = read_all(&self.options, &self.provider)?;
        self.certificate.0.store(Arc::new(key));
        if let (Some(tickets), Some(secret)) = (&self.tickets, secret) {
            tickets.change(&secret);
        }
        Ok(())
    }

    /// What answers this client over TCP.
    pub(crate) fn tcp(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        self.tcp.for_client(hello)
    }

    pub(crate) fn quic(&self) -> Arc<dyn crypto::ServerConfig> {
        self.quic.clone()
    }
}

fn read_all(options: &Options, provider: &CryptoProvider) -> Result<(CertifiedKey, Option<Secret>), TlsError> {
    let key = read(&options.certificate_file, &options.key_file, provider)?;
    Ok((key, options.ticket_secret_file.as_deref().map(read_secret).transpose()?))
}

fn read_secret(file: &Path) -> Result<Secret, TlsError> {
    let secret = Secret::read(file, "tls.ticket_secret_file", fs::File::open(file))?;
    if secret.in_clear().len() < SECRET_CHARS_MIN {
        return Err(TlsError::ShortSecret { file: file.to_owned() });
    }
    Ok(secret)
}

fn read(certificate_file: &Path, key_file: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_file_iter(certificate_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(|error| unreadable("a certificate", certificate_file, &error))?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| unreadable("a private key", key_file, &error))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|reason| match reason {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: certificate_file.to_owned(), key: key_file.to_owned() }
        }
        reason => TlsError::Unusable { certificate: certificate_file.to_owned(), reason },
    })
}

fn unreadable(what: &'static str, file: &Path, error: &pem::Error) -> TlsError {
    let reason = match error {
        pem::Error::NoItemsFound => format!("it holds no PEM block with {what}"),
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => "there is no such file".into(),
        other => other.to_string(),
    };
    TlsError::File { what, file: file.to_owned(), reason }
}

/// The certificate of the moment.
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::{Side, transport_parameters::TransportParameters};
    use rustls::{CipherSuite, ClientConfig, RootCertStore, quic, server::ProducesTickets as _, version::TLS13};

    use super::*;

    fn made() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(vec!["edge.example".into()]).expect("a certificate")
    }

    /// What a client that offers these suites in this order agrees on over QUIC, if its ClientHello comes in pieces of so many bytes.
    fn agreed_over_quic(tls: &Tls, roots: &RootCertStore, suites: &[CipherSuite], piece_bytes: usize) -> CipherSuite {
        let mut provider = aws_lc_rs::default_provider();
        let known = std::mem::take(&mut provider.cipher_suites);
        provider.cipher_suites =
            suites.iter().filter_map(|suite| known.iter().find(|known| known.suite() == *suite)).copied().collect();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&TLS13]).expect("TLS 1.3");
        let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = vec![b"h3".to_vec()];
        let name = "edge.example".try_into().expect("a name");
        let mut client = quic::ClientConnection::new(Arc::new(config), quic::Version::V1, name, Vec::new()).expect("a client");
        let params = TransportParameters::read(Side::Server, &mut &[][..]).expect("all may be missing");
        let mut server = tls.quic().start_session(1, &params);
        let (mut hello, mut answer) = (Vec::new(), Vec::new());
        client.write_hs(&mut hello);
        for piece in hello.chunks(piece_bytes) {
            server.read_handshake(piece).expect("a good piece");
        }
        server.write_handshake(&mut answer);
        client.read_hs(&answer).expect("a good answer");
        client.negotiated_cipher_suite().expect("agreed on").suite()
    }

    #[test]
    fn over_quic_clients_get_aes_128_unless_they_put_chacha20_first() {
        use CipherSuite::{
            TLS13_AES_128_GCM_SHA256 as AES_128, TLS13_AES_256_GCM_SHA384 as AES_256, TLS13_CHACHA20_POLY1305_SHA256 as CHACHA,
        };
        let (dir, made) = (tempfile::tempdir().expect("a directory"), made());
        let (certificate_file, key_file) = (dir.path().join("edge.crt"), dir.path().join("edge.key"));
        fs::write(&certificate_file, made.cert.pem()).expect("writes");
        fs::write(&key_file, made.signing_key.serialize_pem()).expect("writes");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("usable");
        for (aes_256, suites, agreed) in [
            // OpenSSL and so curl, BoringSSL with instructions for AES and without, and clients that know one suite.
            (false, &[AES_256, CHACHA, AES_128][..], AES_128),
            (false, &[AES_128, AES_256, CHACHA], AES_128),
            (false, &[CHACHA, AES_128, AES_256], CHACHA),
            (false, &[AES_256], AES_256),
            (false, &[CHACHA], CHACHA),
            (true, &[AES_128, AES_256, CHACHA], AES_256),
            (true, &[CHACHA, AES_256], CHACHA),
            (true, &[AES_128], AES_128),
        ] {
            let tls = Tls::open(Options { aes_256, ..Options::new(&certificate_file, &key_file) }).expect("good files");
            for piece_bytes in [usize::MAX, 1000, 40, 1] {
                let got = agreed_over_quic(&tls, &roots, suites, piece_bytes);
                assert_eq!(got, agreed, "{suites:?} in pieces of {piece_bytes}");
            }
        }
    }

    fn load(certificate: &str, key: &str) -> Result<Tls, (String, tempfile::TempDir)> {
        let dir = tempfile::tempdir().expect("a directory");
        let (certificate_file, key_file) = (dir.path().join("edge.crt"), dir.path().join("edge.key"));
        fs::write(&certificate_file, certificate).expect("writes");
        fs::write(&key_file, key).expect("writes");
        Tls::load(&certificate_file, &key_file).map_err(|error| (error.to_string(), dir))
    }

    #[test]
    fn what_is_wrong_is_told_with_the_file_and_what_to_do() {
        let (one, other) = (made(), made());
        let (certificate, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        assert!(load(&certificate, &key).is_ok());
        let (body, _) = certificate.split_at(certificate.len() / 2);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (certificate, key, expected) in [
            (
                "",
                &*key,
                "cannot read a certificate from DIR/edge.crt: it holds no PEM block with a certificate; it must be a PEM file",
            ),
            (body, &*key, "cannot read a certificate from DIR/edge.crt: "),
            (broken, &*key, "the certificate in DIR/edge.crt cannot be used: "),
            (&*certificate, "nothing", "cannot read a private key from DIR/edge.key: it holds no PEM block with a private key; "),
            (
                &*certificate,
                &*other.signing_key.serialize_pem(),
                "the key in DIR/edge.key does not belong to the first certificate in DIR/edge.crt: give the key it was issued for",
            ),
        ] {
            let (error, dir) = load(certificate, key).err().expect("refused");
            let error = error.replace(dir.path().to_str().expect("UTF-8"), "DIR");
            assert!(error.starts_with(expected), "{error}");
        }
        let error = Tls::load(Path::new("/no/such.crt"), Path::new("/no/such.key")).err().expect("refused").to_string();
        assert!(error.starts_with("cannot read a certificate from /no/such.crt: there is no such file; "), "{error}");
    }

    #[test]
    fn a_secret_for_tickets_is_long_and_read_anew_or_left_as_it_was() {
        let (dir, made) = (tempfile::tempdir().expect("a directory"), made());
        let file = |name| dir.path().join(name);
        fs::write(file("edge.crt"), made.cert.pem()).expect("writes");
        fs::write(file("edge.key"), made.signing_key.serialize_pem()).expect("writes");
        let mut options = Options::new(file("edge.crt"), file("edge.key"));
        options.ticket_secret_file = Some(file("ticket.secret"));
        let refused = || {
            let error = Tls::open(options.clone()).err().expect("refused").to_string();
            error.replace(dir.path().to_str().expect("UTF-8"), "DIR")
        };
        assert_eq!(
            refused(),
            "cannot use the secret in DIR/ticket.secret (tls.ticket_secret_file): No such file or directory (os error 2)"
        );
        fs::write(file("ticket.secret"), "0123456789abcdef0123456789abcde\n").expect("writes");
        assert_eq!(
            refused(),
            "the secret in DIR/ticket.secret (tls.ticket_secret_file) is shorter than 32 characters; make one with: openssl rand -hex 32"
        );
        fs::write(file("ticket.secret"), "0123456789abcdef0123456789abcdef\n").expect("writes");
        let tls = Tls::open(options.clone()).expect("long enough");
        let tickets = tls.tickets.as_ref().expect("made of the secret");
        let ticket = tickets.encrypt(b"a session").expect("short enough");
        tls.reload().expect("the same files");
        assert!(tickets.decrypt(&ticket).is_some());
        fs::write(file("ticket.secret"), "short").expect("writes");
        tls.reload().expect_err("short");
        assert!(tickets.decrypt(&ticket).is_some());
        fs::write(file("ticket.secret"), "fedcba9876543210fedcba9876543210").expect("writes");
        tls.reload().expect("another secret");
        assert!(tickets.decrypt(&ticket).is_none());
    }
}
