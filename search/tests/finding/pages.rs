//! Pages follow each other to the end, whatever happens to other titles meanwhile.

use std::collections::BTreeSet;

use search::{Change, Document, Filters, Index, Query, SearchError, Sort};

use crate::titles::{answer, index, put, query, titled};

const SORTS: [Sort; 4] = [Sort::Relevance, Sort::Popularity, Sort::Newest, Sort::Title];

/// A number that looks like chance.
fn chance(seed: &mut u64) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize
}

fn show(n: usize, season: usize) -> Document {
    let names = ["The Night Agent", "Night Shift", "Knight Rider", "Nights of Cabiria", "A Quiet Night"];
    let title = format!("{}: Season {season}", names[n % names.len()]);
    Document { created_at_ms: (n as u64 * 7919) % 50, ..titled(&format!("t{n}"), &title) }
}

fn library(count: usize) -> Index {
    let index = index((0..count).map(|n| show(n, n / 5)));
    let ids: Vec<String> = (0..count).map(|n| format!("t{n}")).collect();
    index.set_popularity(ids.iter().zip(1_u16..).map(|(id, score)| (id.as_str(), f32::from(score % 9))));
    index
}

/// All pages of `query`; between them `meanwhile` is called with the number of the page.
fn pages(index: &Index, mut query: Query, mut meanwhile: impl FnMut(usize)) -> Vec<String> {
    let mut seen = Vec::new();
    for n in 0.. {
        let page = answer(index, &query);
        seen.extend(page.ids);
        let Some(next) = page.next else {
            break;
        };
        // As it comes back from outside.
        query.after = Some(next.to_string().parse().unwrap());
        meanwhile(n);
    }
    seen
}

#[test]
fn pages_are_one_list_cut_up() {
    let index = library(47);
    for sort in SORTS {
        for text in ["night", "nihgt season 3", ""] {
            let whole = answer(&index, &Query { sort, ..query(text) });
            assert_eq!(whole.found, whole.ids.len() as u64);
            for limit in [1, 3, 20, 46, 47, 48] {
                let cut = pages(&index, Query { sort, limit, ..query(text) }, |_| {});
                assert_eq!(cut, whole.ids, "{sort:?} {text:?} {limit}");
            }
        }
    }
}

#[test]
fn pages_neither_repeat_nor_skip_while_titles_come_and_go_and_popularity_changes() {
    for round in 0..3_u64 {
        let mut seed = round + 1;
        for sort in SORTS {
            let (index, text) = (library(60), ["night", "nigth seaso", ""][round as usize % 3]);
            let before: BTreeSet<String> = answer(&index, &Query { sort, ..query(text) }).ids.into_iter().collect();
            let (mut gone, mut new) = (BTreeSet::new(), 1000);
            let seen = pages(&index, Query { sort, limit: 6 + chance(&mut seed) % 9, ..query(text) }, |n| {
                let mut changes = Vec::new();
                for _ in 0..3 {
                    // Titles that make words rarer or more frequent, and some that would be found.
                    changes.push(put(show(new, chance(&mut seed) % 20)));
                    new += 1;
                    let id = format!("t{}", chance(&mut seed) % 60);
                    changes.push(Change::Remove(id.clone()));
                    gone.insert(id);
                }
                index.apply(changes).unwrap();
                if n % 4 == 3 {
                    index.compact().unwrap();
                }
                if n < 3 {
                    let popular = format!("t{}", chance(&mut seed) % 60);
                    index.set_popularity([(popular.as_str(), 1.0), ("t7", 0.5)]);
                }
            });
            let unique: BTreeSet<String> = seen.iter().cloned().collect();
            assert_eq!(unique.len(), seen.len(), "round {round} {sort:?}: a title is there twice: {seen:?}");
            let stayed: BTreeSet<String> = before.difference(&gone).cloned().collect();
            let missing: Vec<_> = stayed.difference(&unique).collect();
            assert!(missing.is_empty(), "round {round} {sort:?}: {missing:?} stayed and were skipped");
        }
    }
}

#[test]
fn a_cursor_goes_on_with_its_own_search_only() {
    let index = library(20);
    let first = answer(&index, &Query { limit: 5, ..query("night") });
    let after = first.next.unwrap();
    let other_filters = Filters { kinds: vec!["film".into()], ..Filters::default() };
    for other in [
        query("nigh"),
        query("night "),
        query(""),
        Query { sort: Sort::Title, ..query("night") },
        Query { filters: other_filters, ..query("night") },
    ] {
        let outcome = index.search(&Query { after: Some(after.clone()), ..other });
        assert!(matches!(outcome, Err(SearchError::OtherSearch)), "{outcome:?}");
    }
    let differently_typed = Query { after: Some(after), limit: 7, ..query("  NIGHT") };
    assert_eq!(answer(&index, &differently_typed).ids.len(), 7, "the same words are the same search");
}

#[test]
fn a_cursor_whose_popularity_is_long_gone_goes_on_with_that_of_now() {
    let index = library(20);
    let first = answer(&index, &Query { limit: 5, ..query("night") });
    for n in 0..10_u8 {
        index.set_popularity([("t1", f32::from(n)), ("t2", 5.5)]);
    }
    assert!(!answer(&index, &Query { after: first.next, ..query("night") }).ids.is_empty());
}
