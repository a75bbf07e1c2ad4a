//! Who watched what, and what is watched by the same people.
//!
//! A *view*: a user played two minutes of a title, or liked it. Views of one user make pairs, once each: when he views a title, it is paired with
//! those of his latest sixteen that he viewed in the last ninety days. From the decayed counts of views c(i) and pairs c(i,j):
//!
//! ```text
//! likeness(i, j) = c(i,j) / √(c(i) · c(j)) · n / (n + λ)        n = c(i,j) as of now
//! ```
//!
//! The cosine between items is Amazon's (Linden, Smith and York, "Amazon.com recommendations: item-to-item collaborative filtering", IEEE
//! Internet Computing 2003) and Deshpande and Karypis' (ACM TOIS 2004); it keeps what everybody watches from being like everything. The
//! last factor shrinks what few pairs say (Koren, "Factorization meets the neighborhood", KDD 2008). Decay is forward decay, so nothing is
//! ever recomputed: a view changes at most sixteen pairs. What a user dislikes makes no pairs.
//!
//! Bounds: [`TITLES_MAX`] titles of [`NEIGHBOURS_MAX`] neighbours, 16 bytes each: 17 MB; users as configured, at most 260 bytes each.

use std::{collections::HashMap, mem};

use wire::title::TitleId;

use super::{Fold, bounded::Bounded, decay::Decay};
use crate::{
    event::{Event, Kind, User},
    pack::{Damaged, Unpack, put, put_float},
    time::DAY_MS,
};

/// Titles that may be recommended. A power of two: places and their lives share 32 bits.
const TITLES_MAX: usize = 1 << PLACE_BITS;
const PLACE_BITS: u32 = 14;
/// Neighbours of a title.
const NEIGHBOURS_MAX: usize = 64;
/// Titles of a user.
const VIEWS_MAX: usize = 16;
/// A title is viewed when so much of it was played.
const VIEW_MS: u32 = 120_000;
/// Two views that are further apart make no pair.
const TOGETHER_MS: u64 = 90 * DAY_MS;
/// Half of what a view or a pair weighs is gone after this.
const HALF_LIFE_MS: u64 = 30 * DAY_MS;
/// λ: so many pairs are believed half.
const SHRINKAGE: f64 = 5.0;
const MINUTE_MS: u64 = 60_000;

/// A title by its place in the table, and in which of the place's lives: after 2¹⁸ titles had the same place, an old one might be taken for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ref(u32);

impl Ref {
    const fn new(place: usize, life: u32) -> Self {
        Self(place as u32 | life << PLACE_BITS)
    }

    const fn place(self) -> usize {
        self.0 as usize & (TITLES_MAX - 1)
    }
}

#[derive(Debug, Default)]
struct Title {
    life: u32,
    views: f64,
    neighbours: Vec<Neighbour>,
}

#[derive(Debug, Clone, Copy)]
struct Neighbour {
    title: Ref,
    pairs: f32,
    /// How much of it may be of neighbours that were here before.
    error: f32,
}

impl Title {
    /// Space-Saving again, in a list that is short enough to be gone through.
    fn pair(&mut self, title: Ref, weight: f32) {
        if let Some(known) = self.neighbours.iter_mut().find(|known| known.title == title) {
            known.pairs += weight;
        } else if self.neighbours.len() < NEIGHBOURS_MAX {
            self.neighbours.push(Neighbour { title, pairs: weight, error: 0.0 });
        } else {
            let least = self.neighbours.iter_mut().min_by(|a, b| a.pairs.total_cmp(&b.pairs)).expect("the list is full");
            *least = Neighbour { title, pairs: least.pairs + weight, error: least.pairs };
        }
    }
}

/// A title in a user's list.
#[derive(Debug, Clone, Copy, PartialEq)]
struct View {
    title: Ref,
    at_minute: u32,
    played_ms: u32,
    disliked: bool,
    /// Whether it was counted.
    viewed: bool,
}

type Views = Vec<View>;

/// Users, the latest ones: when as many were active as may be known, those who were not active meanwhile are forgotten.
#[derive(Debug)]
struct Users {
    young: HashMap<User, Views>,
    old: HashMap<User, Views>,
    young_max: usize,
}

