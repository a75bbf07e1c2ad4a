//! What comes first.

use search::{Document, Sort};

use crate::titles::{answer, found, index, query, titled};

#[test]
fn the_title_itself_is_before_its_beginning_its_misspelling_the_cast_and_the_description() {
    let index = index([
        Document { description: "About a stranger who comes to town.".into(), ..titled("description", "High Noon") },
        Document { cast: vec!["Jane Stranger".into()], ..titled("cast", "Other People") },
        titled("typo", "Strangler"),
        titled("begins", "Stranger Than Ever"),
        titled("inside", "My Stranger"),
        titled("exact", "The Stranger"),
    ]);
    assert_eq!(
        found(&index, "stranger"),
        ["exact", "begins", "inside", "typo", "cast"],
        "a description is no match beside these"
    );
    assert_eq!(found(&index, "town"), ["description"]);
    assert_eq!(found(&index, "the stranger")[0], "exact");
}

#[test]
fn of_equals_the_most_popular_is_first() {
    let index =
        index([titled("a", "Night Train"), titled("b", "Night Watch"), titled("c", "Night Shift"), titled("d", "The Day")]);
    index.set_popularity([("b", 0.9), ("c", 0.5), ("a", 0.1), ("d", 1.0)]);
    assert_eq!(found(&index, "night"), ["b", "c", "a"]);
    index.set_popularity([("a", 3.0), ("c", 2.0)]);
    assert_eq!(found(&index, "nihgt"), ["a", "c", "b"], "the scale does not matter, and who is not listed is last");
}

#[test]
fn popularity_does_not_make_up_for_another_word() {
    let index = index([titled("meant", "Cold Harbor"), titled("popular", "Cold Mountain")]);
    index.set_popularity([("popular", 1.0)]);
    assert_eq!(found(&index, "cold harbor"), ["meant"]);
    assert_eq!(found(&index, "cold harbr")[0], "meant");
}

#[test]
fn words_that_stand_together_are_before_the_same_words_apart() {
    let index = index([titled("apart", "Bad Days at the Breaking Point"), titled("together", "Breaking Bad: Season 2")]);
    assert_eq!(found(&index, "breaking bad"), ["together", "apart"]);
    assert_eq!(found(&index, "bad breaking")[0], "together", "also out of order");
}

#[test]
fn a_rare_word_says_more_than_a_frequent_one() {
    let mut titles: Vec<_> = (0..50).map(|n| titled(&format!("s{n}"), &format!("Show {n}: Season {}", n % 5))).collect();
    titles.push(titled("meant", "Kaleidoscope: Limited Series"));
    let index = index(titles);
    assert_eq!(found(&index, "kaleidoscope season 1")[0], "meant");
}

#[test]
fn an_actor_is_found_by_both_names_and_among_titles_by_the_rest() {
    let index = index([
        Document { cast: vec!["Tom Hardy".into(), "Colin Hanks".into()], ..titled("mixed", "One") },
        Document { cast: vec!["Meg Ryan".into(), "Tom Hanks".into()], ..titled("meant", "Two") },
        titled("title", "Tom and Jerry"),
    ]);
    assert_eq!(found(&index, "tom hanks")[..2], ["meant", "mixed"], "the names of one person stand together");
    assert_eq!(found(&index, "tom hankz")[0], "meant");
    assert_eq!(found(&index, "two hanks")[0], "meant");
}

#[test]
fn genres_are_words_too() {
    let index = index([Document { genres: vec!["Western".into()], ..titled("a", "High Noon") }, titled("b", "Western Front")]);
    assert_eq!(found(&index, "western"), ["b", "a"]);
}

#[test]
fn year_and_language_are_words_too() {
    let film = |id: &str, title: &str, genre: &str, year, language: &str| Document {
        genres: vec![genre.into()],
        year: Some(year),
        language: Some(language.into()),
        ..titled(id, title)
    };
    let index = index([
        film("old", "The Stranger", "Drama", 1946, "en"),
        film("new", "The Stranger", "Drama", 2022, "en-AU"),
        film("ko", "Forgotten", "Thriller", 2017, "ko"),
        film("da", "The Guilty", "Thriller", 2018, "da"),
    ]);
    assert_eq!(found(&index, "stranger 2022")[0], "new");
    assert_eq!(found(&index, "stranger 1946")[0], "old");
    assert_eq!(found(&index, "korean thriller")[0], "ko");
    assert_eq!(found(&index, "koraen")[0], "ko", "a language's name may be misspelt");
    assert_eq!(found(&index, "dansk"), ["da"], "or be its own");
    assert_eq!(found(&index, "2018"), ["da"]);
}

#[test]
fn lists_have_the_order_that_is_asked_for() {
    let document = |id: &str, title: &str, created_at_ms| Document { created_at_ms, ..titled(id, title) };
    let index = index([document("a", "The Zebra", 3), document("b", "Émile", 1), document("c", "apple", 2)]);
    index.set_popularity([("b", 2.0), ("a", 1.0)]);
    let sorted = |text: &str, sort| answer(&index, &search::Query { sort, ..query(text) }).ids;
    assert_eq!(sorted("", Sort::Newest), ["a", "c", "b"]);
    assert_eq!(sorted("", Sort::Popularity), ["b", "a", "c"]);
    assert_eq!(sorted("", Sort::Relevance), ["b", "a", "c"], "without words, what is popular");
    assert_eq!(sorted("", Sort::Title), ["c", "b", "a"]);
    assert_eq!(sorted("zebra", Sort::Title), ["a"]);
}
