//! HTTP/3: QUIC by [`quic`], frames and QPACK by h3, bodies past h3.
//!
//! An answer is a HEADERS frame by h3, then one DATA frame whose payload goes to QUIC as the `Bytes` that the cache holds (RFC 9114 §4.1).
//! A client that resets or stops the stream ends the body at once, also while it waits for bytes.

mod frames;
mod over_quic;
mod over_quinn;
mod priority;
mod transport;

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use h3::{
    error::{Code, StreamError},
    server::RequestResolver,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::TaskTracker;

pub use over_quinn::Quinn;
pub use priority::BadUpdate;
pub use transport::{
    BidiStream, Bodies, Connection, Halves, Opener, ReadLimits, Receiver, RecvStream, SendStream, Sender, TooMuch, Transport,
};

use super::{
    Counters, Flood, Handler, Protocol, Request,
    activity::{Activity, PROGRESS_BYTES_MIN},
    body::Body,
    floods::Budget,
    limits::RESETS,
    link::Link,
    quic::{self, ConnectionError, Incoming, VarInt},
    server::{Place, QUIC_SEND_WINDOW_BYTES, Shared, canonical},
};
use priority::Priority;

/// H3_NO_ERROR (RFC 9114 §8.1).
pub(super) const NO_ERROR: VarInt = VarInt::from_u32(0x100);
/// H3_INTERNAL_ERROR (RFC 9114 §8.1).
const INTERNAL_ERROR: VarInt = VarInt::from_u32(0x102);
/// H3_EXCESSIVE_LOAD (RFC 9114 §8.1).
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);
/// Bytes that a client may send on a stream of its own beside its requests. h3 keeps what it is sent until a frame is whole. SETTINGS is
/// small; a browser that sends PRIORITY_UPDATE with each request needs a reconnect after some fifty thousand.
const CONTROL_BYTES_MAX: u64 = 1 << 20;
/// A server that is about to leave says so twice (RFC 9114 §5.2): first that all requests are still answered, and then which was the last, so that those on
/// their way are not lost. h3 gives the ID so many requests after the last one that came, at most the largest there is; before the first request it would say
/// that not even this is answered, so then it waits for one.
const ALL_REQUESTS: usize = usize::MAX;
/// Between the two so many round trips pass, but no less and no more than this.
const GOAWAY_ROUND_TRIPS: u32 = 3;
const GOAWAY_PAUSE_MIN: Duration = Duration::from_millis(50);
const GOAWAY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Requests of a connection that may end before their head does, or have one that makes no sense.
const SPOILT_MAX: u32 = 100;

type ServerConnection = h3::server::Connection<Connection<quic::Connection>, Bytes>;

/// Serves one incoming connection to its end.
pub(super) async fn serve<H: Handler>(incoming: Incoming, mut place: Place<H>) {
    let shared = place.shared().clone();
    let (limits, counters) = (&shared.limits, &shared.counters);
    let handshake = async {
        let quic = incoming.accept().await.map_err(|error| broke_rules(counters, &error))?;
        let reads = ReadLimits { request_bytes_max: limits.head_buffer_bytes().into(), control_bytes_max: CONTROL_BYTES_MAX };
        if let Some(bits_per_second) = limits.connection_bits_per_second_max {
            quic.cap(bits_per_second, QUIC_SEND_WINDOW_BYTES, shared.counters.clone());
        }
        let transport = Connection::new(quic.clone(), reads).heeding(limits.streams_max);
        let bodies = transport.bodies();
        let mut builder = h3::server::builder();
        builder.max_field_section_size(limits.head_buffer_bytes().into()).send_grease(false);
        let connection = builder.build(transport).await.map_err(|error| {
            tracing::debug!(%error, "HTTP/3 did not start");
            quic.error().iter().for_each(|error| broke_rules(counters, error));
        })?;
        Ok::<_, ()>((quic, bodies, connection))
    };
    let (quic, bodies, connection) = tokio::select! {
        shaken = timeout(limits.header_timeout, handshake) => match shaken {
            Ok(Ok(shaken)) => shaken,
            Ok(Err(())) => return counters.handshakes_failed.up(),
            Err(_) => return counters.timed_out.up(),
        },
        () = shared.drain.cancelled() => return,
    };
    place.speaks(Protocol::Http3);
    let client = Arc::new(Client {
        shared: shared.clone(),
        quic,
        bodies,
        activity: Activity::new(),
        spoilt: AtomicU32::new(0),
        taken_bytes: AtomicU64::new(0),
        resets: Mutex::new(Budget::new(RESETS)),
    });
    client.serve(connection).await;
    client.quic.error().iter().for_each(|error| broke_rules(counters, error));
    client.quic.close(NO_ERROR, b"");
}

