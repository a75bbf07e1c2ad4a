//! Which edges a viewer is sent to, best first. Pure: takes edges and `now`, returns a ranking.
//!
//! Of the edges that are ready, rendezvous hashing by (title root, edge id) makes one title prefer one edge, whatever
//! the order edges came in, and moves only a lost edge's titles when it goes.

use std::time::{Duration, Instant};

use wire::object::{Digest, ObjectPath};

use crate::fleet::{Edge, Standing};

/// The most edges that an answer names: enough to fail over, little enough to read.
pub(crate) const RANKED_MAX: usize = 8;

/// The ready edges for the title at `root`, best first, at most [`RANKED_MAX`].
pub(crate) fn rank<'a>(
    edges: impl Iterator<Item = &'a Edge>,
    root: &ObjectPath,
    now: Instant,
    timeout: Duration,
) -> Vec<&'a Edge> {
    let mut ready: Vec<_> =
        edges.filter(|edge| edge.standing(now, timeout) == Standing::Ready).map(|edge| (weight(root, edge), edge)).collect();
    ready.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
    ready.into_iter().take(RANKED_MAX).map(|(_, edge)| edge).collect()
}

/// Neither a path nor an edge id has a space, so no two pairs hash alike.
fn weight(root: &ObjectPath, edge: &Edge) -> Digest {
    Digest::of(format!("{root} {}", edge.id).as_bytes())
}

#[cfg(test)]
mod tests {
    use wire::report::Health;

    use super::*;
    use crate::fleet::{
        Fleet,
        tests::{registration, report},
    };

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn fleet(ids: &[&str], now: Instant) -> Fleet {
        let mut fleet = Fleet::default();
        for id in ids {
            let id: crate::fleet::EdgeId = id.parse().unwrap();
            fleet.register(id.clone(), registration("https://a")).unwrap();
            fleet.report(&id, report(Health::Ready), now);
        }
        fleet
    }

    fn ranked(fleet: &Fleet, title: usize, now: Instant) -> Vec<String> {
        let root = ObjectPath::new(format!("/titles/{title}")).unwrap();
        rank(fleet.edges(), &root, now, TIMEOUT).into_iter().map(|edge| edge.id.to_string()).collect()
    }

    #[test]
    fn losing_an_edge_moves_only_its_own_titles() {
        let now = Instant::now();
        let three = fleet(&["a", "b", "c"], now);
        let two = fleet(&["a", "c"], now);
        let mut firsts = [0; 3];
        for title in 0..300 {
            let before = ranked(&three, title, now);
            let after = ranked(&two, title, now);
            assert_eq!(before.iter().filter(|id| *id != "b").collect::<Vec<_>>(), after.iter().collect::<Vec<_>>());
            firsts[["a", "b", "c"].iter().position(|id| *id == before[0]).unwrap()] += 1;
        }
        assert!(firsts.iter().all(|first| (60..140).contains(first)), "titles spread over edges: {firsts:?}");
    }

    #[test]
    fn the_order_is_the_same_in_every_release() {
        let now = Instant::now();
        // The SHA-256 of "/titles/1 a", "/titles/1 c" and "/titles/1 b", largest first.
        assert_eq!(ranked(&fleet(&["a", "b", "c"], now), 1, now), ["a", "c", "b"]);
    }

    #[test]
    fn draining_and_silent_edges_are_left_out() {
        let now = Instant::now();
        let mut fleet = fleet(&["a", "b"], now);
        fleet.report(&"a".parse().unwrap(), report(Health::Draining), now);
        assert_eq!(ranked(&fleet, 1, now), ["b"]);
        assert_eq!(ranked(&fleet, 1, now + TIMEOUT + Duration::from_millis(1)), Vec::<String>::new());
    }

    #[test]
    fn an_answer_names_a_bounded_number_of_edges() {
        let now = Instant::now();
        let ids: Vec<String> = (0..40).map(|n| format!("e{n}")).collect();
        let fleet = fleet(&ids.iter().map(String::as_str).collect::<Vec<_>>(), now);
        assert_eq!(ranked(&fleet, 1, now).len(), RANKED_MAX);
    }
}
