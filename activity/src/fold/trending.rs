//! What rises: titles that are played more, now, than their share of what is played lets expect.
//!
//! With x plays of a title in the window, N plays of all titles in it, and p the title's share of all plays before (an exponentially weighted
//! moving average over hours in which the region played anything, corrected for having begun with nothing):
//!
//! ```text
//! expected = p · N        rise = (x − max(expected, β)) / (√expected + β)        score = log₁₀(1 + x) + max(rise, 0)
//! ```
//!
//! The rise is that of SigniTrend (Schubert, Weiler and Kriegel, KDD 2014): deviations from the average, with a bias β so that two plays
//! of a title that had none are nothing. Its average variance is √expected here, which it is for counts (Poisson), and shares in place of counts
//! take the evening out, when everything rises. The logarithm orders what does not rise. A steady title's rise is about 0 however big
//! it is, so one that doubles stands above it.
//!
//! Counted is when an event came, by the log's time, and not when it happened: what comes more than an hour late is not news. Windows
//! move in steps of five minutes (the hour) and of an hour (the day). Bounds: [`REGIONS_MAX`] regions besides all together, [`TITLES_MAX`] titles in
//! each, at about 300 bytes: 80 MB if all of them are full.

use std::collections::BTreeMap;

use super::{Fold, bounded::Bounded, decay::Decay, hours::LATENESS_MS};
use crate::{
    event::{Event, Kind},
    pack::{Damaged, Unpack, put, put_float, put_text},
    time::{DAY_MS, HOUR_MS},
};

/// Regions that have rows of their own; events of others count for all together.
const REGIONS_MAX: usize = 256;
/// Titles of which a region's counts are known.
const TITLES_MAX: usize = 1024;
/// When there is no room, a play weighs half after this.
const HALF_LIFE_MS: u64 = DAY_MS;
const FIVE_MS: u64 = 5 * 60_000;
/// Steps of five minutes in an hour.
const FIVES: usize = 12;
/// Hours in a day.
const HOURS: usize = 24;
/// Hours of which a region's total is known, to find shares by.
const TOTALS: usize = 72;
/// β.
const BIAS: f64 = 3.0;
/// What a finished hour weighs in the share that the last hour is held against: about the last day counts.
const SHARE_OF_HOUR: f64 = 1.0 / 24.0;
/// The same for the last day: about the last week counts.
const SHARE_OF_DAY: f64 = 1.0 / 168.0;

/// How far back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The last hour.
    Hour,
    /// The last day.
    Day,
}

/// A title that is played.
#[derive(Debug, Clone, PartialEq)]
pub struct Trend {
    /// The title.
    pub title: String,
    /// Plays in the window.
    pub plays: u64,
    /// Plays that were to be expected.
    pub expected: f64,
    /// What it is ranked by.
    pub score: f64,
}

/// Counts in steps, the latest `N` of them.
#[derive(Debug, Clone, PartialEq)]
struct Ring<const N: usize> {
    counts: [u32; N],
    /// The latest step.
    step: u64,
}

impl<const N: usize> Default for Ring<N> {
    fn default() -> Self {
        Self { counts: [0; N], step: 0 }
    }
}

impl<const N: usize> Ring<N> {
    const fn slot(step: u64) -> usize {
        (step % N as u64) as usize
    }

    /// Steps that went by meanwhile had none.
    fn advance(&mut self, step: u64) {
        if step > self.step {
            let from = (self.step + 1).max(step.saturating_sub(N as u64 - 1));
            (from..=step).for_each(|step| self.counts[Self::slot(step)] = 0);
            self.step = step;
        }
    }

    fn add(&mut self, n: u32) {
        let count = &mut self.counts[Self::slot(self.step)];
        *count = count.saturating_add(n);
    }

    /// The count of a step, if it is one of the latest.
    fn get(&self, step: u64) -> Option<u32> {
        (step <= self.step && step + N as u64 > self.step).then(|| self.counts[Self::slot(step)])
    }

    /// The sum of the latest `n` steps as of `now`.
    fn sum(&self, now: u64, n: usize) -> u64 {
        let steps = now.saturating_sub(n as u64 - 1)..=now;
        steps.filter_map(|step| self.get(step)).map(u64::from).sum()
    }

    fn save(&self, out: &mut Vec<u8>) {
        put(out, self.step);
        self.counts.iter().for_each(|count| put(out, u64::from(*count)));
    }