impl Users {
    fn new(max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_max: (max / 2).max(1) }
    }

    fn of(&mut self, user: User) -> &mut Views {
        if !self.young.contains_key(&user) {
            if self.young.len() >= self.young_max {
                self.old = mem::take(&mut self.young);
            }
            let views = self.old.remove(&user).unwrap_or_default();
            self.young.insert(user, views);
        }
        self.young.get_mut(&user).expect("it is there by now")
    }

    fn look(&self, user: User) -> &[View] {
        self.young.get(&user).or_else(|| self.old.get(&user)).map_or(&[], |views| views)
    }

    fn forget(&mut self, user: User) {
        self.young.remove(&user);
        self.old.remove(&user);
    }
}

/// The fold.
#[derive(Debug)]
pub(crate) struct Together {
    titles: Bounded<Title>,
    users: Users,
    decay: Decay,
    written_ms: u64,
}

impl Default for Together {
    fn default() -> Self {
        Self::new(200_000)
    }
}

impl Fold for Together {
    const NAME: &'static str = "together";
    const VERSION: u32 = 1;

    fn fold(&mut self, event: &Event<'_>, written_ms: u64) {
        self.written_ms = written_ms;
        let Some(user) = event.user else { return };
        if event.kind == Kind::Forget {
            self.users.forget(user);
            return;
        }
        let played_ms = event.played_ms.unwrap_or(0).saturating_mul(event.weight() as u32);
        if event.title.is_empty() || (played_ms == 0 && !matches!(event.kind, Kind::Like | Kind::Dislike)) {
            return;
        }
        if let Some(factor) = self.decay.moved(written_ms) {
            self.titles.scale(factor);
            for title in self.titles.values_mut() {
                title.views *= factor;
                title.neighbours.iter_mut().for_each(|known| {
                    known.pairs *= factor as f32;
                    known.error *= factor as f32;
                });
            }
        }
        // A title is worth its place by the time that it is played, so that one look at each of many pushes no other out.
        let worth = self.decay.weight(written_ms) * f64::from(played_ms.max(1)) / f64::from(VIEW_MS);
        let place = self.titles.add(event.title, worth, |title| {
            *title = Title { life: (title.life + 1) & (u32::MAX >> PLACE_BITS), ..Title::default() };
        });
        let life = self.titles.slot(place).map_or(0, |slot| slot.value.life);
        let title = Ref::new(place, life);
        let views = self.users.of(user);
        let at = match views.iter().position(|view| view.title == title) {
            Some(at) => at,
            None => {
                if views.len() == VIEWS_MAX {
                    let oldest = views.iter().enumerate().min_by_key(|(_, view)| view.at_minute).map_or(0, |(at, _)| at);
                    views.remove(oldest);
                }
                views.push(View { title, at_minute: 0, played_ms: 0, disliked: false, viewed: false });
                views.len() - 1
            }
        };
        let view = &mut views[at];
        view.at_minute = view.at_minute.max(u32::try_from(event.at_ms / MINUTE_MS).unwrap_or(u32::MAX));
        view.played_ms = view.played_ms.saturating_add(played_ms);
        match event.kind {
            Kind::Dislike => view.disliked = true,
            Kind::Like => view.disliked = false,
            _ => {}
        }
        let is_view = !view.viewed && !view.disliked && (view.played_ms >= VIEW_MS || event.kind == Kind::Like);
        if is_view {
            view.viewed = true;
            let view = *view;
            let others = views.iter().filter(|other| {
                let apart_ms = u64::from(other.at_minute.abs_diff(view.at_minute)) * MINUTE_MS;
                other.viewed && !other.disliked && other.title != title && apart_ms <= TOGETHER_MS
            });
            let others: Vec<_> = others.map(|other| other.title).collect();
            self.titles_viewed(title, &others);
        }
    }

