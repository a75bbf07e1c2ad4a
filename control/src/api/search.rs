//! `/search`: the search index, for operators. What it finds is at `/videos`.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header::CACHE_CONTROL};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App,
    caching::NO_STORE,
    extract::{Looks, Operates},
};
use crate::finder;

/// The search index as it is now.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SearchState {
    /// Titles in it.
    titles: u64,
    /// Its parts; a search looks at each.
    segments: u64,
    /// What it takes in memory, and as much in its directory.
    bytes: u64,
    /// Whether it has a directory; without one it is made anew at the next start.
    kept: bool,
    /// Whether it had everything that is catalogued since control started.
    complete: bool,
    /// Titles that changed and are not in it yet.
    pending: u64,
    /// Whether it is to be made anew, or that is under way. It answers meanwhile.
    rebuilding: bool,
    /// How many times it was made anew for an operator since control started.
    rebuilt: u64,
    /// How many times it failed since control started, and was made anew for that.
    replaced: u64,
}

impl From<finder::State> for SearchState {
    fn from(state: finder::State) -> Self {
        Self {
            titles: state.titles,
            segments: state.segments,
            bytes: state.bytes,
            kept: state.is_kept,
            complete: state.is_whole,
            pending: state.noted,
            rebuilding: state.is_rebuilding,
            rebuilt: state.rebuilt,
            replaced: state.replaced,
        }
    }
}

/// The search index: how large it is, and whether it has everything.
#[utoipa::path(
    get, path = "/search", tag = "operation", operation_id = "inspectSearch", security(("operator" = [])),
    responses(
        (status = 200, description = "The index as it is now.", body = SearchState),
        (status = 401, description = "Not an operator."),
    )
)]
pub(super) async fn inspect(State(app): State<Arc<App>>, Looks(operator): Looks) -> Response {
    tracing::debug!(%operator, "search index looked at");
    answer(StatusCode::OK, &app)
}

/// Has the search index made anew from the catalogue. Searches go on meanwhile and miss nothing.
///
/// It follows the catalogue by itself, and is made anew when it is missing or damaged; this is for when it finds other than it should.
/// An index that could be kept in memory only, because of its directory, is in the directory again if that is good now.
#[utoipa::path(
    post, path = "/search/rebuild", tag = "operation", operation_id = "rebuildSearch", security(("operator" = [])),
    responses(
        (status = 202, description = "It will be: `rebuilding` in GET /search says until when.", body = SearchState),
        (status = 401, description = "Not an operator."),
        (status = 403, description = "The operator's role is viewer."),
    )
)]
pub(super) async fn rebuild(State(app): State<Arc<App>>, Operates(operator): Operates) -> Response {
    app.finder.rebuild();
    tracing::info!(%operator, "the search index is to be made anew");
    answer(StatusCode::ACCEPTED, &app)
}

fn answer(status: StatusCode, app: &App) -> Response {
    (status, [(CACHE_CONTROL, NO_STORE)], Json(SearchState::from(app.finder.state()))).into_response()
}
