//! The audit log: each write by an operator, on disk before it is done; and `/audit`, where admins read it.

use std::{fmt, str::FromStr, sync::Arc};

use axum::{
    Json,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::header::CACHE_CONTROL;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    App,
    caching::NO_STORE,
    extract::{Administers, Params, up_to},
    now_unix_ms,
    problem::Problem,
    timestamp::rfc3339,
};
use crate::{
    db::{AuditRow, Deed},
    identity::{Caller, address::Client},
};

/// Entries a page has unless told, and at most.
const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 500;
/// What is kept of a path and query, in bytes.
const TARGET_BYTES_MAX: usize = 2048;

/// Writes down what operators change: first that it is begun, and without that it is not done; then what came of it.
pub(super) async fn record(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let operator = match extensions.get() {
        // What a relay passes on is not her deed.
        Some(Caller::Operator(operator)) if !request.method().is_safe() && request.uri().path() != "/activity" => {
            operator.clone()
        }
        _ => return next.run(request).await,
    };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let deed = Deed {
        at_ms: now_unix_ms(),
        address: extensions.get::<Client>().map(|client| client.address.to_string()).unwrap_or_default(),
        method: request.method().to_string(),
        target: target[..target.floor_char_boundary(TARGET_BYTES_MAX)].to_owned(),
        operator,
    };
    let work = {
        let app = Arc::clone(&app);
        async move {
            let id = match app.db.begin_audit(deed.clone()).await {
                Ok(id) => id,
                Err(error) => return Problem::from(error).into_response(),
            };
            let response = next.run(request).await;
            let status = response.status().as_u16();
            let Deed { operator, address, method, target, .. } = deed;
            tracing::info!(target: "audit", id, operator = %operator.name, role = %operator.role, address, method, path = target, status, "written");
            if let Err(error) = app.db.end_audit(id, status).await {
                tracing::error!(%error, id, "the outcome of what an operator wrote is not in the audit log");
            }
            response
        }
    };
    app.to_the_end(work).await
}

/// Something that an operator wrote, or tried to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditEntry {
    /// Entries are numbered in the order in which they began.
    id: i64,
    /// When it began.
    #[schema(format = DateTime)]
    at: String,
    /// The operator's name in control's configuration.
    operator: String,
    /// The role that she had.
    #[schema(example = "operator")]
    role: String,
    /// Where she asked from.
    address: String,
    method: String,
    /// Path and query.
    target: String,
    /// The status of the answer; null when there was none.
    #[schema(required)]
    status: Option<u16>,
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        let AuditRow { id, at_ms, operator, role, address, method, target, status } = row;
        Self { id, at: rfc3339(at_ms), operator, role, address, method, target, status }
    }
}

/// A page of the audit log, newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct AuditPage {
    entries: Vec<AuditEntry>,
    /// Give it as `nextCursor` for the next page; null after the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParams {
    /// Where to go on: the `nextCursor` of the page before.
    next_cursor: Option<String>,
    /// How many entries, from 1 to 500; 50 unless told.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
}

/// What operators changed, newest first, a page at a time.
#[utoipa::path(
    get, path = "/audit", tag = "operation", operation_id = "readAudit", security(("operator" = [])), params(AuditParams),
    responses(
        (status = 200, description = "A page of the log.", body = AuditPage),
        (status = 400, description = "A parameter is wrong."),
        (status = 401, description = "Not an operator."),
        (status = 403, description = "Not an admin."),
    )
)]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Administers(operator): Administers,
    Params(params): Params<AuditParams>,
) -> Result<Response, Problem> {
    let limit = up_to("limit", params.limit.unwrap_or(LIMIT_DEFAULT), LIMIT_MAX)?;
    let before = params.next_cursor.map(|cursor| cursor.parse::<Before>()).transpose();
    let before = before.map_err(|error| Problem::bad_parameter("nextCursor", error))?;
    tracing::debug!(%operator, "audit log read");
    // One more than the page has tells whether there is another page.
    let mut rows = app.db.audit(before.map(|Before(id)| id), limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| more).map(|last| Before(last.id).to_string());
    let page = AuditPage { entries: rows.into_iter().map(AuditEntry::from).collect(), next_cursor };
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(page)).into_response())
}

/// Where a page goes on.
struct Before(i64);

impl fmt::Display for Before {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(format!("audit.{}", self.0)))
    }
}

impl FromStr for Before {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NotACursor)?;
        let id = str::from_utf8(&bytes).ok().and_then(|text| text.strip_prefix("audit.")).ok_or(NotACursor)?;
        id.parse().ok().filter(|id| *id > 0).map(Self).ok_or(NotACursor)
    }
}

/// Not a cursor that the log gave.
#[derive(Debug, thiserror::Error)]
#[error("it is not a cursor that this list gave; take the last answer's nextCursor as it is, or begin without one")]
struct NotACursor;
