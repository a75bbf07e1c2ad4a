//! What passes on a TCP connection, read along: frames of HTTP/2 that serve no request, resets that a client provokes, lines of HTTP/1.1
//! that do not end as lines do. Keeps some hundred bytes, copies no content, and judges nothing that a library judges.

use tokio::time::Instant;

use super::{
    floods::{Budget, Flood},
    limits::{
        EMPTY_FRAMES, OTHER_FRAMES, PINGS, PROVOKED_RESETS, RESETS, SETTINGS, WINDOW_UPDATE_BYTES, WINDOW_UPDATES_FREE,
        WINDOW_UPDATES_PER_REQUEST,
    },
};

/// RFC 9113 §3.4.
const PREFACE_BYTES: usize = 24;
/// RFC 9113 §4.1.
const FRAME_HEAD_BYTES: usize = 9;
/// As much of a RST_STREAM or GOAWAY frame's payload as is looked at: the code, and what h2 says beside it.
const WORDS_BYTES: usize = 64;
/// RFC 9113 §6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS_FRAME: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// RFC 9113 §6.1.
const END_STREAM: u8 = 1;
/// RFC 9113 §7: we have what we need of a request, and want no more of it.
const NO_ERROR: &[u8] = &[0; 4];

/// Frames of HTTP/2, as they come and go.
pub(super) struct FrameWatch {
    reads: Frames,
    writes: Frames,
    resets: Budget,
    provoked: Budget,
    settings: Budget,
    pings: Budget,
    empty: Budget,
    other: Budget,
    window_updates: u64,
    requests: u64,
    sent_bytes: u64,
}

impl FrameWatch {
    pub(super) fn new() -> Self {
        Self {
            reads: Frames::after(PREFACE_BYTES),
            writes: Frames::after(0),
            resets: Budget::new(RESETS),
            provoked: Budget::new(PROVOKED_RESETS),
            settings: Budget::new(SETTINGS),
            pings: Budget::new(PINGS),
            empty: Budget::new(EMPTY_FRAMES),
            other: Budget::new(OTHER_FRAMES),
            window_updates: 0,
            requests: 0,
            sent_bytes: 0,
        }
    }

    /// Bytes went out.
    pub(super) fn wrote(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        self.sent_bytes += bytes.len() as u64;
        while let Some(frame) = self.writes.next(&mut bytes, |kind| matches!(kind, RST_STREAM | GOAWAY)) {
            let is_provoked = frame.kind == RST_STREAM && self.writes.words() != NO_ERROR;
            if is_provoked && !self.provoked.take(1, now()) {
                return Err(Flood::ProvokedResets);
            }
        }
        Ok(())
    }

    /// What h2 said as it ended the connection, if it did: for which of its limits. Nothing else tells.
    pub(super) fn last_words(&self) -> &[u8] {
        // Behind the last stream's number and the code (RFC 9113 §6.8).
        if self.writes.frame.kind == GOAWAY { self.writes.words().get(8..).unwrap_or_default() } else { &[] }
    }

    /// Bytes came.
    pub(super) fn read(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) -> Result<(), Flood> {
        while let Some(frame) = self.reads.next(&mut bytes, |_| false) {
            self.came(frame, &now)?;
        }
        Ok(())
    }

    fn came(&mut self, frame: FrameHead, now: impl Fn() -> Instant) -> Result<(), Flood> {
        let (budget, flood) = match frame.kind {
            DATA if frame.bytes == 0 && frame.flags & END_STREAM == 0 => (&mut self.empty, Flood::EmptyFrames),
            HEADERS => {
                self.requests += 1;
                return Ok(());
            }
            // Their other limits are h2's.
            DATA | CONTINUATION => return Ok(()),
            RST_STREAM => (&mut self.resets, Flood::RapidReset),
            SETTINGS_FRAME => (&mut self.settings, Flood::Settings),
            PING => (&mut self.pings, Flood::Ping),
            WINDOW_UPDATE => {
                self.window_updates += 1;
                let free = WINDOW_UPDATES_FREE + WINDOW_UPDATES_PER_REQUEST * self.requests;
                let is_flood = self.window_updates > free + self.sent_bytes / WINDOW_UPDATE_BYTES;
                return if is_flood { Err(Flood::WindowUpdates) } else { Ok(()) };
            }
            // PRIORITY, PUSH_PROMISE, GOAWAY, and what is unknown.
            _ => (&mut self.other, Flood::OtherFrames),
        };
        if budget.take(1, now()) { Ok(()) } else { Err(flood) }
    }
}

