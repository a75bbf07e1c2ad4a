//! The task that moves datagrams between a worker's socket and the protocol, for all of its connections.
//!
//! A turn: what handles listed → what has come in → whose time has come → for each connection that any of this concerns, in order: its
//! timers once, its news, and what it has to send, in batches of one system call. A connection that has more to send than its share
//! goes to the end of the queue; a turn that has more to do than its share lets other tasks run first. One send that the system has no room
//! for is kept, and nothing else is sent before it. Nothing is allocated for a datagram.

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    os::unix::net::UnixDatagram,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use parking_lot::MutexGuard;
use quinn_proto::{AcceptError, ConnectionError, ConnectionHandle, DatagramEvent, Transmit, VarInt};
use tokio::time::{Sleep, sleep_until};

use super::{
    connection::{self, State},
    endpoint,
    hub::Hub,
    now,
    passage::Elders,
    socket::{Inbox, Sent, Shelf, Socket, ecn},
    timers::Timers,
    waiters::Waiters,
};

/// Datagrams of one batch, which is one system call: as many of the usual 1452 bytes as a UDP message can hold.
const BATCH_DATAGRAMS: usize = 44;
/// The most that a UDP message over IPv4 can hold: its length has 16 bits, less the headers.
const BATCH_BYTES: usize = 65_507;
/// Datagrams that a connection may send before the next one's turn.
const CONNECTION_DATAGRAMS: usize = 4 * BATCH_DATAGRAMS;
/// Datagrams sent, or connections looked after, before other tasks may run.
const TURN_DATAGRAMS: usize = 2 * CONNECTION_DATAGRAMS;
/// Calls that receive, before what was received is answered.
const RECEIVES_MAX: usize = 16;
/// Datagrams received, before what was received is answered.
const RECEIVED_MAX: usize = 2048;

/// The task.
pub(super) struct Driver {
    endpoint: Arc<endpoint::Shared>,
    /// For the earliest of all connections.
    timer: Pin<Box<Sleep>>,
    /// Who is woken at the end of a turn; kept for its memory.
    woken: Vec<Waker>,
}

/// What a worker has of QUIC, but for the handles.
pub(super) struct Core {
    socket: Socket,
    /// Who gets what of the datagrams is not for this process.
    elders: Option<Elders>,
    endpoint: quinn_proto::Endpoint,
    /// By [`ConnectionHandle`].
    slots: Vec<Option<Slot>>,
    open: usize,
    /// Clients that nobody has accepted yet, at most `ServerConfig::max_incoming`.
    incoming: VecDeque<quinn_proto::Incoming>,
    accepting: Waiters,
    idle: Waiters,
    /// With what connections are told, once the endpoint is closed.
    closed: Option<(VarInt, Bytes)>,
    /// Connections to look after, each once.
    ready: VecDeque<ConnectionHandle>,
    timers: Timers,
    inbox: Inbox,
    shelf: Shelf,
    /// One batch.
    outbox: Vec<u8>,
    /// What of the batch is not sent, since the system has no room.
    blocked: Option<Blocked>,
    /// One datagram that the endpoint itself answers.
    answer: Vec<u8>,
    /// Kept for its memory.
    listed: Vec<ConnectionHandle>,
    /// The last turn left something to do.
    again: bool,
}

struct Slot {
    shared: Arc<connection::Shared>,
    /// It is in `ready`.
    queued: Cell<bool>,
}

struct Blocked {
    transmit: Transmit,
    sent: usize,
}

/// What a turn came to.
struct Turn {
    /// There is more to do, and nothing to wait for.
    again: bool,
    deadline: Option<Instant>,
    over: bool,
}

