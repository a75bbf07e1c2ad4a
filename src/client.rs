//! A client of edges over HTTP/1.1, 2 or 3, in constant memory: what `larder fetch` and the demo's player stand on.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use bytes::Bytes;
use edge::http::{Protocol, client::Connection};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use rustls::{
    ClientConfig, RootCertStore,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use wire::object::{Digest, Hasher};

/// Whom a client trusts.
pub(crate) enum Trust<'a> {
    /// The certificate authorities of the web.
    Web,
    /// The certificates in a PEM file alone.
    File(&'a Path),
    /// Anybody.
    Anybody,
}

impl Trust<'_> {
    pub(crate) fn tls(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match self {
            Trust::Web => builder.with_root_certificates(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }),
            Trust::File(path) => builder.with_root_certificates(roots(path)?),
            Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnybody(provider))),
        };
        Ok(Arc::new(builder.with_no_client_auth()))
    }
}

fn roots(path: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let failed = || format!("cannot use the certificates in {}", path.display());
    for certificate in CertificateDer::pem_file_iter(path).with_context(failed)? {
        roots.add(certificate.with_context(failed)?).with_context(failed)?;
    }
    ensure!(!roots.is_empty(), "there is no certificate in {}", path.display());
    Ok(roots)
}

/// Where a URL leads.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Host and port as the URL has them.
    pub(crate) authority: String,
    host: String,
    port: u16,
    pub(crate) path_and_query: String,
}

impl Target {
    pub(crate) fn parse(url: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(anyhow!("{url:?} does not begin with https://; edges serve nothing else"));
        };
        let path_and_query = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(443),
            path_and_query: path_and_query.to_owned(),
        })
    }
}

/// A connection to an edge.
pub(crate) struct Client {
    connection: Connection,
    /// Time in which nothing may come.
    patience: Duration,
}

impl Client {
    /// Connects to the first of the host's addresses that answers, or to `address`.
    pub(crate) async fn connect(
        protocol: Protocol,
        target: &Target,
        address: Option<IpAddr>,
        tls: &Arc<ClientConfig>,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let Target { host, port, .. } = target;
        let addresses: Vec<_> = match address {
            Some(address) => vec![SocketAddr::new(address, *port)],
            None => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await;
                found.with_context(|| format!("cannot find the host {host:?}"))?.collect()
            }
        };
        let mut failure = anyhow!("the host {host:?} has no address");
        for addr in addresses {
            let connecting = tokio::time::timeout(patience, Connection::connect(protocol, addr, host, tls.clone()));
            failure = match connecting.await {
                Ok(Ok(connection)) => return Ok(Self { connection, patience }),
                Ok(Err(error)) => error.into(),
                Err(_) => anyhow!("no answer in {:.1} s", patience.as_secs_f64()),
            };
            failure = failure.context(format!("cannot connect to {addr} by {}", protocol.alpn()));
        }
        Err(failure)
    }

    /// Gets `target` and hands every piece of the body to `sink`, as it comes.
    pub(crate) async fn get(
        &self,
        target: &Target,
        headers: HeaderMap,
        mut sink: impl FnMut(&Bytes, Option<u64>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Answer> {
        let start = Instant::now();
        let sending = self.connection.send(Method::GET, &target.authority, &target.path_and_query, headers);
        let (head, mut body) = self.patiently(sending).await??;
        let ttfb = start.elapsed();
        let length = text(&head.headers, header::CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
        let (mut bytes, mut hasher) = (0, Hasher::new());
        while let Some(piece) = self.patiently(body.next()).await? {
            let piece = piece?;
            bytes += piece.len() as u64;
            hasher.update(&piece);
            sink(&piece, length)?;
        }
        ensure!(length.is_none_or(|length| length == bytes), "{bytes} bytes came of the {} announced", length.unwrap_or(0));
        Ok(Answer {
            status: head.status,
            ttfb,
            total: start.elapsed(),
            bytes,
            digest: hasher.finish(),
            cache_status: text(&head.headers, "cache-status"),
        })
    }

    async fn patiently<T>(&self, work: impl Future<Output = T>) -> anyhow::Result<T> {
        let waited = tokio::time::timeout(self.patience, work).await;
        waited.map_err(|_| anyhow!("nothing came for {:.1} s", self.patience.as_secs_f64()))
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// What came, and how.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// From the request to the answer's head.
    pub(crate) ttfb: Duration,
    /// From the request to the body's last byte.
    pub(crate) total: Duration,
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
    pub(crate) cache_status: Option<String>,
}

/// Takes any certificate; signatures are checked all the same, as they prove that the server has the key.
#[derive(Debug)]
struct TrustAnybody(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_an_https_url() {
        let target = Target::parse("https://[::1]:8443/a/b?c=d").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path_and_query.as_str()), ("::1", 8443, "/a/b?c=d"));
        let target = Target::parse("https://edge1.example").unwrap();
        assert_eq!((target.authority.as_str(), target.port, target.path_and_query.as_str()), ("edge1.example", 443, "/"));
        for bad in ["http://edge/x", "edge/x", "/x", "https://", "https://a b/"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