    fn load(unpack: &mut Unpack<'_>) -> Result<Self, Damaged> {
        let mut ring = Self { step: unpack.number()?, ..Self::default() };
        for count in &mut ring.counts {
            *count = unpack.small()?;
        }
        Ok(ring)
    }
}

/// What is known of a title in a region.
#[derive(Debug, Clone, Default, PartialEq)]
struct Counts {
    fives: Ring<FIVES>,
    hours: Ring<HOURS>,
    share_of_hour: f64,
    share_of_day: f64,
}

impl Counts {
    /// Takes the hours that are over into the shares.
    fn advance(&mut self, now_ms: u64, totals: &Ring<TOTALS>) {
        self.fives.advance(now_ms / FIVE_MS);
        let hour = now_ms / HOUR_MS;
        // A new title has no hours before.
        if self.hours.step == 0 {
            self.hours.step = hour;
        }
        if hour.saturating_sub(self.hours.step) >= TOTALS as u64 {
            (self.share_of_hour, self.share_of_day) = (0.0, 0.0);
        } else {
            for over in self.hours.step..hour {
                let plays = self.hours.get(over).unwrap_or(0);
                if let Some(total) = totals.get(over).filter(|total| *total > 0) {
                    let share = f64::from(plays) / f64::from(total);
                    self.share_of_hour += SHARE_OF_HOUR * (share - self.share_of_hour);
                    self.share_of_day += SHARE_OF_DAY * (share - self.share_of_day);
                }
            }
        }
        self.hours.advance(hour);
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.fives.save(out);
        self.hours.save(out);
        put_float(out, self.share_of_hour);
        put_float(out, self.share_of_day);
    }

    fn load(unpack: &mut Unpack<'_>) -> Result<Self, Damaged> {
        let (fives, hours) = (Ring::load(unpack)?, Ring::load(unpack)?);
        Ok(Self { fives, hours, share_of_hour: unpack.float()?, share_of_day: unpack.float()? })
    }
}

/// A region, or all of them.
#[derive(Debug)]
struct Region {
    fives: Ring<FIVES>,
    totals: Totals,
    titles: Bounded<Counts>,
}

/// All plays of a region by the hour.
#[derive(Debug, Clone, Default)]
struct Totals {
    hours: Ring<TOTALS>,
    /// Hours that are over and had plays, ever.
    finished: u64,
}

impl Totals {
    fn advance(&mut self, hour: u64) {
        // What went by meanwhile had none.
        if hour > self.hours.step && self.hours.get(self.hours.step).is_some_and(|plays| plays > 0) {
            self.finished += 1;
        }
        self.hours.advance(hour);
    }

    /// An average that began with nothing, as if it had not.
    fn corrected(&self, average: f64, weight: f64) -> f64 {
        let known = 1.0 - (1.0 - weight).powf(self.finished as f64);
        if known > 0.0 { average / known } else { 0.0 }
    }
}

impl Default for Region {
    fn default() -> Self {
        Self { fives: Ring::default(), totals: Totals::default(), titles: Bounded::new(TITLES_MAX) }
    }
}

impl Region {
    fn play(&mut self, title: &str, plays: u32, weight: f64, now_ms: u64) {
        self.fives.advance(now_ms / FIVE_MS);
        self.totals.advance(now_ms / HOUR_MS);
        self.fives.add(plays);
        self.totals.hours.add(plays);
        let place = self.titles.add(title, weight, |counts| *counts = Counts::default());
        let counts = &mut self.titles.slot_mut(place).expect("it was just added").value;
        counts.advance(now_ms, &self.totals.hours);
        counts.fives.add(plays);
        counts.hours.add(plays);
    }

