//! A QUIC client that shakes hands as it should and then puts what a test likes into its packets.
//!
//! It is quinn, with a TLS session that lends its packet key to a script: where a full packet of 1-RTT is about to be sealed, the script
//! gives the frames. Numbers, acknowledgements and the server's last words stay quinn's, so the server sees a sound client but for them.

use std::{any::Any, sync::Arc};

use bytes::{BufMut, BytesMut};
use parking_lot::Mutex;
use quinn::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ConnectError, ConnectionId, Side, TransportError, VarInt,
    coding::Codec,
    crypto::{self, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey},
    transport_parameters::TransportParameters,
};

use crate::support::{Running, patient};

/// Smaller packets (acknowledgements) are left alone.
const ROOM_MIN: usize = 1000;
/// What the carriers may hold: the server's window.
const CARRIED_BYTES: usize = 200_000;

/// Gives frames of at most so many bytes; what is left of the packet becomes PADDING.
type Script = Box<dyn FnMut(usize) -> Vec<u8> + Send>;

/// Connects, and has `script` write packets until the server ends the connection, or all that it lets a client send is used up. Says how it
/// ended.
pub(crate) async fn play(server: &Running, script: impl FnMut(usize) -> Vec<u8> + Send + 'static) -> quinn::ConnectionError {
    let mut tls = rustls::ClientConfig::clone(&server.client_tls);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let real = Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3"));
    let slot = Arc::new(Mutex::new(None));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("binds");
    let config = quinn::ClientConfig::new(Arc::new(Config { real, script: slot.clone() }));
    let connecting = endpoint.connect_with(config, server.addr, "127.0.0.1").expect("an address");
    let connection = connecting.await.expect("shakes hands");
    *slot.lock() = Some(Box::new(script) as Script);
    let carry = async {
        let mut streams = Vec::new();
        for _ in 0..4 {
            let Ok((mut send, recv)) = connection.open_bi().await else { return };
            // The packets that carry these bytes are the script's.
            if send.write_all(&[0; CARRIED_BYTES / 4]).await.is_err() {
                return;
            }
            streams.push((send, recv));
        }
        std::future::pending().await
    };
    let ended = async {
        tokio::select! {
            ended = connection.closed() => ended,
            () = carry => connection.closed().await,
        }
    };
    patient("the server ends it", ended).await
}

/// A variable-length integer (RFC 9000 §16).
pub(crate) fn varint(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    VarInt::from_u64(value).expect("below 2^62").encode(&mut bytes);
    bytes
}

/// As many frames as there is room for.
pub(crate) fn filled(room: usize, mut frame: impl FnMut() -> Vec<u8>) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut next = frame();
    while frames.len() + next.len() <= room {
        frames.put_slice(&next);
        next = frame();
    }
    frames
}

struct Config {
    real: Arc<QuicClientConfig>,
    script: Arc<Mutex<Option<Script>>>,
}

impl crypto::ClientConfig for Config {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        name: &str,
        parameters: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let real = self.real.clone().start_session(version, name, parameters)?;
        Ok(Box::new(Session { real, script: self.script.clone(), is_shaken: false }))
    }
}

struct Session {
    real: Box<dyn crypto::Session>,
    script: Arc<Mutex<Option<Script>>>,
    /// The keys of the handshake are out; the next are those of 1-RTT.
    is_shaken: bool,
}

impl crypto::Session for Session {
    fn initial_keys(&self, to: &ConnectionId, side: Side) -> Keys {
        self.real.initial_keys(to, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.real.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.real.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.real.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.real.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.real.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.real.read_handshake(bytes)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.real.transport_parameters()
    }

    fn write_handshake(&mut self, bytes: &mut Vec<u8>) -> Option<Keys> {
        let mut keys = self.real.write_handshake(bytes)?;
        if std::mem::replace(&mut self.is_shaken, true) {
            keys.packet.local = Box::new(Key { real: keys.packet.local, script: self.script.clone() });
        }
        Some(keys)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.real.next_1rtt_keys()
    }

    fn is_valid_retry(&self, to: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.real.is_valid_retry(to, header, payload)
    }

    fn export_keying_material(&self, output: &mut [u8], label: &[u8], context: &[u8]) -> Result<(), ExportKeyingMaterialError> {
        self.real.export_keying_material(output, label, context)
    }
}

struct Key {
    real: Box<dyn PacketKey>,
    script: Arc<Mutex<Option<Script>>>,
}

impl PacketKey for Key {
    fn encrypt(&self, number: u64, packet: &mut [u8], head_bytes: usize) {
        let end = packet.len() - self.tag_len();
        let payload = &mut packet[head_bytes..end];
        if let Some(script) = self.script.lock().as_mut().filter(|_| payload.len() >= ROOM_MIN) {
            let frames = script(payload.len());
            payload.fill(0);
            payload[..frames.len()].copy_from_slice(&frames);
        }
        self.real.encrypt(number, packet, head_bytes);
    }

    fn decrypt(&self, number: u64, head: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.real.decrypt(number, head, payload)
    }

    fn tag_len(&self) -> usize {
        self.real.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.real.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.real.integrity_limit()
    }
}