impl Driver {
    pub(super) fn new(endpoint: Arc<endpoint::Shared>) -> Self {
        Self { endpoint, timer: Box::pin(sleep_until(now().into())), woken: Vec::new() }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { endpoint, timer, woken } = &mut *self;
        let Turn { mut again, deadline, over } = endpoint.core.lock().turn(cx, &endpoint.hub, woken);
        woken.drain(..).for_each(Waker::wake);
        if over {
            return Poll::Ready(());
        }
        if let Some(deadline) = deadline {
            if timer.deadline() != deadline.into() {
                timer.as_mut().reset(deadline.into());
            }
            again |= timer.as_mut().poll(cx).is_ready();
        }
        if again {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let Self { endpoint, woken, .. } = self;
        endpoint.core.lock().end(woken);
        woken.drain(..).for_each(Waker::wake);
    }
}

impl Core {
    pub(super) fn new(socket: Socket, endpoint: quinn_proto::Endpoint) -> Self {
        Self {
            socket,
            elders: None,
            endpoint,
            slots: Vec::new(),
            open: 0,
            incoming: VecDeque::new(),
            accepting: Waiters::default(),
            idle: Waiters::default(),
            closed: None,
            ready: VecDeque::new(),
            timers: Timers::default(),
            inbox: Inbox::new(),
            shelf: Shelf::default(),
            outbox: Vec::with_capacity(BATCH_BYTES),
            blocked: None,
            answer: Vec::new(),
            listed: Vec::new(),
            again: false,
        }
    }

    /// See [`endpoint::Endpoint::serve_elders`].
    pub(super) fn serve_elders(&mut self, elders: Option<Elders>) {
        self.elders = elders;
    }

    /// See [`endpoint::Endpoint::receive_from`].
    pub(super) fn receive_from(&mut self, passage: Option<UnixDatagram>) -> io::Result<()> {
        self.socket.receive_from(passage)
    }

    fn turn(&mut self, cx: &mut Context<'_>, hub: &Hub, woken: &mut Vec<Waker>) -> Turn {
        let mut listed = std::mem::take(&mut self.listed);
        let abandoned = hub.look(cx.waker(), &mut listed);
        for handle in listed.drain(..) {
            enqueue(&self.slots, &mut self.ready, handle);
        }
        self.listed = listed;
        let more = self.receive(cx, woken);
        let now = now();
        while let Some(handle) = self.timers.due(now) {
            enqueue(&self.slots, &mut self.ready, handle);
        }
        self.drive(cx, woken);
        self.again = more || (self.blocked.is_none() && !self.ready.is_empty());
        Turn { again: self.again, deadline: self.timers.next(), over: abandoned && self.open == 0 }
    }

    /// Hands on what has come in. True if there may be more.
    fn receive(&mut self, cx: &mut Context<'_>, woken: &mut Vec<Waker>) -> bool {
        let Self { socket, elders, endpoint, slots, incoming, accepting, closed, ready, inbox, shelf, answer, .. } = self;
        let (mut at_once, mut received) = (self.again, 0);
        for _ in 0..RECEIVES_MAX {
            if socket.poll_receive(cx, at_once, inbox).is_pending() {
                return false;
            }
            at_once &= inbox.is_full();
            let now = now();
            // The lock of a connection is held over all of its datagrams in a row.
            let mut held: Option<(ConnectionHandle, MutexGuard<'_, State>)> = None;
            for (meta, datagram) in inbox.datagrams() {
                received += 1;
                if elders.as_mut().is_some_and(|elders| elders.take(meta, datagram)) {
                    continue;
                }
                answer.clear();
                let event = endpoint.handle(now, meta.addr, meta.dst_ip, ecn(meta), shelf.own(datagram), answer);
                match event {
                    Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                        if held.as_ref().is_none_or(|(of, _)| *of != handle) {
                            drop(held.take());
                            held = enqueue(slots, ready, handle).map(|slot| (handle, slot.shared.lock()));
                        }
                        if let Some((_, state)) = &mut held {
                            state.quic.handle_event(event);
                            state.noise.heard();
                        }
                    }
                    // A process that does not read the socket is not the one for newcomers; who reads it has taken this one.
                    Some(DatagramEvent::NewConnection(new)) if socket.is_passed_on() => endpoint.ignore(new),
                    Some(DatagramEvent::NewConnection(new)) if closed.is_none() => {
                        incoming.push_back(new);
                        accepting.release(woken);
                    }
                    Some(DatagramEvent::NewConnection(new)) => {
                        let transmit = endpoint.refuse(new, answer);
                        socket.respond(&transmit, answer);
                    }
                    Some(DatagramEvent::Response(transmit)) => socket.respond(&transmit, answer),
                    None => {}
                }
            }
            if received >= RECEIVED_MAX {
                return true;
            }
        }
        true
    }

