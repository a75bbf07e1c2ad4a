//! Problems: the one shape of every error (RFC 9457), and the table of what can go wrong.

use std::io;

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;
use tokio::task::JoinError;
use utoipa::ToSchema;
use wire::{object::PathError, token::SignError};

use super::{caching::NO_STORE, extract::Named};
use crate::{
    db::DbError,
    finder::NotFound,
    viewers::{WriteError, commit::NotKept},
};

pub(super) const PROBLEM_JSON: &str = "application/problem+json";
/// Where problems are explained; a problem's `type` is this and its code.
const TYPE_PREFIX: &str = "/problems/";
/// How long a client should wait before it asks again: longer than edges take between reports.
const RETRY_AFTER_S: u16 = 5;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NoSuchRoute,
    MethodNotAllowed,
    BadParameter,
    BadBody,
    NotJson,
    BodyTooLarge,
    NoSecret,
    NoToken,
    BadToken,
    RoleTooSmall,
    NoKeys,
    TooMany,
    BadKey,
    KeyInProgress,
    KeyReused,
    TooManyKeys,
    NoRoomForKeys,
    PreconditionFailed,
    FlawedTitle,
    FlawedEdge,
    FlawedSite,
    FlawedPurge,
    NoSuchTitle,
    NoSuchRendition,
    NoSuchSegment,
    NoSuchEdge,
    NoSuchSite,
    NoSuchPurge,
    NoSuchSession,
    SessionOver,
    FingerprintTaken,
    FleetFull,
    SiteFixed,
    NoEdge,
    NotKept,
    SearchBusy,
    ActivityBehind,
    TooSlow,
    Overloaded,
    Unavailable,
    Internal,
}

/// A kind of problem, its name in addresses, its status, and what it says to people.
struct About {
    kind: Kind,
    code: &'static str,
    status: StatusCode,
    title: &'static str,
    remedy: &'static str,
}

const fn about(kind: Kind, code: &'static str, status: StatusCode, title: &'static str, remedy: &'static str) -> About {
    About { kind, code, status, title, remedy }
}

