//! The first level: in what order sites stand to a client. The longest announced prefix, then the nearest, then the cheapest, then one
//! site for each title. Pure.
//!
//! There are thousands of sites and an answer needs a few of them, so they are not sorted: distances are taken only when the sites that announce
//! the client's network are through, and then one band after the other is brought into order as somebody asks for it.

use std::{cmp::Reverse, collections::BinaryHeap};

use ipnet::IpNet;
use wire::placement::Draw;

use super::{
    decide::Question,
    fleet::{Site, Snapshot},
    geo::{HalfChord, OnSphere},
};

/// Sites whose distances differ by less are equally near, in kilometres. Measured straight through the globe, which orders
/// sites as the great circle does.
const BAND_KM: f32 = 100.0;
/// The radius of the globe in such bands.
const BANDS_OF_RADIUS: f32 = 6371.0 / BAND_KM;
/// Where a site stands that is nowhere: further than any place of the globe from any other.
const NOWHERE: f32 = 1e9;
/// The farness of a site whose distance is not known, and of one that is not in question or not any more.
const UNKNOWN: i32 = i32::MAX - 1;
/// More than the square of the globe's diameter, which is 4.
const FURTHEST: i32 = 4.5_f32.to_bits() as i32;
const TAKEN: i32 = i32::MAX;

/// A site, as it stands to the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Near {
    pub(super) site: usize,
    /// The longest of its prefixes with the client in it.
    pub(super) prefix: Option<IpNet>,
    pub(super) half_chord: Option<HalfChord>,
}

/// What of all sites decides their order, laid out so that all of them are gone through in one sweep.
#[derive(Debug, Default)]
pub(super) struct Points {
    on_sphere: Vec<Option<OnSphere>>,
    /// The same, rounded to half a kilometre.
    xs: Vec<f32>,
    ys: Vec<f32>,
    zs: Vec<f32>,
    costs: Vec<u32>,
    /// Sites that serve clients of their own prefixes alone.
    closed: Vec<usize>,
}

impl Points {
    /// The next site.
    pub(super) fn push(&mut self, site: &Site) {
        let on_sphere = site.place.map(OnSphere::from);
        let [x, y, z] = on_sphere.map_or([NOWHERE; 3], |point| point.get().map(|coordinate| coordinate as f32));
        if !site.open {
            self.closed.push(self.xs.len());
        }
        self.on_sphere.push(on_sphere);
        self.xs.push(x);
        self.ys.push(y);
        self.zs.push(z);
        self.costs.push(site.cost);
    }

    /// How far a site is from the client.
    pub(super) fn half_chord(&self, site: usize, client: Option<OnSphere>) -> Option<HalfChord> {
        client.zip(self.on_sphere[site]).map(|(client, site)| client.half_chord(site))
    }

    /// A number for each site that is less for a nearer one: the bits of the square of its distance, in radii of the globe. Floating-point
    /// numbers that are not negative stand in the order of their bits (IEEE 754 §3.4).
    fn farness(&self, client: Option<OnSphere>) -> Vec<i32> {
        let Some(client) = client else {
            return vec![UNKNOWN; self.xs.len()];
        };
        let [x, y, z] = client.get().map(|coordinate| coordinate as f32);
        let square = |a: f32, b: f32| (a - b) * (a - b);
        let points = self.xs.iter().zip(&self.ys).zip(&self.zs);
        points.map(|((px, py), pz)| (square(*px, x) + square(*py, y) + square(*pz, z)).to_bits() as i32).collect()
    }
}

/// The greatest farness of the band that this one is in. All that is further than the globe is wide is one.
fn end_of_band(farness: i32) -> i32 {
    if farness > FURTHEST {
        return UNKNOWN;
    }
    let distance = f32::from_bits(farness as u32).sqrt();
    let end = ((distance * BANDS_OF_RADIUS).floor() + 1.0) / BANDS_OF_RADIUS;
    // The next band begins at its end.
    ((end * end).to_bits() as i32 - 1).max(farness)
}

