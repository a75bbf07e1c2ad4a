//! TLS: one certificate for TCP and QUIC, which can be swapped under running listeners.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use quinn::crypto::rustls::QuicServerConfig;
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
    #[error("cannot read {what} from {}: {reason}", .file.display())]
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
    #[error("the certificate in {} cannot be used: {reason}", .certificate.display())]
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
