use std::{collections::BTreeMap, sync::Arc};

use proptest::{collection::vec, prelude::*};
use wire::placement::{Line, Weights};

use super::*;
use crate::steering::fleet::Site;

/// Edges reported a moment ago, are idle, alike, and said nothing of their content.
fn edge(site: &str, id: &str, now: Instant) -> Edge {
    Edge {
        id: id.into(),
        site: site.into(),
        state: State::Ready,
        reported: Some(now),
        load_permille: 0,
        weights: Weights { throughput: 100, storage: 100 },
    }
}

/// `site`'s edges are named "site-0", "site-1" and so on.
fn edges(site: &str, count: usize, now: Instant) -> Vec<Edge> {
    (0..count).map(|n| edge(site, &format!("{site}-{n}"), now)).collect()
}

fn place(latitude: f64, longitude: f64) -> Option<Coordinates> {
    Coordinates::new(latitude, longitude)
}

fn site(name: &str, place: Option<Coordinates>) -> Site {
    Site { place, ..Site::named(name) }
}

fn line(popularity: u32) -> Line {
    Line { popularity: Popularity::billionths(popularity), tail: Popularity::NONE }
}

/// A question of nobody in particular.
fn question<'a>() -> Question<'a> {
    Question {
        announced: &[],
        place: None,
        title: Key::of(b"/titles/1"),
        popularity: Popularity::NONE,
        session: Key::of(b"session"),
    }
}

struct Case {
    snapshot: Snapshot,
    rules: Rules,
    now: Instant,
    holds: BTreeMap<String, Content>,
}

impl Case {
    fn new(sites: impl IntoIterator<Item = Site>, edges: impl IntoIterator<Item = Edge>, now: Instant) -> Self {
        Self { snapshot: Snapshot::new(sites, edges).unwrap(), rules: Rules::default(), now, holds: BTreeMap::new() }
    }

    fn holding(mut self, holds: &[(&str, Content)]) -> Self {
        self.holds = holds.iter().map(|(edge, content)| ((*edge).to_owned(), *content)).collect();
        self
    }

    fn content(&self, edge: usize) -> Content {
        self.holds.get(self.id(edge)).copied().unwrap_or(Content::Unknown)
    }

    fn id(&self, edge: usize) -> &str {
        &self.snapshot.edges()[edge].id
    }

    fn rank(&self, question: &Question<'_>) -> Ranking {
        decide(question, &self.snapshot, &self.rules, self.now, |edge| self.content(edge))
    }

    fn ranked(&self, question: &Question<'_>) -> Vec<&str> {
        self.rank(question).edges.into_iter().map(|edge| self.id(edge)).collect()
    }

    /// Edge, outcome: as operators read it.
    fn explained(&self, question: &Question<'_>) -> BTreeMap<&str, String> {
        let explanation = explain(question, &self.snapshot, &self.rules, self.now, |edge| self.content(edge));
        let told = explanation.candidates.iter().map(|candidate| {
            let outcome = match candidate.outcome {
                Outcome::Won { place, why } => format!("{place}: {why}"),
                Outcome::Lost(why) => why.to_string(),
            };
            (self.id(candidate.edge), outcome)
        });
        told.collect()
    }

    fn home(&self, question: &Question<'_>) -> Option<(&str, Option<Miss>)> {
        let ranking = self.rank(question);
        let home = ranking.home.map(|home| self.snapshot.sites().nth(home).unwrap());
        home.map(|home| (home.name.as_ref(), ranking.miss))
    }
}

fn announced<'a>(said: &[(&'a str, &str)]) -> Vec<Announced<'a>> {
    said.iter().map(|(site, prefix)| Announced { site, prefix: prefix.parse().unwrap() }).collect()
}

