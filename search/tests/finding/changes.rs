//! The index follows, and is searched meanwhile.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use search::{Change, Document, Index};

use crate::titles::{found, put, query, titled};

#[test]
fn changes_are_seen_when_they_are_applied() {
    let index = Index::in_memory().unwrap();
    assert_eq!(found(&index, "night"), Vec::<String>::new());
    index.apply([put(titled("a", "Night")), put(titled("b", "Night Watch"))]).unwrap();
    assert_eq!(found(&index, "night"), ["a", "b"]);
    let renamed = Document { stamp: 2, ..titled("a", "Day") };
    index.apply([put(renamed), Change::Remove("b".into()), Change::Remove("unknown".into())]).unwrap();
    assert_eq!((found(&index, "night"), found(&index, "day")), (vec![], vec!["a".into()]));
    assert_eq!(index.stamps().unwrap(), BTreeMap::from([("a".to_owned(), 2)]));
    // In one go, the last word counts.
    index
        .apply([put(titled("c", "Noon")), Change::Remove("c".into()), put(titled("d", "One")), put(titled("d", "Two"))])
        .unwrap();
    assert_eq!((found(&index, "noon"), found(&index, "one"), found(&index, "two")), (vec![], vec![], vec!["d".into()]));
    assert_eq!(index.titles(), 2);
}

#[test]
fn many_small_changes_do_not_make_many_segments() {
    let index = Index::in_memory().unwrap();
    for n in 0..30 {
        index.apply([put(titled(&format!("t{n}"), &format!("Night {n}")))]).unwrap();
    }
    assert_eq!(found(&index, "night").len(), 30);
    assert!(index.segments() < 30, "{} segments", index.segments());
    index.compact().unwrap();
    assert_eq!((index.segments(), found(&index, "night").len()), (1, 30));
    let full = index.bytes();
    for n in 0..30 {
        index.apply([Change::Remove(format!("t{n}"))]).unwrap();
    }
    index.compact().unwrap();
    // What was merged away may be let go a moment later.
    assert!(index.titles() == 0 && index.bytes() < 2 * full, "{} beside {full} bytes", index.bytes());
}

#[test]
fn searches_see_one_state_or_the_next_while_it_changes() {
    let index = Index::in_memory().unwrap();
    let generation =
        |n: u64| (0..20).map(move |id| put(Document { stamp: n, ..titled(&format!("t{id}"), &format!("Night {n}")) }));
    index.apply(generation(0)).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(index.search(&query("nihgt")).unwrap().found, 20);
                    let stamps = index.stamps().unwrap();
                    assert!(stamps.len() == 20 && stamps.values().all(|stamp| stamp == &stamps["t0"]), "{stamps:?}");
                }
            });
        }
        for n in 1..10 {
            index.apply(generation(n)).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
}