    fn trends(&self, window: Window, now_ms: u64, limit: usize) -> Vec<Trend> {
        let (five, hour) = (now_ms / FIVE_MS, now_ms / HOUR_MS);
        let mut totals = self.totals.clone();
        totals.advance(hour);
        let all = match window {
            Window::Hour => self.fives.sum(five, FIVES),
            Window::Day => totals.hours.sum(hour, HOURS),
        };
        let each = self.titles.slots().filter_map(|slot| {
            let mut counts = slot.value.clone();
            counts.advance(now_ms, &totals.hours);
            let (plays, share) = match window {
                Window::Hour => (counts.fives.sum(five, FIVES), totals.corrected(counts.share_of_hour, SHARE_OF_HOUR)),
                Window::Day => (counts.hours.sum(hour, HOURS), totals.corrected(counts.share_of_day, SHARE_OF_DAY)),
            };
            let expected = share * all as f64;
            let trend = || Trend { title: slot.key.to_string(), plays, expected, score: score(plays, expected) };
            (plays > 0).then(trend)
        });
        let mut trends: Vec<_> = each.collect();
        trends.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.title.cmp(&b.title)));
        trends.truncate(limit);
        trends
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.fives.save(out);
        self.totals.hours.save(out);
        put(out, self.totals.finished);
        self.titles.save(out, Counts::save);
    }

    fn load(unpack: &mut Unpack<'_>) -> Result<Self, Damaged> {
        let fives = Ring::load(unpack)?;
        let totals = Totals { hours: Ring::load(unpack)?, finished: unpack.number()? };
        let titles = Bounded::load(TITLES_MAX, unpack, Counts::load)?;
        Ok(Self { fives, totals, titles })
    }
}

fn score(plays: u64, expected: f64) -> f64 {
    let plays = plays as f64;
    let rise = (plays - expected.max(BIAS)) / (expected.sqrt() + BIAS);
    (1.0 + plays).log10() + rise.max(0.0)
}

/// The fold.
#[derive(Debug)]
pub(crate) struct Trending {
    all: Region,
    regions: BTreeMap<Box<str>, Region>,
    decay: Decay,
    written_ms: u64,
}

impl Default for Trending {
    fn default() -> Self {
        Self { all: Region::default(), regions: BTreeMap::new(), decay: Decay::new(HALF_LIFE_MS), written_ms: 0 }
    }
}

impl Fold for Trending {
    const NAME: &'static str = "trending";
    const VERSION: u32 = 1;

    fn fold(&mut self, event: &Event<'_>, written_ms: u64) {
        self.written_ms = written_ms;
        if event.kind != Kind::Play || written_ms.saturating_sub(event.at_ms) > LATENESS_MS {
            return;
        }
        if let Some(factor) = self.decay.moved(written_ms) {
            self.all.titles.scale(factor);
            self.regions.values_mut().for_each(|region| region.titles.scale(factor));
        }
        let plays = u32::try_from(event.weight()).unwrap_or(u32::MAX);
        let weight = self.decay.weight(written_ms) * f64::from(plays);
        self.all.play(event.title, plays, weight, written_ms);
        if event.region.is_empty() {
            return;
        }
        if !self.regions.contains_key(event.region) {
            if self.regions.len() >= REGIONS_MAX {
                return;
            }
            self.regions.insert(event.region.into(), Region::default());
        }
        let region = self.regions.get_mut(event.region).expect("it is there by now");
        region.play(event.title, plays, weight, written_ms);
    }

    fn save(&self, out: &mut Vec<u8>) {
        put(out, self.written_ms);
        self.decay.save(out);
        self.all.save(out);
        put(out, self.regions.len() as u64);
        for (name, region) in &self.regions {
            put_text(out, name);
            region.save(out);
        }
    }

    fn load(unpack: &mut Unpack<'_>) -> Result<Self, Damaged> {
        let (written_ms, decay) = (unpack.number()?, Decay::load(HALF_LIFE_MS, unpack)?);
        let all = Region::load(unpack)?;
        let each = (0..unpack.count()?).map(|_| Ok((unpack.text()?.into(), Region::load(unpack)?)));
        let regions = each.collect::<Result<_, Damaged>>()?;
        Ok(Self { all, regions, decay, written_ms })
    }
}

