//! Lines out of chunks of bytes as they come, none longer than was agreed.

/// Chunks go in, lines come out. Holds a line's bytes at most, and the chunk that came last.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to here there is no end of a line.
    searched: usize,
    bytes_max: usize,
}

/// A line is longer than was agreed: there is no use in reading on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {bytes_max} bytes")]
pub struct TooLong {
    /// What was agreed.
    pub bytes_max: usize,
}

impl Lines {
    /// For lines of at most `bytes_max` bytes, without their end.
    pub fn new(bytes_max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, bytes_max }
    }

    /// What came.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(chunk);
    }

    /// The next line without its end (LF), if all of it has come.
    #[expect(clippy::should_implement_trait, reason = "the line is borrowed from here, and it can fail")]
    pub fn next(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| self.searched + at);
        let length = end.unwrap_or(self.buffer.len()) - self.start;
        if length > self.bytes_max {
            return Err(TooLong { bytes_max: self.bytes_max });
        }
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return Ok(None);
        };
        let line = self.start..end;
        (self.start, self.searched) = (end + 1, end + 1);
        Ok(Some(&self.buffer[line]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut found = Vec::new();
        while let Some(line) = lines.next()? {
            found.push(line.to_vec());
        }
        Ok(found)
    }

    #[test]
    fn a_line_may_have_its_full_length_and_not_a_byte_more() {
        let mut lines = Lines::new(3);
        lines.push(b"abc\nde");
        assert_eq!(all(&mut lines), Ok(vec![b"abc".to_vec()]));
        lines.push(b"f\n\nabcd");
        assert_eq!(lines.next(), Ok(Some(&b"def"[..])));
        assert_eq!(lines.next(), Ok(Some(&b""[..])));
        assert_eq!(lines.next(), Err(TooLong { bytes_max: 3 }), "also before its end has come");
        let mut lines = Lines::new(3);
        lines.push(b"abcd\n");
        assert!(lines.next().is_err());
    }

    proptest! {
        #[test]
        fn however_bytes_come_the_lines_are_the_same(
            text in prop::collection::vec(prop::collection::vec(32_u8.., 0..20), 0..20), cuts in prop::collection::vec(1_usize..9, 1..200)
        ) {
            let bytes: Vec<u8> = text.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect();
            let (mut lines, mut found, mut rest) = (Lines::new(20), Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at(rest.len().min(*cut));
                lines.push(chunk);
                found.extend(all(&mut lines).unwrap());
                rest = after;
            }
            prop_assert_eq!(found, text);
        }
    }
}