/// Counts a connection that ended because the client broke QUIC's rules.
fn broke_rules(counters: &Counters, error: &ConnectionError) {
    tracing::debug!(%error, "a QUIC connection ended with an error");
    if let ConnectionError::TransportError(error) = error {
        counters.quic_violation(error.code.into());
    }
}

/// A connected client.
struct Client<H> {
    shared: Arc<Shared<H>>,
    quic: quic::Connection,
    bodies: Bodies<quic::SendStream>,
    activity: Arc<Activity>,
    /// Requests that had no sound head.
    spoilt: AtomicU32,
    /// Bytes of bodies that QUIC took, which it does as the client takes others.
    taken_bytes: AtomicU64,
    /// What is left of those that it may give up.
    resets: Mutex<Budget>,
}

impl<H: Handler> Client<H> {
    async fn serve(self: &Arc<Self>, mut connection: ServerConnection) {
        let requests = TaskTracker::new();
        let (mut was_asked, mut last_word) = (false, None);
        loop {
            let accepted = tokio::select! {
                accepted = connection.accept() => accepted,
                () = self.shared.leave.begun(), if last_word.is_none() => {
                    let pause = (self.quic.stats().path.rtt * GOAWAY_ROUND_TRIPS).clamp(GOAWAY_PAUSE_MIN, GOAWAY_PAUSE_MAX);
                    last_word = Some(Instant::now() + pause);
                    if was_asked && connection.shutdown(ALL_REQUESTS).await.is_err() {
                        return;
                    }
                    continue;
                }
                () = sleep_until(last_word.unwrap_or_else(Instant::now)), if last_word.is_some() && !requests.is_closed() => {
                    // What came before this is answered; what comes after the client may ask elsewhere.
                    requests.close();
                    if connection.shutdown(1).await.is_err() {
                        return;
                    }
                    continue;
                }
                // Ends only once it is closed.
                () = requests.wait() => return,
                () = self.activity.idle(self.shared.limits.idle_timeout) => return self.shared.counters.timed_out.up(),
            };
            match accepted {
                Ok(Some(resolver)) if requests.is_closed() => drop(tokio::spawn(self.clone().reject(resolver))),
                Ok(Some(resolver)) => {
                    requests.spawn(self.clone().answer(resolver));
                    let is_first = !std::mem::replace(&mut was_asked, true);
                    if is_first && last_word.is_some() && connection.shutdown(ALL_REQUESTS).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) if error.is_h3_no_error() => return,
                Err(error) => {
                    return tracing::debug!(peer = %self.quic.remote_address(), %error, "connection ended with an error");
                }
            }
        }
    }

    /// Answers one request. What it returns early from has reset the stream, or was reset by the client.
    async fn answer(self: Arc<Self>, resolver: RequestResolver<Connection<quic::Connection>, Bytes>) {
        let _underway = self.activity.request();
        let limits = &self.shared.limits;
        let (request, mut stream) = match timeout(limits.header_timeout, resolver.resolve_request()).await {
            Ok(Ok(resolved)) => resolved,
            Ok(Err(error)) => return self.spoilt(&error),
            Err(_) => return self.shared.counters.timed_out.up(),
        };
        let id = stream.id();
        let Some(stopped) = self.bodies.look(id, quic::SendStream::stopped) else { return };
        let mut stopped = pin!(stopped);
        let (head, ()) = request.into_parts();
        // What a PRIORITY_UPDATE frame said before overrides it (RFC 9218 §7).
        let number = id.into_inner();
        self.quic.prioritize_first(transport::quic_id(id), Priority::of(&head.headers).rank(number));
        let request = Request {
            authority: head.uri.authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default(),
            path_and_query: head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            method: head.method,
            headers: head.headers,
            protocol: Protocol::Http3,
            peer: canonical(self.quic.remote_address()),
            link: Link::Quic(self.quic.clone()),
        };
        let response = tokio::select! {
            response = self.shared.answer(request) => response,
            _ = stopped.as_mut() => return self.given_up(),
        };
        let (head, mut body) = response.into_parts();
        match self.patiently(stream.send_response(::http::Response::from_parts(head, ()))).await {
            Some(Ok(())) => {}
            Some(Err(_)) => return self.given_up(),
            None => return self.shared.counters.stalled.up(),
        }
        // A request's body, should there be one, is not wanted (RFC 9114 §4.1.1).
        stream.stop_sending(Code::H3_NO_ERROR);
        let Some(mut send) = self.bodies.take(id) else { return };
        let sent = tokio::select! {
            sent = self.send_body(&mut send, &mut body) => sent,
            _ = stopped.as_mut() => Err(Broken::Gone),
        };
        match sent {
            Ok(()) => {
                send.finish();
                drop(body);
                // The connection must not be closed before the client has it all.
                let _ = self.patiently(stopped).await;
            }
            Err(Broken::Source) => send.reset(INTERNAL_ERROR),
            Err(Broken::Stalled) => {
                self.shared.counters.stalled.up();
                send.reset(INTERNAL_ERROR);
            }
            Err(Broken::Gone) => self.given_up(),
        }
    }

