//! Where a page ended, opaque to whom it is given.
//!
//! A page goes on after a rank and a title's key, never after a count, so titles that come or go meanwhile shift nothing. A rank
//! must therefore be the same on every page: it is a function of query, title, popularity, and of what depends on the other
//! titles: how rare each word was, and how much of the query a result must meet. Those two are found on the first page and
//! travel here, and so does the number of the popularity snapshot, a few of which are kept.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{query::TERMS_MAX, words::SORTED_BY_BYTES_MAX};

const VERSION: u8 = 1;

/// Where a page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Whose results these are.
    pub(crate) query: u64,
    /// The popularity they are ranked by.
    pub(crate) epoch: u64,
    /// How much of the query a result must meet, in thousandths.
    pub(crate) floor: u16,
    /// What each term says.
    pub(crate) weights: Vec<u8>,
    /// The last result.
    pub(crate) last: Rank,
}

/// What results are ordered by; smaller ones come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// By title: the words it is sorted by. Empty otherwise.
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) key: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION, self.weights.len() as u8];
        bytes.extend(self.query.to_le_bytes());
        bytes.extend(self.epoch.to_le_bytes());
        bytes.extend(self.floor.to_le_bytes());
        bytes.extend(self.last.number.to_le_bytes());
        bytes.extend(self.last.key.to_le_bytes());
        bytes.extend(&self.weights);
        bytes.extend(self.last.name.as_bytes());
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        if text.len() > 2 * (64 + TERMS_MAX + SORTED_BY_BYTES_MAX) {
            return Err(NotACursor);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NotACursor)?;
        let (&[version, terms], mut rest) = bytes.split_first_chunk::<2>().ok_or(NotACursor)?;
        if version != VERSION || usize::from(terms) > TERMS_MAX {
            return Err(NotACursor);
        }
        let query = u64::from_le_bytes(taken(&mut rest)?);
        let epoch = u64::from_le_bytes(taken(&mut rest)?);
        let floor = u16::from_le_bytes(taken(&mut rest)?);
        let number = u64::from_le_bytes(taken(&mut rest)?);
        let key = u64::from_le_bytes(taken(&mut rest)?);
        let (weights, name) = rest.split_at_checked(terms.into()).ok_or(NotACursor)?;
        let name = str::from_utf8(name).ok().filter(|name| name.len() <= SORTED_BY_BYTES_MAX).ok_or(NotACursor)?;
        Ok(Self { query, epoch, floor, weights: weights.to_vec(), last: Rank { name: name.to_owned(), number, key } })
    }
}

fn taken<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], NotACursor> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or(NotACursor)?;
    *rest = left;
    Ok(*taken)
}

/// Not a cursor that a search gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a cursor that this search gave; take the last answer's as it is, or begin without one")]
pub struct NotACursor;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_as_they_went_and_forged_ones_do_not() {
        let last = Rank { name: "crown season 1".into(), number: 7, key: u64::MAX };
        let cursor = Cursor { query: 1, epoch: 2, floor: 550, weights: vec![3, 255], last };
        let text = cursor.to_string();
        assert_eq!(text.parse(), Ok(cursor.clone()));
        let none = Cursor { weights: Vec::new(), last: Rank { name: String::new(), ..cursor.last.clone() }, ..cursor };
        assert_eq!(none.to_string().parse(), Ok(none));
        let cut = &text[..40];
        let other_version = format!("C{}", &text[1..]);
        for bad in ["", "A", "not base64!", cut, &other_version, &"A".repeat(10_000)] {
            assert_eq!(bad.parse::<Cursor>(), Err(NotACursor), "{bad}");
        }
    }
}
