//! Numbers and texts as bytes: what the log's chunks, checkpoints and hours are made of.
//!
//! Numbers are LEB128, seven bits a byte, the low ones first; signed ones are folded first (0, -1, 1, -2 …), as Protocol Buffers have
//! them. Texts are a length and their bytes. Reading believes nothing: every length is held against what is left.

/// Bytes that are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} is damaged")]
pub(crate) struct Damaged {
    /// What was being read.
    pub(crate) what: &'static str,
}

impl Damaged {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what }
    }
}

/// Appends a number.
pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a signed number.
pub(crate) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Appends a fraction, bit for bit.
pub(crate) fn put_float(out: &mut Vec<u8>, number: f64) {
    out.extend(number.to_le_bytes());
}

/// Appends a text.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend(text.as_bytes());
}

/// Bytes that are being read.
#[derive(Debug, Clone)]
pub(crate) struct Unpack<'a> {
    left: &'a [u8],
    /// What errors call it.
    what: &'static str,
}

impl<'a> Unpack<'a> {
    pub(crate) const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { left: bytes, what }
    }

    pub(crate) const fn damaged(&self) -> Damaged {
        Damaged::new(self.what)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Damaged> {
        let (taken, left) = self.left.split_at_checked(n).ok_or(self.damaged())?;
        self.left = left;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        Ok(self.take(N)?.try_into().expect("it has as many bytes as were taken"))
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Damaged> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.damaged())
    }

    pub(crate) fn signed(&mut self) -> Result<i64, Damaged> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A number that must fit a smaller type.
    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Damaged> {
        let number = self.number()?;
        number.try_into().map_err(|_| self.damaged())
    }

    pub(crate) fn float(&mut self) -> Result<f64, Damaged> {
        self.array().map(f64::from_le_bytes)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Damaged> {
        let length = self.small()?;
        let bytes = self.take(length)?;
        str::from_utf8(bytes).map_err(|_| self.damaged())
    }

    /// How many things follow, each of at least one byte.
    pub(crate) fn count(&mut self) -> Result<usize, Damaged> {
        let count = self.small()?;
        if count > self.left.len() { Err(self.damaged()) } else { Ok(count) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(number: u64, signed: i64, float: f64, text: String) {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            put_signed(&mut bytes, signed);
            put_float(&mut bytes, float);
            put_text(&mut bytes, &text);
            let mut unpack = Unpack::new(&bytes, "it");
            prop_assert_eq!(unpack.number(), Ok(number));
            prop_assert_eq!(unpack.signed(), Ok(signed));
            prop_assert_eq!(unpack.float().map(f64::to_bits), Ok(float.to_bits()));
            prop_assert_eq!(unpack.text(), Ok(text.as_str()));
            prop_assert!(unpack.is_empty());
        }

        #[test]
        fn whatever_the_bytes_reading_ends(bytes: Vec<u8>) {
            let mut unpack = Unpack::new(&bytes, "it");
            while !unpack.is_empty() && unpack.number().is_ok() && unpack.text().is_ok() {}
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_damaged() {
        let mut bytes = vec![0xff; 9];
        bytes.push(1);
        assert_eq!(Unpack::new(&bytes, "it").number(), Ok(u64::MAX));
        bytes[9] = 2;
        assert_eq!(Unpack::new(&bytes, "it").number(), Err(Damaged::new("it")));
    }
}