#[test]
fn the_longest_prefix_comes_first_then_the_nearest_then_the_cheapest() {
    let now = Instant::now();
    let (berlin, leipzig, paris, rome) = (place(52.52, 13.4), place(51.34, 12.37), place(48.86, 2.35), place(41.9, 12.5));
    let sites = [
        site("isp", rome),
        site("wide", rome),
        Site { cost: 5, ..site("berlin-dear", berlin) },
        site("berlin", berlin),
        site("leipzig", leipzig),
        site("paris", paris),
    ];
    let all = ["isp", "wide", "berlin-dear", "berlin", "leipzig", "paris"].map(|site| edge(site, site, now));
    let case = Case::new(sites, all, now);
    let announced = announced(&[("isp", "192.0.2.0/24"), ("wide", "192.0.0.0/8")]);
    let question = Question { announced: &announced, place: berlin, ..question() };
    assert_eq!(case.ranked(&question), ["isp", "wide", "berlin", "berlin-dear", "leipzig", "paris"]);
    let nobody_announces = Question { announced: &[], ..question };
    assert_eq!(case.ranked(&nobody_announces)[..4], ["berlin", "berlin-dear", "leipzig", "paris"]);
    assert_eq!(case.home(&nobody_announces), Some(("berlin", None)));
}

#[test]
fn a_site_in_an_isp_serves_its_own_clients_only() {
    let now = Instant::now();
    let sites = [Site { open: false, ..site("isp", None) }, site("exchange", None)];
    let case = Case::new(sites, ["isp", "exchange"].map(|site| edge(site, site, now)), now);
    assert_eq!(case.ranked(&question()), ["exchange"]);
    assert_eq!(case.home(&question()), Some(("exchange", None)), "a site that never serves this client is not its home");
    assert_eq!(
        case.explained(&question())["isp"],
        "its site serves clients of its own prefixes only, and this client is in none of them"
    );
    let announced = announced(&[("isp", "192.0.2.0/24")]);
    assert_eq!(case.ranked(&Question { announced: &announced, ..question() }), ["isp", "exchange"]);
}

#[test]
fn an_edge_that_cannot_serve_is_not_named_and_is_told_why() {
    let now = Instant::now() + Duration::from_secs(60);
    let ago = |s| Some(now - Duration::from_secs(s));
    let cases = [
        (Edge { reported: ago(11), ..edge("a", "late", now) }, "it reported 11.0 s ago, which is too long"),
        (Edge { reported: None, ..edge("a", "unheard", now) }, "it has not reported since control started"),
        (Edge { state: State::Draining, ..edge("a", "draining", now) }, "it drains: it takes nobody new"),
        (Edge { state: State::Unwell, ..edge("a", "unwell", now) }, "it is there and cannot serve"),
        (Edge { load_permille: 950, ..edge("a", "full", now) }, "it is full: 95.0 % of what it bears"),
    ];
    let well = Edge { reported: ago(10), ..edge("a", "well", now) };
    let case = Case::new([], cases.iter().map(|(edge, _)| edge.clone()).chain([well]), now);
    assert_eq!(case.ranked(&question()), ["well"]);
    let explained = case.explained(&question());
    for (edge, why) in &cases {
        assert_eq!(explained[edge.id.as_ref()], *why);
    }
    let none = Case::new([], cases.map(|(edge, _)| edge), now);
    assert_eq!(none.rank(&question()), Ranking { edges: Vec::new(), home: Some(0), miss: Some(Miss::Health) });
}

