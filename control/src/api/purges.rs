//! `/purges`: edges forget what they have of some objects, all of them, a site's, or one; with the state of each.
//!
//! A purge is numbered and kept before it is told, so that an edge that is away carries it out when it comes back.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, LOCATION},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;
use wire::operate::What;

use super::{
    App,
    caching::NO_STORE,
    extract::{Looks, Named, Operates, Sent},
    now_unix_ms,
    problem::{Kind, Problem},
    schema,
    timestamp::rfc3339,
};
use crate::db::KeptPurge;

/// How long an answer waits for edges that are connected.
const PATIENCE: Duration = Duration::from_secs(2);
/// The most that one purge names. A message with it fits a line.
const WANTED_MAX: usize = 64;

/// What edges are to forget, and which edges.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PurgeOrder {
    /// From 1 to 64.
    #[schema(value_type = Vec<schema::What>, min_items = 1, max_items = 64)]
    purge: Vec<What>,
    /// Only edges of this site.
    site: Option<String>,
    /// Only this edge.
    edge: Option<String>,
}

/// A purge, and how far each edge is with it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PurgeView {
    /// Its number: a later one has a larger.
    number: u64,
    #[schema(format = DateTime)]
    at: String,
    #[schema(value_type = Vec<schema::What>)]
    purge: Vec<What>,
    #[schema(required)]
    site: Option<String>,
    #[schema(required)]
    edge: Option<String>,
    /// Whether no edge is pending.
    is_done: bool,
    /// The edges that it is for, by id.
    edges: Vec<PurgedEdge>,
}

/// An edge, and how far it is with a purge.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PurgedEdge {
    edge: String,
    site: String,
    state: PurgeState,
    /// Why it could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// How far an edge is with a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PurgeState {
    /// It has been done.
    Done,
    /// The edge says that it could not.
    Failed,
    /// The edge was told, or is about to be.
    Pending,
    /// The edge is away, and is told when it comes back.
    Away,
}

async fn view(app: &App, number: u64) -> Result<PurgeView, Problem> {
    let (purge, errors) = app
        .db
        .purge(number)
        .await?
        .ok_or_else(|| Problem::new(Kind::NoSuchPurge, format!("there is no purge {number}; only the newest are kept")))?;
    let state = |edge: &crate::fleet::Edge| {
        let error = errors.iter().find(|(id, _)| id == edge.id.as_str()).map(|(_, error)| error.clone());
        let state = match app.purges.of(&edge.id) >= number {
            true if error.is_some() => PurgeState::Failed,
            true => PurgeState::Done,
            false if app.streams.is_open(&edge.id) => PurgeState::Pending,
            false => PurgeState::Away,
        };
        PurgedEdge { edge: edge.id.to_string(), site: edge.registration.site.clone(), state, error }
    };
    let edges: Vec<_> = {
        let fleet = app.fleet.read();
        fleet.edges().filter(|edge| purge.is_for(edge.id.as_str(), &edge.registration.site)).map(state).collect()
    };
    Ok(PurgeView {
        number,
        at: rfc3339(purge.at_ms),
        purge: purge.wanted,
        site: purge.site,
        edge: purge.edge,
        is_done: edges.iter().all(|edge| matches!(edge.state, PurgeState::Done | PurgeState::Failed)),
        edges,
    })
}

/// Has edges forget what they have of some objects. Answers when those that are connected have, or after two seconds.
#[utoipa::path(
    post, path = "/purges", tag = "fleet", operation_id = "purge", security(("operator" = [])),
    request_body(content = PurgeOrder, description = "What to forget, and where."),
    responses(
        (status = 200, description = "Every edge that it is for has done it, or could not.", body = PurgeView, headers(("Location" = String, description = "Where its state is."))),
        (status = 202, description = "Some edges are not done yet; those that are away are told when they come back.", body = PurgeView, headers(("Location" = String, description = "Where its state is."))),
        (status = 401, description = "Not an operator."),
        (status = 403, description = "The operator's role is viewer."),
        (status = 404, description = "There is no such edge or site."),
        (status = 422, description = "What is to be purged names nothing."),
    )
)]
pub(super) async fn purge(
    State(app): State<Arc<App>>,
    Operates(operator): Operates,
    Sent(PurgeOrder { purge, site, edge }): Sent<PurgeOrder>,
) -> Result<Response, Problem> {
    if purge.is_empty() || purge.len() > WANTED_MAX {
        return Err(Problem::new(Kind::FlawedPurge, format!("a purge names from 1 to {WANTED_MAX} things, not {}", purge.len())));
    }
    purge.iter().try_for_each(What::check).map_err(|error| Problem::new(Kind::FlawedPurge, error.to_string()))?;
    {
        let fleet = app.fleet.read();
        if let Some(edge) = &edge
            && fleet.edge(edge).is_none()
        {
            return Err(Problem::new(Kind::NoSuchEdge, format!("no edge {edge:?} is registered")));
        }
        if let Some(site) = &site
            && !fleet.edges().any(|edge| edge.registration.site == *site)
        {
            return Err(Problem::new(Kind::NoSuchSite, format!("no edge stands at a site {site:?}")));
        }
    }
    let mut steps = app.purges.steps();
    let kept = KeptPurge { number: 0, at_ms: now_unix_ms(), site, edge, wanted: purge };
    let number = app.db.add_purge(kept).await?;
    tracing::info!(%operator, number, "purge");
    app.streams.tell_news();
    let waiting = async {
        loop {
            let view = view(&app, number).await?;
            if !view.edges.iter().any(|edge| edge.state == PurgeState::Pending) {
                return Ok::<_, Problem>(view);
            }
            // The sender lives as long as the application.
            let _ = steps.changed().await;
        }
    };
    let view = match timeout(PATIENCE, waiting).await {
        Ok(view) => view?,
        Err(_) => view(&app, number).await?,
    };
    let status = if view.is_done { StatusCode::OK } else { StatusCode::ACCEPTED };
    let location = HeaderValue::try_from(format!("/purges/{number}")).expect("digits");
    Ok((status, [(CACHE_CONTROL, NO_STORE), (LOCATION, location)], Json(view)).into_response())
}

/// How far each edge is with a purge.
#[utoipa::path(
    get, path = "/purges/{number}", tag = "fleet", operation_id = "lookUpPurge", security(("operator" = [])),
    params(("number" = u64, Path, description = "The purge's number.")),
    responses(
        (status = 200, description = "The purge.", body = PurgeView),
        (status = 401, description = "Not an operator."),
        (status = 404, description = "There is no such purge, or it is not kept any more."),
    )
)]
pub(super) async fn look_up(
    State(app): State<Arc<App>>,
    Looks(operator): Looks,
    Named(number): Named<u64>,
) -> Result<Response, Problem> {
    tracing::debug!(%operator, number, "purge looked at");
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(view(&app, number).await?)).into_response())
}
