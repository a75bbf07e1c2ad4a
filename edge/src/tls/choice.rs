//! Which cipher suite a client gets. Many list AES-256 first and are as well served by AES-128, which takes ten rounds where AES-256 takes
//! fourteen (FIPS 197 §5). Those whose processors have no instructions for AES put ChaCha20 before it, and get what they ask for.
//!
//! rustls takes either the client's order or ours, for all clients, so there are two configurations. Over TCP the one is chosen when the
//! ClientHello is there. Over QUIC a session is made before, so it is made for AES and made anew if the ClientHello turns out to be the other's.

use std::{any::Any, sync::Arc};

use quinn_proto::{
    ConnectionId, Side, TransportError,
    crypto::{
        self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig as _, Session, UnsupportedVersion,
        rustls::QuicServerConfig,
    },
    transport_parameters::TransportParameters,
};
use rustls::{
    CipherSuite, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::ClientHello,
};

/// Bytes of a ClientHello that are looked at for the first suite that we know: all that comes before suites, and over two hundred of those.
const PEEK_BYTES_MAX: usize = 512;

/// Two configurations that differ in this alone.
pub(super) struct Choice<C> {
    /// For clients that have AES: our order.
    aes: Arc<C>,
    /// For clients that have not: theirs.
    chacha: Arc<C>,
}

impl<C> Choice<C> {
    fn of(&self, class: Class) -> Arc<C> {
        match class {
            Class::Aes => self.aes.clone(),
            Class::ChaCha => self.chacha.clone(),
        }
    }
}

impl Choice<ServerConfig> {
    pub(super) fn new(config: ServerConfig) -> Self {
        let mut aes = config.clone();
        aes.ignore_client_order = true;
        Self { aes: Arc::new(aes), chacha: Arc::new(config) }
    }

    pub(super) fn for_client(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let first = hello.cipher_suites().iter().find_map(|suite| Class::of(*suite));
        self.of(first.unwrap_or(Class::Aes))
    }

    pub(super) fn for_quic(self) -> Choice<QuicServerConfig> {
        let quic = |config| QuicServerConfig::try_from(config).expect("the provider has the cipher suite that QUIC begins with");
        Choice { aes: Arc::new(quic(self.aes)), chacha: Arc::new(quic(self.chacha)) }
    }
}

/// The suites of aws-lc-rs, in our order: TLS 1.3 before TLS 1.2, and in both AES-128 first, or AES-256 where the operator wants it so. Clients
/// that know only one of them get that one (RFC 8446 §9.1 makes AES-128-GCM mandatory, so they may be few).
pub(super) fn provider(aes_256_first: bool) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    // Stable: what is equal here stays in rustls' order.
    provider.cipher_suites.sort_by_key(|suite| {
        let name = suite.suite().as_str().unwrap_or_default();
        let rank = match (name.contains("AES_128"), name.contains("AES_256")) {
            (true, _) => u8::from(aes_256_first),
            (_, true) => u8::from(!aes_256_first),
            _ => 2,
        };
        (suite.tls13().is_none(), rank)
    });
    provider
}

/// What a client's processor is good at, by what it puts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Aes,
    ChaCha,
}

impl Class {
    /// `None` for a suite that says nothing: one that we do not speak, or one of GREASE (RFC 8701).
    fn of(suite: CipherSuite) -> Option<Self> {
        use CipherSuite::*;
        match suite {
            TLS13_AES_128_GCM_SHA256
            | TLS13_AES_256_GCM_SHA384
            | TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            | TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            | TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Some(Self::Aes),
            TLS13_CHACHA20_POLY1305_SHA256
            | TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Some(Self::ChaCha),
            _ => None,
        }
    }

    /// Reads it in the first bytes of a handshake: a ClientHello (RFC 8446 §4.1.2). `None` while they are too few to say.
    fn of_hello(bytes: &[u8]) -> Option<Self> {
        // Type and length of the message, version, random.
        const SESSION_ID: usize = 4 + 2 + 32;
        let suites = SESSION_ID + 1 + usize::from(*bytes.get(SESSION_ID)?);
        let (length, list) = bytes.get(suites..)?.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let there = &list[..length.min(list.len())];
        let first = there.chunks_exact(2).find_map(|suite| Self::of(CipherSuite::from(u16::from_be_bytes([suite[0], suite[1]]))));
        // What is no ClientHello at all is for rustls to refuse.
        first.or_else(|| (list.len() >= length || bytes.len() >= PEEK_BYTES_MAX).then_some(Self::Aes))
    }
}

