//! `GET /videos`: titles to search, filter, count and order, a page at a time.
//!
//! The list that asks for nothing, newest first, comes from the database and is there whatever happens to search. Everything else the
//! search index finds, and the database tells what is found. Where search fails there is an empty page that says that it is not whole.

use std::{ops::RangeInclusive, str::FromStr, sync::Arc, time::Instant};

use axum::{extract::State, response::Response};
use search::{Filters, Query, Sort};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::title::{TitleId, TitleKind};

use super::{
    App,
    caching::{Conditions, Sharing},
    extract::{MaybeViewer, Params, up_to},
    problem::Problem,
    videos::{VideoSummary, entries},
};
use crate::{catalogue::Cursor, finder::NotFound};

/// Titles a page has unless told, and at most.
const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 100;
const QUERY_CHARS_MAX: usize = search::QUERY_CHARS_MAX;
/// Values of one filter, and characters of one.
const VALUES_MAX: usize = 20;
const VALUE_CHARS_MAX: usize = 64;

/// A page of titles.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct VideoPage {
    videos: Vec<VideoSummary>,
    /// Give it as `nextCursor` for the next page; null after the last one.
    #[schema(required)]
    next_cursor: Option<String>,
    /// How many titles there are on all pages; null where they were not counted.
    #[schema(required)]
    total: Option<u64>,
    /// How many titles there are of each value that they can be filtered by; null where they were not counted.
    #[schema(required)]
    facets: Option<Facets>,
    /// False while the search index is being made, and when a search ran out of time or failed: there may be more titles than this.
    complete: bool,
}

/// How many titles there are of each value, the most frequent first. A filter counts as if it were not set itself, so that one sees
/// what there would be instead.
#[derive(Serialize, ToSchema)]
pub(super) struct Facets {
    genres: Vec<TextCount>,
    years: Vec<YearCount>,
    languages: Vec<TextCount>,
    kinds: Vec<TextCount>,
}

/// A value and how many titles have it.
#[derive(Serialize, ToSchema)]
pub(super) struct TextCount {
    value: String,
    count: u64,
}

/// A year and how many titles came out in it.
#[derive(Serialize, ToSchema)]
pub(super) struct YearCount {
    value: u16,
    count: u64,
}