const TABLE: &[About] = &[
    about(
        Kind::NoSuchRoute,
        "no-such-route",
        StatusCode::NOT_FOUND,
        "There is nothing here",
        "See /openapi.json for what there is.",
    ),
    about(
        Kind::MethodNotAllowed,
        "method-not-allowed",
        StatusCode::METHOD_NOT_ALLOWED,
        "This resource does not have that method",
        "The Allow header lists the methods that it has.",
    ),
    about(
        Kind::BadParameter,
        "bad-parameter",
        StatusCode::BAD_REQUEST,
        "A parameter in the address is wrong",
        "The detail says which one and what was expected; /openapi.json describes all of them.",
    ),
    about(
        Kind::BadBody,
        "bad-body",
        StatusCode::BAD_REQUEST,
        "The body is not the JSON that was expected",
        "The detail says where; /openapi.json has the schema.",
    ),
    about(
        Kind::NotJson,
        "not-json",
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "The body must be JSON",
        "Send it with Content-Type: application/json.",
    ),
    about(
        Kind::BodyTooLarge,
        "body-too-large",
        StatusCode::PAYLOAD_TOO_LARGE,
        "The body is too large",
        "The detail names the limit.",
    ),
    about(
        Kind::NoSecret,
        "no-secret",
        StatusCode::UNAUTHORIZED,
        "This needs a secret",
        "Send Authorization: Bearer with the secret that control's configuration names for this resource.",
    ),
    about(
        Kind::NoToken,
        "no-token",
        StatusCode::UNAUTHORIZED,
        "This needs a viewer's token",
        "Send Authorization: Bearer with the token that the viewer's application was given when she signed in.",
    ),
    about(
        Kind::BadToken,
        "bad-token",
        StatusCode::UNAUTHORIZED,
        "The viewer's token is not good",
        "The detail says why. Get a new one from where the viewer signs in, or send none where none is needed.",
    ),
    about(
        Kind::RoleTooSmall,
        "role-too-small",
        StatusCode::FORBIDDEN,
        "The operator's role does not allow this",
        "The detail names the role that does; roles are given in control's configuration.",
    ),
    about(
        Kind::NoKeys,
        "no-keys",
        StatusCode::SERVICE_UNAVAILABLE,
        "Viewers' tokens cannot be verified now",
        "Ask again after the time in Retry-After. An operator sees in control's log why it has no keys.",
    ),
    about(
        Kind::TooMany,
        "too-many-requests",
        StatusCode::TOO_MANY_REQUESTS,
        "Too many requests",
        "Ask again after the time in Retry-After; the headers RateLimit-Policy and RateLimit say what is allowed and what is left.",
    ),
    about(
        Kind::BadKey,
        "bad-idempotency-key",
        StatusCode::BAD_REQUEST,
        "The Idempotency-Key is not a key",
        "Send one string of up to 128 visible characters in quotes, such as a new UUID for each thing to be done.",
    ),
    about(
        Kind::KeyInProgress,
        "idempotency-key-in-progress",
        StatusCode::CONFLICT,
        "A request with this Idempotency-Key is in progress",
        "Repeat it when it has had time to end; it is then given the first one's answer.",
    ),
    about(
        Kind::KeyReused,
        "idempotency-key-reused",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The Idempotency-Key belongs to another request",
        "Take a new key for a new request, or repeat the earlier one as it was.",
    ),
    about(
        Kind::TooManyKeys,
        "too-many-idempotency-keys",
        StatusCode::TOO_MANY_REQUESTS,
        "Too many Idempotency-Keys",
        "Keys are forgotten after a day. Send writes that are harmless to repeat without one.",
    ),
    about(
        Kind::NoRoomForKeys,
        "no-room-for-idempotency-keys",
        StatusCode::SERVICE_UNAVAILABLE,
        "No more answers can be kept",
        "Repeat the request later, or without an Idempotency-Key.",
    ),
    about(
        Kind::PreconditionFailed,
        "precondition-failed",
        StatusCode::PRECONDITION_FAILED,
        "What is there is not what was asked for",
        "Read it again, look at what changed, and send the new ETag in If-Match.",
    ),
    about(
        Kind::FlawedTitle,
        "flawed-title",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The title cannot be catalogued as it is",
        "The detail and the JSON pointer say what is wrong and where.",
    ),
    about(
        Kind::FlawedEdge,
        "flawed-edge",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The edge cannot be registered as it is",
        "The detail says what is wrong; correct the edge's configuration.",
    ),
    about(
        Kind::FlawedSite,
        "flawed-site",
        StatusCode::UNPROCESSABLE_ENTITY,
        "A site cannot be like that",
        "The detail says what is wrong.",
    ),
    about(
        Kind::FlawedPurge,
        "flawed-purge",
        StatusCode::UNPROCESSABLE_ENTITY,
        "What is to be purged names nothing",
        "The detail says what is wrong. Name objects and prefixes by their paths, from the slash on.",
    ),
    about(
        Kind::NoSuchTitle,
        "no-such-title",
        StatusCode::NOT_FOUND,
        "No such title is catalogued",
        "GET /videos lists the titles.",
    ),
    about(
        Kind::NoSuchRendition,
        "no-such-rendition",
        StatusCode::NOT_FOUND,
        "The title has no rendition like that",
        "The member `available` lists what there is.",
    ),
    about(
        Kind::NoSuchSegment,
        "no-such-segment",
        StatusCode::NOT_FOUND,
        "The rendition has no such segment",
        "The detail says how many there are; they are numbered from 1.",
    ),
    about(
        Kind::NoSuchEdge,
        "no-such-edge",
        StatusCode::NOT_FOUND,
        "No such edge is registered",
        "An edge registers with PUT /fleet/edges/{edge} before it reports.",
    ),
    about(Kind::NoSuchSite, "no-such-site", StatusCode::NOT_FOUND, "Nobody knows such a site", "GET /sites lists the sites."),
    about(
        Kind::NoSuchPurge,
        "no-such-purge",
        StatusCode::NOT_FOUND,
        "There is no such purge",
        "The newest 10000 are kept. POST /purges gives a purge its number.",
    ),
    about(
        Kind::NoSuchSession,
        "no-such-session",
        StatusCode::NOT_FOUND,
        "Nobody was given this session",
        "Ask for playback, and take the addresses in its answer as they are.",
    ),
    about(
        Kind::SessionOver,
        "session-over",
        StatusCode::GONE,
        "The session is over",
        "Ask for playback again. Players that are steered go on where they are.",
    ),
    about(
        Kind::FingerprintTaken,
        "fingerprint-taken",
        StatusCode::CONFLICT,
        "This source is catalogued under another id",
        "Publish it under that id, delete that title first, or say allowDuplicate=true if it is to be there twice.",
    ),
    about(Kind::FleetFull, "fleet-full", StatusCode::CONFLICT, "No more edges can be registered", "Delete edges that are gone."),
    about(
        Kind::SiteFixed,
        "site-fixed",
        StatusCode::CONFLICT,
        "The site cannot be changed here",
        "Sites of control's configuration are changed there; of others there are 4096 at most.",
    ),
    about(
        Kind::NoEdge,
        "no-edge",
        StatusCode::SERVICE_UNAVAILABLE,
        "No edge is up",
        "Ask again after the time in Retry-After. An operator sees every edge and its last report at GET /fleet/edges.",
    ),
    about(
        Kind::NotKept,
        "not-kept",
        StatusCode::SERVICE_UNAVAILABLE,
        "This cannot be kept now",
        "Send it again after the time in Retry-After, as it was: what is older than what is known changes nothing.",
    ),
    about(
        Kind::SearchBusy,
        "search-busy",
        StatusCode::SERVICE_UNAVAILABLE,
        "Too many searches at the same time",
        "Ask again after the time in Retry-After. GET /videos without parameters lists the newest titles and does not need search.",
    ),
    about(
        Kind::ActivityBehind,
        "activity-behind",
        StatusCode::SERVICE_UNAVAILABLE,
        "What viewers do cannot be taken now",
        "Send the same again after the time in Retry-After: what was kept all the same is known by its ids. Viewing goes on without it.",
    ),
    about(
        Kind::TooSlow,
        "too-slow",
        StatusCode::SERVICE_UNAVAILABLE,
        "The request took too long",
        "Ask again after the time in Retry-After; send bodies without pauses.",
    ),
    about(
        Kind::Overloaded,
        "overloaded",
        StatusCode::SERVICE_UNAVAILABLE,
        "Control has more to do than it can",
        "Ask again after the time in Retry-After, later each time. What viewers wait for least is answered so first.",
    ),
    about(
        Kind::Unavailable,
        "unavailable",
        StatusCode::SERVICE_UNAVAILABLE,
        "What this depends on does not answer",
        "Ask again after the time in Retry-After; the detail says what does not answer. Repeat a write with its Idempotency-Key.",
    ),
    about(Kind::Internal, "internal", StatusCode::INTERNAL_SERVER_ERROR, "Control failed", "The reason is in control's log."),
];

