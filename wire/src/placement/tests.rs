use std::collections::HashMap;

use consistent_hash::{DefaultHash, Node, StaticHashRing};
use hrw_hash::{HrwNode, HrwNodes};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

const NO_TAIL: Line = Line { popularity: Popularity(1000), tail: Popularity::NONE };
/// Of the tail and of the head, by [`NO_TAIL`].
const TAIL: Popularity = Popularity(999);
const HEAD: Popularity = Popularity(1000);

fn weights(throughput: u32, storage: u32) -> Weights {
    Weights { throughput, storage }
}

fn roster<'a>(line: Line, edges: impl IntoIterator<Item = (&'a str, Weights)>) -> Roster {
    Roster::new(line, edges).unwrap()
}

fn even(count: usize) -> Vec<(String, Weights)> {
    (0..count).map(|n| (format!("edge-{n}"), weights(1, 1))).collect()
}

fn named(edges: &[(String, Weights)]) -> Roster {
    roster(NO_TAIL, edges.iter().map(|(id, weights)| (id.as_str(), *weights)))
}

fn key(n: u32) -> Key {
    Key::of(format!("/titles/{n}").as_bytes())
}

/// Keys, rankings and weights as docs/placement.md has them; made by an implementation of its own in another language.
#[test]
fn the_test_vectors_of_the_protocol_hold() {
    let edges = [
        ("edge-1", weights(100_000, 20_000)),
        ("edge-2", weights(100_000, 20_000)),
        ("edge-3", weights(40_000, 60_000)),
        ("edge-4", weights(40_000, 60_000)),
        ("edge-5", weights(20_000, 120_000)),
        ("edge-6", weights(0, 500)),
        ("edge-7", weights(9, 0)),
    ];
    let line = Line { popularity: Popularity::billionths(1000), tail: Popularity::billionths(150_000_000) };
    let site = roster(line, edges);
    let heads: Vec<_> = site.seats.iter().map(|seat| seat.head).collect();
    assert_eq!(
        heads,
        [
            13_574_986_500_000_000_000,
            13_574_986_500_000_000_000,
            4_259_959_500_000_000_000,
            4_259_959_500_000_000_000,
            175_312_500_000_000_000,
            0,
            1_262_250_000_000_000,
        ]
    );
    for (path, hash, tail, head) in [
        ("/titles/1/v720/00001.m4s", 0x7a18_382a_3061_8648, [5, 2, 3, 4, 1, 6], [2, 1, 3, 4, 5, 7]),
        ("/titles/1/v720/00002.m4s", 0x537d_f500_90dc_99a2, [5, 3, 4, 1, 2, 6], [1, 2, 3, 4, 5, 7]),
        ("/titles/2/a1/00001.m4s", 0x76bb_a677_e690_3a38, [4, 5, 3, 1, 2, 6], [4, 1, 3, 2, 5, 7]),
        ("/x", 0x0e4e_ac43_10de_ef61, [5, 6, 3, 4, 2, 1], [2, 1, 3, 4, 5, 7]),
        ("", 0xef46_db37_51d8_e999, [5, 4, 3, 2, 1, 6], [2, 1, 4, 3, 5, 7]),
    ] {
        let key = Key::of(path.as_bytes());
        assert_eq!(key.as_u64(), hash, "{path}");
        for (popularity, expected) in [(0, tail), (999, tail), (1000, head), (5000, head)] {
            let order = site.candidates(key, Popularity::billionths(popularity));
            assert_eq!(order.iter().map(|edge| edge + 1).collect::<Vec<_>>(), expected, "{path} at {popularity}");
            assert_eq!(site.owner(key, Popularity::billionths(popularity)), Some(expected[0] - 1));
        }
    }
}