    /// Looks after connections in the order of the queue, until the turn's share is used up or the system has no room.
    fn drive(&mut self, cx: &mut Context<'_>, woken: &mut Vec<Waker>) {
        if let Some(Blocked { transmit, sent }) = self.blocked.take() {
            self.blocked = keep(self.socket.send(cx, &transmit, &self.outbox, sent), transmit);
        }
        let mut left = TURN_DATAGRAMS;
        while left > 0 && self.blocked.is_none() {
            let Some(handle) = self.ready.pop_front() else { return };
            left = left.saturating_sub(self.visit(handle, cx, woken).max(1));
        }
    }

    /// Looks after one connection. Says how many datagrams it sent.
    fn visit(&mut self, handle: ConnectionHandle, cx: &mut Context<'_>, woken: &mut Vec<Waker>) -> usize {
        let Self { socket, endpoint, slots, ready, timers, outbox, blocked, .. } = self;
        let Some(slot) = slots.get(handle.0).and_then(Option::as_ref) else { return 0 };
        slot.queued.set(false);
        let mut state = slot.shared.lock();
        state.attend();
        let now = now();
        if state.quic.poll_timeout().is_some_and(|deadline| deadline <= now) {
            state.quic.handle_timeout(now);
        }
        if let Some(flood) = state.calm(woken) {
            socket.counters().flood(flood);
        }
        let mut drained = state.settle(handle, endpoint, woken);
        let mut sent = 0;
        let idle = loop {
            if sent >= CONNECTION_DATAGRAMS || blocked.is_some() {
                break false;
            }
            outbox.clear();
            let datagrams_max = (BATCH_BYTES / usize::from(state.quic.current_mtu())).clamp(1, BATCH_DATAGRAMS);
            let datagrams_max = state.may_send(datagrams_max, now);
            if datagrams_max == 0 {
                break true;
            }
            let Some(transmit) = state.quic.poll_transmit(now, datagrams_max, outbox) else { break true };
            state.sent(transmit.size, now);
            sent += transmit.segment_size.map_or(1, |bytes| transmit.size.div_ceil(bytes));
            *blocked = keep(socket.send(cx, &transmit, outbox, 0), transmit);
        };
        // Sending may have ended it, too.
        drained |= state.settle(handle, endpoint, woken);
        if drained {
            drop(state);
            self.remove(handle, woken);
        } else {
            timers.want(handle, state.deadline());
            if !idle {
                enqueue(slots, ready, handle);
            }
        }
        sent
    }

    fn remove(&mut self, handle: ConnectionHandle, woken: &mut Vec<Waker>) {
        self.timers.forget(handle);
        self.slots[handle.0] = None;
        self.open -= 1;
        if self.open == 0 {
            self.idle.release(woken);
        }
    }

    /// The next client; `None` once the endpoint is closed.
    pub(super) fn poll_accept(&mut self, cx: &Context<'_>) -> Poll<Option<quinn_proto::Incoming>> {
        let next = self.incoming.pop_front();
        if next.is_none() && self.closed.is_none() {
            self.accepting.add(cx);
            return Poll::Pending;
        }
        Poll::Ready(next)
    }

    /// No connection is left.
    pub(super) fn poll_idle(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.open == 0 {
            return Poll::Ready(());
        }
        self.idle.add(cx);
        Poll::Pending
    }

