//! Frames as they go by (RFC 9114 §7.1), for those that h3 does not know: PRIORITY_UPDATE (RFC 9218 §7.2).
//!
//! Looks on and changes nothing: what is malformed otherwise is h3's to say. Keeps no more of a frame than [`UPDATE_BYTES_MAX`].

/// PRIORITY_UPDATE for a request's answer, and for a push.
pub(super) const UPDATE: u64 = 0xf_0700;
pub(super) const UPDATE_PUSH: u64 = 0xf_0701;
/// What is kept of such a frame. What it says is some bytes long; the rest of a longer one is passed by, and then nothing that it says counts.
const UPDATE_BYTES_MAX: usize = 256;
/// The type of the control stream (RFC 9114 §6.2.1).
const CONTROL: u64 = 0;

/// A stream's frames so far.
pub(super) struct Frames {
    state: State,
    /// The bytes of an integer that is not whole, or of a payload.
    held: Vec<u8>,
}

#[derive(Clone, Copy)]
enum State {
    /// The stream's type comes first.
    StreamType,
    Type,
    Length(u64),
    Payload(u64, u64),
    /// It has no frames, or none of interest.
    Done,
}

/// A frame of interest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Update<'a> {
    pub(super) kind: u64,
    /// Its payload, or as much of it as is kept.
    pub(super) payload: &'a [u8],
    /// Whether that is all of it.
    pub(super) is_whole: bool,
}

impl Frames {
    /// Of a request's stream.
    pub(super) fn of_request() -> Self {
        Self { state: State::Type, held: Vec::new() }
    }

    /// Of a stream of one direction: it is looked at if it turns out to be the control stream.
    pub(super) fn of_control() -> Self {
        Self { state: State::StreamType, held: Vec::new() }
    }

    /// Looks at the next bytes; `found` is told of each frame of interest that ends in them.
    pub(super) fn pass<E>(&mut self, mut bytes: &[u8], mut found: impl FnMut(Update<'_>) -> Result<(), E>) -> Result<(), E> {
        loop {
            match self.state {
                State::Done => return Ok(()),
                State::StreamType => {
                    let Some(kind) = self.integer(&mut bytes) else { return Ok(()) };
                    self.state = if kind == CONTROL { State::Type } else { State::Done };
                }
                State::Type => {
                    let Some(kind) = self.integer(&mut bytes) else { return Ok(()) };
                    self.state = State::Length(kind);
                }
                State::Length(kind) => {
                    let Some(length) = self.integer(&mut bytes) else { return Ok(()) };
                    self.state = State::Payload(kind, length);
                    if length == 0 {
                        self.end(kind, &mut found)?;
                    }
                }
                State::Payload(kind, left) => {
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    let (now, later) = bytes.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()));
                    bytes = later;
                    if is_update(kind) {
                        // One byte more than is used tells that there was more.
                        let room = (UPDATE_BYTES_MAX + 1).saturating_sub(self.held.len());
                        self.held.extend_from_slice(&now[..now.len().min(room)]);
                    }
                    let left = left - now.len() as u64;
                    self.state = State::Payload(kind, left);
                    if left == 0 {
                        self.end(kind, &mut found)?;
                    }
                }
            }
        }
    }

    fn end<E>(&mut self, kind: u64, found: &mut impl FnMut(Update<'_>) -> Result<(), E>) -> Result<(), E> {
        self.state = State::Type;
        if !is_update(kind) {
            return Ok(());
        }
        let is_whole = self.held.len() <= UPDATE_BYTES_MAX;
        let outcome = found(Update { kind, payload: &self.held, is_whole });
        self.held = Vec::new();
        outcome
    }

    /// Takes an integer off the front (RFC 9000 §16), once it is whole.
    fn integer(&mut self, bytes: &mut &[u8]) -> Option<u64> {
        if self.held.is_empty()
            && let Some((value, rest)) = integer(bytes)
        {
            *bytes = rest;
            return Some(value);
        }
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            self.held.push(*byte);
            if let Some((value, _)) = integer(&self.held) {
                self.held = Vec::new();
                return Some(value);
            }
        }
        None
    }
}

fn is_update(kind: u64) -> bool {
    matches!(kind, UPDATE | UPDATE_PUSH)
}

/// The integer that `bytes` begin with (RFC 9000 §16), and what follows; `None` if it is not whole.
pub(super) fn integer(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let (value, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    let value = value[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = Vec<(u64, Vec<u8>, bool)>;

    fn found(frames: &mut Frames, chunks: &[&[u8]]) -> Found {
        let mut all = Vec::new();
        for chunk in chunks {
            let told = frames.pass(chunk, |Update { kind, payload, is_whole }| {
                all.push((kind, payload.to_vec(), is_whole));
                Ok::<_, ()>(())
            });
            told.expect("no error");
        }
        all
    }

    /// SETTINGS of two bytes, a frame that nobody knows, an update, GOAWAY, an update for a push, an empty one.
    const CONTROL_STREAM: &[u8] = b"\x00\x04\x02\x01\x00\x40\x21\x03abc\x80\x0f\x07\x00\x05\x04u=1 \
        \x07\x01\x00\x80\x0f\x07\x01\x01\x00\x80\x0f\x07\x00\x00";

    #[test]
    fn updates_are_found_among_other_frames_wherever_the_bytes_are_cut() {
        let expected: Found =
            vec![(UPDATE, b"\x04u=1 ".to_vec(), true), (UPDATE_PUSH, vec![0], true), (UPDATE, Vec::new(), true)];
        assert_eq!(found(&mut Frames::of_control(), &[CONTROL_STREAM]), expected);
        let bytes: Vec<_> = CONTROL_STREAM.chunks(1).collect();
        assert_eq!(found(&mut Frames::of_control(), &bytes), expected);
        for cut in 0..CONTROL_STREAM.len() {
            let (before, after) = CONTROL_STREAM.split_at(cut);
            assert_eq!(found(&mut Frames::of_control(), &[before, b"", after]), expected, "{cut}");
        }
    }

    #[test]
    fn other_streams_are_not_looked_at() {
        assert_eq!(found(&mut Frames::of_control(), &[b"\x02", &CONTROL_STREAM[1..]]), []);
        let mut request = Frames::of_request();
        assert_eq!(found(&mut request, &[b"\x01\x03abc\x00\x41\x00", &[7; 256], &CONTROL_STREAM[11..21]]).len(), 1);
    }

    #[test]
    fn a_long_update_is_cut_and_an_endless_frame_takes_no_memory() {
        let mut long = b"\x80\x0f\x07\x00\x80\x01\x00\x00".to_vec();
        long.resize(8 + 65_536, b'a');
        let mut frames = Frames::of_request();
        let all = found(&mut frames, &[&long]);
        assert_eq!(all.iter().map(|(_, payload, is_whole)| (payload.len(), *is_whole)).collect::<Vec<_>>(), [(257, false)]);
        let endless = [&[0x21, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &[7; 100_000]];
        assert_eq!(found(&mut frames, &endless), []);
        assert_eq!(frames.held.capacity(), 0);
    }

    /// The examples of RFC 9000 §A.1.
    #[test]
    fn integers_are_read() {
        for (bytes, value) in [
            (&[0x25][..], 37),
            (&[0x40, 0x25], 37),
            (&[0x7b, 0xbd], 15_293),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
        ] {
            assert_eq!(integer(bytes), Some((value, &[][..])));
            assert_eq!(integer(&bytes[..bytes.len() - 1]), None);
        }
    }
}