#[test]
fn every_edge_has_what_is_due_to_its_weight() {
    const KEYS: u32 = 40_000;
    let edges = [("a", weights(10, 40)), ("b", weights(20, 30)), ("c", weights(30, 20)), ("d", weights(40, 10))];
    let site = roster(NO_TAIL, edges);
    for (popularity, due) in [(TAIL, [0.4, 0.3, 0.2, 0.1]), (HEAD, [0.1, 0.2, 0.3, 0.4])] {
        let mut owned = [0_u32; 4];
        (0..KEYS).for_each(|n| owned[site.owner(key(n), popularity).unwrap()] += 1);
        for (owned, due) in owned.into_iter().zip(due) {
            // Five standard deviations of a binomial distribution.
            let allowed = 5.0 * (f64::from(KEYS) * due * (1.0 - due)).sqrt();
            assert!((f64::from(owned) - f64::from(KEYS) * due).abs() < allowed, "{owned} of {KEYS}, {due} is due");
        }
    }
}

#[test]
fn the_second_edge_is_as_the_first_would_be_without_it() {
    let edges = even(6);
    for n in 0..500 {
        let order = named(&edges).candidates(key(n), TAIL);
        let mut left = edges.clone();
        let (lost, _) = left.remove(order[0]);
        let owner = named(&left).owner(key(n), TAIL).unwrap();
        assert_eq!(left[owner].0, edges[order[1]].0, "without {lost}");
    }
}

#[test]
fn what_the_tail_takes_of_an_edge_the_head_leaves_to_it() {
    let line = Line { tail: Popularity::of(1, 5), ..NO_TAIL };
    let site = roster(line, [("fast", weights(60, 20)), ("large", weights(40, 80))]);
    let share = |edge: usize| site.seats[edge].head as f64 / site.seats.iter().map(|seat| seat.head as f64).sum::<f64>();
    // A fifth of the demand is tail, of which the large edge has 80 %: 16 of the 40 % that are due to it. 24 of 80 are left.
    assert!((share(1) - 0.24 / 0.8).abs() < 1e-9, "{}", share(1));
    let overrun =
        roster(Line { tail: Popularity::of(9, 10), ..NO_TAIL }, [("fast", weights(90, 10)), ("large", weights(10, 90))]);
    let (fast, large) = (overrun.seats[0].head, overrun.seats[1].head);
    assert!(large > 0 && large < fast / 50, "an edge that the tail fills up keeps a small part of the head");
}

#[test]
fn copies_grow_with_popularity_until_every_edge_has_one() {
    let site = named(&even(5));
    let copies = |popularity| site.replicas(Popularity::billionths(popularity));
    assert_eq!([0, 999, 1000, 1999, 2000, 3999, 4000, 1_000_000_000].map(copies), [1, 1, 2, 2, 3, 4, 5, 5]);
    assert_eq!(roster(NO_TAIL, []).replicas(HEAD), 0);
    assert_eq!(
        roster(Line::NO_HEAD, [("a", weights(1, 1)), ("b", weights(1, 1))]).replicas(Popularity::billionths(1_000_000_000)),
        1
    );
}

#[test]
fn popularity_is_a_share_of_the_whole() {
    assert_eq!(Popularity::of(1, 3).as_billionths(), 333_333_333);
    assert_eq!(Popularity::of(5, 3).as_billionths(), 1_000_000_000);
    assert_eq!(Popularity::of(u64::MAX, u64::MAX).as_billionths(), 1_000_000_000);
    assert_eq!(Popularity::of(1, 0), Popularity::NONE);
}

#[test]
fn rosters_that_cannot_be_are_refused() {
    let same = Roster::new(NO_TAIL, [("a", weights(1, 1)), ("b", weights(1, 1)), ("a", weights(2, 2))]);
    assert_eq!(same, Err(RosterError::SameId));
    let ids: Vec<String> = (0..=EDGES_MAX).map(|n| n.to_string()).collect();
    let of = |count: usize| Roster::new(NO_TAIL, ids[..count].iter().map(|id| (id.as_str(), weights(u32::MAX, u32::MAX))));
    assert_eq!(of(EDGES_MAX + 1), Err(RosterError::TooMany));
    assert!(of(EDGES_MAX).unwrap().seats.iter().all(|seat| seat.head == of(1).unwrap().seats[0].head));
}

