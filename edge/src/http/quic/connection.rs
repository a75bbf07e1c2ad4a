//! A connection: its handle, and what all of its handles share with the driver.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt,
    future::poll_fn,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use quinn_proto::{ConnectionError, ConnectionHandle, ConnectionStats, Dir, Event, StreamEvent, StreamId, VarInt};

use super::{
    RecvStream, SendStream,
    hub::Hub,
    noise::{self, Noise},
    now,
    waiters::Waiters,
};
use crate::http::{Cap, Counters, Flood, pace::Brake};

/// A connection. Handles of it and of its streams keep it open; the last one dropped closes it.
#[derive(Clone)]
pub struct Connection(Arc<Held>);

/// Closes the connection when the last handle is dropped. The driver has none of these.
struct Held(Arc<Shared>);

/// What handles share with the driver.
pub(super) struct Shared {
    handle: ConnectionHandle,
    hub: Arc<Hub>,
    state: Mutex<State>,
}

/// Behind the lock: the protocol, and who waits for what.
pub(super) struct State {
    pub(super) quic: quinn_proto::Connection,
    pub(super) noise: Noise,
    /// Why it is over, for handles. The protocol may still have to tell the other side.
    error: Option<ConnectionError>,
    connected: bool,
    /// The driver knows that there is something to do.
    listed: bool,
    /// If there is a cap on what it sends, and who counts what had to wait for it.
    brake: Option<(Brake, Arc<Counters>)>,
    /// By stream: one task each.
    readers: HashMap<StreamId, Waker>,
    writers: HashMap<StreamId, Waker>,
    stops: HashMap<StreamId, Waker>,
    /// Streams that can be written to again; empty but in between, and kept for its memory.
    writable: Vec<StreamId>,
    /// By direction.
    accepting: [Waiters; 2],
    opening: [Waiters; 2],
    connecting: Waiters,
    closing: Waiters,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Held(shared)))
    }

    /// Comes to an end with the handshake.
    pub(super) async fn connected(&self) -> Result<(), ConnectionError> {
        poll_fn(|cx| {
            let mut state = self.lock();
            match &state.error {
                Some(error) => Poll::Ready(Err(error.clone())),
                None if state.connected => Poll::Ready(Ok(())),
                None => {
                    state.connecting.add(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next stream in both directions that the other side opens.
    ///
    /// # Errors
    /// Why the connection is over.
    pub fn poll_accept_bi(&self, cx: &mut Context<'_>) -> Poll<Result<(SendStream, RecvStream), ConnectionError>> {
        self.poll_accept(cx, Dir::Bi).map_ok(|id| self.halves(id))
    }

    /// The next stream in one direction that the other side opens.
    ///
    /// # Errors
    /// Why the connection is over.
    pub fn poll_accept_uni(&self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionError>> {
        self.poll_accept(cx, Dir::Uni).map_ok(|id| RecvStream::new(self.clone(), id))
    }

    /// Opens a stream in both directions, once the other side allows one more.
    ///
    /// # Errors
    /// Why the connection is over.
    pub fn poll_open_bi(&self, cx: &mut Context<'_>) -> Poll<Result<(SendStream, RecvStream), ConnectionError>> {
        self.poll_open(cx, Dir::Bi).map_ok(|id| self.halves(id))
    }

    /// Opens a stream in one direction, once the other side allows one more.
    ///
    /// # Errors
    /// Why the connection is over.
    pub fn poll_open_uni(&self, cx: &mut Context<'_>) -> Poll<Result<SendStream, ConnectionError>> {
        self.poll_open(cx, Dir::Uni).map_ok(|id| SendStream::new(self.clone(), id))
    }

    /// Closes it at once: what is not yet delivered may be lost, and handles have an error from now on.
    pub fn close(&self, code: VarInt, reason: &[u8]) {
        self.0.0.close(code, Bytes::copy_from_slice(reason));
    }

    /// Waits for its end, and says why it came.
    pub async fn closed(&self) -> ConnectionError {
        poll_fn(|cx| {
            let mut state = self.lock();
            match &state.error {
                Some(error) => Poll::Ready(error.clone()),
                None => {
                    state.closing.add(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Why it is over; `None` if it is not.
    pub fn error(&self) -> Option<ConnectionError> {
        self.lock().error.clone()
    }

    /// Where the other side is now.
    pub fn remote_address(&self) -> SocketAddr {
        self.lock().quic.remote_address()
    }

    /// Sends no more than `bits_per_second` from now on. `send_window_bytes` is what it may have unacknowledged or unsent without a cap.
    pub fn cap(&self, bits_per_second: u64, send_window_bytes: u64, counters: Arc<Counters>) {
        let mut state = self.lock();
        state.brake = Some((Brake::new(bits_per_second), counters));
        state.quic.set_send_window(Brake::send_window_bytes(bits_per_second, send_window_bytes));
    }

    /// As [`SendStream::prioritize`], for a stream in both directions that may be one that the other side has yet to open. Without effect if
    /// it may not, and once the stream is over.
    pub fn prioritize(&self, id: StreamId, priority: i32) {
        if id.dir() == Dir::Bi {
            let _ = self.lock().quic.send_stream(id).set_priority(priority);
        }
    }

    /// The same, unless it was set before.
    pub fn prioritize_first(&self, id: StreamId, priority: i32) {
        if id.dir() != Dir::Bi {
            return;
        }
        let mut state = self.lock();
        let mut stream = state.quic.send_stream(id);
        if stream.priority().is_ok_and(|priority| priority == 0) {
            let _ = stream.set_priority(priority);
        }
    }

    /// What was sent and received, and how the path is.
    pub fn stats(&self) -> ConnectionStats {
        self.lock().quic.stats()
    }

    fn poll_accept(&self, cx: &mut Context<'_>, dir: Dir) -> Poll<Result<StreamId, ConnectionError>> {
        let mut state = self.lock();
        if let Some(id) = state.quic.streams().accept(dir) {
            return Poll::Ready(Ok(id));
        }
        if let Some(error) = &state.error {
            return Poll::Ready(Err(error.clone()));
        }
        state.accepting[dir as usize].add(cx);
        Poll::Pending
    }

    fn poll_open(&self, cx: &mut Context<'_>, dir: Dir) -> Poll<Result<StreamId, ConnectionError>> {
        let mut state = self.lock();
        if let Some(error) = &state.error {
            return Poll::Ready(Err(error.clone()));
        }
        if let Some(id) = state.quic.streams().open(dir) {
            return Poll::Ready(Ok(id));
        }
        state.opening[dir as usize].add(cx);
        Poll::Pending
    }

    fn halves(&self, id: StreamId) -> (SendStream, RecvStream) {
        (SendStream::new(self.clone(), id), RecvStream::new(self.clone(), id))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.state.lock()
    }

    /// A handle gave the connection something to do.
    pub(super) fn list(&self, state: &mut State) {
        self.0.0.list(state);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.0.0.handle.0).finish()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.close(VarInt::from_u32(0), Bytes::new());
    }
}

impl Shared {
    pub(super) fn new(handle: ConnectionHandle, quic: quinn_proto::Connection, hub: Arc<Hub>) -> Self {
        let state = State {
            quic,
            noise: Noise::new(),
            error: None,
            connected: false,
            listed: false,
            brake: None,
            readers: HashMap::new(),
            writers: HashMap::new(),
            stops: HashMap::new(),
            writable: Vec::new(),
            accepting: Default::default(),
            opening: Default::default(),
            connecting: Waiters::default(),
            closing: Waiters::default(),
        };
        Self { handle, hub, state: Mutex::new(state) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Closes the connection, if it is not over already.
    pub(super) fn close(&self, code: VarInt, reason: Bytes) {
        let mut woken = Vec::new();
        {
            let mut state = self.state.lock();
            if state.error.is_some() {
                return;
            }
            state.quic.close(now(), code, reason);
            state.end(ConnectionError::LocallyClosed, &mut woken);
            self.list(&mut state);
        }
        woken.into_iter().for_each(Waker::wake);
    }

    fn list(&self, state: &mut State) {
        if !state.listed {
            state.listed = true;
            self.hub.list(self.handle);
        }
    }
}

impl State {
    /// The driver looks after the connection now: what handles do from here on is news.
    pub(super) fn attend(&mut self) {
        self.listed = false;
    }

    /// How many datagrams of the usual size it may send now, up to `max`; 0 while its cap holds it.
    pub(super) fn may_send(&mut self, max: usize, now: Instant) -> usize {
        let Some((brake, _)) = &mut self.brake else { return max };
        brake.allows(self.quic.current_mtu().into(), now).unwrap_or(0).min(max)
    }

    /// It sent so much.
    pub(super) fn sent(&mut self, bytes: usize, now: Instant) {
        if let Some((brake, counters)) = &mut self.brake
            && brake.sent(bytes, now)
        {
            counters.paced(Cap::Connection).add(bytes as u64);
        }
    }

    /// When to look after it next, if nothing happens before.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        let deadline = self.quic.poll_timeout();
        match self.brake.as_ref().and_then(|(brake, _)| brake.due()) {
            Some(due) => Some(deadline.map_or(due, |deadline| deadline.min(due))),
            None => deadline,
        }
    }

    /// Passes on what the protocol has to say to the endpoint and to handles. True if that was the last of the connection.
    pub(super) fn settle(
        &mut self,
        handle: ConnectionHandle,
        endpoint: &mut quinn_proto::Endpoint,
        woken: &mut Vec<Waker>,
    ) -> bool {
        let mut drained = false;
        while let Some(event) = self.quic.poll_endpoint_events() {
            drained |= event.is_drained();
            if let Some(answer) = endpoint.handle_event(handle, event) {
                self.quic.handle_event(answer);
            }
        }
        while let Some(event) = self.quic.poll() {
            self.tell(event, woken);
        }
        self.tell_writable(woken);
        drained
    }

    /// Room that streams share goes to who is woken first: the most urgent.
    fn tell_writable(&mut self, woken: &mut Vec<Waker>) {
        let Self { quic, writers, writable, .. } = self;
        if writable.len() > 1 {
            writable.sort_by_cached_key(|id| Reverse(quic.send_stream(*id).priority().unwrap_or_default()));
        }
        woken.extend(writable.drain(..).filter_map(|id| writers.remove(&id)));
    }

    fn tell(&mut self, event: Event, woken: &mut Vec<Waker>) {
        match event {
            Event::Connected => {
                self.connected = true;
                self.connecting.release(woken);
            }
            Event::ConnectionLost { reason } => self.end(reason, woken),
            Event::Stream(event) => match event {
                StreamEvent::Opened { dir } => self.accepting[dir as usize].release(woken),
                StreamEvent::Available { dir } => self.opening[dir as usize].release(woken),
                StreamEvent::Readable { id } => woken.extend(self.readers.remove(&id)),
                StreamEvent::Writable { id } => self.writable.push(id),
                StreamEvent::Finished { id } => woken.extend(self.stops.remove(&id)),
                StreamEvent::Stopped { id, .. } => {
                    woken.extend(self.stops.remove(&id));
                    woken.extend(self.writers.remove(&id));
                }
            },
            // Of no use to a server without datagrams (RFC 9221).
            Event::HandshakeDataReady | Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    /// Closes the connection if the client has sent too much to no purpose.
    pub(super) fn calm(&mut self, woken: &mut Vec<Waker>) -> Option<Flood> {
        if !self.noise.is_due() || self.error.is_some() {
            return None;
        }
        let now = now();
        let flood = self.noise.look(&self.quic.stats().frame_rx, now.into())?;
        self.quic.close(now, noise::CODE, Bytes::from_static(flood.name().as_bytes()));
        self.end(ConnectionError::LocallyClosed, woken);
        Some(flood)
    }

    /// Handles learn that the connection is over, if they do not know.
    pub(super) fn end(&mut self, error: ConnectionError, woken: &mut Vec<Waker>) {
        if self.error.is_some() {
            return;
        }
        self.error = Some(error);
        for waiting in [&mut self.readers, &mut self.writers, &mut self.stops] {
            woken.extend(waiting.drain().map(|(_, waker)| waker));
        }
        let Self { accepting, opening, connecting, closing, .. } = self;
        for waiters in accepting.iter_mut().chain(opening).chain([connecting, closing]) {
            waiters.release(woken);
        }
    }

    /// Why it is over.
    pub(super) fn error(&self) -> Option<&ConnectionError> {
        self.error.as_ref()
    }

    pub(super) fn readers(&mut self) -> &mut HashMap<StreamId, Waker> {
        &mut self.readers
    }

    pub(super) fn writers(&mut self) -> &mut HashMap<StreamId, Waker> {
        &mut self.writers
    }

    pub(super) fn stops(&mut self) -> &mut HashMap<StreamId, Waker> {
        &mut self.stops
    }

    /// Tasks that wait for something of this connection.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let streams = self.readers.len() + self.writers.len() + self.stops.len();
        let others = self.accepting.iter().chain(&self.opening).chain([&self.connecting, &self.closing]);
        streams + others.map(Waiters::len).sum::<usize>()
    }
}
