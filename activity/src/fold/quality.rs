//! The quality of experience by region and hour: how soon, how sharp, how often it stood still.
//!
//! From reports and stops: media start delay, bitrate and throughput as quantiles, stalls and their time against the time played, errors, and
//! dropped frames as sessions say at their end. A report that stands for others counts for all of them. Hours open and close as those of
//! popularity do. Bounds: [`REGIONS_MAX`] regions, at most 6 KB each an hour.

use std::collections::BTreeMap;

use super::{
    Fold,
    hours::{Hourly, is_open},
    sketch::Sketch,
};
use crate::{
    event::{Event, Kind, place},
    pack::{Damaged, Unpack, put, put_text},
    time::HOUR_MS,
};

/// Regions of which an hour tells; others are "other".
const REGIONS_MAX: usize = 256;
const OTHER: &str = "other";

/// The quality of an hour in a region, or of several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quality {
    /// Playbacks that began.
    pub plays: u64,
    /// Reports.
    pub reports: u64,
    /// How long was played, in milliseconds.
    pub played_ms: u64,
    /// How long it stood still, in milliseconds.
    pub stalled_ms: u64,
    /// Reports with a stall.
    pub stalls: u64,
    /// Reports with an error.
    pub errors: u64,
    /// Sessions that ended and said how many frames were dropped.
    pub ended: u64,
    /// How many frames these had dropped.
    pub dropped_frames: u64,
    /// From the order to play to the first picture, in milliseconds.
    pub start_ms: Sketch,
    /// Kilobits per second of what was selected.
    pub bitrate_kbps: Sketch,
    /// Kilobits per second that came in.
    pub throughput_kbps: Sketch,
}

impl Quality {
    /// Adds another region or hour.
    pub fn merge(&mut self, other: &Self) {
        let Self { plays, reports, played_ms, stalled_ms, stalls, errors, ended, dropped_frames, .. } = other;
        for (sum, more) in [
            (&mut self.plays, plays),
            (&mut self.reports, reports),
            (&mut self.played_ms, played_ms),
            (&mut self.stalled_ms, stalled_ms),
            (&mut self.stalls, stalls),
            (&mut self.errors, errors),
            (&mut self.ended, ended),
            (&mut self.dropped_frames, dropped_frames),
        ] {
            *sum = sum.saturating_add(*more);
        }
        self.start_ms.merge(&other.start_ms);
        self.bitrate_kbps.merge(&other.bitrate_kbps);
        self.throughput_kbps.merge(&other.throughput_kbps);
    }

    /// How long it stood still of the time that it should have played, from 0 to 1: the rebuffering ratio.
    pub fn stalled_share(&self) -> f64 {
        let all = self.played_ms.saturating_add(self.stalled_ms);
        if all == 0 { 0.0 } else { self.stalled_ms as f64 / all as f64 }
    }

    fn fold(&mut self, event: &Event<'_>) {
        let weight = event.weight();
        self.plays += u64::from(event.kind == Kind::Play) * weight;
        self.reports += u64::from(event.kind == Kind::Quality) * weight;
        self.played_ms = self.played_ms.saturating_add(event.played_ms.map_or(0, u64::from) * weight);
        let Some(cmcd) = &event.cmcd else { return };
        let stalled_ms = cmcd.number(place::BSD).unwrap_or(0);
        self.stalled_ms = self.stalled_ms.saturating_add(u64::from(stalled_ms) * weight);
        self.stalls += u64::from(stalled_ms > 0 || cmcd.number(place::BS) == Some(1)) * weight;
        self.errors += u64::from(!cmcd.ec.is_empty()) * weight;
        if let Some(ms) = cmcd.number(place::MSD) {
            self.start_ms.add(ms, weight);
        }
        if let Some(kbps) = cmcd.number(place::BR).or_else(|| cmcd.number(place::AB)) {
            self.bitrate_kbps.add(kbps, weight);
        }
        if let Some(kbps) = cmcd.number(place::MTP) {
            self.throughput_kbps.add(kbps, weight);
        }
        if event.kind == Kind::Stop
            && let Some(frames) = cmcd.number(place::DFA)
        {
            self.ended += 1;
            self.dropped_frames += u64::from(frames);
        }
    }

    fn save(&self, out: &mut Vec<u8>) {
        let Self { plays, reports, played_ms, stalled_ms, stalls, errors, ended, dropped_frames, .. } = self;
        for number in [plays, reports, played_ms, stalled_ms, stalls, errors, ended, dropped_frames] {
            put(out, *number);
        }
        for sketch in [&self.start_ms, &self.bitrate_kbps, &self.throughput_kbps] {
            sketch.save(out);
        }
    }

    fn load(unpack: &mut Unpack<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            plays: unpack.number()?,
            reports: unpack.number()?,
            played_ms: unpack.number()?,
            stalled_ms: unpack.number()?,
            stalls: unpack.number()?,
            errors: unpack.number()?,
            ended: unpack.number()?,
            dropped_frames: unpack.number()?,
            start_ms: Sketch::load(unpack)?,
            bitrate_kbps: Sketch::load(unpack)?,
            throughput_kbps: Sketch::load(unpack)?,
        })
    }
}

/// Regions of an hour.
pub(crate) type QualityHour = BTreeMap<Box<str>, Quality>;

fn save_regions(regions: &QualityHour, out: &mut Vec<u8>) {
    put(out, regions.len() as u64);
    for (region, quality) in regions {
        put_text(out, region);
        quality.save(out);
    }
}

fn load_regions(unpack: &mut Unpack<'_>) -> Result<QualityHour, Damaged> {
    (0..unpack.count()?).map(|_| Ok((unpack.text()?.into(), Quality::load(unpack)?))).collect()
}

