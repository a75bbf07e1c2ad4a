//! What a connection has done of late, and so how long it has done nothing: what the time limits of all protocols are measured by.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{Body, BodyError, Flood};

/// Less than this in a connection's whole patience is not progress: answers to a client's PINGs are written too.
pub(super) const PROGRESS_BYTES_MIN: usize = 16 << 10;

/// One connection's.
pub(super) struct Activity(Mutex<State>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::new(Instant::now()))))
    }

    /// A request has come; it is under way until what this returns is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Underway {
        self.0.lock().begin(Instant::now());
        Underway { activity: self.clone(), untaken: false }
    }

    /// Bytes came.
    pub(super) fn read(&self) {
        self.0.lock().read(Instant::now());
    }

    /// Bytes went out.
    pub(super) fn wrote(&self, bytes: usize) {
        self.0.lock().wrote(bytes, Instant::now());
    }

    /// The client sends too much to no purpose; its connection ends for it.
    pub(super) fn floods(&self, flood: Flood) {
        self.0.lock().flood = Some(flood);
    }

    /// What it ended for.
    pub(super) fn flood(&self) -> Option<Flood> {
        self.0.lock().flood
    }

    /// What h2 said as it ended the connection.
    pub(super) fn says(&self, words: &[u8]) {
        self.0.lock().last_words = String::from_utf8_lossy(words).into_owned();
    }

    /// The same, afterwards.
    pub(super) fn last_words(&self) -> String {
        self.0.lock().last_words.clone()
    }

    /// A line ended with LF alone.
    pub(super) fn saw_bare_lf(&self) {
        self.0.lock().bare_lf = true;
    }

    /// Whether any did.
    pub(super) fn bare_lf(&self) -> bool {
        self.0.lock().bare_lf
    }

    /// Ends when no request was under way for `max`.
    pub(super) async fn idle(&self, max: Duration) {
        self.lasts(max, State::idle_since).await;
    }

    /// Ends when a body waited for the client and nothing moved for `max`.
    pub(super) async fn stalled(&self, max: Duration) {
        self.lasts(max, State::stalled_since).await;
    }

    /// Ends when a head has been coming for `max`.
    pub(super) async fn head_late(&self, max: Duration) {
        self.lasts(max, State::head_since).await;
    }

    async fn lasts(&self, max: Duration, since: fn(&State) -> Option<Instant>) {
        loop {
            let now = Instant::now();
            // What has not begun cannot have lasted for `max` before `max` is over.
            let due = since(&self.0.lock()).unwrap_or(now) + max;
            if due <= now {
                return;
            }
            sleep_until(due).await;
        }
    }
}

struct State {
    /// When a request came, a body was asked for its next chunk, or enough bytes went out.
    last: Instant,
    /// Bytes that went out since, too few to count.
    written_bytes: usize,
    /// Requests under way, from the end of the head to the end of the answer's body.
    requests: usize,
    /// Bodies that wait for the client: a chunk was handed out, and nobody has asked for the next.
    untaken: usize,
    /// When the first byte came of a head that is not complete.
    head: Option<Instant>,
    flood: Option<Flood>,
    last_words: String,
    bare_lf: bool,
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            last: now,
            written_bytes: 0,
            requests: 0,
            untaken: 0,
            head: None,
            flood: None,
            last_words: String::new(),
            bare_lf: false,
        }
    }

    fn begin(&mut self, now: Instant) {
        self.last = now;
        self.requests += 1;
        self.head = None;
    }

    /// Something moved for a request; whether its body waited for the client `before`, and does so now.
    fn step(&mut self, before: bool, untaken: bool, now: Instant) {
        self.last = now;
        self.untaken = self.untaken - usize::from(before) + usize::from(untaken);
    }

    fn end(&mut self, untaken: bool, now: Instant) {
        self.step(untaken, false, now);
        self.requests -= 1;
    }

    /// Between requests, what comes is a head.
    fn read(&mut self, now: Instant) {
        if self.requests == 0 {
            self.head.get_or_insert(now);
        }
    }

    fn wrote(&mut self, bytes: usize, now: Instant) {
        self.written_bytes += bytes;
        if self.written_bytes >= PROGRESS_BYTES_MIN {
            self.written_bytes = 0;
            self.last = now;
        }
    }

    fn idle_since(&self) -> Option<Instant> {
        (self.requests == 0).then_some(self.last)
    }

    fn stalled_since(&self) -> Option<Instant> {
        (self.untaken > 0).then_some(self.last)
    }

    fn head_since(&self) -> Option<Instant> {
        self.head
    }
}

/// A request under way.
pub(super) struct Underway {
    activity: Arc<Activity>,
    untaken: bool,
}

impl Underway {
    fn step(&mut self, untaken: bool) {
        self.activity.0.lock().step(self.untaken, untaken, Instant::now());
        self.untaken = untaken;
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.activity.0.lock().end(self.untaken, Instant::now());
    }
}

/// A body that tells when it is asked for a chunk.
pub(super) struct Watched {
    pub(super) body: Body,
    pub(super) underway: Underway,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // A body that waits for its own bytes does not wait for the client.
        self.underway.step(matches!(frame, Poll::Ready(Some(Ok(_)))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::{FutureExt, StreamExt, stream};

    use super::*;

    /// A state, and times in seconds after its start.
    fn state() -> (State, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        (State::new(start), move |seconds| start + Duration::from_secs(seconds))
    }

    #[test]
    fn a_connection_is_idle_once_its_last_request_has_ended() {
        let (mut state, at) = state();
        assert_eq!(state.idle_since(), Some(at(0)));
        state.begin(at(1));
        state.begin(at(2));
        state.end(false, at(3));
        assert_eq!(state.idle_since(), None);
        state.end(false, at(100));
        assert_eq!(state.idle_since(), Some(at(100)));
    }

    #[test]
    fn a_head_is_late_from_its_first_byte_on_and_never_once_it_is_whole() {
        let (mut state, at) = state();
        assert_eq!(state.head_since(), None);
        state.read(at(30));
        state.read(at(50));
        assert_eq!(state.head_since(), Some(at(30)));
        state.begin(at(51));
        state.read(at(52));
        assert_eq!(state.head_since(), None);
    }

    #[test]
    fn a_few_bytes_are_no_progress() {
        let (mut state, at) = state();
        state.begin(at(1));
        state.step(false, true, at(2));
        state.wrote(PROGRESS_BYTES_MIN - 1, at(10));
        assert_eq!(state.stalled_since(), Some(at(2)));
        state.wrote(1, at(11));
        assert_eq!(state.stalled_since(), Some(at(11)));
        state.end(true, at(12));
        assert_eq!(state.stalled_since(), None);
    }

    #[test]
    fn only_a_body_that_waits_for_the_client_stalls() {
        let activity = Activity::new();
        let chunks = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"abc"))]).chain(stream::pending());
        let mut body = Box::pin(Watched { body: Body::stream(6, chunks), underway: activity.request() });
        let stalled = || activity.0.lock().stalled_since().is_some();
        assert!(!stalled(), "nobody has asked for a chunk yet");
        let mut chunk = || std::future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).now_or_never();
        assert!(matches!(chunk(), Some(Some(Ok(_)))) && stalled());
        assert!(chunk().is_none() && !stalled(), "now it is not the client who is slow");
        drop(body);
        assert!(activity.0.lock().idle_since().is_some());
    }
}
