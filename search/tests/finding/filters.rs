//! Filters let through what they say, and count what there would be.

use search::{Document, Facets, Filters, Index, Query, Sort};

use crate::titles::{answer, index, query, titled};

fn library() -> Index {
    let film = |id: &str, title: &str, genres: &[&str], year, language: &str, kind: &str| Document {
        genres: genres.iter().map(|genre| (*genre).to_owned()).collect(),
        year: Some(year),
        language: Some(language.into()),
        kind: Some(kind.into()),
        ..titled(id, title)
    };
    index([
        film("a", "Night One", &["Drama", "Sci-Fi"], 1999, "en-GB", "film"),
        film("b", "Night Two", &["drama"], 2003, "en", "episode"),
        film("c", "Night Three", &["Comedy", "comedy"], 2003, "de", "film"),
        film("d", "Day Four", &["Drama"], 2010, "pt-BR", "film"),
        titled("bare", "Night Five"),
    ])
}

fn ids(index: &Index, text: &str, filters: Filters) -> Vec<String> {
    let mut ids = answer(index, &Query { filters, ..query(text) }).ids;
    ids.sort();
    ids
}

#[test]
fn each_filter_lets_through_what_it_names() {
    let index = library();
    let genre =
        |genres: &[&str]| Filters { genres: genres.iter().map(|genre| (*genre).to_owned()).collect(), ..Filters::default() };
    assert_eq!(ids(&index, "night", genre(&["DRAMA"])), ["a", "b"], "however it is written");
    assert_eq!(ids(&index, "night", genre(&["sci fi", "comedy"])), ["a", "c"], "any of them");
    assert_eq!(ids(&index, "night", genre(&["horror"])), Vec::<String>::new());
    let years = |years: &[std::ops::RangeInclusive<u16>]| Filters { years: years.to_vec(), ..Filters::default() };
    assert_eq!(ids(&index, "", years(&[2000..=2010])), ["b", "c", "d"]);
    assert_eq!(ids(&index, "", years(&[1999..=1999, 2010..=2020])), ["a", "d"]);
    let languages = |language: &str| Filters { languages: vec![language.into()], ..Filters::default() };
    assert_eq!(ids(&index, "", languages("EN")), ["a", "b"], "a range (RFC 4647)");
    assert_eq!(ids(&index, "", languages("en-gb")), ["a"]);
    let kinds = Filters { kinds: vec!["film".into()], ..genre(&["drama"]) };
    assert_eq!(ids(&index, "", kinds), ["a", "d"], "all filters together");
}

#[test]
fn values_are_counted_as_if_their_own_filter_were_not_there() {
    let index = library();
    let filters = Filters { genres: vec!["drama".into()], kinds: vec!["film".into()], ..Filters::default() };
    let facets = answer(&index, &Query { filters, facets: true, limit: 1, ..query("night") }).facets.unwrap();
    let counts = |counts: &[(&str, u64)]| counts.iter().map(|(value, count)| ((*value).to_owned(), *count)).collect::<Vec<_>>();
    assert_eq!(
        facets,
        Facets {
            genres: counts(&[("Comedy", 1), ("Drama", 1), ("Sci-Fi", 1)]),
            years: vec![(1999, 1)],
            languages: counts(&[("en-GB", 1)]),
            kinds: counts(&[("episode", 1), ("film", 1)]),
        }
    );
    let all = answer(&index, &Query { facets: true, sort: Sort::Newest, ..query("") });
    let facets = all.facets.unwrap();
    assert_eq!((all.found, facets.years), (5, vec![(2003, 2), (1999, 1), (2010, 1)]));
    assert_eq!(facets.genres, counts(&[("Drama", 3), ("Comedy", 1), ("Sci-Fi", 1)]));
    assert_eq!(answer(&index, &query("night")).facets, None, "counted when asked");
}