#[test]
fn who_has_no_weight_is_no_candidate() {
    let site = roster(NO_TAIL, [("a", weights(0, 1)), ("b", weights(1, 0)), ("c", weights(0, 0))]);
    assert_eq!((site.candidates(key(1), TAIL), site.candidates(key(1), HEAD)), (vec![0], vec![1]));
    assert_eq!((site.turn(0, key(1)), site.turn(1, key(1)).map(|draw| draw.edge())), (None, Some(1)));
    assert_eq!(roster(NO_TAIL, []).owner(key(1), TAIL), None);
}

/// Objects whose loads differ as those of real titles do, most popular first.
fn uneven(count: u32) -> Vec<(Key, u64)> {
    (1..=count).map(|rank| (key(rank), 1_000_000 / u64::from(rank))).collect()
}

#[test]
fn nobody_bears_more_than_the_bound_while_another_has_room() {
    let edges = [("a", weights(10, 1)), ("b", weights(10, 1)), ("c", weights(20, 1)), ("d", weights(40, 1))];
    let objects = uneven(2000);
    let all: u64 = objects.iter().map(|(_, load)| load).sum();
    let site = roster(Line { popularity: Popularity::of(1, 100), tail: Popularity::NONE }, edges);
    let (mut bounded, mut free) = (Loads::expecting(&site, all), [0_u64; 4]);
    for (key, load) in objects {
        let popularity = Popularity::of(load, all);
        let before = bounded.clone();
        let chosen = bounded.place(key, popularity, load);
        let candidates = site.candidates(key, popularity);
        let owners = &candidates[..site.replicas(popularity)];
        assert_eq!(chosen.len(), owners.len());
        owners.iter().for_each(|edge| free[*edge] += before.part(*edge, owners, load));
        if let [edge] = chosen[..] {
            assert!(before.has_room(edge, load), "{:?}", before.loads());
            let skipped = candidates.iter().take_while(|other| **other != edge);
            assert!(skipped.into_iter().all(|other| !before.has_room(*other, load)), "the first that has room takes it");
        }
    }
    let relative = |loads: &[u64]| -> f64 {
        let of =
            |(load, (_, weights)): (&u64, &(&str, Weights))| *load as f64 * 80.0 / (all as f64 * f64::from(weights.throughput));
        loads.iter().zip(&edges).map(of).fold(0.0, f64::max)
    };
    assert!(relative(bounded.loads()) <= 1.25, "{:?}", bounded.loads());
    assert!(relative(&free) > 1.25, "without a bound it is {}: else this shows nothing", relative(&free));
}

#[test]
fn where_nobody_has_room_an_object_is_placed_as_if_there_were_no_bound() {
    let site = named(&even(3));
    let mut loads = Loads::expecting(&site, 100);
    assert_eq!(loads.place(key(1), TAIL, 1000), site.candidates(key(1), TAIL)[..1]);
    assert_eq!(loads.place(key(2), Popularity(2000), 900).len(), 3);
    assert_eq!(Loads::expecting(&roster(NO_TAIL, []), 1).place(key(1), TAIL, 1), Vec::<usize>::new());
}

#[test]
fn measured_loads_are_held_against_the_weighted_mean() {
    let site = roster(NO_TAIL, [("a", weights(10, 1)), ("b", weights(30, 1))]);
    let has_room = |loads| {
        let loads = Loads::measured(&site, loads);
        [0, 1].map(|edge| loads.has_room(edge, 0))
    };
    assert_eq!(has_room(vec![10, 30]), [true, true]);
    assert_eq!(has_room(vec![125, 275]), [true, true], "a quarter above the mean of 10 to 100");
    assert_eq!(has_room(vec![126, 274]), [false, true]);
    assert_eq!(has_room(vec![0, 40]), [true, false]);
    assert_eq!(has_room(vec![0, 0]), [true, true]);
}

