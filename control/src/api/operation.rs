//! What operators' tools ask: keys for edges, health, metrics, and the description of the API.

use std::{sync::Arc, time::Instant};

use axum::{extract::State, response::Response};
use bytes::Bytes;
use http::HeaderMap;

use super::{App, Described, caching::fixed, json, problem::Problem};
use crate::{fleet::Standing, metrics::Now};

/// The public keys that verify signed URLs, as a JWK set (RFC 7517). A shared secret is never among them.
#[utoipa::path(
    get, path = "/keys.json", tag = "operation", operation_id = "listKeys",
    responses((status = 200, description = "The keys.", body = Object, content_type = "application/jwk-set+json"))
)]
pub(super) async fn keys(State(app): State<Arc<App>>) -> Response {
    json(app.keys.clone(), "application/jwk-set+json")
}

/// This description.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operation", operation_id = "describeApi",
    responses(
        (status = 200, description = "OpenAPI 3.1.", body = Object),
        (status = 304, description = "It is the one that If-None-Match names."),
    )
)]
pub(super) async fn openapi(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let Described { json: bytes, etag, .. } = &app.openapi;
    fixed(&headers, etag, json(bytes.clone(), "application/json"))
}

/// Whether the process is alive.
#[utoipa::path(
    get, path = "/healthz", tag = "operation", operation_id = "checkHealth",
    responses((status = 200, description = "It is.", body = String, content_type = "text/plain"))
)]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the database answers, so that requests can be.
#[utoipa::path(
    get, path = "/readyz", tag = "operation", operation_id = "checkReadiness",
    responses(
        (status = 200, description = "It does.", body = String, content_type = "text/plain"),
        (status = 500, description = "It does not."),
    )
)]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    app.db.ping().await?;
    Ok("ready\n")
}

/// Metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "operation", operation_id = "measure",
    responses((status = 200, description = "The metrics.", body = String, content_type = "text/plain; version=0.0.4"))
)]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let titles = app.db.titles_count().await?;
    let standings: Vec<Standing> = {
        let now = Instant::now();
        app.fleet.read().edges().map(|edge| edge.standing(now, app.edge_timeout)).collect()
    };
    let edges = [("ready", Standing::Ready), ("draining", Standing::Draining), ("silent", Standing::Silent)]
        .map(|(label, wanted)| (label, standings.iter().filter(|standing| **standing == wanted).count()));
    app.ledger.stand();
    let now = Now {
        titles,
        edges: &edges,
        hot: &[("titles", app.titles.counts()), ("files", app.files.counts()), ("periods", app.periods.counts())],
        activity: app.activity.stats(),
        known: (app.activity.users(), app.discover.overview().newest().count()),
        tokens: app.identity.viewers.as_ref().map_or((0, 0), |viewers| viewers.counts()),
        admission: &app.admission,
        dependencies: &[&app.db.dependencies()[..], &[app.finder.dependency()], &app.needs.all()[..]].concat(),
        search: app.finder.state(),
    };
    let recorded = app.recorder.as_ref().map(|recorder| recorder.counts());
    app.metrics.steering.set(app.streams.len(), app.misses.lock().total(), recorded);
    Ok(json(Bytes::from(app.metrics.text(&now)?), prometheus::TEXT_FORMAT))
}
