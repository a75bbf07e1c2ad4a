//! HTTP/3: QUIC by quinn, frames and QPACK by h3, bodies past h3.
//!
//! An answer is a HEADERS frame by h3, then one DATA frame whose payload goes to quinn as the `Bytes` that the cache holds (RFC 9114 §4.1).
//! A client that resets or stops the stream ends the body at once, also while it waits for bytes.

mod transport;

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use h3::{error::Code, server::RequestResolver};
use quinn::{Incoming, VarInt};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

pub(in crate::http) use transport::{BidiStream, Bodies, Connection, Opener};

use super::{
    Handler, Protocol, Request,
    body::Body,
    server::{Place, Shared},
};

/// H3_NO_ERROR (RFC 9114 §8.1).
pub(super) const NO_ERROR: VarInt = VarInt::from_u32(0x100);
/// H3_INTERNAL_ERROR (RFC 9114 §8.1).
const INTERNAL_ERROR: VarInt = VarInt::from_u32(0x102);

type ServerConnection = h3::server::Connection<Connection, Bytes>;

/// Serves one incoming connection to its end.
pub(super) async fn serve<H: Handler>(incoming: Incoming, mut place: Place<H>) {
    let shared = place.shared().clone();
    let quinn = match timeout(shared.limits.header_timeout, incoming.into_future()).await {
        Ok(Ok(quinn)) => quinn,
        Ok(Err(error)) => {
            shared.counters.handshakes_failed.up();
            return tracing::debug!(%error, "QUIC handshake failed");
        }
        Err(_) => return shared.counters.timed_out.up(),
    };
    place.speaks(Protocol::Http3);
    let peer = quinn.remote_address();
    let transport = Connection::new(quinn.clone());
    let bodies = transport.bodies();
    let mut builder = h3::server::builder();
    builder.max_field_section_size(shared.limits.header_bytes_max.into()).send_grease(false);
    let mut connection: ServerConnection = match builder.build(transport).await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%peer, %error, "HTTP/3 did not start"),
    };
    let requests = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = shared.drain.cancelled(), if !requests.is_closed() => {
                // GOAWAY: what was asked for is answered, and nothing more is taken (RFC 9114 §5.2).
                requests.close();
                if connection.shutdown(0).await.is_err() {
                    break;
                }
                continue;
            }
            // Ends only once it is closed.
            () = requests.wait() => break,
        };
        match accepted {
            Ok(Some(resolver)) => {
                shared.counters.of(Protocol::Http3).requests.up();
                requests.spawn(answer(resolver, bodies.clone(), quinn.clone(), shared.clone()));
            }
            Ok(None) => break,
            Err(error) if error.is_h3_no_error() => break,
            Err(error) => {
                tracing::debug!(%peer, %error, "connection ended with an error");
                break;
            }
        }
    }
    quinn.close(NO_ERROR, b"");
}

/// Answers one request. What it returns early from has reset the stream, or was reset by the client.
async fn answer<H: Handler>(
    resolver: RequestResolver<Connection, Bytes>,
    bodies: Bodies,
    quinn: quinn::Connection,
    shared: Arc<Shared<H>>,
) {
    let (request, mut stream) = match timeout(shared.limits.header_timeout, resolver.resolve_request()).await {
        Ok(Ok(resolved)) => resolved,
        Ok(Err(error)) => {
            // h3 has answered 431 itself (RFC 9114 §4.2.2).
            if matches!(error, h3::error::StreamError::HeaderTooBig { .. }) {
                shared.counters.heads_too_large.up();
            }
            return;
        }
        Err(_) => return shared.counters.timed_out.up(),
    };
    let id = stream.id();
    let Some(stopped) = bodies.stopped(id) else { return };
    let mut stopped = std::pin::pin!(stopped);
    let (head, ()) = request.into_parts();
    let request = Request {
        authority: head.uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default(),
        path_and_query: head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        method: head.method,
        headers: head.headers,
        protocol: Protocol::Http3,
        peer: quinn.remote_address(),
    };
    let bodiless = request.method == ::http::Method::HEAD;
    let response = tokio::select! {
        response = shared.handler.handle(request) => response,
        _ = stopped.as_mut() => return,
    };
    let (head, mut body) = response.into_parts();
    if stream.send_response(::http::Response::from_parts(head, ())).await.is_err() {
        return;
    }
    // A request's body, should there be one, is not wanted (RFC 9114 §4.1.1).
    stream.stop_sending(Code::H3_NO_ERROR);
    let Some(mut send) = bodies.take(id) else { return };
    let sent = tokio::select! {
        sent = send_body(&mut send, &mut body, bodiless, shared.limits.write_stall_max) => sent,
        _ = stopped.as_mut() => return,
    };
    match sent {
        Ok(()) => {
            // Fails only when the client stopped the stream, which ends it as well.
            let _ = send.finish();
            // The connection must not be closed before the client has it all.
            let _ = timeout(shared.limits.write_stall_max, stopped).await;
        }
        Err(Broken::Source) => drop(send.reset(INTERNAL_ERROR)),
        Err(Broken::Stalled) => {
            shared.counters.stalled.up();
            drop(send.reset(INTERNAL_ERROR));
        }
        Err(Broken::Gone) => (),
    }
}

/// Why a body was not sent to its end.
enum Broken {
    Source,
    Stalled,
    Gone,
}

async fn send_body(send: &mut quinn::SendStream, body: &mut Body, bodiless: bool, stall_max: Duration) -> Result<(), Broken> {
    if bodiless || body.bytes_left() == 0 {
        return Ok(());
    }
    let mut frame = Some(data_frame_head(body.bytes_left()));
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.map_err(|error| {
            tracing::debug!(%error, "an answer broke off");
            Broken::Source
        })?;
        let mut chunks = [frame.take().unwrap_or_default(), chunk];
        let writing = send.write_all_chunks(&mut chunks);
        timeout(stall_max, writing).await.map_err(|_| Broken::Stalled)?.map_err(|_| Broken::Gone)?;
    }
    Ok(())
}

/// A DATA frame's type and length (RFC 9114 §7.2.1; integers as in RFC 9000 §16).
fn data_frame_head(length: u64) -> Bytes {
    let mut head = BytesMut::with_capacity(9);
    head.put_u8(0);
    match length {
        0..0x40 => head.put_u8(length as u8),
        0x40..0x4000 => head.put_u16(0x4000 | length as u16),
        0x4000..0x4000_0000 => head.put_u32(0x8000_0000 | length as u32),
        _ => head.put_u64(0xc000_0000_0000_0000 | length),
    }
    head.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 9000 §A.1, as lengths.
    #[test]
    fn lengths_are_written_as_quic_integers() {
        for (length, bytes) in [
            (37, &[0x25][..]),
            (15_293, &[0x7b, 0xbd]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c]),
        ] {
            assert_eq!(data_frame_head(length)[1..], *bytes);
        }
    }
}