impl From<search::Facets> for Facets {
    fn from(facets: search::Facets) -> Self {
        let texts = |counts: Vec<(String, u64)>| counts.into_iter().map(|(value, count)| TextCount { value, count }).collect();
        Self {
            genres: texts(facets.genres),
            years: facets.years.into_iter().map(|(value, count)| YearCount { value, count }).collect(),
            languages: texts(facets.languages),
            kinds: texts(facets.kinds),
        }
    }
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SortName {
    /// What answers `searchQuery` best; of equals the most popular. Without a `searchQuery` as popularity.
    Relevance,
    /// What is watched most.
    Popularity,
    /// What was catalogued last.
    Newest,
    /// By title, without a leading article.
    Title,
}

impl From<SortName> for Sort {
    fn from(name: SortName) -> Self {
        match name {
            SortName::Relevance => Self::Relevance,
            SortName::Popularity => Self::Popularity,
            SortName::Newest => Self::Newest,
            SortName::Title => Self::Title,
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Words to look for in title, cast, description and genres, in any order, maybe misspelt, the last one maybe not finished. At most
    /// 200 characters, of which the first 20 words count.
    #[param(max_length = 200)]
    search_query: Option<String>,
    /// Where to go on: the `nextCursor` of the page before. All other parameters but `limit` and `facets` must be the same.
    next_cursor: Option<String>,
    /// How many titles, from 1 to 100; 20 unless told.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// Only titles of this genre, or of one of several: `drama,comedy`. Case and accents do not matter.
    genre: Option<String>,
    /// Only titles of this year, of a range, or of one of several: `1999`, `1990-1999,2003`.
    #[param(example = "1990-1999,2003")]
    year: Option<String>,
    /// Only titles whose original is in this language, or in one of several: `en` is also `en-GB` (RFC 4647, basic filtering).
    language: Option<String>,
    /// Only titles of this kind, or of one of several: `film,episode`.
    kind: Option<String>,
    /// What comes first: with a `searchQuery` relevance unless told, without one newest.
    #[param(inline)]
    sort: Option<SortName>,
    /// Whether `facets` and `total` are counted. Unless told, on first pages, but not of the list that asks for nothing.
    facets: Option<bool>,
}

/// Titles that a search finds, or all of them, newest first; a page at a time.
///
/// Pages neither repeat nor skip a title while others come and go. A title that was published, amended or removed shows within a
/// second.
#[utoipa::path(
    get, path = "/videos", tag = "videos", operation_id = "listVideos", security((), ("viewer" = []), ("operator" = [])), params(ListParams),
    responses(
        (status = 200, description = "A page of titles.", body = VideoPage, headers(("ETag" = String, description = "Of this page."))),
        (status = 304, description = "It is the page that If-None-Match names."),
        (status = 400, description = "A parameter is wrong."),
        (status = 401, description = "Control is not open to those without a token, or the token is not good."),
        (status = 503, description = "More searches wait than can be answered in time."),
    )
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    _: MaybeViewer,
    conditions: Conditions,
    Params(params): Params<ListParams>,
) -> Result<Response, Problem> {
    let limit = up_to("limit", params.limit.unwrap_or(LIMIT_DEFAULT), LIMIT_MAX)?;
    let text = params.search_query.unwrap_or_default();
    if text.chars().count() > QUERY_CHARS_MAX {
        return Err(Problem::bad_parameter("searchQuery", format!("it is longer than {QUERY_CHARS_MAX} characters")));
    }
    let filters = Filters {
        genres: values("genre", params.genre.as_deref(), |genre| Ok::<_, std::convert::Infallible>(genre.to_owned()))?,
        years: values("year", params.year.as_deref(), years)?,
        languages: values("language", params.language.as_deref(), |range| Ok::<_, std::convert::Infallible>(range.to_owned()))?,
        kinds: values("kind", params.kind.as_deref(), |kind| TitleKind::from_str(kind).map(|kind| kind.to_string()))?,
    };
    let has_words = !text.trim().is_empty();
    let sort = params.sort.unwrap_or(if has_words { SortName::Relevance } else { SortName::Newest });
    let asks_nothing = !has_words && filters == Filters::default() && sort == SortName::Newest;
    let after = params.next_cursor.as_deref();
    let page = if asks_nothing {
        // The same list and cursor whether or not it is counted.
        let page = newest(&app, after, limit).await?;
        match params.facets {
            Some(true) => {
                let query =
                    Query { text, filters, sort: sort.into(), after: None, limit: 1, facets: true, until: Instant::now() };
                let VideoPage { total, facets, complete, .. } = found(&app, query).await?;
                VideoPage { total, facets, complete, ..page }
            }
            _ => page,
        }
    } else {
        let after = after.map(parsed).transpose()?;
        let facets = params.facets.unwrap_or(after.is_none());
        let until = Instant::now();
        let query = Query { text, filters, sort: sort.into(), after, limit: limit as usize, facets, until };
        found(&app, query).await?
    };
    let sharing = if page.complete { Sharing::of_catalogue(&app) } else { Sharing::Nobody };
    Ok(conditions.answer(sharing, &page))
}

async fn newest(app: &App, cursor: Option<&str>, limit: u32) -> Result<VideoPage, Problem> {
    let cursor: Option<Cursor> = cursor.map(parsed).transpose()?;
    // One more than the page has tells whether there is another page.
    let mut titles = app.db.newest(cursor, limit + 1).await?;
    let more = titles.len() > limit as usize;
    titles.truncate(limit as usize);
    let next_cursor = titles.last().filter(|_| more).map(|last| Cursor::after(last).to_string());
    let videos = titles.into_iter().map(VideoSummary::from).collect();
    Ok(VideoPage { videos, next_cursor, total: None, facets: None, complete: true })
}

async fn found(app: &App, query: Query) -> Result<VideoPage, Problem> {
    let counted = query.facets;
    let begun = Instant::now();
    let answer = app.finder.search(query).await;
    app.metrics.search.searched(&answer, begun.elapsed());
    let answer = match answer {
        Err(NotFound::Failing(fault)) => {
            tracing::warn!(%fault, "a search is answered with nothing");
            return Ok(VideoPage { videos: Vec::new(), next_cursor: None, total: None, facets: None, complete: false });
        }
        answer => answer?,
    };
    // What was removed since the index was told is left out.
    let ids = answer.ids.iter().filter_map(|id| id.parse::<TitleId>().ok()).collect();
    let videos = entries(app, ids).await?.iter().map(|entry| VideoSummary::from(entry.summary.clone())).collect();
    Ok(VideoPage {
        videos,
        next_cursor: answer.next.map(|cursor| cursor.to_string()),
        total: counted.then_some(answer.found),
        facets: answer.facets.map(Facets::from),
        complete: answer.whole,
    })
}

fn parsed<C: FromStr<Err: std::fmt::Display>>(cursor: &str) -> Result<C, Problem> {
    cursor.parse().map_err(|error| Problem::bad_parameter("nextCursor", error))
}

/// The values of a filter, which stand between commas.
fn values<T, E: std::fmt::Display>(
    name: &str,
    text: Option<&str>,
    value: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, Problem> {
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    let values: Vec<&str> = text.split(',').map(str::trim).collect();
    if values.len() > VALUES_MAX {
        return Err(Problem::bad_parameter(name, format!("it has more than {VALUES_MAX} values")));
    }
    if values.iter().any(|value| value.is_empty() || value.chars().count() > VALUE_CHARS_MAX) {
        return Err(Problem::bad_parameter(name, format!("each value must have 1 to {VALUE_CHARS_MAX} characters")));
    }
    values.into_iter().map(|text| value(text).map_err(|error| Problem::bad_parameter(name, error))).collect()
}

/// "1999", or "1990-1999".
fn years(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    const EXPECTED: &str = "expected a year such as 1999, or a range such as 1990-1999";
    let year = |text: &str| text.parse::<u16>().map_err(|_| EXPECTED);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let years = year(first)?..=year(last)?;
    if years.is_empty() { Err(EXPECTED) } else { Ok(years) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_are_one_or_a_range() {
        assert_eq!(years("1999"), Ok(1999..=1999));
        assert_eq!(years("1990-1999"), Ok(1990..=1999));
        for bad in ["", "x", "1999-", "-1999", "1999-1990", "70000", "1-2-3"] {
            assert!(years(bad).is_err(), "{bad}");
        }
    }
}