impl Trending {
    /// The titles that are trending in `region`, or everywhere, the first one most. Empty for a region that is not known.
    pub(crate) fn trends(&self, region: Option<&str>, window: Window, now_ms: u64, limit: usize) -> Vec<Trend> {
        let now_ms = now_ms.max(self.written_ms);
        match region {
            None => self.all.trends(window, now_ms, limit),
            Some(name) => self.regions.get(name).map(|region| region.trends(window, now_ms, limit)).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::tests::{NOW_MS, reloaded};

    fn plays(fold: &mut Trending, title: &'static str, region: &'static str, at_ms: u64, times: u32) {
        let event = Event { title, region, ..Event::of(Kind::Play, at_ms) };
        (0..times).for_each(|_| fold.fold(&event, at_ms));
    }

    fn titles(fold: &Trending, region: Option<&str>, window: Window) -> Vec<String> {
        fold.trends(region, window, NOW_MS, 10).into_iter().map(|trend| trend.title).collect()
    }

    /// A week in which three titles are played all the time, more in the evening, and then an hour.
    fn week() -> Trending {
        let mut fold = Trending::default();
        for hours_ago in (1..168).rev() {
            let at_ms = NOW_MS - hours_ago * HOUR_MS;
            let evening = if (at_ms / HOUR_MS) % 24 >= 18 { 4 } else { 1 };
            plays(&mut fold, "giant", "de-by", at_ms, 100 * evening);
            plays(&mut fold, "steady", "de-by", at_ms, 20 * evening);
            plays(&mut fold, "small", "de-by", at_ms, 2 * evening);
        }
        fold
    }

    #[test]
    fn what_rises_stands_above_what_is_always_big() {
        let mut fold = week();
        plays(&mut fold, "giant", "de-by", NOW_MS, 105);
        plays(&mut fold, "steady", "de-by", NOW_MS, 19);
        plays(&mut fold, "small", "de-by", NOW_MS, 30);
        plays(&mut fold, "new", "de-by", NOW_MS, 25);
        plays(&mut fold, "twice", "de-by", NOW_MS, 2);
        let mut fold: Trending = reloaded(&fold);
        for region in [None, Some("de-by")] {
            assert_eq!(titles(&fold, region, Window::Hour), ["new", "small", "giant", "steady", "twice"]);
            assert_eq!(titles(&fold, region, Window::Day)[0], "new");
        }
        assert!(titles(&fold, Some("de-be"), Window::Hour).is_empty());
        let giant = &fold.trends(None, Window::Hour, NOW_MS, 3)[2];
        assert!(giant.plays == 105 && (100.0..160.0).contains(&giant.expected), "{giant:?}");
        // Time alone empties the windows.
        assert!(fold.trends(None, Window::Hour, NOW_MS + HOUR_MS + FIVE_MS, 10).is_empty());
        assert!(!fold.trends(None, Window::Day, NOW_MS + HOUR_MS, 10).is_empty());
        assert!(fold.trends(None, Window::Day, NOW_MS + 25 * HOUR_MS, 10).is_empty());
        fold.fold(&Event { title: "late", ..Event::of(Kind::Play, NOW_MS - 2 * HOUR_MS) }, NOW_MS);
        assert!(!titles(&fold, None, Window::Hour).contains(&"late".into()));
    }

    #[test]
    fn an_evening_in_which_everything_rises_makes_nothing_trend() {
        let mut fold = week();
        for (title, times) in [("giant", 1000), ("steady", 200), ("small", 20)] {
            plays(&mut fold, title, "de-by", NOW_MS, times);
        }
        for trend in fold.trends(None, Window::Hour, NOW_MS, 10) {
            assert!(trend.score < (1.0 + trend.plays as f64).log10() + 0.5, "{trend:?}");
        }
    }

    #[test]
    fn shares_are_the_same_whether_a_title_is_looked_at_every_hour_or_once() {
        let mut totals = Ring::<TOTALS>::default();
        let (mut often, mut once) = (Counts::default(), Counts::default());
        let begin_ms = NOW_MS / HOUR_MS * HOUR_MS;
        for counts in [&mut often, &mut once] {
            counts.advance(begin_ms, &totals);
            counts.hours.add(10);
        }
        for hour in 0..30 {
            totals.advance(begin_ms / HOUR_MS + hour);
            if hour % 3 != 1 {
                totals.add(50);
            }
            often.advance(begin_ms + hour * HOUR_MS, &totals);
        }
        once.advance(begin_ms + 29 * HOUR_MS, &totals);
        assert_eq!(often, once);
        let expected = 0.2 / 24.0 * (23.0_f64 / 24.0).powi(18);
        assert!((once.share_of_hour - expected).abs() < 1e-12, "{} {expected}", once.share_of_hour);
    }

    #[test]
    fn regions_beyond_the_bound_count_for_all_together() {
        let mut fold = Trending::default();
        let names: Vec<String> = (0..REGIONS_MAX + 5).map(|n| format!("r{n}")).collect();
        for region in &names {
            fold.fold(&Event { title: "a", region, ..Event::of(Kind::Play, NOW_MS) }, NOW_MS);
        }
        assert_eq!(fold.regions.len(), REGIONS_MAX);
        assert_eq!(fold.trends(None, Window::Hour, NOW_MS, 1)[0].plays, names.len() as u64);
    }
}