#[test]
fn a_title_that_the_nearest_site_lacks_comes_from_the_next_that_holds_it() {
    let now = Instant::now();
    let sites = || [site("near", place(52.0, 13.0)), site("far", place(48.0, 2.0))].map(|site| Site { line: line(100), ..site });
    let all = || edges("near", 2, now).into_iter().chain(edges("far", 2, now));
    let lacking = [("near-0", Content::Lacks), ("near-1", Content::Lacks), ("far-0", Content::Holds), ("far-1", Content::Lacks)];
    let case = Case::new(sites(), all(), now).holding(&lacking);
    let question = Question { place: place(52.0, 13.0), ..question() };
    assert_eq!(case.ranked(&question)[0], "far-0");
    assert_eq!(case.home(&question), Some(("near", Some(Miss::Content))));
    assert!(case.explained(&question)["near-0"].ends_with("it does not hold the title and would have to fetch it"));

    let popular = Question { popularity: Popularity::billionths(100), ..question };
    assert!(case.ranked(&popular)[0].starts_with("near-"), "what many will ask for is fetched once, where it belongs");
    assert_eq!(case.home(&popular), Some(("near", None)));

    let nobody = Case::new(sites(), all(), now).holding(&lacking.map(|(edge, _)| (edge, Content::Lacks)));
    assert!(nobody.ranked(&question)[0].starts_with("near-"), "what nobody holds is fetched nearby");
    assert_eq!(nobody.home(&question), Some(("near", None)));
}

/// Six edges of one site, three copies, everybody who may be lost before.
#[test]
fn whoever_is_lost_already_another_loss_moves_only_its_own_sessions() {
    let now = Instant::now();
    let popular = Question { popularity: Popularity::billionths(200), ..question() };
    let firsts = |lost: u32| -> Vec<Option<String>> {
        let all = edges("a", 6, now).into_iter().enumerate().map(|(n, edge)| match lost >> n & 1 {
            1 => Edge { reported: None, ..edge },
            _ => edge,
        });
        let case = Case::new([Site { line: line(100), ..Site::named("a") }], all, now);
        let first = |session: u32| {
            let question = Question { session: Key::of(&session.to_le_bytes()), ..popular };
            case.ranked(&question).first().map(|id| (*id).to_owned())
        };
        (0..24).map(first).collect()
    };
    for lost in 0..1_u32 << 6 {
        let before = firsts(lost);
        if lost.count_ones() <= 2 {
            let asked: std::collections::BTreeSet<_> = before.iter().collect();
            assert_eq!(asked.len(), 3, "{lost:06b}: three copies are asked at three edges");
        }
        for edge in (0..6).filter(|edge| lost >> edge & 1 == 0) {
            let id = Some(format!("a-{edge}"));
            let after = firsts(lost | 1 << edge);
            assert!(before.iter().zip(&after).all(|(before, after)| before == after || *before == id), "{lost:06b}, {edge}");
        }
    }
}

#[test]
fn what_the_rules_do_not_like_comes_last_and_still_comes() {
    let now = Instant::now();
    let sites = [
        site("sydney", place(-33.9, 151.2)),
        Site { cost: 9, ..site("dear", place(52.0, 13.0)) },
        site("near", place(50.0, 8.0)),
        site("unknown", None),
    ];
    let mut case = Case::new(sites, ["sydney", "dear", "near", "unknown"].map(|site| edge(site, site, now)), now);
    case.rules = Rules { cost_max: 8, reach_km: 1000, ..Rules::default() };
    let question = Question { place: place(52.0, 13.0), ..question() };
    assert_eq!(case.ranked(&question), ["near", "unknown", "dear", "sydney"]);
    assert_eq!(case.home(&question), Some(("dear", Some(Miss::Rules))));
    assert!(case.explained(&question)["sydney"].contains("its site is 16"));
    let announced = announced(&[("sydney", "192.0.2.0/24")]);
    let expats = Question { announced: &announced, ..question };
    assert_eq!(case.ranked(&expats)[0], "sydney", "who announces a client's network is near it, wherever it is on the globe");
}