/// Stands where it is said that one site is before another: the prefix's length, band, cost, draw.
type Order = (Reverse<u8>, i32, u32, Draw);

/// The sites that serve a client, in order.
pub(super) struct Sites<'a> {
    snapshot: &'a Snapshot,
    question: &'a Question<'a>,
    client: Option<OnSphere>,
    /// Those that announce the client's network, the first one last.
    announcing: Vec<(Order, Near)>,
    /// They, also when they are through.
    announced: Vec<usize>,
    /// Of all others; none until it is needed.
    farness: Option<Vec<i32>>,
    /// Others of the nearest band.
    band: BinaryHeap<Reverse<(u32, Draw, usize)>>,
}

impl<'a> Sites<'a> {
    pub(super) fn of(question: &'a Question<'a>, snapshot: &'a Snapshot) -> Self {
        let client = question.place.map(OnSphere::from);
        let mut announcing: Vec<(Order, Near)> = Vec::with_capacity(question.announced.len());
        for announced in question.announced {
            let Some(site) = snapshot.site(announced.site) else { continue };
            let bits = Reverse(announced.prefix.prefix_len());
            if let Some((order, near)) = announcing.iter_mut().find(|(_, near)| near.site == site) {
                if bits < order.0 {
                    (order.0, near.prefix) = (bits, Some(announced.prefix));
                }
                continue;
            }
            let half_chord = snapshot.points.half_chord(site, client);
            let band = half_chord.map_or(i32::MAX, |half_chord| (2.0 * half_chord.get() as f32 * BANDS_OF_RADIUS) as i32);
            let order = (bits, band, snapshot.points.costs[site], snapshot.site_draw(site, question.title));
            announcing.push((order, Near { site, prefix: Some(announced.prefix), half_chord }));
        }
        announcing.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        let announced = announcing.iter().map(|(_, near)| near.site).collect();
        Self { snapshot, question, client, announcing, announced, farness: None, band: BinaryHeap::new() }
    }

    fn measure(&self) -> Vec<i32> {
        let mut farness = self.snapshot.points.farness(self.client);
        self.announced.iter().chain(&self.snapshot.points.closed).for_each(|site| farness[*site] = TAKEN);
        farness
    }

    /// The next of those that do not announce the client's network.
    fn next_other(&mut self) -> Option<usize> {
        if let Some(Reverse((_, _, site))) = self.band.pop() {
            return Some(site);
        }
        let mut farness = self.farness.take().unwrap_or_else(|| self.measure());
        let least = farness.iter().copied().min().unwrap_or(TAKEN);
        if least == TAKEN {
            // Kept, so that who asks again does not begin anew.
            self.farness = Some(farness);
            return None;
        }
        let end = end_of_band(least);
        let mut band = farness.iter_mut().enumerate().filter(|(_, farness)| **farness <= end).map(|(site, farness)| {
            *farness = TAKEN;
            site
        });
        // Most sites are alone in their band, and need no draw.
        let (first, second) = (band.next(), band.next());
        let next = match (first, second) {
            (Some(first), Some(second)) => {
                let Self { snapshot, question, .. } = self;
                let ordered = |site| Reverse((snapshot.points.costs[site], snapshot.site_draw(site, question.title), site));
                self.band = [first, second].into_iter().chain(band).map(ordered).collect();
                self.band.pop().map(|Reverse((_, _, site))| site)
            }
            (first, _) => first,
        };
        self.farness = Some(farness);
        next
    }

    /// The sites that serve only clients of their own prefixes, and this one is not in any.
    pub(super) fn closed(&self) -> impl Iterator<Item = usize> {
        self.snapshot.points.closed.iter().copied().filter(|site| !self.announced.contains(site))
    }
}

