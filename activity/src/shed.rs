//! What is left out when the log is behind: a pure function of how full the queue is, the kind of event, and the session.
//!
//! | queue | impressions, reports of quality | clicks, seeks, pauses | plays, stops, likes, dislikes |
//! |---|---|---|---|
//! | up to a half | all | all | all |
//! | up to three quarters | one in 2, 4, 8 | all | all |
//! | up to nine tenths | none | all | all |
//! | nearly full | none | none | all |
//! | full | none | none | none |
//!
//! A sample is of sessions and not of events, so that those that are kept are whole, and the same ones while it lasts. What is kept then
//! stands for the others: it carries the weight, and folds multiply by it.

use crate::event::Kind;

/// How much a kind of event is worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    Sampled,
    Some,
    Most,
}

const fn worth(kind: Kind) -> Worth {
    match kind {
        Kind::Impression | Kind::Quality => Worth::Sampled,
        Kind::Click | Kind::Seek | Kind::Pause => Worth::Some,
        Kind::Play | Kind::Stop | Kind::Like | Kind::Dislike | Kind::Forget => Worth::Most,
    }
}

/// From here on impressions and reports are sampled.
const SAMPLE_FROM: f64 = 0.5;
/// From here on they are left out.
const DROP_SAMPLED_FROM: f64 = 0.75;
/// From here on clicks, seeks and pauses are left out too.
const DROP_SOME_FROM: f64 = 0.9;
/// The thinnest sample is one in two to this.
const SAMPLE_POWER_MAX: u8 = 3;

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is kept, and stands for two to this many.
    Keep(u8),
    /// Another one of a sample stands for it.
    Sampled,
    /// It is left out for good.
    Dropped,
}

/// Decides while the queue is `full` (0 to 1). `session` is a hash of the event's session.
pub(crate) fn verdict(full: f64, kind: Kind, session: u64) -> Verdict {
    let worth = worth(kind);
    let from = match worth {
        Worth::Sampled => DROP_SAMPLED_FROM,
        Worth::Some => DROP_SOME_FROM,
        Worth::Most => 1.0,
    };
    if full >= from {
        return Verdict::Dropped;
    }
    if worth > Worth::Sampled || full < SAMPLE_FROM {
        return Verdict::Keep(0);
    }
    let thinner = (full - SAMPLE_FROM) / (DROP_SAMPLED_FROM - SAMPLE_FROM) * f64::from(SAMPLE_POWER_MAX);
    let power = 1 + (thinner as u8).min(SAMPLE_POWER_MAX - 1);
    if session.trailing_zeros() >= u32::from(power) { Verdict::Keep(power) } else { Verdict::Sampled }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For how many events those stand that are kept of 4096 sessions, and how many are kept.
    fn kept(full: f64, kind: Kind) -> (u64, u64) {
        let each = (0..4096).filter_map(|session| match verdict(full, kind, session) {
            Verdict::Keep(power) => Some(1 << power),
            _ => None,
        });
        each.fold((0, 0), |(stand_for, kept), weight: u64| (stand_for + weight, kept + 1))
    }

    #[test]
    fn what_matters_least_goes_first_and_a_sample_stands_for_all() {
        for (full, quality, click, play) in [
            (0.0, 4096, 4096, 4096),
            (0.49, 4096, 4096, 4096),
            (0.5, 2048, 4096, 4096),
            (0.6, 1024, 4096, 4096),
            (0.74, 512, 4096, 4096),
            (0.75, 0, 4096, 4096),
            (0.9, 0, 0, 4096),
            (0.999, 0, 0, 4096),
            (1.0, 0, 0, 0),
        ] {
            for (kind, expected) in
                [(Kind::Quality, quality), (Kind::Impression, quality), (Kind::Click, click), (Kind::Play, play)]
            {
                let (stand_for, kept) = kept(full, kind);
                assert_eq!(kept, expected, "{full} {kind:?}");
                assert_eq!(stand_for, if kept == 0 { 0 } else { 4096 }, "{full} {kind:?}");
            }
        }
    }
}