#[test]
fn an_edge_sheds_ever_more_sessions_before_it_is_full() {
    let now = Instant::now();
    let sessions: Vec<_> = (0..2000_u32).map(|n| Key::of(&n.to_le_bytes())).collect();
    let firsts = |load_permille| {
        let busy = Edge { load_permille, ..edge("a", "busy", now) };
        let case = Case::new([site("a", place(0.0, 0.0)), site("b", place(10.0, 0.0))], [busy, edge("b", "idle", now)], now);
        let ranked =
            |session: &&Key| case.ranked(&Question { session: **session, place: place(0.0, 0.0), ..question() })[0] == "busy";
        sessions.iter().filter(ranked).copied().collect::<Vec<_>>()
    };
    let mut before = firsts(0);
    assert_eq!((before.len(), firsts(800).len(), firsts(950).len()), (2000, 2000, 0));
    for (load, share) in [(801, 1990.0), (830, 1600.0), (875, 1000.0), (920, 400.0), (949, 13.0)] {
        let after = firsts(load);
        assert!((after.len() as f64 - share).abs() < 90.0, "{} of 2000 at {load}", after.len());
        assert!(after.iter().all(|session| before.contains(session)), "a session that was spared is not sent back at {load}");
        before = after;
    }
}

#[test]
fn when_everybody_sheds_the_viewer_is_served_all_the_same() {
    let now = Instant::now();
    let busy = |id| Edge { load_permille: 949, ..edge("a", id, now) };
    let case = Case::new([], [busy("a"), busy("b")], now);
    for n in 0..50_u8 {
        assert_eq!(case.ranked(&Question { session: Key::of(&[n]), ..question() }).len(), 2);
    }
}

#[test]
fn an_edge_beyond_the_bound_gives_its_titles_to_the_next_unless_it_alone_holds_them() {
    let now = Instant::now();
    let case = |loads: [u16; 3], holds: &[(&str, Content)]| {
        let all = edges("a", 3, now).into_iter().zip(loads).map(|(edge, load_permille)| Edge { load_permille, ..edge });
        Case::new([], all, now).holding(holds)
    };
    let idle = case([0; 3], &[]);
    let order = idle.ranked(&question());
    let owner = order[0].as_bytes()[2] - b'0';
    let mut loads = [200; 3];
    loads[usize::from(owner)] = 400;
    let unbalanced = case(loads, &[]);
    assert_eq!(unbalanced.ranked(&question())[0], order[1], "400 is more than 1.25 times the mean of 267");
    assert!(unbalanced.explained(&question())[order[1]].contains("an edge of this site that cannot take it now"));
    loads[usize::from(owner)] = 270;
    assert_eq!(case(loads, &[]).ranked(&question())[0], order[0], "270 is within 1.25 times the mean of 223");
    loads[usize::from(owner)] = 400;
    let holds = [(order[0], Content::Holds), (order[1], Content::Lacks), (order[2], Content::Lacks)];
    assert_eq!(case(loads, &holds).ranked(&question())[0], order[0], "nobody fetches a title for the sake of balance");
    let low = loads.map(|load| load / 5);
    assert_eq!(case(low, &[]).ranked(&question())[0], order[0], "an idle site needs no balance");
}

#[test]
fn sessions_take_turns_among_the_edges_of_a_popular_title_in_proportion_to_throughput() {
    let now = Instant::now();
    let throughputs = [100, 100, 200, 400];
    let all = edges("a", 4, now)
        .into_iter()
        .zip(throughputs)
        .map(|(edge, throughput)| Edge { weights: Weights { throughput, storage: 1 }, ..edge });
    let case = Case::new([Site { line: line(1000), ..site("a", None) }], all, now);
    let everywhere = Question { popularity: Popularity::billionths(3000), ..question() };
    let mut firsts = BTreeMap::<&str, u32>::new();
    for n in 0..8000_u32 {
        *firsts.entry(case.ranked(&Question { session: Key::of(&n.to_le_bytes()), ..everywhere })[0]).or_default() += 1;
    }
    for (at, expected) in [1000_u32, 1000, 2000, 4000].into_iter().enumerate() {
        let count = firsts[format!("a-{at}").as_str()];
        assert!(count.abs_diff(expected) < 150, "{firsts:?}");
    }
    let tail = question();
    let first = case.ranked(&tail)[0];
    for n in 0..50_u8 {
        assert_eq!(case.ranked(&Question { session: Key::of(&[n]), ..tail })[0], first, "what is on one edge has no turns");
    }
}