    async fn send_body(&self, send: &mut quic::SendStream, body: &mut Body) -> Result<(), Broken> {
        let mut frame = Some(data_frame_head(body.bytes_left()));
        while let Some(chunk) = body.chunk().await {
            let chunk = chunk.map_err(|error| {
                tracing::debug!(%error, "an answer broke off");
                Broken::Source
            })?;
            let mut chunks = [frame.take().unwrap_or_default(), chunk];
            let mut rest = &mut chunks[..];
            let (mut since, mut before) = (Instant::now(), self.taken_bytes.load(Ordering::Relaxed));
            while !rest.is_empty() {
                let written = self.patiently(send.write_chunks(rest)).await;
                let written = written.ok_or(Broken::Stalled)?.map_err(|_| Broken::Gone)?;
                self.taken_bytes.fetch_add(written.bytes as u64, Ordering::Relaxed);
                rest = &mut rest[written.chunks..];
                // A byte now and then is not progress.
                if since.elapsed() >= self.shared.limits.write_stall_max {
                    before = self.moved_since(before).ok_or(Broken::Stalled)?;
                    since = Instant::now();
                }
            }
        }
        Ok(())
    }

    /// What `work` comes to, unless the client takes next to nothing for too long. As long as it takes something on another stream, that may be
    /// what is more urgent.
    async fn patiently<A>(&self, work: impl Future<Output = A>) -> Option<A> {
        let mut work = std::pin::pin!(work);
        loop {
            let before = self.taken_bytes.load(Ordering::Relaxed);
            if let Ok(done) = timeout(self.shared.limits.write_stall_max, work.as_mut()).await {
                return Some(done);
            }
            self.moved_since(before)?;
        }
    }

    /// What the client has taken by now; `None` if that is next to nothing more than `before`.
    fn moved_since(&self, before: u64) -> Option<u64> {
        let taken = self.taken_bytes.load(Ordering::Relaxed);
        (taken - before >= PROGRESS_BYTES_MIN as u64).then_some(taken)
    }

    /// Says that a request was not looked at, which came after the last word: the client may ask elsewhere (RFC 9114 §4.1.1).
    async fn reject(self: Arc<Self>, resolver: RequestResolver<Connection<quic::Connection>, Bytes>) {
        if let Ok(Ok((_, mut stream))) = timeout(self.shared.limits.header_timeout, resolver.resolve_request()).await {
            stream.stop_sending(Code::H3_REQUEST_REJECTED);
            stream.stop_stream(Code::H3_REQUEST_REJECTED);
        }
    }

    /// A request that has no head to answer. Each costs the client nothing and h3 an entry for as long as the connection lasts.
    fn spoilt(&self, error: &StreamError) {
        if let StreamError::Undefined(error) = error
            && let Some(bad) = error.downcast_ref::<BadUpdate>()
        {
            return self.quic.close(bad.code(), bad.to_string().as_bytes());
        }
        // What h3 has answered with 431 itself (RFC 9114 §4.2.2), and what not even it should read.
        let too_large = match error {
            StreamError::HeaderTooBig { .. } => true,
            StreamError::Undefined(error) => error.is::<TooMuch>(),
            _ => false,
        };
        if too_large {
            self.shared.counters.heads_too_large.up();
        }
        if self.spoilt.fetch_add(1, Ordering::Relaxed) == SPOILT_MAX {
            self.shared.counters.flood(Flood::Headless);
            self.quic.close(EXCESSIVE_LOAD, b"too many requests without a head");
        }
    }

    /// The client does not want its answer any more, or has left.
    fn given_up(&self) {
        if !self.resets.lock().take(1, Instant::now()) && self.quic.error().is_none() {
            self.shared.counters.flood(Flood::RapidReset);
            self.quic.close(EXCESSIVE_LOAD, b"too many requests given up");
        }
    }
}

/// Why a body was not sent to its end.
enum Broken {
    Source,
    Stalled,
    Gone,
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
