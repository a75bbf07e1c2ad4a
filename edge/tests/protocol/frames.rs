//! HTTP/2 by hand: frames as a test likes them (RFC 9113 §4.1).

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [.., a, b, c] = payload.len().to_be_bytes();
    let mut frame = vec![a, b, c, kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The preface, and SETTINGS with nothing in them.
pub(crate) fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &*frame(SETTINGS, 0, 0, &[])].concat()
}

/// GET, https, the authority "a" and a path, all without indexing (RFC 7541 §B).
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get_block(path))
}

pub(crate) fn get_block(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x87, 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b'a']);
    block
}

/// A frame as it was received.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) payload: Vec<u8>,
}

/// The next frame; `None` at the end.
pub(crate) async fn next(tls: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    tls.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    tls.read_exact(&mut payload).await.ok()?;
    Some(Frame { kind: head[3], payload })
}

/// Writes `bytes` over and over until the other side has had enough. All that it says meanwhile is read.
pub(crate) async fn repeat_until_closed(
    tls: TlsStream<TcpStream>,
    first: Vec<u8>,
    mut bytes: impl FnMut() -> Vec<u8>,
) -> Vec<Frame> {
    let (mut reads, mut writes) = tokio::io::split(tls);
    let writing = async {
        if write(&mut writes, &first).await {
            while write(&mut writes, &bytes()).await {}
        }
    };
    let reading = async {
        let mut said = Vec::new();
        while let Some(frame) = next(&mut reads).await {
            said.push(frame);
        }
        said
    };
    let ((), said) = tokio::join!(writing, reading);
    said
}

pub(crate) async fn write(tls: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> bool {
    tls.write_all(bytes).await.is_ok() && tls.flush().await.is_ok()
}
