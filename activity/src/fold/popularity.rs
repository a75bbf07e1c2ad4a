//! How much each file was wanted, by region and hour; and how popular each title is on the whole.
//!
//! A *file* is a rendition of a title. What is summed is plays and time played, where a report that stands for others counts for all of them. An
//! hour is open until an hour after its end (the allowed lateness of Akidau et al., "The Dataflow model", VLDB 2015); then it is
//! written to a file of its own and never changes. Events for closed hours are counted as late. The log's own time says what time it is, so
//! a recount comes to the same.
//!
//! Bounds: [`KEYS_MAX`] files × regions in an open hour, [`KEYS_CLOSED_MAX`] of them when it is closed, [`TITLES_MAX`] titles.

use std::collections::{BTreeMap, HashMap};

use wire::title::TitleId;

use super::{
    Fold,
    bounded::Bounded,
    decay::Decay,
    hours::{Hourly, is_open},
};
use crate::{
    event::{Event, Kind},
    pack::{Damaged, Unpack, put, put_text},
    time::{DAY_MS, HOUR_MS},
};

/// Files × regions in an open hour. At about 150 bytes each, 10 MB an hour; two are open.
const KEYS_MAX: usize = 1 << 16;
/// The most wanted that are kept of a closed one.
const KEYS_CLOSED_MAX: usize = 1 << 14;
/// Titles whose popularity is known.
const TITLES_MAX: usize = 1 << 14;
/// Half of a play's worth for a title's popularity is gone after this.
const TITLE_HALF_LIFE_MS: u64 = 7 * DAY_MS;
/// A play without any time played weighs as much as this, when there is no room for all.
const PLAY_MS: f64 = 60_000.0;

/// How much a file was wanted in an hour, in a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHour {
    /// The region; empty where it is not known.
    pub region: String,
    /// The title.
    pub title: String,
    /// The rendition; empty where players did not say.
    pub rendition: String,
    /// How often playback began.
    pub plays: u64,
    /// How long it was played, in milliseconds.
    pub played_ms: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Wanted {
    plays: u64,
    played_ms: u64,
}

/// Region, title and rendition, which a key has with zeroes between them: none of them has one.
fn parts(key: &str) -> [&str; 3] {
    let mut parts = key.split('\0');
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// The fold.
#[derive(Debug)]
pub(crate) struct Popularity {
    open: BTreeMap<u64, Bounded<Wanted>>,
    titles: Bounded<()>,
    decay: Decay,
    written_ms: u64,
    late: u64,
    key: String,
}

impl Default for Popularity {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            titles: Bounded::new(TITLES_MAX),
            decay: Decay::new(TITLE_HALF_LIFE_MS),
            written_ms: 0,
            late: 0,
            key: String::new(),
        }
    }
}

impl Fold for Popularity {
    const NAME: &'static str = "popularity";
    const VERSION: u32 = 1;

    fn fold(&mut self, event: &Event<'_>, written_ms: u64) {
        self.written_ms = written_ms;
        let plays = u64::from(event.kind == Kind::Play) * event.weight();
        let played_ms = event.played_ms.map_or(0, u64::from) * event.weight();
        if event.title.is_empty() || (plays == 0 && played_ms == 0) {
            return;
        }
        if let Some(factor) = self.decay.moved(written_ms) {
            self.titles.scale(factor);
        }
        if plays > 0 {
            self.titles.add(event.title, plays as f64 * self.decay.weight(written_ms), |()| ());
        }
        let hour = event.at_ms / HOUR_MS;
        if !is_open(hour, written_ms) {
            self.late += 1;
            return;
        }
        self.key.clear();
        for part in [event.region, "\0", event.title, "\0", event.rendition] {
            self.key.push_str(part);
        }
        let files = self.open.entry(hour).or_insert_with(|| Bounded::new(KEYS_MAX));
        let weight = plays as f64 * PLAY_MS + played_ms as f64;
        let place = files.add(self.key.as_str(), weight, |wanted| *wanted = Wanted::default());
        let wanted = &mut files.slot_mut(place).expect("it was just added").value;
        wanted.plays += plays;
        wanted.played_ms += played_ms;
    }

