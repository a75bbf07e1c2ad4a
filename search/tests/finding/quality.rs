//! Does a misspelt, half-typed or otherwise mistaken query find what was meant? On real titles with the hours they were watched.
//!
//! `derived.tsv`: 200 queries, made by `benches/src/search/typist.rs` from a seed. `by_hand.tsv`: queries that a person wrote down
//! before any of them was tried. Each line has what is typed and the title that is meant. `titles.tsv` has the titles that these mean,
//! the ones that could be taken for them, and the most watched ones, of 18,214; the benchmark `search` asks the same of all.

use std::{fs, path::Path};

use search::Index;

use crate::titles::{answer, index, query, titled};

/// Of a hundred.
const FOUND_MIN: usize = 95;

fn table(name: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/quality").join(name)).unwrap();
    let row = |line: &str| {
        let mut fields = line.split('\t').map(str::to_owned);
        (fields.next().unwrap(), fields.next().unwrap())
    };
    text.lines().map(row).collect()
}

fn library() -> (Index, Vec<(String, String)>) {
    let titles = table("titles.tsv");
    let index = index((0..titles.len()).map(|n| titled(&format!("t{n}"), &titles[n].0)));
    let ids: Vec<String> = (0..titles.len()).map(|n| format!("t{n}")).collect();
    index.set_popularity(ids.iter().zip(&titles).map(|(id, (_, hours))| (id.as_str(), hours.parse().unwrap())));
    (index, titles)
}

fn holds(queries: &str, least: usize) {
    let (index, titles) = library();
    let queries = table(queries);
    assert!(queries.len() >= least);
    let mut missed = Vec::new();
    for (text, meant) in &queries {
        let ids = answer(&index, &search::Query { limit: 3, ..query(text) }).ids;
        let first: Vec<&str> = ids.iter().map(|id| titles[id[1..].parse::<usize>().unwrap()].0.as_str()).collect();
        if !first.contains(&meant.as_str()) {
            missed.push(format!("{text:?} means {meant:?}, found {first:?}"));
        }
    }
    let found = queries.len() - missed.len();
    assert!(100 * found >= FOUND_MIN * queries.len(), "{found} of {}:\n{}", queries.len(), missed.join("\n"));
}

#[test]
fn what_was_meant_is_among_the_first_three_for_queries_mistaken_by_a_seed() {
    holds("derived.tsv", 200);
}

#[test]
fn what_was_meant_is_among_the_first_three_for_queries_written_by_hand() {
    holds("by_hand.tsv", 60);
}
