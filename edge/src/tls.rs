//! TLS: one certificate for TCP and QUIC, which can be swapped under running listeners.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use quinn_proto::crypto::rustls::QuicServerConfig;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};

/// What TLS needs to answer handshakes; cloning it is cheap.
#[derive(Clone)]
pub struct Tls {
    files: Arc<(PathBuf, PathBuf)>,
    provider: Arc<CryptoProvider>,
    certificate: Arc<Current>,
    tcp: Arc<ServerConfig>,
    quic: Arc<QuicServerConfig>,
}

/// Why a certificate cannot be used. Names the file and what to do.
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
}

impl Tls {
    /// Reads a certificate chain, leaf first, and its private key, both PEM.
    pub fn load(certificate_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = read(certificate_file, key_file, &provider)?;
        let certificate = Arc::new(Current(ArcSwap::from_pointee(key)));
        let unusable = |reason| TlsError::Unusable { certificate: certificate_file.to_owned(), reason };
        let mut tcp = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(certificate.clone());
        tcp.ticketer = aws_lc_rs::Ticketer::new().map_err(unusable)?;
        let mut quic = tcp.clone();
        tcp.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        quic.alpn_protocols = vec![b"h3".to_vec()];
        let quic = QuicServerConfig::try_from(quic).expect("the provider has the cipher suite that QUIC begins with");
        let files = Arc::new((certificate_file.to_owned(), key_file.to_owned()));
        Ok(Self { files, provider, certificate, tcp: Arc::new(tcp), quic: Arc::new(quic) })
    }

    /// Reads the files again. New handshakes get the new certificate; if it cannot be used, the old one stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let (certificate_file, key_file) = &*self.files;
        let key = read(certificate_file, key_file, &self.provider)?;
        self.certificate.0.store(Arc::new(key));
        Ok(())
    }

    pub(crate) fn tcp(&self) -> Arc<ServerConfig> {
        self.tcp.clone()
    }

    pub(crate) fn quic(&self) -> Arc<QuicServerConfig> {
        self.quic.clone()
    }
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
    use std::fs;

    use super::*;

    fn made() -> rcgen::CertifiedKey<rcgen::KeyPair> {
        rcgen::generate_simple_self_signed(vec!["edge.example".into()]).expect("a certificate")
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
}