impl Kind {
    fn about(self) -> &'static About {
        TABLE.iter().find(|about| about.kind == self).expect("every kind is in the table, which a test checks")
    }
}

/// One problem on its way to a client.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    pointer: Option<String>,
    available: Option<Vec<String>>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), pointer: None, available: None }
    }

    pub(super) fn bad_parameter(name: &str, why: impl std::fmt::Display) -> Self {
        Self::new(Kind::BadParameter, format!("{name}: {why}"))
    }

    /// Where in the body (RFC 6901).
    pub(super) fn at(self, pointer: String) -> Self {
        Self { pointer: Some(pointer), ..self }
    }

    /// What could have been asked for instead.
    pub(super) fn instead_of(self, available: Vec<String>) -> Self {
        Self { available: Some(available), ..self }
    }

    /// Our own failure: the reason goes to the log, a stranger learns that there is one.
    fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "cannot answer a request");
        Self::new(Kind::Internal, "control could not answer; its log says why")
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(why) => Self::new(Kind::Unavailable, why),
            error => Self::internal(&error),
        }
    }
}

impl From<NotKept> for Problem {
    fn from(reason: NotKept) -> Self {
        Self::new(Kind::NotKept, reason.to_string())
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotKept(reason) => reason.into(),
            WriteError::Database(error) => error.into(),
        }
    }
}

