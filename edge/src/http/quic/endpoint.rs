//! A worker's endpoint: connections as they come in, and their end.

use std::{
    future::poll_fn,
    io,
    net::{SocketAddr, UdpSocket},
    os::unix::net::UnixDatagram,
    sync::Arc,
    task::Waker,
};

use bytes::Bytes;
use parking_lot::Mutex;
use quinn_proto::{ConnectionError, EndpointConfig, ServerConfig, VarInt};

use super::{
    Connection,
    driver::{Core, Driver},
    hub::Hub,
    passage::Elders,
    socket::Socket,
};
use crate::http::Counters;

/// Accepts connections on one socket. Dropped, it accepts no more; what is connected stays so until its handles are dropped.
pub struct Endpoint(Arc<Shared>);

/// What the endpoint, its driver and connections that wait to be accepted share. Its lock is taken before that of a connection.
pub(super) struct Shared {
    pub(super) core: Mutex<Core>,
    pub(super) hub: Arc<Hub>,
}

/// A client's first packet, which nothing was answered yet. Dropped, it is refused.
pub struct Incoming {
    /// `None` once it is decided.
    quic: Option<quinn_proto::Incoming>,
    endpoint: Arc<Shared>,
}

impl Endpoint {
    /// Serves a bound socket from a task of the current runtime. `segmentation`: have the system cut batches into datagrams, where it can.
    ///
    /// # Errors
    /// When the socket does not take the options that QUIC wants.
    ///
    /// # Panics
    /// Outside of a runtime with I/O and time.
    pub fn new(
        udp: UdpSocket,
        config: EndpointConfig,
        server: ServerConfig,
        segmentation: bool,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let socket = Socket::new(udp, segmentation, counters)?;
        let endpoint = quinn_proto::Endpoint::new(Arc::new(config), Some(Arc::new(server)), !socket.may_fragment(), None);
        let shared = Arc::new(Shared { core: Mutex::new(Core::new(socket, endpoint)), hub: Arc::default() });
        tokio::spawn(Driver::new(shared.clone()));
        Ok(Self(shared))
    }

    /// Hands what is for elders to them from now on.
    pub(crate) fn serve_elders(&self, elders: Option<Elders>) {
        self.0.core.lock().serve_elders(elders);
    }

    /// Once this has returned, the socket is not read any more: another process does that, and what is for this one comes from there. Newcomers are not
    /// taken from there. `None` takes the socket back.
    ///
    /// # Errors
    /// When the runtime does not take `passage`; then all stays as it was.
    ///
    /// # Panics
    /// Outside of a runtime with I/O.
    pub fn receive_from(&self, passage: Option<UnixDatagram>) -> io::Result<()> {
        self.0.core.lock().receive_from(passage)?;
        self.0.hub.wake();
        Ok(())
    }

    /// The next client; `None` once the endpoint is closed.
    pub async fn accept(&self) -> Option<Incoming> {
        poll_fn(|cx| {
            let next = self.0.core.lock().poll_accept(cx);
            next.map(|quic| quic.map(|quic| Incoming { quic: Some(quic), endpoint: self.0.clone() }))
        })
        .await
    }

    /// Closes all connections at once, and refuses new ones from now on.
    pub fn close(&self, code: VarInt, reason: &[u8]) {
        let mut woken = Vec::new();
        let connections = self.0.core.lock().close(code, Bytes::copy_from_slice(reason), &mut woken);
        for connection in connections {
            connection.close(code, Bytes::copy_from_slice(reason));
        }
        woken.into_iter().for_each(Waker::wake);
        self.0.hub.wake();
    }

    /// Waits until no connection is left, also none that still has to tell the other side of its end.
    pub async fn wait_idle(&self) {
        poll_fn(|cx| self.0.core.lock().poll_idle(cx)).await;
    }

    #[cfg(test)]
    pub(super) fn census(&self) -> super::driver::Census {
        self.0.core.lock().census()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.0.hub.abandon();
    }
}

impl Incoming {
    /// Where the client says that it is.
    pub fn remote_address(&self) -> SocketAddr {
        self.undecided().remote_address()
    }

    /// Whether the client has shown that it receives what is sent to that address.
    pub fn remote_address_validated(&self) -> bool {
        self.undecided().remote_address_validated()
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn accept(mut self) -> Result<Connection, ConnectionError> {
        let quic = self.decide();
        let connection = self.endpoint.core.lock().accept(quic, &self.endpoint.hub)?;
        let connection = Connection::new(connection);
        // The driver has not seen it.
        self.endpoint.hub.wake();
        connection.connected().await?;
        Ok(connection)
    }

    /// Has the client show that it is where it says, before anything is kept of it (RFC 9000 §8.1.2).
    ///
    /// # Panics
    /// When it has done so already.
    pub fn retry(mut self) {
        let quic = self.decide();
        self.endpoint.core.lock().retry(quic);
    }

    /// Tells the client that it is not served (CONNECTION_REFUSED).
    pub fn refuse(mut self) {
        let quic = self.decide();
        self.endpoint.core.lock().refuse(quic);
    }

    /// Tells the client nothing.
    pub fn ignore(mut self) {
        let quic = self.decide();
        self.endpoint.core.lock().ignore(quic);
    }

    fn undecided(&self) -> &quinn_proto::Incoming {
        self.quic.as_ref().expect("what decides takes it by value")
    }

    fn decide(&mut self) -> quinn_proto::Incoming {
        self.quic.take().expect("what decides takes it by value")
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(quic) = self.quic.take() {
            self.endpoint.core.lock().refuse(quic);
        }
    }
}
