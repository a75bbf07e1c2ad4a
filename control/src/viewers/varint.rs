//! Numbers and short texts in few bytes (LEB128), as the journal and packed views have them.

/// What is read is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("bytes that were never written so")]
pub(crate) struct Malformed;

pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Takes a number off the front.
pub(crate) fn take_number(from: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(from)?;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return Err(Malformed);
        }
        number |= part << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

pub(crate) fn take_byte(from: &mut &[u8]) -> Result<u8, Malformed> {
    let (byte, rest) = from.split_first().ok_or(Malformed)?;
    *from = rest;
    Ok(*byte)
}

pub(crate) fn take_text<'a>(from: &mut &'a [u8]) -> Result<&'a str, Malformed> {
    let length = take_number(from)?;
    str::from_utf8(take_bytes(from, length)?).map_err(|_| Malformed)
}

pub(crate) fn take_bytes<'a>(from: &mut &'a [u8], length: u64) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let (bytes, rest) = from.split_at_checked(length).ok_or(Malformed)?;
    *from = rest;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_come_back_and_nothing_else_does() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), 1 << 63, u64::MAX];
        let mut bytes = Vec::new();
        numbers.iter().for_each(|number| put_number(&mut bytes, *number));
        put_text(&mut bytes, "é");
        let mut rest = &bytes[..];
        for number in numbers {
            assert_eq!(take_number(&mut rest), Ok(number));
        }
        assert_eq!((take_text(&mut rest), rest), (Ok("é"), &[][..]));
        for bad in [&[][..], &[0x80], &[0xff; 9], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]] {
            assert_eq!(take_number(&mut &*bad), Err(Malformed));
        }
        for bad in [&[2, b'a'][..], &[1, 0xff], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]] {
            assert_eq!(take_text(&mut &*bad), Err(Malformed));
        }
    }
}