#[test]
fn of_one_site_only_four_are_named_while_another_has_some() {
    let now = Instant::now();
    let sites = || [site("home", place(0.0, 0.0)), site("other", place(0.0, 5.0)), site("third", place(0.0, 9.0))];
    let question = Question { place: place(0.0, 0.0), ..question() };
    let two = Case::new(sites(), edges("home", 10, now).into_iter().chain(edges("other", 1, now)), now);
    let ranked = two.ranked(&question);
    assert_eq!((ranked.len(), ranked.iter().position(|edge| *edge == "other-0")), (8, Some(4)));
    let three = Case::new(sites(), ["home", "other", "third"].iter().flat_map(|site| edges(site, 10, now)), now);
    let ranked = three.ranked(&question);
    assert!(
        ranked[..4].iter().all(|edge| edge.starts_with("home-")) && ranked[4..].iter().all(|edge| edge.starts_with("other-"))
    );
    let explained = three.explained(&question);
    let told = |why: &str| explained.values().filter(|told| told.starts_with(why)).count();
    assert_eq!(told("nearer sites had enough"), 10, "{explained:#?}");
    assert_eq!(told("4 edges of its site are named already"), 6);
    assert_eq!(told("8 better edges"), 6);
    let one = Case::new(sites(), edges("home", 10, now), now);
    assert_eq!(one.ranked(&question).len(), 8);
}

#[test]
fn so_many_sites_are_looked_at_and_no_more() {
    let now = Instant::now();
    let names: Vec<String> = (10..60).map(|n| format!("s{n}")).collect();
    let sites = names.iter().zip(1..).map(|(name, at)| site(name, place(0.0, f64::from(at))));
    let case = Case::new(sites, names.iter().map(|name| edge(name, name, now)), now);
    let mut asked = Vec::new();
    let question = Question { place: place(0.0, 0.0), ..question() };
    let ranking = decide(&question, &case.snapshot, &case.rules, now, |edge| {
        asked.push(edge);
        Content::Lacks
    });
    assert_eq!(asked.len(), SITES_REACHED_MAX, "where nobody holds a title, content is not looked for all over the world");
    assert_eq!(ranking.edges, (0..8).collect::<Vec<_>>(), "the nearest");
    let silent = names.iter().map(|name| Edge { reported: (name.as_str() > "s50").then_some(now), ..edge(name, name, now) });
    let silent = Case::new(names.iter().zip(1..).map(|(name, at)| site(name, place(0.0, f64::from(at)))), silent, now);
    assert_eq!(silent.ranked(&question)[..2], ["s51", "s52"], "silent sites do not count, however many are nearer");
}

#[test]
fn the_order_is_the_same_in_every_release() {
    let now = Instant::now();
    let case = Case::new([], ["a", "b", "c"].map(|name| edge(name, name, now)), now);
    assert_eq!(case.ranked(&question()), ["a", "c", "b"], "sites of which nothing is known: one for each title");
    let case = Case::new([], ["a", "b", "c"].map(|name| edge("site", name, now)), now);
    assert_eq!(case.ranked(&question()), ["a", "c", "b"], "edges of one site, by the same hash");
}

#[test]
fn fleets_that_cannot_be_are_refused_in_words() {
    let now = Instant::now();
    let refused = |edges: Vec<Edge>| Snapshot::new([], edges).unwrap_err().to_string();
    let twice = refused(vec![edge("a", "x", now), edge("b", "x", now)]);
    assert_eq!(twice, "edge x stands at two sites: an id belongs to one edge");
    let same = refused(vec![edge("a", "x", now), edge("a", "x", now)]);
    assert_eq!(same, "site a: two edges of a site have the same id, or ids with the same hash: rename one");
    let many = refused((0..=4096).map(|n| edge("a", &n.to_string(), now)).collect());
    assert_eq!(many, "site a: a site has at most 4096 edges: make two sites of it");
}

