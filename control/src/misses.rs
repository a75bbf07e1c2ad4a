//! The account of misses, from the viewers' side: for how long, and with how many bytes, sessions were not served by their nearest site, and
//! why: it lacked the title, or it was full or not well.
//!
//! Pure, by title and site, in hours. What a player tells when it asks for its next ranking is what counts: which edge it used, for how long
//! since it asked last, and how fast bytes came. Bytes are therefore an estimate: the time at the mean rate of the best rendition that this
//! speed allows. A session's last minutes, after its last question, are not counted.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use wire::title::{Media, Rendition, TitleId};

use crate::steering::decide::Miss;

/// Hours that are kept, this one included.
pub(crate) const HOURS_MAX: usize = 48;
/// Pairs of title and site that are told apart in an hour; more are counted together.
const CELLS_MAX: usize = 20_000;
/// Milliseconds of an hour.
const HOUR_MS: u64 = 3_600_000;

/// So much time, and so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Amount {
    pub(crate) ms: u64,
    pub(crate) bytes: u64,
}

/// What became of the sessions whose nearest site is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sums {
    /// Decisions at the beginning of a playback, and those of them that sent it elsewhere.
    pub(crate) decisions: u64,
    pub(crate) decisions_missed: [u64; 3],
    /// All that was played.
    pub(crate) served: Amount,
    /// Of this, what another site served, by why.
    pub(crate) missed: [Amount; 3],
}

/// Why a session is elsewhere, as places in [`Sums`].
pub(crate) const KINDS: [(Miss, &str); 3] = [(Miss::Content, "content"), (Miss::Health, "health"), (Miss::Rules, "rules")];

impl Sums {
    pub(crate) fn add(&mut self, other: &Self) {
        self.decisions += other.decisions;
        add(&mut self.served, other.served);
        for kind in 0..KINDS.len() {
            self.decisions_missed[kind] += other.decisions_missed[kind];
            add(&mut self.missed[kind], other.missed[kind]);
        }
    }

    /// Time that another site served, whatever the reason.
    pub(crate) fn missed_ms(&self) -> u64 {
        self.missed.iter().map(|missed| missed.ms).sum()
    }
}

fn add(to: &mut Amount, amount: Amount) {
    to.ms += amount.ms;
    to.bytes += amount.bytes;
}

/// A title and the nearest site of those who watch it; both none where there were too many to tell apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) title: Option<TitleId>,
    pub(crate) site: Option<Arc<str>>,
}

/// The account.
#[derive(Debug, Default)]
pub(crate) struct Misses {
    /// The newest last.
    hours: VecDeque<(u64, HashMap<Cell, Sums>)>,
    /// Since the process started.
    total: Sums,
}

/// What a player did since it asked last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Played<'a> {
    pub(crate) title: &'a TitleId,
    /// Its nearest site, when it asked last.
    pub(crate) home: &'a str,
    /// Why it was elsewhere; none if it was there.
    pub(crate) miss: Option<Miss>,
    pub(crate) amount: Amount,
}

impl Misses {
    /// A playback began, and its nearest site is `home`; `miss` says why it was sent elsewhere, if it was.
    pub(crate) fn decided(&mut self, title: &TitleId, home: &str, miss: Option<Miss>, now_ms: u64) {
        let mut sums = Sums { decisions: 1, ..Sums::default() };
        if let Some(miss) = miss {
            sums.decisions_missed[place(miss)] = 1;
        }
        self.count(title, home, &sums, now_ms);
    }

    /// A player has played something.
    pub(crate) fn played(&mut self, played: &Played<'_>, now_ms: u64) {
        let mut sums = Sums { served: played.amount, ..Sums::default() };
        if let Some(miss) = played.miss {
            sums.missed[place(miss)] = played.amount;
        }
        self.count(played.title, played.home, &sums, now_ms);
    }

    fn count(&mut self, title: &TitleId, site: &str, sums: &Sums, now_ms: u64) {
        let hour = now_ms / HOUR_MS;
        if self.hours.back().is_none_or(|(newest, _)| *newest < hour) {
            self.hours.push_back((hour, HashMap::new()));
            while self.hours.front().is_some_and(|(oldest, _)| oldest + HOURS_MAX as u64 <= hour) {
                self.hours.pop_front();
            }
        }
        let (_, cells) = self.hours.back_mut().expect("there is one now");
        let mut cell = Cell { title: Some(title.clone()), site: Some(site.into()) };
        if cells.len() >= CELLS_MAX && !cells.contains_key(&cell) {
            cell = Cell { title: None, site: None };
        }
        cells.entry(cell).or_default().add(sums);
        self.total.add(sums);
    }

    /// What was counted in the last so many hours, this one included, by cell as `cell_of` has it: the most time that another site
    /// served first.
    pub(crate) fn rows(&self, hours: u64, now_ms: u64, cell_of: impl Fn(&Cell) -> Option<Cell>) -> Vec<(Cell, Sums)> {
        let from = (now_ms / HOUR_MS).saturating_sub(hours.saturating_sub(1));
        let mut rows = BTreeMap::<Cell, Sums>::new();
        for (_, cells) in self.hours.iter().filter(|(hour, _)| *hour >= from) {
            for (cell, sums) in cells {
                if let Some(cell) = cell_of(cell) {
                    rows.entry(cell).or_default().add(sums);
                }
            }
        }
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by_key(|(_, sums)| std::cmp::Reverse(sums.missed_ms()));
        rows
    }

