//! How popular titles are, by their order: what the scores are (hours, views, a decayed sum) does not matter, and neither does
//! whether they are spread evenly or, as everywhere, a few have most of it.

use foldhash::{HashMap, HashMapExt as _};
use xxhash_rust::xxh3::Xxh3;

use crate::document::key;

/// What the most popular title has.
pub(crate) const MOST: u32 = 1000;

/// A snapshot of all scores.
#[derive(Debug, Default)]
pub(crate) struct Popularity {
    /// The same for the same scores, in any process.
    pub(crate) epoch: u64,
    /// By keys, which are hashes already, so the quickest hash of them will do.
    ranks: HashMap<u64, u16>,
}

impl Popularity {
    /// Takes scores by id. Of n titles that have any, the k-th most popular one has `1 - ln k / ln (n + 1)`: views fall with
    /// the rank about as 1/k (Zipf), so this is about the logarithm of the views. Titles of equal scores are equally popular.
    pub(crate) fn new<'a>(scores: impl IntoIterator<Item = (&'a str, f32)>) -> Self {
        let scores = scores.into_iter().filter(|(_, score)| *score > 0.0);
        let mut by_score: Vec<(f32, u64)> = scores.map(|(id, score)| (score, key(id))).collect();
        by_score.sort_unstable_by(|(a, a_key), (b, b_key)| b.total_cmp(a).then(a_key.cmp(b_key)));
        let mut hash = Xxh3::new();
        let mut ranks = HashMap::with_capacity(by_score.len());
        let all = (by_score.len() as f64 + 1.0).ln();
        let (mut before, mut share) = (f32::INFINITY, 0);
        for (n, (score, key)) in by_score.into_iter().enumerate() {
            if score < before {
                share = (f64::from(MOST) * (1.0 - (n as f64 + 1.0).ln() / all)).round() as u16;
                before = score;
            }
            hash.update(&key.to_le_bytes());
            hash.update(&share.to_le_bytes());
            ranks.insert(key, share);
        }
        Self { epoch: hash.digest(), ranks }
    }

    /// From 0 to [`MOST`].
    pub(crate) fn of(&self, key: u64) -> u32 {
        self.ranks.get(&key).copied().unwrap_or(0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_counts_and_not_the_scale() {
        let scores = [("a", 1.0), ("b", 0.5), ("c", 0.001), ("d", 0.0), ("same", 0.5)];
        let popularity = Popularity::new(scores);
        let of = |id: &str| popularity.of(key(id));
        assert_eq!((of("a"), of("d"), of("unknown")), (MOST, 0, 0));
        assert!(of("b") < of("a") && of("c") < of("b") && of("c") > 0);
        assert_eq!(of("b"), of("same"));
        let squared = Popularity::new(scores.map(|(id, score)| (id, score * score)));
        assert_eq!((squared.of(key("b")), squared.epoch), (of("b"), popularity.epoch));
        assert_ne!(Popularity::new([("a", 1.0), ("b", 2.0)]).epoch, popularity.epoch);
        assert_eq!(Popularity::new([]).epoch, Popularity::new([("x", f32::NAN)]).epoch, "what is no number is no score");
    }
}
