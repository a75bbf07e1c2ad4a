//! Pieces that a reader handed out, counted until the last view of each is dropped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::Notify, time::timeout};

/// One reader's.
#[derive(Default)]
pub(crate) struct Pieces(Option<Arc<Out>>);

#[derive(Default)]
struct Out {
    count: AtomicUsize,
    back: Notify,
}

impl Pieces {
    pub(crate) fn hand_out(&mut self, bytes: Bytes) -> Bytes {
        let out = self.0.get_or_insert_default().clone();
        out.count.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Piece { bytes, _back: Back(out) })
    }

    /// Waits until all have come back, but no longer than `wait_max`: who collects them must not wait for ever.
    pub(crate) async fn come_back(&self, wait_max: Duration) {
        let Some(out) = &self.0 else { return };
        let all = async {
            while out.count.load(Ordering::Acquire) > 0 {
                out.back.notified().await;
            }
        };
        // Late or not, the next one is asked for.
        let _ = timeout(wait_max, all).await;
    }
}

struct Piece {
    // In this order: its memory is free by the time its reader hears of it.
    bytes: Bytes,
    _back: Back,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

struct Back(Arc<Out>);

impl Drop for Back {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            // One reader waits at most, and it is told also if it waits only later.
            self.0.back.notify_one();
        }
    }
}