    /// Begins a connection. The driver is to be woken.
    pub(super) fn accept(
        &mut self,
        incoming: quinn_proto::Incoming,
        hub: &Arc<Hub>,
    ) -> Result<Arc<connection::Shared>, ConnectionError> {
        if self.closed.is_some() {
            self.refuse(incoming);
            return Err(ConnectionError::LocallyClosed);
        }
        self.answer.clear();
        let (handle, quic) = match self.endpoint.accept(incoming, now(), &mut self.answer, None) {
            Ok(accepted) => accepted,
            Err(AcceptError { cause, response }) => {
                if let Some(transmit) = response {
                    self.socket.respond(&transmit, &self.answer);
                }
                return Err(cause);
            }
        };
        let shared = Arc::new(connection::Shared::new(handle, quic, hub.clone()));
        if handle.0 >= self.slots.len() {
            self.slots.resize_with(handle.0 + 1, || None);
        }
        self.slots[handle.0] = Some(Slot { shared: shared.clone(), queued: Cell::new(false) });
        self.open += 1;
        enqueue(&self.slots, &mut self.ready, handle);
        Ok(shared)
    }

    pub(super) fn retry(&mut self, incoming: quinn_proto::Incoming) {
        self.answer.clear();
        let transmit = self.endpoint.retry(incoming, &mut self.answer).expect("the client has not shown its address");
        self.socket.respond(&transmit, &self.answer);
    }

    pub(super) fn refuse(&mut self, incoming: quinn_proto::Incoming) {
        self.answer.clear();
        let transmit = self.endpoint.refuse(incoming, &mut self.answer);
        self.socket.respond(&transmit, &self.answer);
    }

    pub(super) fn ignore(&mut self, incoming: quinn_proto::Incoming) {
        self.endpoint.ignore(incoming);
    }

    /// Takes no more clients, and says which connections are to be closed.
    pub(super) fn close(&mut self, code: VarInt, reason: Bytes, woken: &mut Vec<Waker>) -> Vec<Arc<connection::Shared>> {
        self.closed = Some((code, reason));
        while let Some(incoming) = self.incoming.pop_front() {
            self.refuse(incoming);
        }
        self.accepting.release(woken);
        self.slots.iter().flatten().map(|slot| slot.shared.clone()).collect()
    }

    /// The driver is no more: nobody is to wait for it.
    fn end(&mut self, woken: &mut Vec<Waker>) {
        self.closed.get_or_insert_default();
        while let Some(incoming) = self.incoming.pop_front() {
            self.endpoint.ignore(incoming);
        }
        for slot in self.slots.drain(..).flatten() {
            slot.shared.lock().end(ConnectionError::LocallyClosed, woken);
        }
        self.open = 0;
        self.accepting.release(woken);
        self.idle.release(woken);
    }

    #[cfg(test)]
    pub(super) fn census(&self) -> Census {
        let mut census = Census { incoming: self.incoming.len(), timers: self.timers.len(), ..Census::default() };
        for slot in self.slots.iter().flatten() {
            let mut state = slot.shared.lock();
            census.connections += 1;
            census.waiting += state.waiting();
            census.sending += state.quic.streams().send_streams();
        }
        census
    }
}

/// How much there is of everything.
#[cfg(test)]
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) connections: usize,
    pub(super) incoming: usize,
    pub(super) timers: usize,
    /// Tasks that wait for something of a connection.
    pub(super) waiting: usize,
    /// Streams with something that is not acknowledged.
    pub(super) sending: usize,
}

/// Queues a connection, unless it is. `None` if there is no such connection any more.
fn enqueue<'a>(slots: &'a [Option<Slot>], ready: &mut VecDeque<ConnectionHandle>, handle: ConnectionHandle) -> Option<&'a Slot> {
    let slot = slots.get(handle.0)?.as_ref()?;
    if !slot.queued.replace(true) {
        ready.push_back(handle);
    }
    Some(slot)
}

fn keep(sent: Sent, transmit: Transmit) -> Option<Blocked> {
    match sent {
        Sent::Done => None,
        Sent::Blocked(sent) => Some(Blocked { transmit, sent }),
    }
}
