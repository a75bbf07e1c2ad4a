//! `/fleet/edges`: edges register and report; operators look, and drain.

use std::{sync::Arc, time::Instant};

use axum::{Json, extract::State};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use wire::report::{Registration, Report};

use super::{
    App,
    extract::{AnEdge, Looks, Named, Operates, Sent},
    problem::{Kind, Problem},
    schema,
};
use crate::{
    fleet::{EdgeId, Standing, checked},
    steering::prefixes::Announcement,
};

/// All registered edges, by id.
#[derive(Serialize, ToSchema)]
pub(super) struct EdgeList {
    edges: Vec<EdgeView>,
}

/// An edge as operators see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Edge)]
pub(super) struct EdgeView {
    /// Its id.
    edge: String,
    /// Its site.
    site: String,
    /// Where players reach it.
    url: String,
    /// The version of Larder it runs.
    version: String,
    health: EdgeHealth,
    /// Whether operators want nobody sent there.
    is_drained: bool,
    /// Whether it has a stream open, so that it can be told something now.
    is_connected: bool,
    /// How full it is, in thousandths of what it can do: the fullest of network, processors and connections.
    load_permille: u16,
    /// Slices that it holds, as its last content digest says.
    #[schema(required)]
    slices: Option<u64>,
    /// How many prefixes it announces.
    prefixes: usize,
    /// How long ago it reported, in milliseconds; null when it has not since control started.
    #[schema(required)]
    report_age_ms: Option<u64>,
    /// What it reported.
    #[schema(required, value_type = Option<schema::Report>)]
    report: Option<Report>,
}

/// Whether an edge takes viewers.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum EdgeHealth {
    /// It does.
    Ready,
    /// It finishes what it has and takes nobody new.
    Draining,
    /// It has not reported in time, so nobody is sent there.
    Silent,
}

impl From<Standing> for EdgeHealth {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Ready => Self::Ready,
            Standing::Draining => Self::Draining,
            Standing::Silent => Self::Silent,
        }
    }
}

/// Every edge, how it stands, and what it reported last.
#[utoipa::path(
    get, path = "/fleet/edges", tag = "fleet", operation_id = "listEdges", security(("operator" = [])),
    responses(
        (status = 200, description = "The edges.", body = EdgeList),
        (status = 401, description = "Not an operator."),
    )
)]
pub(super) async fn list(State(app): State<Arc<App>>, Looks(operator): Looks) -> Json<EdgeList> {
    tracing::debug!(%operator, "fleet looked at");
    let now = Instant::now();
    let fleet = app.fleet.read();
    let edges = fleet.edges().map(|edge| EdgeView {
        edge: edge.id.to_string(),
        site: edge.registration.site.clone(),
        url: edge.registration.url.clone(),
        version: edge.registration.version.clone(),
        health: edge.standing(now, app.edge_timeout).into(),
        is_drained: edge.is_drained,
        is_connected: app.streams.is_open(&edge.id),
        load_permille: edge.load_permille(),
        slices: edge.contents.as_ref().map(|contents| contents.slices()),
        prefixes: edge.registration.prefixes.len(),
        report_age_ms: edge.last.as_ref().map(|(at, _)| u64::try_from((now - *at).as_millis()).unwrap_or(u64::MAX)),
        report: edge.last.as_ref().map(|(_, report)| report.clone()),
    });
    Json(EdgeList { edges: edges.collect() })
}

/// Registers an edge. Repeating it is harmless; viewers are sent there once it has reported.
#[utoipa::path(
    put, path = "/fleet/edges/{edge}", tag = "fleet", operation_id = "registerEdge", security(("edge" = [])),
    params(("edge" = String, Path, description = "The edge's id: 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.")),
    request_body(content = schema::Registration, description = "Who it is and where players reach it."),
    responses(
        (status = 201, description = "It is registered."),
        (status = 204, description = "It was registered before; what it said now holds."),
        (status = 401, description = "Not an edge."),
        (status = 409, description = "10000 edges are registered, which is the most."),
        (status = 422, description = "Its site, url or version is not usable."),
    )
)]
pub(super) async fn register(
    State(app): State<Arc<App>>,
    _: AnEdge,
    Named(id): Named<EdgeId>,
    Sent(registration): Sent<Registration>,
) -> Result<StatusCode, Problem> {
    let registration = checked(registration).map_err(|error| Problem::new(Kind::FlawedEdge, error.to_string()))?;
    let registered = app.fleet.write().register(id.clone(), registration.clone());
    let new = registered.map_err(|error| Problem::new(Kind::FleetFull, error.to_string()))?;
    let prefixes = registration.prefixes.len();
    tracing::info!(edge = %id, site = registration.site, url = registration.url, prefixes, new, "edge registered");
    let site: Arc<str> = registration.site.as_str().into();
    let announced = registration.prefixes.iter().map(|prefix| Announcement::new(*prefix, Arc::clone(&site)));
    app.inputs.announce_edge(&id, announced.collect());
    let purged_to = app.db.put_edge(id.clone(), registration).await?;
    if new {
        app.purges.done(id, purged_to);
    }
    Ok(if new { StatusCode::CREATED } else { StatusCode::NO_CONTENT })
}

