//! What does a steering decision cost?
//!
//! 100,000 prefixes (80,000 of IPv4, 20,000 of IPv6) of 200 sites with five edges each, spread over the globe; nine clients of ten are in a prefix, one in ten
//! is known by its place alone. One edge in fifty drains, one in fifty is silent, loads go from idle to full. A decision is a look-up of the
//! client's address and the ranking of up to eight edges; content is looked up in a table of bits, as a digest would be asked. Every client, title and
//! session is another one than that before. The bound beside it: 100,000 decisions a second are 10 µs each.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use control::steering::{
    decide::{Content, Question, Rules, decide, explain, survey},
    fleet::{Edge, Site, Snapshot, State},
    geo::Coordinates,
    prefixes::{Announcement, Announcements, Prefixes},
};
use ipnet::IpNet;
use wire::placement::{Key, Line, Popularity, Weights};

use crate::{Report, Size};

/// Clients, titles and sessions that are gone through again and again.
const QUESTIONS: u64 = 4096;
const LINE: Line = Line { popularity: Popularity::billionths(20_000), tail: Popularity::billionths(300_000_000) };

/// An address that nobody announces.
const NOWHERE: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 1));

/// A number that looks random and is the same every time.
fn mixed(a: u64, b: u64) -> u64 {
    let bytes = [a.to_le_bytes(), b.to_le_bytes()].concat();
    Key::of(&bytes).as_u64()
}

/// A place for each number, evenly over the part of the globe where people live.
fn place(n: u64) -> Coordinates {
    let degrees = |what, range: f64, least: f64| least + mixed(n, what) as f64 / u64::MAX as f64 * range;
    Coordinates::new(degrees(1, 100.0, -40.0), degrees(2, 360.0, -180.0)).expect("on the globe")
}

struct World {
    prefixes: Prefixes,
    fleet: Snapshot,
    rules: Rules,
    now: Instant,
    clients: Vec<Client>,
    /// A bit for each edge: which of it a title has is its key.
    holds: Vec<u64>,
}

struct Client {
    address: IpAddr,
    place: Coordinates,
    title: Key,
    session: Key,
    popularity: Popularity,
}

impl World {
    fn new(prefixes: u64, sites: u64, edges_of_site: u64) -> Self {
        let now = Instant::now() + Duration::from_secs(3600);
        let name = |site: u64| format!("site-{site:04}");
        let edges = (0..sites * edges_of_site).map(|n| Edge {
            id: format!("edge-{n:05}").into(),
            site: name(n / edges_of_site).into(),
            state: if mixed(n, 3).is_multiple_of(50) { State::Draining } else { State::Ready },
            reported: Some(now - Duration::from_secs(if mixed(n, 4).is_multiple_of(50) { 3600 } else { 3 })),
            load_permille: (mixed(n, 5) % 1000) as u16,
            weights: Weights { throughput: 10_000 * (1 + n as u32 % 3), storage: 100_000 / (1 + n as u32 % 3) },
        });
        let places = (0..sites).map(|site| Site { place: Some(place(site)), line: LINE, ..Site::named(name(site)) });
        let fleet = Snapshot::new(places, edges).expect("a fleet");

        let mut said = Announcements::default();
        let announcements: Vec<_> = (0..prefixes).map(|n| Announcement::new(network(n), name(mixed(n, 6) % sites))).collect();
        said.replace("bench", announcements.iter().cloned()).expect("not too many");
        let clients = (0..QUESTIONS).map(|n| {
            let network = announcements[mixed(n, 7) as usize % announcements.len()].prefix;
            Client {
                address: if n % 10 == 0 { NOWHERE } else { network.addr() },
                place: place(mixed(n, 8) % sites),
                title: Key::of(format!("/titles/{n:064x}").as_bytes()),
                session: Key::of(&n.to_le_bytes()),
                popularity: Popularity::billionths((mixed(n, 9) % 60_000) as u32),
            }
        });
        let holds = (0..fleet.edges().len() as u64).map(|edge| mixed(edge, 10)).collect();
        let clients = clients.collect();
        Self { prefixes: said.table(), fleet, rules: Rules::default(), now, clients, holds }
    }

    /// One edge in four has a title.
    fn content(&self, client: &Client) -> impl Fn(usize) -> Content {
        |edge| if (self.holds[edge] ^ client.title.as_u64()) & 3 == 0 { Content::Holds } else { Content::Lacks }
    }