    fn save(&self, out: &mut Vec<u8>) {
        put(out, self.written_ms);
        self.decay.save(out);
        self.titles.save(out, |title, out| {
            put(out, u64::from(title.life));
            put_float(out, title.views);
            put(out, title.neighbours.len() as u64);
            for known in &title.neighbours {
                put(out, u64::from(known.title.0));
                out.extend(known.pairs.to_le_bytes());
                out.extend(known.error.to_le_bytes());
            }
        });
        put(out, self.users.young_max as u64);
        for users in [&self.users.young, &self.users.old] {
            let mut users: Vec<_> = users.iter().collect();
            users.sort_by_key(|(user, _)| **user);
            put(out, users.len() as u64);
            for (user, views) in users {
                out.extend(user.0);
                put(out, views.len() as u64);
                for view in views {
                    put(out, u64::from(view.title.0));
                    put(out, u64::from(view.at_minute));
                    put(out, u64::from(view.played_ms));
                    out.push(u8::from(view.disliked) | u8::from(view.viewed) << 1);
                }
            }
        }
    }

    fn load(unpack: &mut Unpack<'_>) -> Result<Self, Damaged> {
        let (written_ms, decay) = (unpack.number()?, Decay::load(HALF_LIFE_MS, unpack)?);
        let float = |unpack: &mut Unpack<'_>| unpack.array().map(f32::from_le_bytes);
        let neighbour =
            |unpack: &mut Unpack<'_>| Ok(Neighbour { title: Ref(unpack.small()?), pairs: float(unpack)?, error: float(unpack)? });
        let title = |unpack: &mut Unpack<'_>| {
            let (life, views, count) = (unpack.small()?, unpack.float()?, unpack.count()?);
            Ok(Title { life, views, neighbours: (0..count).map(|_| neighbour(unpack)).collect::<Result<_, _>>()? })
        };
        let titles = Bounded::load(TITLES_MAX, unpack, title)?;
        let view = |unpack: &mut Unpack<'_>| {
            let (title, at_minute, played_ms) = (Ref(unpack.small()?), unpack.small()?, unpack.small()?);
            let flags = unpack.byte()?;
            Ok(View { title, at_minute, played_ms, disliked: flags & 1 == 1, viewed: flags & 2 == 2 })
        };
        let users = |unpack: &mut Unpack<'_>| -> Result<HashMap<User, Views>, Damaged> {
            let each = (0..unpack.count()?).map(|_| {
                let user = User(unpack.array()?);
                let views = (0..unpack.count()?).map(|_| view(unpack)).collect::<Result<Views, Damaged>>()?;
                if views.len() > VIEWS_MAX { Err(unpack.damaged()) } else { Ok((user, views)) }
            });
            each.collect()
        };
        let young_max = unpack.small()?;
        let users = Users { young: users(unpack)?, old: users(unpack)?, young_max };
        Ok(Self { titles, users, decay, written_ms })
    }
}

impl Together {
    /// Knows the titles of at most `users_max` users.
    pub(crate) fn new(users_max: usize) -> Self {
        Self { titles: Bounded::new(TITLES_MAX), users: Users::new(users_max), decay: Decay::new(HALF_LIFE_MS), written_ms: 0 }
    }

    /// From now on for so many users.
    pub(crate) fn set_users_max(&mut self, users_max: usize) {
        self.users.young_max = (users_max / 2).max(1);
    }

    fn titles_viewed(&mut self, title: Ref, others: &[Ref]) {
        let weight = self.decay.weight(self.written_ms);
        let alive: Vec<Ref> = others.iter().copied().filter(|other| self.is_alive(*other)).collect();
        if let Some(slot) = self.titles.slot_mut(title.place()) {
            slot.value.views += weight;
            alive.iter().for_each(|other| slot.value.pair(*other, weight as f32));
        }
        for other in alive {
            if let Some(slot) = self.titles.slot_mut(other.place()) {
                slot.value.pair(title, weight as f32);
            }
        }
    }

    /// Whether its place is still its own.
    fn is_alive(&self, title: Ref) -> bool {
        let slot = self.titles.slot(title.place());
        slot.is_some_and(|slot| Ref::new(title.place(), slot.value.life) == title)
    }