/// An edge as `hrw_hash` has it.
#[derive(PartialEq, Eq, Hash, Clone)]
struct Hrw(&'static str, usize);

impl HrwNode for Hrw {
    fn capacity(&self) -> usize {
        self.1
    }
}

/// Ours beside two libraries: the same edges, weights and keys.
struct Peers {
    ours: Roster,
    hrw: HrwNodes<Hrw>,
    ring: StaticHashRing<'static, &'static str, (), DefaultHash>,
    edges: Vec<(&'static str, u32)>,
}

/// Points of the ring for a weight of 1: thousands of them in all, as such rings are used.
const POINTS: usize = 100;

impl Peers {
    fn new(edges: &[(&'static str, u32)]) -> Self {
        let ring = edges.iter().map(|(id, weight)| Node::new(*id).quantity(POINTS * *weight as usize));
        Self {
            ours: roster(NO_TAIL, edges.iter().map(|(id, weight)| (*id, weights(1, *weight)))),
            hrw: HrwNodes::new(edges.iter().map(|(id, weight)| Hrw(id, *weight as usize))),
            ring: StaticHashRing::new(DefaultHash, ring.collect::<Vec<_>>().into_iter()),
            edges: edges.to_vec(),
        }
    }

    /// The owner by ours, by rendezvous, by the ring.
    fn owners(&self, n: u32) -> [&'static str; 3] {
        let path = format!("/titles/{n}");
        let ours = self.edges[self.ours.owner(Key::of(path.as_bytes()), TAIL).unwrap()].0;
        let hrw = self.hrw.sorted(&path).next().unwrap().0;
        [ours, hrw, self.ring.calc_candidates(&path).next().unwrap().key]
    }

    /// How far what an edge has is from what is due to it, at worst, for each; in standard deviations of pure chance.
    fn deviation(&self, keys: u32) -> [f64; 3] {
        let mut owned = [(); 3].map(|()| HashMap::<_, u32>::new());
        for n in 0..keys {
            self.owners(n).into_iter().zip(&mut owned).for_each(|(owner, owned)| *owned.entry(owner).or_default() += 1);
        }
        let all: u32 = self.edges.iter().map(|(_, weight)| weight).sum();
        owned.map(|owned| {
            let of_edge = |(id, weight): &(&'static str, u32)| {
                let (keys, due) = (f64::from(keys), f64::from(*weight) / f64::from(all));
                (f64::from(owned.get(id).copied().unwrap_or(0)) - keys * due).abs() / (keys * due * (1.0 - due)).sqrt()
            };
            self.edges.iter().map(of_edge).fold(0.0, f64::max)
        })
    }

    /// How many keys have another owner with `other`, for each.
    fn moved(&self, other: &Self, keys: u32) -> [u32; 3] {
        let mut moved = [0; 3];
        for n in 0..keys {
            let pairs = self.owners(n).into_iter().zip(other.owners(n));
            pairs.zip(&mut moved).for_each(|((before, after), moved)| *moved += u32::from(before != after));
        }
        moved
    }
}

#[test]
fn it_is_as_even_as_rendezvous_and_more_even_than_a_ring() {
    let peers = Peers::new(&[("a", 1), ("b", 1), ("c", 2), ("d", 4), ("e", 8)]);
    let [ours, hrw, ring] = peers.deviation(50_000);
    assert!(ours < 4.5 && hrw < 4.5, "by chance alone: ours {ours:.1}, hrw-hash {hrw:.1}");
    assert!(ring > 4.5, "a ring's points are not even: ours {ours:.1}, consistent_hash {ring:.1}");
}

#[test]
fn a_lost_edge_moves_its_own_keys_as_with_the_others() {
    const KEYS: u32 = 10_000;
    let all = [("a", 1), ("b", 1), ("c", 2), ("d", 4)];
    let (before, after) = (Peers::new(&all), Peers::new(&all[..3]));
    let mut owned = [0; 3];
    for n in 0..KEYS {
        before.owners(n).iter().zip(&mut owned).for_each(|(owner, owned)| *owned += u32::from(*owner == "d"));
    }
    assert_eq!(before.moved(&after, KEYS), owned, "nothing moves but what was on the lost edge");
    assert!(owned[0].abs_diff(KEYS / 2) < 250, "{owned:?}: half of the weight");
}

fn some_edges() -> impl Strategy<Value = Vec<(String, Weights)>> {
    let weight = prop_oneof![1 => Just(0_u32), 4 => 1..20_u32, 1 => 1..1_000_000_u32];
    vec((weight.clone(), weight), 1..12)
        .prop_map(|all| all.into_iter().enumerate().map(|(n, (a, b))| (format!("edge-{n}"), weights(a, b))).collect())
}

fn ids<'a>(edges: &'a [(String, Weights)], order: &[usize]) -> Vec<&'a str> {
    order.iter().map(|edge| edges[*edge].0.as_str()).collect()
}

proptest! {
    #[test]
    fn the_order_in_which_edges_are_given_decides_nothing(mut edges in some_edges(), n: u32, tail in 0..1_000_000_000_u32) {
        let line = Line { popularity: HEAD, tail: Popularity(tail) };
        let site = |edges: &[(String, Weights)]| roster(line, edges.iter().map(|(id, weights)| (id.as_str(), *weights))).candidates(key(n), HEAD);
        let given = edges.clone();
        let order = site(&given);
        edges.reverse();
        prop_assert_eq!(ids(&given, &order), ids(&edges, &site(&edges)));
    }

    #[test]
    fn a_lost_edge_leaves_the_order_of_the_others(edges in some_edges(), lost: Index, n: u32, popularity in prop_oneof![Just(TAIL), Just(HEAD)]) {
        let lost = lost.index(edges.len());
        let order = named(&edges).candidates(key(n), popularity);
        let mut left = edges.clone();
        left.remove(lost);
        let after = named(&left).candidates(key(n), popularity);
        let others: Vec<_> = order.into_iter().filter(|edge| *edge != lost).collect();
        prop_assert_eq!(ids(&edges, &others), ids(&left, &after));
    }

    #[test]
    fn an_edge_that_grows_loses_nothing(mut edges in some_edges(), grown: Index, more in 1..1000_u32, n: u32) {
        let grown = grown.index(edges.len());
        let place = |edges: &[(String, Weights)]| named(edges).candidates(key(n), TAIL).iter().position(|edge| *edge == grown);
        let before = place(&edges);
        edges[grown].1.storage = edges[grown].1.storage.saturating_add(more);
        let after = place(&edges).expect("it weighs something now");
        prop_assert!(before.is_none_or(|before| after <= before));
    }

    #[test]
    fn a_more_popular_object_has_no_fewer_copies(edges in some_edges(), popularity: u32, more: u32, line: u32) {
        let site = roster(Line { popularity: Popularity(line), tail: Popularity::NONE }, edges.iter().map(|(id, weights)| (id.as_str(), *weights)));
        let copies = site.replicas(Popularity::billionths(popularity));
        prop_assert!(copies >= 1 && copies <= edges.len());
        prop_assert!(site.replicas(Popularity::billionths(popularity.saturating_add(more))) >= copies);
    }

    #[test]
    fn draws_are_ordered_as_their_fractions_are(a in (0..=64_u64 << 40, 1..=u64::MAX), b in (0..=64_u64 << 40, 1..=u64::MAX), near in 0..4_u64) {
        let draw = |(cost, weight): (u64, u64), id| Draw { quotient: cost as f64 / weight as f64, cost, weight, hash: 0, id, edge: 0 };
        // Fractions that are nearly the same, too.
        let twin = (a.0.saturating_mul(2).saturating_add(near), a.1.saturating_mul(2));
        for (a, b) in [(draw(a, 1), draw(b, 2)), (draw(a, 1), draw(twin, 2)), (draw(a, 1), draw((a.0, a.1.saturating_sub(near).max(1)), 2))] {
            prop_assert_eq!(a.cmp(&b), a.exactly(&b));
            prop_assert_eq!(b.cmp(&a), b.exactly(&a));
        }
    }

    #[test]
    fn draws_are_in_one_order(edges in some_edges(), n: u32) {
        let draws: Vec<_> = (0..edges.len()).filter_map(|edge| named(&edges).draw(edge, key(n), TAIL)).collect();
        for a in &draws {
            for b in &draws {
                prop_assert_eq!(a.cmp(b), b.cmp(a).reverse());
                prop_assert_eq!(a.cmp(b).is_eq(), a.edge() == b.edge());
                for c in &draws {
                    prop_assert!(!(a <= b && b <= c) || a <= c);
                }
            }
        }
    }
}