/// The fold.
#[derive(Debug, Default)]
pub(crate) struct Qualities {
    open: BTreeMap<u64, QualityHour>,
    written_ms: u64,
    late: u64,
}

impl Fold for Qualities {
    const NAME: &'static str = "quality";
    const VERSION: u32 = 1;

    fn fold(&mut self, event: &Event<'_>, written_ms: u64) {
        self.written_ms = written_ms;
        if event.cmcd.is_none() && event.played_ms.is_none() && event.kind != Kind::Play {
            return;
        }
        let hour = event.at_ms / HOUR_MS;
        if !is_open(hour, written_ms) {
            self.late += 1;
            return;
        }
        let regions = self.open.entry(hour).or_default();
        let region = if regions.contains_key(event.region) || regions.len() < REGIONS_MAX { event.region } else { OTHER };
        match regions.get_mut(region) {
            Some(quality) => quality.fold(event),
            None => regions.entry(region.into()).or_default().fold(event),
        }
    }

    fn save(&self, out: &mut Vec<u8>) {
        put(out, self.written_ms);
        put(out, self.late);
        put(out, self.open.len() as u64);
        for (hour, regions) in &self.open {
            put(out, *hour);
            save_regions(regions, out);
        }
    }

    fn load(unpack: &mut Unpack<'_>) -> Result<Self, Damaged> {
        let (written_ms, late) = (unpack.number()?, unpack.number()?);
        let each = (0..unpack.count()?).map(|_| Ok((unpack.number()?, load_regions(unpack)?)));
        Ok(Self { open: each.collect::<Result<_, Damaged>>()?, written_ms, late })
    }

    fn late(&self) -> u64 {
        self.late
    }
}

impl Hourly for Qualities {
    type Hour = QualityHour;

    fn closing(&self) -> Option<u64> {
        self.open.keys().next().copied().filter(|hour| !is_open(*hour, self.written_ms))
    }

    fn save_hour(&self, hour: u64, out: &mut Vec<u8>) {
        save_regions(&self.open.get(&hour).cloned().unwrap_or_default(), out);
    }

    fn forget_hour(&mut self, hour: u64) {
        self.open.remove(&hour);
    }

    fn load_hour(unpack: &mut Unpack<'_>) -> Result<QualityHour, Damaged> {
        load_regions(unpack)
    }

    fn hour(&self, hour: u64) -> Option<QualityHour> {
        self.open.get(&hour).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Cmcd, KEYS},
        fold::tests::{NOW_MS, reloaded},
    };

    fn report(kind: Kind, keys: &[(&str, u32)], sampled: u8) -> Event<'static> {
        let mut cmcd = Cmcd::default();
        for (name, value) in keys {
            cmcd.set(KEYS.iter().position(|key| key.name == *name).unwrap(), *value);
        }
        Event { region: "de-by", played_ms: Some(9_000), cmcd: Some(cmcd), sampled, ..Event::of(kind, NOW_MS) }
    }

    #[test]
    fn stalls_starts_and_bitrates_are_those_of_the_reports() {
        let mut fold = Qualities::default();
        for event in [
            Event { region: "de-by", ..Event::of(Kind::Play, NOW_MS) },
            report(Kind::Quality, &[("msd", 800), ("br", 3000), ("mtp", 9000)], 0),
            report(Kind::Quality, &[("br", 3000), ("bsd", 1000)], 2),
            report(Kind::Stop, &[("ab", 6000), ("dfa", 7)], 0),
            Event { cmcd: Some(Cmcd { ec: "E1", ..Cmcd::default() }), ..report(Kind::Quality, &[], 0) },
            Event { region: "de-be", ..Event::of(Kind::Like, NOW_MS) },
        ] {
            fold.fold(&event, NOW_MS);
        }
        let fold: Qualities = reloaded(&fold);
        let hour = fold.hour(NOW_MS / HOUR_MS).unwrap();
        assert_eq!(hour.len(), 1, "a like says nothing of quality");
        let quality = &hour["de-by"];
        let sums = (quality.plays, quality.reports, quality.played_ms, quality.stalled_ms, quality.stalls);
        assert_eq!(sums, (1, 6, 63_000, 4_000, 4));
        assert_eq!((quality.errors, quality.ended, quality.dropped_frames), (1, 1, 7));
        assert_eq!((quality.start_ms.count(), quality.bitrate_kbps.count(), quality.throughput_kbps.count()), (1, 6, 1));
        assert!(quality.bitrate_kbps.quantile(0.5).unwrap().abs_diff(3000) <= 3000 / 16);
        assert!((quality.stalled_share() - 4.0 / 67.0).abs() < 1e-9);
        let mut twice = quality.clone();
        twice.merge(quality);
        assert_eq!((twice.played_ms, twice.start_ms.count()), (126_000, 2));
    }

    #[test]
    fn an_hour_that_is_over_is_closed_with_what_it_had() {
        let mut fold = Qualities::default();
        fold.fold(&report(Kind::Quality, &[("br", 3000)], 0), NOW_MS);
        let (hour, later_ms) = (NOW_MS / HOUR_MS, NOW_MS + 3 * HOUR_MS);
        fold.fold(&report(Kind::Quality, &[("br", 3000)], 0), later_ms);
        assert_eq!((fold.closing(), fold.late()), (Some(hour), 1));
        let mut bytes = Vec::new();
        fold.save_hour(hour, &mut bytes);
        assert_eq!(Qualities::load_hour(&mut Unpack::new(&bytes, "an hour")).unwrap(), fold.hour(hour).unwrap());
    }
}
