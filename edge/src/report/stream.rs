//! One stream to control: lines of JSON both ways in one exchange of HTTP/2, and the end of it when either side falls silent.
//!
//! Knows what a line is and when silence is too long; not what is told and why.

use std::{convert::Infallible, time::Duration};

use ::http::{HeaderValue, StatusCode};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::Incoming;
use serde::Serialize;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use wire::{
    lines::{Lines, TooLong},
    report::{DOWN_LINE_BYTES_MAX, Down, SILENT_INTERVALS_MAX, Up, command_id},
};

use crate::upstream::{Upstream, UpstreamError};

/// Lines that wait to be sent. More mean that control does not read.
const LINES_MAX: usize = 64;
/// What is read of an answer that is no stream, in bytes: problem details, for the log.
const ANSWER_BYTES_MAX: usize = 4096;
/// How long an answer that is no stream may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// An open stream.
pub(super) struct Stream {
    outgoing: mpsc::Sender<Bytes>,
    incoming: Incoming,
    lines: Lines,
    heard_at: Instant,
}

/// What control said.
#[derive(Debug)]
pub(super) enum Heard {
    Message(Down),
    /// A command of which only the number is understood.
    Strange {
        id: u64,
        why: String,
    },
}

/// Why control does not know how this edge does, or any more. Its fault, the network's or the operator's.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTold {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("it answered {status}: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("it broke the stream: {0}")]
    Broken(hyper::Error),
    #[error("it ended the stream")]
    Ended,
    #[error("it said nothing for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("it does not read what it is told")]
    Unread,
    #[error("it said too much: {0}")]
    TooLong(#[from] TooLong),
    #[error("it expects more than {0} commands to be carried out at once")]
    TooManyCommands(usize),
    #[error("another edge has the same name and opened a stream of its own; name one of them otherwise")]
    Replaced,
}

impl Stream {
    /// Opens one with `first` as its first line.
    pub(super) async fn open(upstream: &Upstream, path: &str, secret: &HeaderValue, first: &Up) -> Result<Self, NotTold> {
        let (outgoing, mut queue) = mpsc::channel(LINES_MAX);
        outgoing.try_send(line(first)).expect("it is empty");
        let frames = stream::poll_fn(move |cx| queue.poll_recv(cx)).map(|line| Ok::<_, Infallible>(Frame::data(line)));
        let answer = upstream.exchange(path, secret, StreamBody::new(frames)).await?;
        let status = answer.status();
        if status != StatusCode::OK {
            let body = timeout(ANSWER_TIMEOUT, Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect()).await;
            let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
            return Err(NotTold::Refused { status, text: String::from_utf8_lossy(&body).into_owned() });
        }
        Ok(Self { outgoing, incoming: answer.into_body(), lines: Lines::new(DOWN_LINE_BYTES_MAX), heard_at: Instant::now() })
    }

    /// Says something, which does not wait for it to be sent.
    pub(super) fn say(&self, message: &Up) -> Result<(), NotTold> {
        self.outgoing.try_send(line(message)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotTold::Unread,
            mpsc::error::TrySendError::Closed(_) => NotTold::Ended,
        })
    }

    /// The next thing that control says, unless it says nothing for [`SILENT_INTERVALS_MAX`] intervals of `expected`. May be dropped and called again.
    pub(super) async fn hear(&mut self, expected: Duration) -> Result<Heard, NotTold> {
        loop {
            if let Some(line) = self.lines.next()? {
                if let Some(heard) = understood(line) {
                    return Ok(heard);
                }
                continue;
            }
            let patience = expected.saturating_mul(SILENT_INTERVALS_MAX);
            let frame = tokio::time::timeout_at(self.heard_at + patience, self.incoming.frame()).await;
            let frame = frame.map_err(|_| NotTold::Silent(patience))?.ok_or(NotTold::Ended)?.map_err(NotTold::Broken)?;
            self.heard_at = Instant::now();
            if let Ok(chunk) = frame.into_data() {
                self.lines.push(&chunk);
            }
        }
    }

    /// Says no more, and waits until control has heard all and ends its side too.
    pub(super) async fn end(self) {
        let Self { outgoing, mut incoming, .. } = self;
        drop(outgoing);
        while let Some(Ok(_)) = incoming.frame().await {}
    }
}

/// `None` for what needs no answer and is not understood.
fn understood(line: &[u8]) -> Option<Heard> {
    match serde_json::from_slice(line) {
        Ok(Down::Unknown) => None,
        Ok(message) => Some(Heard::Message(message)),
        Err(error) => {
            tracing::debug!(%error, "control said something that is not understood");
            command_id(line).map(|id| Heard::Strange { id, why: format!("this edge does not understand it: {error}") })
        }
    }
}

fn line(message: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(message).expect("strings and numbers can be written");
    line.push(b'\n');
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_passed_over_or_refused_if_it_is_a_command() {
        assert!(matches!(understood(br#"{"type":"beat"}"#), Some(Heard::Message(Down::Beat))));
        assert!(understood(br#"{"type":"plan","lines":3}"#).is_none());
        assert!(understood(b"").is_none() && understood(b"[]").is_none() && understood(b"\xff").is_none());
        let strange = understood(br#"{"type":"command","id":9,"command":{"name":"dance"}}"#);
        assert!(matches!(strange, Some(Heard::Strange { id: 9, .. })), "{strange:?}");
    }
}
