//! Why an edge is in an answer, or is not: the vocabulary of explanations, and the sentences that operators read.

use std::{fmt, time::Duration};

use super::decide::{RANKED_MAX, RANKED_OF_SITE_MAX};

/// What became of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the answer.
    Won {
        /// From 1.
        place: usize,
        why: Won,
    },
    Lost(Lost),
}

/// Why an edge stands where it stands in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Won {
    /// The title belongs to it, perhaps with others of its site, among which sessions take turns.
    Belongs,
    /// The title belongs to an edge of its site that cannot take it now, and it is the next.
    InPlace,
    /// It holds the title, though it does not belong to it.
    Holds,
    /// It may have the title.
    MayHold,
    /// It does not have the title and would have to fetch it.
    MustFill,
    /// It is close to full, and this is one of the sessions that it loses first.
    Sheds { load_permille: u16 },
    /// Its site is further away than the rules like.
    Far { distance_km: u32 },
    /// Its site is dearer than the rules like.
    Dear { cost: u32 },
}

/// Why an edge is not in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Its site serves only clients of its prefixes, and this one is not in any.
    NotItsClient,
    /// It has not reported in time; `age` is that of its last report.
    Silent {
        age: Option<Duration>,
    },
    Draining,
    Unwell,
    Full {
        load_permille: u16,
    },
    /// [`RANKED_MAX`] better ones are named.
    Outranked,
    /// [`RANKED_OF_SITE_MAX`] of its site are named, and others of another site instead of it.
    Diversity,
    /// Nearer sites had enough, so nobody looked at its site.
    NotReached,
}

impl fmt::Display for Won {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Belongs => f.write_str("the title belongs to this edge"),
            Self::InPlace => {
                f.write_str("the title belongs to an edge of this site that cannot take it now, and this one is the next")
            }
            Self::Holds => f.write_str("it holds the title, which belongs to other edges"),
            Self::MayHold => f.write_str("nobody knows whether it holds the title, which belongs to other edges"),
            Self::MustFill => f.write_str("it does not hold the title and would have to fetch it"),
            Self::Sheds { load_permille } => {
                write!(f, "it is {} full and sheds sessions, this one among them", Percent(*load_permille))
            }
            Self::Far { distance_km } => write!(f, "its site is {distance_km} km away, further than near sites are"),
            Self::Dear { cost } => write!(f, "its site costs {cost}, more than is paid unless nothing else is left"),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotItsClient => {
                f.write_str("its site serves clients of its own prefixes only, and this client is in none of them")
            }
            Self::Silent { age: Some(age) } => write!(f, "it reported {:.1} s ago, which is too long", age.as_secs_f64()),
            Self::Silent { age: None } => f.write_str("it has not reported since control started"),
            Self::Draining => f.write_str("it drains: it takes nobody new"),
            Self::Unwell => f.write_str("it is there and cannot serve"),
            Self::Full { load_permille } => write!(f, "it is full: {} of what it bears", Percent(*load_permille)),
            Self::Outranked => write!(f, "{RANKED_MAX} better edges are named already"),
            Self::Diversity => {
                write!(f, "{RANKED_OF_SITE_MAX} edges of its site are named already, and another site's instead of it")
            }
            Self::NotReached => f.write_str("nearer sites had enough edges, so its site was not looked at"),
        }
    }
}

/// Thousandths, as people read them.
struct Percent(u16);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} %", self.0 / 10, self.0 % 10)
    }
}