impl From<NotFound> for Problem {
    fn from(error: NotFound) -> Self {
        match error {
            NotFound::Refused(error) => Self::bad_parameter("nextCursor", error),
            NotFound::Busy => Self::new(Kind::SearchBusy, error.to_string()),
            NotFound::Failing(fault) => Self::internal(&fault),
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::internal(&error)
    }
}

impl From<JoinError> for Problem {
    fn from(error: JoinError) -> Self {
        Self::internal(&error)
    }
}

impl From<SignError> for Problem {
    fn from(error: SignError) -> Self {
        Self::internal(&error)
    }
}

impl From<PathError> for Problem {
    fn from(error: PathError) -> Self {
        Self::internal(&error)
    }
}

impl From<prometheus::Error> for Problem {
    fn from(error: prometheus::Error) -> Self {
        Self::internal(&error)
    }
}

/// An error, as RFC 9457 has it.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body {
    /// Which kind of problem: the address of its explanation on this server.
    #[serde(rename = "type")]
    #[schema(example = "/problems/no-such-title")]
    type_uri: String,
    /// The kind in words, the same every time.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong this time.
    detail: String,
    /// Where in the request's body (RFC 6901), when it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    /// What there is instead of what was asked for, when that helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<Vec<String>>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { kind, detail, pointer, available } = self;
        let &About { code, status, title, .. } = kind.about();
        let body = Body { type_uri: format!("{TYPE_PREFIX}{code}"), title, status: status.as_u16(), detail, pointer, available };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(CACHE_CONTROL, NO_STORE);
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(RETRY_AFTER, RETRY_AFTER_S.into());
        }
        if let Some(challenge) = challenge(kind) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

/// RFC 6750 §3: a request without a token learns no error code, others which one of §3.1 it is.
const fn challenge(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::NoSecret | Kind::NoToken => Some("Bearer realm=\"larder\""),
        Kind::BadToken => Some("Bearer realm=\"larder\", error=\"invalid_token\""),
        Kind::RoleTooSmall => Some("Bearer realm=\"larder\", error=\"insufficient_scope\""),
        _ => None,
    }
}

/// A kind of problem, explained.
#[derive(Serialize, ToSchema)]
pub(super) struct Explanation {
    /// What problems of this kind have as their `type`.
    #[serde(rename = "type")]
    type_uri: String,
    /// The kind in words.
    title: &'static str,
    /// The HTTP status that comes with it.
    status: u16,
    /// What to do about it.
    remedy: &'static str,
}

/// What a kind of problem means and what to do about it.
#[utoipa::path(
    get, path = "/problems/{code}", tag = "operation", operation_id = "explainProblem",
    params(("code" = String, Path, description = "The end of a problem's `type`.", example = "no-such-title")),
    responses(
        (status = 200, description = "The explanation.", body = Explanation),
        (status = 404, description = "There is no such kind of problem."),
    )
)]
pub(super) async fn explain(Named(wanted): Named<String>) -> Result<Json<Explanation>, Problem> {
    let About { code, status, title, remedy, .. } = TABLE
        .iter()
        .find(|about| about.code == wanted)
        .ok_or_else(|| Problem::new(Kind::NoSuchRoute, "there is no such kind of problem"))?;
    Ok(Json(Explanation { type_uri: format!("{TYPE_PREFIX}{code}"), title, status: status.as_u16(), remedy }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_in_the_table_once_and_in_order() {
        // Kinds number from 0 as they are written, so a kind without a line shifts all after it, and the last one's line is missing.
        for (n, about) in TABLE.iter().enumerate() {
            assert_eq!(about.kind as usize, n, "{}", about.code);
        }
        assert_eq!(TABLE.last().map(|about| about.kind), Some(Kind::Internal));
    }
}