/// One direction's frames.
struct Frames {
    head: [u8; FRAME_HEAD_BYTES],
    head_bytes: usize,
    /// The frame that this is in, or was.
    frame: FrameHead,
    /// Bytes before the next frame's head.
    skip: usize,
    words: [u8; WORDS_BYTES],
    words_bytes: usize,
    /// Bytes of the payload that are still to be kept.
    words_left: usize,
}

#[derive(Debug, Clone, Copy)]
struct FrameHead {
    kind: u8,
    flags: u8,
    bytes: usize,
}

impl Frames {
    fn after(skip: usize) -> Self {
        let frame = FrameHead { kind: DATA, flags: 0, bytes: 0 };
        Self { head: [0; FRAME_HEAD_BYTES], head_bytes: 0, frame, skip, words: [0; WORDS_BYTES], words_bytes: 0, words_left: 0 }
    }

    /// The next frame that begins in `bytes`, which are used up to there; of kinds that are `kept`, with the words of its payload.
    fn next(&mut self, bytes: &mut &[u8], kept: impl Fn(u8) -> bool) -> Option<FrameHead> {
        loop {
            if self.words_left > 0 {
                let words = bytes.split_off(..bytes.len().min(self.words_left))?;
                self.words[self.words_bytes..][..words.len()].copy_from_slice(words);
                self.words_bytes += words.len();
                self.words_left -= words.len();
                if self.words_left > 0 {
                    return None;
                }
                return Some(self.frame);
            }
            self.skip -= bytes.split_off(..bytes.len().min(self.skip))?.len();
            let head = bytes.split_off(..bytes.len().min(FRAME_HEAD_BYTES - self.head_bytes))?;
            self.head[self.head_bytes..][..head.len()].copy_from_slice(head);
            self.head_bytes += head.len();
            if self.head_bytes < FRAME_HEAD_BYTES {
                return None;
            }
            self.head_bytes = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
            self.frame = FrameHead { kind, flags, bytes: self.skip };
            self.words_bytes = 0;
            if !kept(kind) {
                return Some(self.frame);
            }
            self.words_left = self.skip.min(WORDS_BYTES);
            self.skip -= self.words_left;
            if self.words_left == 0 {
                return Some(self.frame);
            }
        }
    }

    fn words(&self) -> &[u8] {
        &self.words[..self.words_bytes]
    }
}

/// Lines of HTTP/1.1, as they come.
#[derive(Debug, Default)]
pub(super) struct LineWatch {
    last: u8,
}

impl LineWatch {
    /// Bytes came. True if a line among them ends with LF alone, which another reader of the same bytes may not take for an end
    /// (RFC 9112 §2.2).
    pub(super) fn read(&mut self, bytes: &[u8]) -> bool {
        let Some((&first, &last)) = bytes.first().zip(bytes.last()) else { return false };
        let is_bare = |before: u8, byte: u8| byte == b'\n' && before != b'\r';
        let mut bare = is_bare(self.last, first);
        // Without an early end, so that it is done many bytes at a time.
        for (&before, &byte) in bytes.iter().zip(&bytes[1..]) {
            bare |= is_bare(before, byte);
        }
        self.last = last;
        bare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let [.., a, b, c] = length.to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        frame.resize(FRAME_HEAD_BYTES + length, 4);
        frame
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        let mut bytes = vec![b'x'; PREFACE_BYTES];
        for _ in 0..SETTINGS.burst {
            bytes.extend(frame(1, 5, 300));
            bytes.extend(frame(4, 0, 6));
            bytes.extend(frame(0, 0, 20_000));
        }
        let now = Instant::now();
        for piece in [1, 2, 7, 9, 10, 33, 1000, bytes.len()] {
            let mut watch = FrameWatch::new();
            assert_eq!(bytes.chunks(piece).try_for_each(|bytes| watch.read(bytes, || now)), Ok(()), "{piece}");
            assert_eq!(watch.requests, u64::from(SETTINGS.burst));
            assert_eq!(watch.read(&frame(4, 0, 6), || now), Err(Flood::Settings), "{piece}");
        }
    }