    /// Titles that are watched by those who watch `title`, the most alike first, with their likeness.
    pub(crate) fn like(&self, title: &str, limit: usize) -> Vec<(TitleId, f32)> {
        let Some(slot) = self.titles.place(title).and_then(|place| self.titles.slot(place)) else { return Vec::new() };
        let now = self.decay.weight(self.written_ms);
        let likeness = |known: &Neighbour| {
            let other = self.titles.slot(known.title.place()).filter(|_| self.is_alive(known.title))?;
            let pairs = f64::from((known.pairs - known.error).max(0.0));
            let cosine = pairs / (slot.value.views * other.value.views).sqrt();
            let believed = pairs / now / (pairs / now + SHRINKAGE);
            let likeness = cosine.min(1.0) * believed;
            (likeness > 0.0).then(|| Some((other.key.parse().ok()?, likeness as f32)))?
        };
        let mut alike: Vec<(TitleId, f32)> = slot.value.neighbours.iter().filter_map(likeness).collect();
        alike.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        alike.truncate(limit);
        alike
    }

    /// What a user viewed and did not dislike, the latest first.
    pub(crate) fn views(&self, user: User) -> Vec<TitleId> {
        let mut views: Vec<_> = self.users.look(user).iter().filter(|view| view.viewed && !view.disliked).collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.at_minute));
        self.titles_of(views.into_iter())
    }

    /// All that a user's list has, disliked or hardly begun: what need not be recommended to him.
    pub(crate) fn known_to(&self, user: User) -> Vec<TitleId> {
        self.titles_of(self.users.look(user).iter())
    }

    fn titles_of<'a>(&self, views: impl Iterator<Item = &'a View>) -> Vec<TitleId> {
        let slot = |view: &View| self.titles.slot(view.title.place()).filter(|_| self.is_alive(view.title));
        views.filter_map(|view| slot(view)?.key.parse().ok()).collect()
    }

    /// How many users are known.
    pub(crate) fn users(&self) -> usize {
        self.users.young.len() + self.users.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::tests::{NOW_MS, reloaded};

    fn user(n: u32) -> User {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        User(bytes)
    }

    fn played(fold: &mut Together, who: u32, title: &str, at_ms: u64, played_ms: u32) {
        let event = Event { user: Some(user(who)), title, played_ms: Some(played_ms), ..Event::of(Kind::Quality, at_ms) };
        fold.fold(&event, at_ms);
    }

    fn views(fold: &mut Together, who: u32, titles: &[&str], at_ms: u64) {
        titles.iter().for_each(|title| played(fold, who, title, at_ms, VIEW_MS));
    }

    fn alike(fold: &Together, title: &str) -> Vec<String> {
        fold.like(title, 10).into_iter().map(|(id, _)| id.to_string()).collect()
    }

    fn names(titles: Vec<TitleId>) -> Vec<String> {
        titles.into_iter().map(|id| id.to_string()).collect()
    }

    #[test]
    fn what_the_same_people_watch_is_alike_and_what_all_watch_is_not() {
        let mut fold = Together::default();
        // Everybody watches the giant; two tastes besides.
        for who in 0..200 {
            let taste: &[&str] = if who % 2 == 0 { &["space-one", "space-two"] } else { &["love-one", "love-two"] };
            views(&mut fold, who, &["giant"], NOW_MS);
            if who < 40 {
                views(&mut fold, who, taste, NOW_MS);
            }
        }
        let fold: Together = reloaded(&fold);
        assert_eq!(alike(&fold, "space-one"), ["space-two", "giant"]);
        assert_eq!(alike(&fold, "love-two"), ["love-one", "giant"]);
        let likeness = |title: &str| fold.like(title, 1)[0].1;
        // 20 pairs of 20 and 20 views, shrunk by 20 / 25.
        assert!((likeness("space-one") - 0.8).abs() < 1e-6, "{}", likeness("space-one"));
        assert!(alike(&fold, "unknown").is_empty());
        assert_eq!(fold.users(), 200);
    }

    #[test]
    fn a_view_is_two_minutes_in_all_or_a_like_and_counts_once() {
        let mut fold = Together::default();
        views(&mut fold, 1, &["a"], NOW_MS);
        played(&mut fold, 1, "b", NOW_MS + MINUTE_MS, VIEW_MS - 1);
        assert_eq!((names(fold.views(user(1))), names(fold.known_to(user(1)))), (vec!["a".into()], vec!["a".into(), "b".into()]));
        for _ in 0..5 {
            played(&mut fold, 1, "b", NOW_MS + MINUTE_MS, 1000);
        }
        assert_eq!(names(fold.views(user(1))), ["b", "a"]);
        let pairs = |fold: &Together| fold.titles.slot(0).unwrap().value.neighbours[0].pairs / fold.decay.weight(NOW_MS) as f32;
        assert!((pairs(&fold) - 1.0).abs() < 1e-3, "one pair");
        let said = |fold: &mut Together, kind, title| {
            fold.fold(&Event { user: Some(user(1)), title, ..Event::of(kind, NOW_MS) }, NOW_MS);
        };
        said(&mut fold, Kind::Like, "c");
        assert_eq!(alike(&fold, "c"), ["a", "b"]);
        said(&mut fold, Kind::Dislike, "a");
        assert_eq!(names(fold.views(user(1))), ["b", "c"]);
        said(&mut fold, Kind::Like, "d");
        assert!(["b", "c"].iter().all(|title| alike(&fold, "d").contains(&(*title).into())));
        assert_eq!(alike(&fold, "d").len(), 2, "what is disliked makes no pairs");
        said(&mut fold, Kind::Forget, "");
        assert!(fold.known_to(user(1)).is_empty() && fold.users() == 0);
    }

    #[test]
    fn views_that_are_long_apart_make_no_pair_and_old_pairs_fade() {
        let mut fold = Together::default();
        let then_ms = NOW_MS - 120 * DAY_MS;
        for who in 0..20 {
            views(&mut fold, who, &["a", "b"], then_ms);
        }
        for who in 0..20 {
            views(&mut fold, who, &["c"], NOW_MS);
            views(&mut fold, 100 + who, &["a", "d"], NOW_MS);
        }
        assert!(alike(&fold, "c").is_empty());
        assert_eq!(alike(&fold, "a"), ["d", "b"]);
        let likeness: Vec<f32> = fold.like("a", 2).into_iter().map(|(_, likeness)| likeness).collect();
        assert!(likeness[0] > 0.7 && likeness[1] < 0.1, "{likeness:?}");
    }

    #[test]
    fn a_flood_of_titles_and_users_leaves_those_that_matter() {
        let mut fold = Together::new(1000);
        for who in 0..50 {
            views(&mut fold, who, &["space-one", "space-two"], NOW_MS);
        }
        for n in 0..40_000 {
            let title = format!("junk-{n}");
            played(&mut fold, 1_000_000 + n, &title, NOW_MS, 1);
            if n % 400 == 0 {
                (0..50).for_each(|who| played(&mut fold, who, "space-one", NOW_MS, 1));
            }
        }
        assert_eq!(fold.titles.len(), TITLES_MAX);
        assert!(fold.users() <= 1000);
        assert_eq!(alike(&fold, "space-one"), ["space-two"]);
        assert_eq!(names(fold.views(user(7))), ["space-one", "space-two"]);
        let fold: Together = reloaded(&fold);
        assert_eq!(alike(&fold, "space-one"), ["space-two"]);
    }

    #[test]
    fn a_list_keeps_the_latest_titles_and_the_best_neighbours() {
        let mut fold = Together::default();
        let titles: Vec<String> = (0..100).map(|n| format!("t{n}")).collect();
        for (n, title) in titles.iter().enumerate() {
            played(&mut fold, 1, title, NOW_MS + n as u64 * MINUTE_MS, VIEW_MS);
        }
        let known = names(fold.known_to(user(1)));
        assert_eq!(known, titles[84..]);
        for who in 0..10 {
            views(&mut fold, 10 + who, &["hub", "best"], NOW_MS);
        }
        for (n, title) in titles.iter().enumerate() {
            views(&mut fold, 1000 + n as u32, &["hub", title], NOW_MS);
        }
        assert_eq!(alike(&fold, "hub")[0], "best");
        let place = fold.titles.place("hub").unwrap();
        assert_eq!(fold.titles.slot(place).unwrap().value.neighbours.len(), NEIGHBOURS_MAX);
    }
}
