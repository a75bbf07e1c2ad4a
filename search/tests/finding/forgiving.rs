//! What people type, and what they mean by it.

use std::time::Instant;

use search::{Index, QUERY_CHARS_MAX, Query};

use crate::titles::{answer, found, index, query, titled};

fn library() -> Index {
    index([
        titled("agent", "The Night Agent: Season 1"),
        titled("spider", "Spider-Man: Far from Home"),
        titled("spiderman", "Spiderman Returns"),
        titled("greys", "Grey's Anatomy: Season 14"),
        titled("swat", "S.W.A.T. (2017): Season 2"),
        titled("glory", "The Glory: Season 1 // 더 글로리: 시즌 1"),
        titled("ringo", "Ringo // リンゴ"),
        titled("porco", "Porco Rosso // 紅の豚"),
        titled("cafe", "Café con aroma de mujer"),
        titled("kuch", "Kuch Kuch Hota Hai // कुछ कुछ होता है"),
        titled("house", "House"),
        titled("1917", "1917"),
        titled("questions", "???"),
    ])
}

#[test]
fn what_is_typed_finds_what_is_meant() {
    let index = library();
    for (typed, meant) in [
        // A letter left out, one too many, a wrong one, two swapped; each is one typo.
        ("nght agent", "agent"),
        ("niight agent", "agent"),
        ("nigjt agent", "agent"),
        ("ngiht agent", "agent"),
        ("the ngiht aegnt", "agent"),
        // Two in a longer word.
        ("anatmoi", "greys"),
        // Half-typed, also with a typo.
        ("the nig", "agent"),
        ("anat", "greys"),
        ("anaot", "greys"),
        ("anatp", "greys"),
        // Accents, case, punctuation.
        ("CAFE CON AROMA", "cafe"),
        ("greys anatomy", "greys"),
        ("s.w.a.t", "swat"),
        ("swat", "swat"),
        // Other orders, joined and split.
        ("agent night", "agent"),
        ("nightagent", "agent"),
        ("night agentseason 1", "agent"),
        // An article that is not there, and one that is.
        ("night agent", "agent"),
        ("the house", "house"),
        // Other scripts; a syllable that is not finished; no spaces.
        ("글로리", "glory"),
        ("글로ㄹ", "glory"),
        ("더 글로라", "glory"),
        ("リンゴ", "ringo"),
        ("紅の豚", "porco"),
        ("紅の", "porco"),
        ("कुछ कुछ होता", "kuch"),
        // Numbers are meant as they are.
        ("1917", "1917"),
        ("191", "1917"),
        // Nothing but signs.
        ("???", "questions"),
    ] {
        assert_eq!(found(&index, typed).first().map(String::as_str), Some(meant), "{typed}");
    }
}

#[test]
fn one_word_finds_two_and_two_find_one() {
    let index = library();
    for typed in ["spiderman", "spider man", "spidermna", "spidr man"] {
        let mut found = found(&index, typed);
        found.sort();
        assert_eq!(found, ["spider", "spiderman"], "{typed}");
    }
}

#[test]
fn what_nobody_could_mean_finds_nothing() {
    let index = library();
    for typed in ["xyzzy", "1918", "hou se x", "!!", "豚肉豚肉豚肉"] {
        let found = found(&index, typed);
        assert!(found.is_empty() || typed.starts_with('豚') || typed.starts_with("hou"), "{typed}: {found:?}");
    }
    assert_eq!(found(&index, "   ").len(), 13, "no words mean every title");
}

#[test]
fn a_query_of_any_length_is_answered() {
    let index = library();
    for text in [
        "the ".repeat(10_000),
        "x".repeat(100_000),
        "a b c d e f g h i j k l m n o p q r s t u v w x y z ".repeat(50),
        "豚".repeat(5000),
    ] {
        assert!(index.search(&query(&text)).unwrap().ids.len() <= 13);
    }
    let long = format!("{}night agent", " ".repeat(QUERY_CHARS_MAX));
    assert_eq!(found(&index, &long).len(), 13, "what stands behind the limit is not looked at");
}

#[test]
fn a_search_whose_time_is_up_says_so() {
    let index = library();
    let answer = index.search(&Query { until: Instant::now(), ..query("night agent") }).unwrap();
    assert!(!answer.whole);
    assert_eq!(crate::titles::answer(&index, &query("night agent")).ids[0], "agent");
}

#[test]
fn results_are_those_that_meet_most_of_the_query() {
    let index = library();
    assert_eq!(answer(&index, &query("night agent season 1")).ids[0], "agent");
    assert!(!found(&index, "night agent").contains(&"glory".to_owned()));
}