    /// All since the process started.
    pub(crate) fn total(&self) -> &Sums {
        &self.total
    }
}

fn place(miss: Miss) -> usize {
    KINDS.iter().position(|(kind, _)| *kind == miss).expect("every kind is there")
}

/// About how many bytes are played in `ms` by a player that bytes reach at `bits_per_second`, if it told.
pub(crate) fn bytes_played(renditions: &[Rendition], bits_per_second: Option<u64>, ms: u64) -> u64 {
    let is_video = |rendition: &&Rendition| matches!(rendition.media, Media::Video { .. });
    let mut rates: Vec<_> = renditions.iter().filter(is_video).map(|rendition| rendition.bits_per_second_mean).collect();
    rates.sort_unstable();
    let fits = rates.iter().rev().find(|rate| bits_per_second.is_none_or(|speed| **rate <= speed));
    let video = fits.or(rates.first()).copied().unwrap_or(0);
    let audio = renditions.iter().filter(|rendition| !is_video(rendition)).map(|rendition| rendition.bits_per_second_mean);
    (u128::from(video + audio.max().unwrap_or(0)) * u128::from(ms) / 8000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::tests::title;

    fn id(text: &str) -> TitleId {
        text.parse().unwrap()
    }

    fn played<'a>(title: &'a TitleId, home: &'a str, miss: Option<Miss>, ms: u64) -> Played<'a> {
        Played { title, home, miss, amount: Amount { ms, bytes: ms * 100 } }
    }

    #[test]
    fn time_elsewhere_is_counted_by_title_and_site_and_reason() {
        let (film, other) = (id("film"), id("other"));
        let mut misses = Misses::default();
        misses.decided(&film, "berlin", Some(Miss::Content), 0);
        misses.played(&played(&film, "berlin", Some(Miss::Content), 30_000), 0);
        misses.played(&played(&film, "berlin", None, 30_000), 0);
        misses.played(&played(&other, "berlin", Some(Miss::Health), 50_000), 0);
        misses.played(&played(&other, "paris", None, 1), 0);
        let rows = misses.rows(1, 0, |cell| Some(cell.clone()));
        let told: Vec<_> = rows
            .iter()
            .map(|(cell, sums)| (cell.title.as_ref().unwrap().as_str(), cell.site.as_deref().unwrap(), sums.missed_ms()))
            .collect();
        assert_eq!(told, [("other", "berlin", 50_000), ("film", "berlin", 30_000), ("other", "paris", 0)]);
        let (_, film_sums) = rows[1];
        assert_eq!((film_sums.decisions, film_sums.decisions_missed), (1, [1, 0, 0]));
        assert_eq!(
            (film_sums.served, film_sums.missed[0]),
            (Amount { ms: 60_000, bytes: 6_000_000 }, Amount { ms: 30_000, bytes: 3_000_000 })
        );
        let by_site = misses.rows(1, 0, |cell| Some(Cell { title: None, site: cell.site.clone() }));
        let berlin = by_site[0].1;
        assert_eq!((berlin.served.ms, berlin.missed.map(|missed| missed.ms)), (110_000, [30_000, 50_000, 0]));
        assert_eq!(misses.total().served.ms, 110_001);
    }

    #[test]
    fn hours_leave_when_they_are_old() {
        let film = id("film");
        let mut misses = Misses::default();
        for hour in 0..100 {
            misses.played(&played(&film, "berlin", Some(Miss::Health), 1), hour * HOUR_MS);
        }
        assert_eq!(misses.hours.len(), HOURS_MAX);
        let missed = |hours: u64| {
            misses.rows(hours, 99 * HOUR_MS, |cell| Some(cell.clone())).first().map_or(0, |(_, sums)| sums.missed_ms())
        };
        assert_eq!((missed(1), missed(10), missed(1000)), (1, 10, 48));
        assert_eq!(misses.rows(1, 200 * HOUR_MS, |cell| Some(cell.clone())), []);
    }

    #[test]
    fn more_cells_than_may_be_told_apart_are_counted_together() {
        let mut misses = Misses::default();
        for n in 0..CELLS_MAX + 10 {
            misses.played(&played(&id(&format!("t{n}")), "berlin", None, 1), 0);
        }
        let rows = misses.rows(1, 0, |cell| Some(cell.clone()));
        assert_eq!(rows.len(), CELLS_MAX + 1);
        assert_eq!(rows.iter().find(|(cell, _)| cell.title.is_none()).map(|(_, sums)| sums.served.ms), Some(10));
    }

    #[test]
    fn bytes_are_those_of_the_best_rendition_that_the_speed_allows() {
        let renditions = title("demo").renditions;
        // Means: 1.5 Mbit/s, 0.4 Mbit/s, and audio of 64 kbit/s.
        for (speed, bytes) in [(None, 195_500), (Some(2_000_000), 195_500), (Some(1_000_000), 58_000), (Some(1), 58_000)] {
            assert_eq!(bytes_played(&renditions, speed, 1000), bytes, "{speed:?}");
        }
        assert_eq!(bytes_played(&[], None, 1000), 0);
    }
}