    fn save(&self, out: &mut Vec<u8>) {
        put(out, self.written_ms);
        put(out, self.late);
        self.decay.save(out);
        self.titles.save(out, |(), _| ());
        put(out, self.open.len() as u64);
        for (hour, files) in &self.open {
            put(out, *hour);
            files.save(out, |wanted, out| {
                put(out, wanted.plays);
                put(out, wanted.played_ms);
            });
        }
    }

    fn load(unpack: &mut Unpack<'_>) -> Result<Self, Damaged> {
        let (written_ms, late) = (unpack.number()?, unpack.number()?);
        let decay = Decay::load(TITLE_HALF_LIFE_MS, unpack)?;
        let titles = Bounded::load(TITLES_MAX, unpack, |_| Ok(()))?;
        let mut open = BTreeMap::new();
        for _ in 0..unpack.count()? {
            let hour = unpack.number()?;
            let wanted = |unpack: &mut Unpack<'_>| Ok(Wanted { plays: unpack.number()?, played_ms: unpack.number()? });
            open.insert(hour, Bounded::load(KEYS_MAX, unpack, wanted)?);
        }
        Ok(Self { open, titles, decay, written_ms, late, key: String::new() })
    }

    fn late(&self) -> u64 {
        self.late
    }
}

impl Hourly for Popularity {
    type Hour = Vec<FileHour>;

    fn closing(&self) -> Option<u64> {
        self.open.keys().next().copied().filter(|hour| !is_open(*hour, self.written_ms))
    }

    fn save_hour(&self, hour: u64, out: &mut Vec<u8>) {
        let mut files = self.hour(hour).unwrap_or_default();
        files.truncate(KEYS_CLOSED_MAX);
        put(out, files.len() as u64);
        for file in files {
            for text in [&file.region, &file.title, &file.rendition] {
                put_text(out, text);
            }
            put(out, file.plays);
            put(out, file.played_ms);
        }
    }

    fn forget_hour(&mut self, hour: u64) {
        self.open.remove(&hour);
    }

    fn load_hour(unpack: &mut Unpack<'_>) -> Result<Vec<FileHour>, Damaged> {
        let each = (0..unpack.count()?).map(|_| {
            let mut text = || unpack.text().map(str::to_owned);
            let (region, title, rendition) = (text()?, text()?, text()?);
            Ok(FileHour { region, title, rendition, plays: unpack.number()?, played_ms: unpack.number()? })
        });
        each.collect()
    }

    /// The most wanted first.
    fn hour(&self, hour: u64) -> Option<Vec<FileHour>> {
        let mut files: Vec<_> = self.open.get(&hour)?.slots().collect();
        files.sort_by(|a, b| b.sum.total_cmp(&a.sum).then_with(|| a.key.cmp(&b.key)));
        let file = |[region, title, rendition]: [&str; 3], wanted: Wanted| FileHour {
            region: region.into(),
            title: title.into(),
            rendition: rendition.into(),
            plays: wanted.plays,
            played_ms: wanted.played_ms,
        };
        Some(files.into_iter().map(|slot| file(parts(&slot.key), slot.value)).collect())
    }
}

impl Popularity {
    /// Every title's share of all plays of late, in billionths, rounded down.
    pub(crate) fn shares(&self) -> HashMap<TitleId, u32> {
        // What leaves the table leaves its sum there, so this is the sum of all plays.
        let all = self.titles.slots().map(|slot| slot.sum).sum::<f64>().max(f64::MIN_POSITIVE);
        let share = |sum: f64| (sum.max(0.0) / all * 1e9) as u32;
        self.titles.slots().filter_map(|slot| Some((slot.key.parse().ok()?, share(slot.sum - slot.error)))).collect()
    }