impl crypto::ServerConfig for Choice<QuicServerConfig> {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.aes.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.aes.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        let session = self.aes.clone().start_session(version, params);
        Box::new(Chosen { session, hello: Some(Hello { bytes: Vec::new(), choice: self, version, params: *params }) })
    }
}

/// A session of either configuration.
struct Chosen {
    session: Box<dyn Session>,
    /// Until it is known which.
    hello: Option<Hello>,
}

struct Hello {
    /// What has come of it: fewer than [`PEEK_BYTES_MAX`], and the bytes that came last.
    bytes: Vec<u8>,
    choice: Arc<Choice<QuicServerConfig>>,
    version: u32,
    params: TransportParameters,
}

impl Session for Chosen {
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        let Some(mut hello) = self.hello.take() else { return self.session.read_handshake(buf) };
        hello.bytes.extend_from_slice(buf);
        let Some(class) = Class::of_hello(&hello.bytes) else {
            self.hello = Some(hello);
            return Ok(false);
        };
        if class == Class::ChaCha {
            self.session = hello.choice.of(class).start_session(hello.version, &hello.params);
        }
        self.session.read_handshake(&hello.bytes)
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.session.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.session.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.session.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.session.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.session.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.session.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.session.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(&self, output: &mut [u8], label: &[u8], context: &[u8]) -> Result<(), ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello as far as its suites, and what follows them.
    fn hello(session_id_bytes: u8, suites: &[u16]) -> Vec<u8> {
        let mut hello = vec![1, 0, 2, 0, 3, 3];
        hello.extend([9; 32]);
        hello.push(session_id_bytes);
        hello.extend(vec![7; session_id_bytes.into()]);
        hello.extend(((suites.len() * 2) as u16).to_be_bytes());
        hello.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
        hello.extend([1, 0, 0, 0]);
        hello
    }

    #[test]
    fn what_a_client_puts_first_says_what_its_processor_is_good_at() {
        const AES_128: u16 = 0x1301;
        const AES_256: u16 = 0x1302;
        const CHACHA: u16 = 0x1303;
        const CCM: u16 = 0x1304;
        const GREASE: u16 = 0xdada;
        for (suites, class) in [
            (&[AES_256, CHACHA, AES_128][..], Class::Aes),
            (&[GREASE, AES_128, AES_256, CHACHA], Class::Aes),
            (&[GREASE, CHACHA, AES_128, AES_256], Class::ChaCha),
            (&[CCM, CHACHA], Class::ChaCha),
            // TLS 1.2: ECDHE-RSA-CHACHA20-POLY1305, ECDHE-RSA-AES128-GCM-SHA256.
            (&[0xcca8, 0xc02f], Class::ChaCha),
            (&[0xc02f, 0xcca8], Class::Aes),
            (&[GREASE, CCM], Class::Aes),
            (&[], Class::Aes),
        ] {
            for session_id_bytes in [0, 32, 255] {
                let bytes = hello(session_id_bytes, suites);
                assert_eq!(Class::of_hello(&bytes), Some(class), "{suites:x?}");
                let needed = (0..bytes.len()).find(|length| Class::of_hello(&bytes[..*length]).is_some()).unwrap();
                let told = (needed..bytes.len()).all(|length| Class::of_hello(&bytes[..length]) == Some(class));
                assert!(told, "what is once known stays: {suites:x?}");
            }
        }
    }

    #[test]
    fn no_bytes_are_waited_for_without_end() {
        for byte in 0..=255 {
            assert!(Class::of_hello(&[byte; PEEK_BYTES_MAX]).is_some(), "{byte}");
        }
        assert_eq!(Class::of_hello(&[255; PEEK_BYTES_MAX - 1]), None, "it says that 32,767 suites follow");
    }

    #[test]
    fn suites_are_offered_in_our_order() {
        for (aes_256_first, expected) in [
            (false, ["TLS13_AES_128_GCM_SHA256", "TLS13_AES_256_GCM_SHA384", "TLS13_CHACHA20_POLY1305_SHA256"]),
            (true, ["TLS13_AES_256_GCM_SHA384", "TLS13_AES_128_GCM_SHA256", "TLS13_CHACHA20_POLY1305_SHA256"]),
        ] {
            let suites: Vec<_> =
                provider(aes_256_first).cipher_suites.iter().map(|suite| format!("{:?}", suite.suite())).collect();
            assert_eq!(suites[..3], expected);
            assert_eq!(suites.len(), 9, "TLS 1.2's stay");
            let first = if aes_256_first { "TLS_ECDHE_ECDSA_WITH_AES_256" } else { "TLS_ECDHE_ECDSA_WITH_AES_128" };
            assert!(suites[3].starts_with(first), "{suites:?}");
        }
    }
}