/// Takes an edge's report: it is alive, and this is what it does.
#[utoipa::path(
    post, path = "/fleet/edges/{edge}/reports", tag = "fleet", operation_id = "reportEdge", security(("edge" = [])),
    params(("edge" = String, Path, description = "The edge's id.")),
    request_body(content = schema::Report, description = "How it does."),
    responses(
        (status = 204, description = "Taken."),
        (status = 401, description = "Not an edge."),
        (status = 404, description = "It is not registered: it should register again."),
    )
)]
pub(super) async fn report(
    State(app): State<Arc<App>>,
    _: AnEdge,
    Named(id): Named<EdgeId>,
    Sent(report): Sent<Report>,
) -> Result<StatusCode, Problem> {
    match app.fleet.write().report(&id, report, Instant::now()) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(not_registered(&id)),
    }
}

/// Forgets an edge that is gone for good.
#[utoipa::path(
    delete, path = "/fleet/edges/{edge}", tag = "fleet", operation_id = "removeEdge", security(("operator" = [])),
    params(("edge" = String, Path, description = "The edge's id.")),
    responses(
        (status = 204, description = "Forgotten. If it is alive after all, it registers again."),
        (status = 401, description = "Not an operator."),
        (status = 404, description = "It is not registered."),
    )
)]
pub(super) async fn remove(State(app): State<Arc<App>>, _: Operates, Named(id): Named<EdgeId>) -> Result<StatusCode, Problem> {
    if !app.fleet.write().remove(&id) {
        return Err(not_registered(&id));
    }
    tracing::info!(edge = %id, "edge removed");
    app.inputs.announce_edge(&id, Vec::new());
    app.purges.forget(&id);
    app.db.remove_edge(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends nobody to an edge from now on, also after a restart of either. It serves whom it has, and whoever comes nevertheless.
#[utoipa::path(
    post, path = "/fleet/edges/{edge}/drain", tag = "fleet", operation_id = "drainEdge", security(("operator" = [])),
    params(("edge" = String, Path, description = "The edge's id.")),
    responses(
        (status = 204, description = "Nobody is sent there; the edge is told now or when it comes back."),
        (status = 401, description = "Not an operator."),
        (status = 403, description = "The operator's role is viewer."),
        (status = 404, description = "It is not registered."),
    )
)]
pub(super) async fn drain(State(app): State<Arc<App>>, _: Operates, Named(id): Named<EdgeId>) -> Result<StatusCode, Problem> {
    set_drained(&app, id, true).await
}

/// Sends viewers to an edge again that was drained.
#[utoipa::path(
    post, path = "/fleet/edges/{edge}/undrain", tag = "fleet", operation_id = "undrainEdge", security(("operator" = [])),
    params(("edge" = String, Path, description = "The edge's id.")),
    responses(
        (status = 204, description = "Viewers are sent there once it reports that it is ready."),
        (status = 401, description = "Not an operator."),
        (status = 403, description = "The operator's role is viewer."),
        (status = 404, description = "It is not registered."),
    )
)]
pub(super) async fn undrain(State(app): State<Arc<App>>, _: Operates, Named(id): Named<EdgeId>) -> Result<StatusCode, Problem> {
    set_drained(&app, id, false).await
}

async fn set_drained(app: &App, id: EdgeId, is_drained: bool) -> Result<StatusCode, Problem> {
    // The decision first: it holds from the moment of the answer, whether or not the edge hears of it.
    if !app.fleet.write().drain(&id, is_drained) {
        return Err(not_registered(&id));
    }
    tracing::info!(edge = %id, is_drained, "edge drained or not");
    app.db.drain_edge(id, is_drained).await?;
    app.streams.tell_news();
    Ok(StatusCode::NO_CONTENT)
}

pub(super) fn not_registered(id: &EdgeId) -> Problem {
    Problem::new(Kind::NoSuchEdge, format!("no edge {:?} is registered", id.as_str()))
}