/// A fleet, as data, so that it can be made once more with a difference.
#[derive(Debug, Clone)]
struct Made {
    now: Instant,
    sites: Vec<Site>,
    edges: Vec<(Edge, Content)>,
    client: Option<Coordinates>,
    /// Site and length of the prefix.
    announced: Vec<(usize, u8)>,
    popularity: u32,
    session: u64,
}

const SITE_NAMES: [&str; 6] = ["s0", "s1", "s2", "s3", "s4", "s5"];

fn made(loads: impl Strategy<Value = u16> + Clone + 'static) -> impl Strategy<Value = Made> {
    // Moments before it are needed, and the clock may have begun just now.
    let now = Instant::now() + Duration::from_secs(1000);
    let some_place = || proptest::option::of((-90.0..90.0, -180.0..180.0).prop_map(|(north, east)| place(north, east).unwrap()));
    let sites = vec((some_place(), 0..3_u32, prop::bool::weighted(0.8)), SITE_NAMES.len());
    let state = prop_oneof![6 => Just(State::Ready), 1 => Just(State::Draining), 1 => Just(State::Unwell)];
    let reported = prop_oneof![6 => Just(Some(0)), 1 => Just(Some(11)), 1 => Just(None)];
    let content = prop_oneof![Just(Content::Holds), Just(Content::Lacks), Just(Content::Unknown)];
    let edge = (0..SITE_NAMES.len(), state, reported, loads, (0..5_u32, 0..5_u32), content);
    let announced = vec((0..SITE_NAMES.len(), 1..=24_u8), 0..4);
    let question = (some_place(), announced, 0..5000_u32, any::<u64>());
    (sites, vec(edge, 0..40), question).prop_map(move |(sites, edges, (client, announced, popularity, session))| Made {
        now,
        sites: sites
            .into_iter()
            .zip(SITE_NAMES)
            .map(|((place, cost, open), name)| Site { name: name.into(), place, cost, open, line: line(1000) })
            .collect(),
        edges: edges
            .into_iter()
            .zip(0..)
            .map(|((site, state, ago, load_permille, (throughput, storage), content), n)| {
                let reported = ago.map(|ago| now - Duration::from_secs(ago));
                let weights = Weights { throughput, storage };
                let id: Arc<str> = format!("e{n}").into();
                (Edge { id, site: SITE_NAMES[site].into(), state, reported, load_permille, weights }, content)
            })
            .collect(),
        client,
        announced,
        popularity,
        session,
    })
}

