//! What two processes of one edge say to each other: messages of JSON on a Unix socket that keeps them apart (SOCK_SEQPACKET), some with file descriptors
//! (SCM_RIGHTS, unix(7)). The end of either process is the end of the link.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{BorrowedFd, OwnedFd},
};

use rustix::{
    cmsg_space,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use serde::{Deserialize, Serialize};
use tokio::io::{Interest, unix::AsyncFd};

use crate::listener::Epoch;

/// The longest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
/// File descriptors with one message: a worker's sockets, and an end for each elder.
const DESCRIPTORS_MAX: usize = 3 + Epoch::COUNT;

/// Raised when an older process would not understand what is said here.
pub(super) const PROTOCOL: u32 = 1;

/// What is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum Message {
    /// The first word of who is there, with the listener for operators.
    Hello(Box<Hello>),
    /// With a worker's TCP listener, UDP socket and, if there is one, listener without TLS, and an end for each elder. In the order of workers.
    Worker { elders: Vec<Epoch> },
    /// The heir could serve at once.
    Ready,
    /// The heir cannot serve.
    Refused { reason: String },
    /// The sockets are the heir's.
    Go,
    /// The cache's devices are free.
    Devices,
    /// Something that a later version says.
    #[serde(other)]
    Unknown,
}

/// What an heir must know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) protocol: u32,
    /// Processes before the heir.
    pub(super) generation: u64,
    /// The heir's.
    pub(super) epoch: Epoch,
    /// As configured, and as bound.
    pub(super) listen: SocketAddr,
    pub(super) addr: SocketAddr,
    pub(super) listen_plain: Option<SocketAddr>,
    pub(super) admin_listen: SocketAddr,
    pub(super) workers: usize,
    pub(super) reset_key: [u8; 32],
    pub(super) token_key: [u8; 32],
}

/// One side.
pub(super) struct Link(AsyncFd<OwnedFd>);

/// The two sides, neither of which blocks.
///
/// # Errors
/// When the system has no more.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

impl Link {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is the socket's own for as long as it lives, and nobody gets it out of here.
        Ok(Self(unsafe { AsyncFd::register(socket) }?))
    }

    pub(super) async fn say(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message).expect("texts and numbers can be written");
        let send = |socket: &OwnedFd| {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                return Err(io::Error::other("too many file descriptors for one message"));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            Ok(sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags)?)
        };
        self.0.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    /// The next message, with its file descriptors. `None` once the other side has ended.
    pub(super) async fn hear(&self) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MESSAGE_BYTES_MAX];
        let mut descriptors = Vec::new();
        let receive = |socket: &OwnedFd| {
            let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let length = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?.bytes;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    descriptors.extend(received);
                }
            }
            Ok(length)
        };
        match self.0.async_io(Interest::READABLE, receive).await {
            Ok(0) => Ok(None),
            Ok(length) => Ok(Some((serde_json::from_slice(&bytes[..length]).map_err(io::Error::other)?, descriptors))),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::fd::AsFd as _, os::unix::net::UnixStream};

    use super::*;

    #[tokio::test]
    async fn messages_come_one_by_one_with_their_descriptors_until_the_other_side_ends() {
        let (ours, theirs) = pair().expect("sockets");
        let (ours, theirs) = (Link::new(ours).expect("a link"), Link::new(theirs).expect("a link"));
        let (mut one, other) = UnixStream::pair().expect("sockets");
        ours.say(&Message::Ready, &[]).await.expect("said");
        ours.say(&Message::Worker { elders: vec![Epoch::FIRST] }, &[other.as_fd()]).await.expect("said");
        assert!(matches!(theirs.hear().await, Ok(Some((Message::Ready, none))) if none.is_empty()));
        let Ok(Some((Message::Worker { elders }, mut descriptors))) = theirs.hear().await else { panic!("a worker") };
        assert_eq!((elders, descriptors.len()), (vec![Epoch::FIRST], 1));
        drop(other);
        let mut other = UnixStream::from(descriptors.remove(0));
        one.write_all(b"x").expect("written");
        assert_eq!(io::Read::read(&mut other, &mut [0; 2]).expect("read"), 1);
        drop(ours);
        assert!(matches!(theirs.hear().await, Ok(None)));
        assert!(theirs.say(&Message::Go, &[]).await.is_err());
    }

    #[test]
    fn what_a_later_version_says_is_told_from_nonsense() {
        assert!(matches!(serde_json::from_str(r#"{"type":"later","more":1}"#), Ok(Message::Unknown)));
        assert!(serde_json::from_str::<Message>("{}").is_err());
    }
}