    #[test]
    fn each_kind_of_frame_has_its_own_budget() {
        let now = Instant::now();
        for (kind, length, allowance, flood) in [
            (0, 0, EMPTY_FRAMES, Flood::EmptyFrames),
            (3, 4, RESETS, Flood::RapidReset),
            (6, 8, PINGS, Flood::Ping),
            (2, 5, OTHER_FRAMES, Flood::OtherFrames),
            (0xbe, 0, OTHER_FRAMES, Flood::OtherFrames),
        ] {
            let mut watch = FrameWatch::new();
            assert_eq!(watch.read(&[0; PREFACE_BYTES], || now), Ok(()));
            for _ in 0..allowance.burst {
                assert_eq!(watch.read(&frame(kind, 0, length), || now), Ok(()));
            }
            assert_eq!(watch.read(&frame(kind, 0, length), || now), Err(flood));
        }
        let mut watch = FrameWatch::new();
        let ends = frame(0, END_STREAM, 0).repeat(100_000);
        assert_eq!(watch.read(&[&[0; PREFACE_BYTES][..], &ends].concat(), || now), Ok(()), "a stream ends once");
    }

    #[test]
    fn what_goes_out_is_watched_for_resets_and_last_words() {
        let now = Instant::now();
        let reset = |code: u8| [0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1, 0, 0, 0, code];
        let mut goaway = vec![0, 0, 17, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 11];
        goaway.extend(b"too_many!");
        let mut bytes = Vec::new();
        for _ in 0..PROVOKED_RESETS.burst {
            bytes.extend(frame(DATA, 0, 1000));
            bytes.extend(reset(0));
            bytes.extend(reset(3));
        }
        for piece in [1, 2, 7, 13, 50, 1000, bytes.len()] {
            let mut watch = FrameWatch::new();
            assert_eq!(bytes.chunks(piece).try_for_each(|bytes| watch.wrote(bytes, || now)), Ok(()), "{piece}");
            assert_eq!(watch.last_words(), b"");
            assert_eq!(goaway.chunks(piece).try_for_each(|bytes| watch.wrote(bytes, || now)), Ok(()), "{piece}");
            assert_eq!(watch.last_words(), b"too_many!", "{piece}");
            assert_eq!(watch.wrote(&reset(3), || now), Err(Flood::ProvokedResets), "{piece}");
        }
    }

    #[test]
    fn windows_are_opened_for_what_was_sent() {
        let now = Instant::now();
        let mut watch = FrameWatch::new();
        assert_eq!(watch.read(&[0; PREFACE_BYTES], || now), Ok(()));
        let update = frame(8, 0, 4);
        let updates = |watch: &mut FrameWatch, count: u64| (0..count).try_for_each(|_| watch.read(&update, || now));
        assert_eq!(updates(&mut watch, WINDOW_UPDATES_FREE), Ok(()));
        for _ in 0..1000 {
            let data = frame(DATA, 0, WINDOW_UPDATE_BYTES as usize - FRAME_HEAD_BYTES);
            assert_eq!(watch.wrote(&data, || now), Ok(()));
            assert_eq!(watch.read(&frame(1, 5, 10), || now), Ok(()));
            assert_eq!(updates(&mut watch, 1 + WINDOW_UPDATES_PER_REQUEST), Ok(()));
        }
        assert_eq!(updates(&mut watch, 1), Err(Flood::WindowUpdates));
    }

    #[test]
    fn a_line_that_ends_with_lf_alone_is_seen_however_it_is_cut() {
        let good = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        let bad = b"GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n";
        for piece in 1..bad.len() {
            let sees = |bytes: &[u8]| {
                let mut watch = LineWatch::default();
                // Every piece is looked at.
                bytes.chunks(piece).filter(|bytes| watch.read(bytes)).count() > 0
            };
            assert!(!sees(good) && sees(bad), "{piece}");
        }
        assert!(LineWatch::default().read(b"\n") && !LineWatch::default().read(b""));
    }
}
