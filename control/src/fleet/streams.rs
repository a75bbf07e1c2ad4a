//! The streams that edges have open, one for each: whom control can tell something now. Knows no HTTP.
//!
//! Nothing here must last: whatever an edge has to be told is kept elsewhere and told again on its next stream.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire::report::Down;

use super::EdgeId;

/// Messages that wait for an edge to read them. More mean that it does not.
const MESSAGES_MAX: usize = 256;

/// All open streams.
#[derive(Default)]
pub(crate) struct Streams {
    open: Mutex<HashMap<EdgeId, Open>>,
    next: AtomicU64,
    /// Changes when there is something new that edges must be told.
    news: watch::Sender<u64>,
    /// Ends all of them, and those that come later.
    closing: CancellationToken,
}

struct Open {
    number: u64,
    /// Ends the stream.
    replaced: CancellationToken,
}

/// An edge's stream while it is open.
pub(crate) struct Hold {
    streams: Arc<Streams>,
    pub(crate) id: EdgeId,
    number: u64,
    say: mpsc::Sender<Down>,
    /// Cancelled when the edge opens another stream.
    pub(crate) replaced: CancellationToken,
    pub(crate) news: watch::Receiver<u64>,
}

/// The edge does not read what it is told, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not read what it is told")]
pub(crate) struct Unread;

impl Streams {
    /// A stream of the edge, in place of an earlier one, and what is to be sent on it.
    pub(crate) fn open(self: &Arc<Self>, id: EdgeId) -> (Hold, mpsc::Receiver<Down>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (say, messages) = mpsc::channel(MESSAGES_MAX);
        let replaced = CancellationToken::new();
        let earlier = self.open.lock().insert(id.clone(), Open { number, replaced: replaced.clone() });
        if let Some(earlier) = earlier {
            earlier.replaced.cancel();
        }
        let news = self.news.subscribe();
        (Hold { streams: Arc::clone(self), id, number, say, replaced, news }, messages)
    }

    /// There is something that edges must be told: each stream looks for what that is.
    pub(crate) fn tell_news(&self) {
        self.news.send_modify(|news| *news = news.wrapping_add(1));
    }

    /// Ends all streams, so that those who have them open need not be waited for.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    /// Whether the edge has a stream open.
    pub(crate) fn is_open(&self, id: &EdgeId) -> bool {
        self.open.lock().contains_key(id)
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().len()
    }
}

impl Hold {
    /// Cancelled when all streams end.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.streams.closing.clone()
    }

    /// Says something, which does not wait for it to be sent.
    pub(crate) fn say(&self, message: Down) -> Result<(), Unread> {
        self.say.try_send(message).map_err(|_| Unread)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock();
        if open.get(&self.id).is_some_and(|open| open.number == self.number) {
            open.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_stream_of_an_edge_replaces_the_older() {
        let streams = Arc::new(Streams::default());
        let id: EdgeId = "a".parse().unwrap();
        let (first, mut messages) = streams.open(id.clone());
        assert_eq!(first.say(Down::Beat), Ok(()));
        let (second, _other) = streams.open(id.clone());
        assert!(first.replaced.is_cancelled() && !second.replaced.is_cancelled());
        drop(first);
        assert!(streams.is_open(&id), "the end of the older one does not close the newer");
        assert_eq!((messages.recv().await, messages.recv().await), (Some(Down::Beat), None), "what was said is still sent");
        drop(second);
        assert_eq!((streams.is_open(&id), streams.len()), (false, 0));
    }

    #[tokio::test]
    async fn an_edge_that_does_not_read_is_found_out() {
        let streams = Arc::new(Streams::default());
        let (hold, messages) = streams.open("a".parse().unwrap());
        assert!((0..MESSAGES_MAX).all(|_| hold.say(Down::Beat).is_ok()));
        assert_eq!(hold.say(Down::Beat), Err(Unread));
        drop(messages);
        assert_eq!(hold.say(Down::Beat), Err(Unread));
    }
}