    fn ask<T>(&self, client: &Client, answer: impl FnOnce(&Question<'_>) -> T) -> T {
        let announced = self.prefixes.announced(client.address);
        let Client { place, title, session, popularity, .. } = *client;
        answer(&Question { announced: &announced, place: Some(place), title, popularity, session })
    }

    fn ranked(&self, client: &Client) -> Vec<usize> {
        let content = self.content(client);
        self.ask(client, |question| decide(question, &self.fleet, &self.rules, self.now, content)).edges
    }
}

/// Networks as they are announced: of IPv4 mostly /24, of IPv6 mostly /40 to /48. Every fifth is of IPv6.
fn network(n: u64) -> IpNet {
    let bits = mixed(n, 11);
    let (address, len): (IpAddr, u64) = match n % 5 {
        0 => (Ipv6Addr::from_bits(0x2001 << 112 | u128::from(bits) << 48).into(), 32 + bits % 17),
        _ => (Ipv4Addr::from_bits((bits as u32).max(1 << 24)).into(), [24, 24, 24, 22, 20, 16][bits as usize % 6]),
    };
    IpNet::new(address, len as u8).expect("a length of its family").trunc()
}

/// Runs the benchmark.
///
/// # Panics
/// If a decision is not as it should be.
pub fn run(size: Size) -> Report {
    let mut report = Report::new("What does a steering decision cost?", size);
    let world = World::new(size.of(2000, 100_000), 200, 5);
    outcomes(&mut report, &world);
    let mut clients = world.clients.iter().cycle();
    let mut next = || clients.next().expect("they come round");
    report.measure("the sites that announce a client's network", || world.prefixes.announced(next().address).len());
    let decision_ns = report.measure("decision among 1000 edges of 200 sites", || world.ranked(next()));
    report.measure("the same where no content is known", || {
        world.ask(next(), |question| decide(question, &world.fleet, &world.rules, world.now, |_| Content::Unknown))
    });
    report.measure("the same where nobody holds anything", || {
        world.ask(next(), |question| decide(question, &world.fleet, &world.rules, world.now, |_| Content::Lacks))
    });
    report
        .measure("the same where all clients are known by place alone", || world.ranked(&Client { address: NOWHERE, ..*next() }));
    report.measure("decision with all that a record takes", || {
        let client = next();
        world.ask(client, |question| survey(question, &world.fleet, &world.rules, world.now, world.content(client)))
    });
    report.measure("decision with what became of all 1000 edges", || {
        let client = next();
        world.ask(client, |question| explain(question, &world.fleet, &world.rules, world.now, world.content(client)))
    });
    if let Some(decision_ns) = decision_ns {
        report.figure("decisions a second, of one core", 1e9 / decision_ns, "");
    }
    for (sites, edges_of_site, what) in [(1000, 1, "1000 sites of one edge"), (10, 100, "10 sites of 100 edges")] {
        let world = World::new(size.of(2000, 100_000), sites, edges_of_site);
        let mut clients = world.clients.iter().cycle();
        report.measure(format!("decision among {what}"), || world.ranked(clients.next().expect("they come round")));
    }
    let announcements: Vec<_> =
        (0..size.of(2000, 100_000)).map(|n| Announcement::new(network(n), format!("site-{}", n % 200))).collect();
    report.measure("a table of all prefixes", || announcements.iter().collect::<Prefixes>().len());
    let (edges, sites) = (world.fleet.edges().to_vec(), world.fleet.sites().cloned().collect::<Vec<_>>());
    report.measure("a snapshot of 1000 edges", || Snapshot::new(sites.iter().cloned(), edges.iter().cloned()).is_ok());
    report
}

fn outcomes(report: &mut Report, world: &World) {
    let (mut short, mut of_one_site, mut unfit, mut at_home) = (0, 0, 0, 0);
    for client in &world.clients {
        let ranked = world.ranked(client);
        let site = |edge: &usize| world.fleet.site_of(*edge);
        short += u32::from(ranked.len() < 8);
        of_one_site += u32::from(ranked.iter().all(|edge| site(edge) == site(&ranked[0])));
        let edges = ranked.iter().map(|edge| &world.fleet.edges()[*edge]);
        unfit += edges.filter(|edge| edge.state != State::Ready || edge.load_permille >= 950).count();
        let announced = world.prefixes.announced(client.address);
        let home = announced.first().and_then(|announced| world.fleet.site(announced.site));
        at_home += u64::from(ranked.first().map(site) == home);
    }
    report.expect("answers with fewer than eight edges", short, 0);
    report.expect("answers with one site alone", of_one_site, 0);
    report.expect("edges that cannot serve", unfit, 0);
    let most = QUESTIONS / 2..QUESTIONS * 9 / 10;
    report.expect(
        "most clients are served by a site that announces their network, and those without content elsewhere",
        most.contains(&at_home),
        true,
    );
    report.figure("clients who are served by the site with the longest prefix", 100.0 * at_home as f64 / QUESTIONS as f64, "%");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_run_has_every_outcome_as_expected_twice() {
        assert_eq!(crate::small_twice(run), 4);
    }
}
