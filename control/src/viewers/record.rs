//! Records: what viewers do, one thing each, as the journal has them.

use wire::title::TitleId;

use super::{
    mark::Opinion,
    varint::{Malformed, put_number, put_text, take_byte, take_number, take_text},
    view::Device,
};
use crate::identity::user::UserId;

/// One thing that a viewer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) user: UserId,
    pub(crate) change: Change,
}

/// Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// She was there.
    Watched { title: TitleId, at_ms: u64, position_ms: u64, device: Option<Device> },
    /// She said what she thinks of it.
    Rated { title: TitleId, at_ms: u64, opinion: Opinion },
    /// She does not want to go on with it.
    Hidden { title: TitleId, at_ms: u64 },
    /// Whatever is known of her from before is to be forgotten.
    Forgotten { at_ms: u64 },
}

const WATCHED: u8 = 1;
const RATED: u8 = 2;
const HIDDEN: u8 = 3;
const FORGOTTEN: u8 = 4;

impl Record {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let head = |out: &mut Vec<u8>, kind: u8, at_ms: u64| {
            out.push(kind);
            put_text(out, self.user.as_str());
            put_number(out, at_ms);
        };
        match &self.change {
            Change::Watched { title, at_ms, position_ms, device } => {
                head(out, WATCHED, *at_ms);
                put_text(out, title.as_str());
                put_number(out, *position_ms);
                put_text(out, device.as_ref().map_or("", Device::as_str));
            }
            Change::Rated { title, at_ms, opinion } => {
                head(out, RATED, *at_ms);
                put_text(out, title.as_str());
                out.push(opinion.code());
            }
            Change::Hidden { title, at_ms } => {
                head(out, HIDDEN, *at_ms);
                put_text(out, title.as_str());
            }
            Change::Forgotten { at_ms } => head(out, FORGOTTEN, *at_ms),
        }
    }

    /// Takes a record off the front.
    pub(crate) fn read(from: &mut &[u8]) -> Result<Self, Malformed> {
        let kind = take_byte(from)?;
        let user = take_text(from)?.parse().map_err(|_| Malformed)?;
        let at_ms = take_number(from)?;
        let title = |from: &mut &[u8]| take_text(from)?.parse().map_err(|_| Malformed);
        let change = match kind {
            WATCHED => {
                let title = title(from)?;
                let position_ms = take_number(from)?;
                let device = match take_text(from)? {
                    "" => None,
                    name => Some(name.parse().map_err(|_| Malformed)?),
                };
                Change::Watched { title, at_ms, position_ms, device }
            }
            RATED => Change::Rated { title: title(from)?, at_ms, opinion: Opinion::of_code(take_byte(from)?).ok_or(Malformed)? },
            HIDDEN => Change::Hidden { title: title(from)?, at_ms },
            FORGOTTEN => Change::Forgotten { at_ms },
            _ => return Err(Malformed),
        };
        Ok(Self { user, change })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::viewers::view::tests::title;

    pub(crate) fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    pub(crate) fn watched(name: &str, what: &str, at_ms: u64, position_ms: u64) -> Record {
        Record { user: user(name), change: Change::Watched { title: title(what), at_ms, position_ms, device: None } }
    }

    #[test]
    fn records_come_back_one_after_the_other_and_their_parts_do_not() {
        let device = Some("tv".parse().unwrap());
        let of = |change| Record { user: user("alice/kids"), change };
        let records = [
            of(Change::Watched { title: title("a"), at_ms: u64::MAX, position_ms: 0, device }),
            of(Change::Watched { title: title("a"), at_ms: 0, position_ms: 1 << 40, device: None }),
            of(Change::Rated { title: title("b"), at_ms: 7, opinion: Opinion::Dislike }),
            of(Change::Hidden { title: title("c"), at_ms: 8 }),
            of(Change::Forgotten { at_ms: 9 }),
        ];
        let mut bytes = Vec::new();
        records.iter().for_each(|record| record.write(&mut bytes));
        let mut rest = &bytes[..];
        for record in &records {
            assert_eq!(Record::read(&mut rest).as_ref(), Ok(record));
        }
        assert!(rest.is_empty());
        for record in &records {
            let mut bytes = Vec::new();
            record.write(&mut bytes);
            for length in 0..bytes.len() {
                assert_eq!(Record::read(&mut &bytes[..length]), Err(Malformed));
            }
            bytes[0] = 99;
            assert_eq!(Record::read(&mut &bytes[..]), Err(Malformed));
        }
    }
}