impl Iterator for Sites<'_> {
    type Item = Near;

    fn next(&mut self) -> Option<Near> {
        if let Some((_, near)) = self.announcing.pop() {
            return Some(near);
        }
        let site = self.next_other()?;
        Some(Near { site, prefix: None, half_chord: self.snapshot.points.half_chord(site, self.client) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};
    use wire::placement::{Key, Popularity, Weights};

    use super::*;
    use crate::steering::{
        decide::Announced,
        fleet::{Edge, State},
        geo::Coordinates,
    };

    fn some_place() -> impl Strategy<Value = Option<Coordinates>> {
        proptest::option::weighted(
            0.8,
            (-90.0..90.0, -180.0..180.0).prop_map(|(north, east)| Coordinates::new(north, east).unwrap()),
        )
    }

    fn fleet(sites: &[(Option<Coordinates>, u32, bool)]) -> Snapshot {
        let name = |n: usize| format!("s{n:03}");
        let described = sites.iter().enumerate().map(|(n, (place, cost, open))| Site {
            place: *place,
            cost: *cost,
            open: *open,
            ..Site::named(name(n))
        });
        let edges = (0..sites.len()).map(|n| Edge {
            id: name(n).into(),
            site: name(n).into(),
            state: State::Ready,
            reported: None,
            load_permille: 0,
            weights: Weights { throughput: 1, storage: 1 },
        });
        Snapshot::new(described, edges).unwrap()
    }

    proptest! {
        #[test]
        fn every_site_that_serves_the_client_comes_once_and_a_nearer_one_before_one_that_is_a_band_further(
            sites in vec((some_place(), 0..3_u32, prop::bool::weighted(0.8)), 0..60),
            client in some_place(),
            announcing in vec((0..60_usize, 1..=32_u8), 0..5),
        ) {
            let snapshot = fleet(&sites);
            let names: Vec<_> = announcing.iter().map(|(site, bits)| (format!("s{site:03}"), *bits)).collect();
            let prefix = |bits| IpNet::new("192.0.2.1".parse().unwrap(), bits).unwrap();
            let announced: Vec<_> = names.iter().map(|(site, bits)| Announced { site, prefix: prefix(*bits) }).collect();
            let title = Key::of(b"title");
            let question = Question { announced: &announced, place: client, title, popularity: Popularity::NONE, session: title };
            let mut all = Sites::of(&question, &snapshot);
            let order: Vec<Near> = all.by_ref().collect();
            prop_assert!(all.next().is_none(), "who is through is through");

            let bits_of = |site: usize| announcing.iter().filter(|(of, _)| *of == site).map(|(_, bits)| *bits).max();
            let expected: BTreeSet<_> = (0..sites.len()).filter(|site| sites[*site].2 || bits_of(*site).is_some()).collect();
            prop_assert_eq!(order.len(), expected.len());
            prop_assert_eq!(order.iter().map(|near| near.site).collect::<BTreeSet<_>>(), expected);
            let closed: BTreeSet<_> = Sites::of(&question, &snapshot).closed().collect();
            prop_assert!(closed.iter().all(|site| !sites[*site].2 && bits_of(*site).is_none()));
            prop_assert_eq!(closed.len() + order.len(), sites.len());

            for (a, b) in order.iter().zip(order.iter().skip(1)) {
                prop_assert_eq!(a.prefix.map(|prefix| prefix.prefix_len()), bits_of(a.site));
                let by_prefix = bits_of(b.site).cmp(&bits_of(a.site));
                prop_assert!(by_prefix.is_le(), "the longer prefix comes first");
                if by_prefix.is_lt() {
                    continue;
                }
                let far = |near: &Near| near.half_chord.map_or(f64::INFINITY, |half_chord| half_chord.get() * 12_742.0);
                prop_assert!(far(a) <= far(b) + 101.0, "{} km before {} km", far(a), far(b));
                // Where distances are the same, cost decides, and then the draw.
                if far(a) == far(b) || (far(a).is_infinite() && far(b).is_infinite()) {
                    let rest = |near: &Near| (sites[near.site].1, snapshot.site_draw(near.site, title));
                    prop_assert!(rest(a) < rest(b));
                }
            }
        }
    }
}