    /// Every title's popularity, from 0 to 1: the logarithm of its plays of late over that of the most played title.
    pub(crate) fn scores(&self) -> HashMap<TitleId, f32> {
        let now = self.decay.weight(self.written_ms);
        let score = |sum: f64| (sum / now).ln_1p();
        let most = self.titles.slots().map(|slot| score(slot.sum)).fold(f64::MIN_POSITIVE, f64::max);
        // The sum without what may be of others, so that a stranger's flood of titles lifts none of them.
        let each = self.titles.slots().filter_map(|slot| {
            let id = slot.key.parse().ok()?;
            Some((id, (score((slot.sum - slot.error).max(0.0)) / most) as f32))
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::tests::{NOW_MS, reloaded};

    fn play(title: &'static str, region: &'static str, at_ms: u64) -> Event<'static> {
        Event { title, region, rendition: "v720", ..Event::of(Kind::Play, at_ms) }
    }

    fn beat(title: &'static str, region: &'static str, at_ms: u64, sampled: u8) -> Event<'static> {
        Event { title, region, rendition: "v720", played_ms: Some(10_000), sampled, ..Event::of(Kind::Quality, at_ms) }
    }

    fn row(region: &str, title: &str, plays: u64, played_ms: u64) -> FileHour {
        FileHour { region: region.into(), title: title.into(), rendition: "v720".into(), plays, played_ms }
    }

    #[test]
    fn plays_and_time_are_summed_by_file_region_and_hour() {
        let mut fold = Popularity::default();
        let hour = NOW_MS / HOUR_MS;
        for (event, times) in [
            (play("a", "de-by", NOW_MS), 3),
            (play("a", "de-be", NOW_MS), 1),
            (play("a", "de-by", NOW_MS - HOUR_MS), 1),
            (beat("a", "de-by", NOW_MS, 0), 2),
            // One that stands for four.
            (beat("b", "de-by", NOW_MS, 2), 1),
            (Event { title: "c", ..Event::of(Kind::Impression, NOW_MS) }, 5),
        ] {
            (0..times).for_each(|_| fold.fold(&event, NOW_MS));
        }
        let fold: Popularity = reloaded(&fold);
        let now = fold.hour(hour).unwrap();
        assert_eq!(now, [row("de-by", "a", 3, 20_000), row("de-be", "a", 1, 0), row("de-by", "b", 0, 40_000)]);
        assert_eq!(fold.hour(hour - 1).unwrap(), [row("de-by", "a", 1, 0)]);
        assert_eq!(fold.hour(hour + 1), None);
    }

    #[test]
    fn an_hour_closes_an_hour_after_its_end_and_what_comes_later_is_late() {
        let mut fold = Popularity::default();
        let hour = NOW_MS / HOUR_MS;
        let begin_ms = hour * HOUR_MS;
        fold.fold(&play("a", "", begin_ms), begin_ms);
        fold.fold(&play("a", "", begin_ms), begin_ms + 2 * HOUR_MS - 1);
        assert_eq!((fold.closing(), fold.late()), (None, 0));
        fold.fold(&play("a", "", begin_ms), begin_ms + 2 * HOUR_MS);
        assert_eq!((fold.closing(), fold.late()), (Some(hour), 1));
        let mut bytes = Vec::new();
        fold.save_hour(hour, &mut bytes);
        let expected = [FileHour { plays: 2, ..row("", "a", 0, 0) }];
        assert_eq!(Popularity::load_hour(&mut Unpack::new(&bytes, "an hour")).unwrap(), expected);
        fold.forget_hour(hour);
        assert_eq!((fold.closing(), fold.hour(hour)), (None, None));
    }

    #[test]
    fn scores_are_from_nought_to_one_and_fade() {
        let mut fold = Popularity::default();
        let then_ms = NOW_MS - 28 * DAY_MS;
        (0..1000).for_each(|_| fold.fold(&play("old", "", then_ms), then_ms));
        (0..1000).for_each(|_| fold.fold(&play("new", "", NOW_MS), NOW_MS));
        (0..10).for_each(|_| fold.fold(&play("small", "", NOW_MS), NOW_MS));
        let scores = fold.scores();
        let score = |id: &str| scores[&id.parse::<TitleId>().unwrap()];
        assert_eq!(score("new"), 1.0);
        assert!((0.3..0.4).contains(&score("small")), "{}", score("small"));
        // Four half-lives: as 62 plays of today.
        assert!((0.55..0.65).contains(&score("old")), "{}", score("old"));
        let shares = fold.shares();
        let share = |id: &str| f64::from(shares[&id.parse::<TitleId>().unwrap()]) / 1e9;
        for (id, plays) in [("new", 1000.0), ("old", 62.5), ("small", 10.0)] {
            assert!((share(id) - plays / 1072.5).abs() < 1e-6, "{id}: {}", share(id));
        }
        let none = Popularity::default();
        assert!(none.scores().is_empty() && none.shares().is_empty());
    }
}