impl Made {
    fn ask<T>(&self, ask: impl FnOnce(&Question<'_>, &Case) -> T) -> T {
        let prefixes: Vec<_> =
            self.announced.iter().map(|(_, bits)| format!("192.0.2.1/{bits}").parse::<IpNet>().unwrap()).collect();
        let mut announced: Vec<_> = self
            .announced
            .iter()
            .zip(prefixes)
            .map(|((site, _), prefix)| Announced { site: SITE_NAMES[*site], prefix })
            .collect();
        announced.sort_by_key(|announced| std::cmp::Reverse(announced.prefix.prefix_len()));
        let question = Question {
            announced: &announced,
            place: self.client,
            title: Key::of(b"/titles/1"),
            popularity: Popularity::billionths(self.popularity),
            session: Key::of(&self.session.to_le_bytes()),
        };
        let mut case = Case::new(self.sites.clone(), self.edges.iter().map(|(edge, _)| edge.clone()), self.now);
        case.holds = self.edges.iter().map(|(edge, content)| (edge.id.to_string(), *content)).collect();
        ask(&question, &case)
    }

    fn ranked(&self) -> Vec<String> {
        self.ask(|question, case| case.ranked(question).into_iter().map(String::from).collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nobody_who_cannot_serve_is_named_and_nobody_twice(made in made(0..1200_u16)) {
        made.ask(|question, case| {
            let ranking = case.rank(question);
            prop_assert!(ranking.edges.len() <= RANKED_MAX);
            for (at, named) in ranking.edges.iter().enumerate() {
                let edge = &case.snapshot.edges()[*named];
                let is_late = edge.reported.is_none_or(|reported| case.now - reported > case.rules.silent_after);
                prop_assert!(edge.state == State::Ready && !is_late && edge.load_permille < 950, "{edge:?}");
                prop_assert!(!ranking.edges[..at].contains(named), "{edge:?} is named twice");
            }
            Ok(())
        })?;
    }

    #[test]
    fn an_answer_has_two_sites_where_there_are_two(made in made(0..1200_u16)) {
        made.ask(|question, case| {
            let site = |edge: &usize| case.snapshot.site_of(*edge);
            let named: std::collections::BTreeSet<_> = case.rank(question).edges.iter().map(site).collect();
            let explanation = explain(question, &case.snapshot, &case.rules, case.now, |edge| case.content(edge));
            // Only those that could not serve, whatever is asked, have no content.
            let able = explanation.candidates.iter().filter(|c| c.content.is_some() || c.outcome == Outcome::Lost(Lost::NotReached));
            let able: std::collections::BTreeSet<_> = able.map(|candidate| site(&candidate.edge)).collect();
            prop_assert_eq!(named.len() >= 2, able.len() >= 2, "named {:?} of {:?}", named, able);
            prop_assert_eq!(named.is_empty(), able.is_empty());
            Ok(())
        })?;
    }

    #[test]
    fn the_same_question_has_the_same_answer_in_whatever_order_the_fleet_came(made in made(0..1200_u16)) {
        let mut reversed = made.clone();
        reversed.edges.reverse();
        reversed.sites.reverse();
        prop_assert_eq!(made.ranked(), reversed.ranked());
    }

    #[test]
    fn an_explanation_is_of_the_decision_and_of_every_edge(made in made(0..1200_u16)) {
        made.ask(|question, case| {
            let explanation = explain(question, &case.snapshot, &case.rules, case.now, |edge| case.content(edge));
            prop_assert_eq!(&explanation.ranking, &case.rank(question));
            let mut won: Vec<_> = explanation.candidates.iter().filter_map(|candidate| match candidate.outcome {
                Outcome::Won { place, .. } => Some((place, candidate.edge)),
                Outcome::Lost(_) => None,
            }).collect();
            won.sort_unstable();
            prop_assert!(won.iter().map(|(place, _)| *place).eq(1..=won.len()));
            prop_assert!(won.iter().map(|(_, edge)| edge).eq(&explanation.ranking.edges));
            let mut told: Vec<_> = explanation.candidates.iter().map(|candidate| candidate.edge).collect();
            told.sort_unstable();
            prop_assert!(told.into_iter().eq(0..case.snapshot.edges().len()), "each edge is told of once");
            Ok(())
        })?;
    }

    /// Loads are low, so that neither bound nor shedding moves anybody.
    #[test]
    fn an_edge_that_falls_silent_moves_only_who_was_sent_to_it(mut made in made(0..100_u16), lost in any::<prop::sample::Index>()) {
        // Content decides between sites, and a lost edge may be the only one that has it.
        made.edges.iter_mut().for_each(|(_, content)| *content = Content::Unknown);
        if !made.edges.is_empty() {
            let before = made.ranked();
            let lost = lost.index(made.edges.len());
            let id = made.edges[lost].0.id.to_string();
            made.edges[lost].0.reported = None;
            let after = made.ranked();
            prop_assert!(!after.contains(&id));
            if before.first() != Some(&id) {
                prop_assert_eq!(before.first(), after.first(), "{} was lost", id);
            }
        }
    }
}
