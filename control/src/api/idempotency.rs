//! Writes that may be repeated: a request with an `Idempotency-Key` is done once, and whoever repeats it within a day is given the same
//! answer again (draft-ietf-httpapi-idempotency-key-header-07).
//!
//! Keys are a caller's own, for one method and path. An answer is on disk before it is sent. What is in progress is known to this
//! process alone: if it ends between a write and keeping its answer, a repeated request is done again. Failures of ours, refused
//! callers and full buckets are not kept, as they are what one repeats a request for.

use std::{
    collections::HashSet,
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION},
    request::Parts,
};
use http_body::Body as _;
use http_body_util::LengthLimitError;
use parking_lot::Mutex;
use wire::object::{Digest, Hasher};

use super::{
    App, BODY_BYTES_MAX, TITLE_BYTES_MAX, now_unix_ms,
    problem::{Kind, Problem},
};
use crate::{
    db::{AnswerKey, Kept, KeptAnswer},
    identity::Caller,
};

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Tells an answer that is given again from the first one. Ours: the draft has no such header.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// What is promised to be a key; more is taken.
pub(super) const IDEMPOTENCY_KEY_PATTERN: &str = r#"^"[A-Za-z0-9._~:+/=-]{1,128}"$"#;
/// The longest key.
const KEY_BYTES_MAX: usize = 128;
/// How long an answer is kept.
const KEEP: Duration = Duration::from_secs(86_400);
/// Answers kept for one viewer; for an operator or all edges; and in all.
const VIEWER_ANSWERS_MAX: u32 = 1000;
const TRUSTED_ANSWERS_MAX: u32 = 20_000;
const ANSWERS_MAX: u64 = 1_000_000;
/// A larger answer is not kept. No write gives one.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What is kept of an answer's head; the rest is made anew.
const HEADERS: [HeaderName; 4] = [CONTENT_TYPE, LOCATION, ETAG, CACHE_CONTROL];

/// What is in progress, and how much is kept.
#[derive(Default)]
pub(crate) struct Once {
    in_progress: Mutex<HashSet<AnswerKey>>,
    kept: AtomicU64,
}

impl Once {
    /// As of now, since answers that have expired were removed.
    pub(crate) fn recount(&self, kept: u64) {
        self.kept.store(kept, Ordering::Relaxed);
    }

    fn begin(app: &Arc<App>, key: &AnswerKey) -> Option<InProgress> {
        let begun = app.once.in_progress.lock().insert(key.clone());
        begun.then(|| InProgress { app: Arc::clone(app), key: key.clone() })
    }
}

/// Marks an answer that is not kept under a key: its caller asked that nothing of hers is. Doing it again does the same.
#[derive(Clone, Copy)]
pub(super) struct NothingKept;

/// Ends when dropped.
struct InProgress {
    app: Arc<App>,
    key: AnswerKey,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.app.once.in_progress.lock().remove(&self.key);
    }
}

/// Does a request with a key once.
pub(super) async fn once(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if request.method().is_safe() || !request.headers().contains_key(IDEMPOTENCY_KEY) || !is_known(&app, &request) {
        return next.run(request).await;
    }
    let caller = request.extensions().get::<Caller>().expect("every request goes through identify()").clone();
    let (caller, answers_max, body_bytes_max) = match caller {
        Caller::Viewer(user) => (format!("viewer {user}"), VIEWER_ANSWERS_MAX, BODY_BYTES_MAX),
        Caller::Operator(operator) => (format!("operator {}", operator.name), TRUSTED_ANSWERS_MAX, TITLE_BYTES_MAX),
        Caller::Edge => ("edge".to_owned(), TRUSTED_ANSWERS_MAX, BODY_BYTES_MAX),
        // Whoever is nobody has no keys of his own; what he may write is decided where it is written.
        Caller::Nobody | Caller::Stranger(_) => return next.run(request).await,
    };
    match keyed(&app, request, next, caller, answers_max, body_bytes_max).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

/// Whether there is such a write at all. What there is not is answered alike every time.
fn is_known(app: &App, request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    path.is_some_and(|path| app.openapi.writes.contains(&(path, request.method().clone())))
}

async fn keyed(
    app: &Arc<App>,
    request: Request,
    next: Next,
    caller: String,
    answers_max: u32,
    body_bytes_max: usize,
) -> Result<Response, Problem> {
    let key = AnswerKey { caller, route: format!("{} {}", request.method(), request.uri()), key: key(request.headers())? };
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, body_bytes_max).await.map_err(|error| unread(&error, body_bytes_max))?;
    let fingerprint = fingerprint(&parts, &body);
    let Some(in_progress) = Once::begin(app, &key) else {
        app.metrics.identity.keyed("in-progress");
        return Err(Problem::new(
            Kind::KeyInProgress,
            "a request with this Idempotency-Key is being answered; wait and repeat it",
        ));
    };
    match app.db.answer(key.clone(), now_unix_ms(), answers_max).await? {
        Kept::Answer(answer) if answer.fingerprint == fingerprint => {
            app.metrics.identity.keyed("replayed");
            return Ok(again(answer));
        }
        Kept::Answer(_) => {
            app.metrics.identity.keyed("reused");
            return Err(Problem::new(Kind::KeyReused, "this Idempotency-Key was used for another request to the same address"));
        }
        Kept::Nothing { others } if others >= answers_max => {
            let detail =
                format!("{answers_max} answers are kept for this caller, which is the most; keys are forgotten after a day");
            return Err(Problem::new(Kind::TooManyKeys, detail));
        }
        Kept::Nothing { .. } if app.once.kept.load(Ordering::Relaxed) >= ANSWERS_MAX => {
            return Err(Problem::new(Kind::NoRoomForKeys, "no more answers can be kept now; repeat it later or without a key"));
        }
        Kept::Nothing { .. } => app.metrics.identity.keyed("first"),
    }
    // To its end, also when the client is gone: else it would be done and not be known to be.
    let work = {
        let app = Arc::clone(app);
        async move {
            let _in_progress = in_progress;
            let response = next.run(Request::from_parts(parts, Body::from(body))).await;
            keep(&app, key, fingerprint, response).await
        }
    };
    Ok(app.to_the_end(work).await)
}

/// The header's value: a String of RFC 9651 (§3.3.3), as the draft has it, or the same without its quotes, as many send it.
fn key(headers: &HeaderMap) -> Result<String, Problem> {
    let bad = || {
        Problem::new(
            Kind::BadKey,
            format!("Idempotency-Key is one string of 1 to {KEY_BYTES_MAX} visible ASCII characters, in quotes"),
        )
    };
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(bad()) };
    let text = value.to_str().map_err(|_| bad())?.trim();
    let text = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b';');
    if (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain) { Ok(text.to_owned()) } else { Err(bad()) }
}

fn unread(error: &axum::Error, body_bytes_max: usize) -> Problem {
    match error.source().is_some_and(|source| source.is::<LengthLimitError>()) {
        true => Problem::new(Kind::BodyTooLarge, format!("a body with an Idempotency-Key may have {body_bytes_max} bytes here")),
        false => Problem::new(Kind::BadBody, "the body did not come whole"),
    }
}

/// What tells requests under one key apart.
fn fingerprint(parts: &Parts, body: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    for name in [CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH] {
        hasher.update(parts.headers.get(name).map_or(&[][..], HeaderValue::as_bytes));
        // No header has such a byte.
        hasher.update(&[0]);
    }
    hasher.update(body);
    hasher.finish()
}

fn is_kept(status: StatusCode) -> bool {
    let is_for_later = [
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    !status.is_server_error() && !is_for_later.contains(&status)
}

/// Keeps `response`, and gives it back as it was.
async fn keep(app: &App, key: AnswerKey, fingerprint: Digest, response: Response) -> Response {
    if !is_kept(response.status()) || response.extensions().get::<NothingKept>().is_some() {
        return response;
    }
    if response.body().size_hint().upper().is_none_or(|bytes| bytes > ANSWER_BYTES_MAX as u64) {
        tracing::error!(route = key.route, "an answer to a write is too large to be kept under its key");
        return response;
    }
    let (parts, body) = response.into_parts();
    let body: Bytes = match to_bytes(body, ANSWER_BYTES_MAX).await {
        Ok(body) => body,
        Err(error) => {
            tracing::error!(%error, route = key.route, "an answer to a write broke off");
            return Problem::new(Kind::Internal, "control could not answer; its log says why").into_response();
        }
    };
    let text = |name: &HeaderName| Some((name.to_string(), parts.headers.get(name)?.to_str().ok()?.to_owned()));
    let answer = KeptAnswer {
        fingerprint,
        expires_at_ms: now_unix_ms().saturating_add(KEEP.as_millis() as u64),
        status: parts.status.as_u16(),
        headers: HEADERS.iter().filter_map(text).collect(),
        body: body.to_vec(),
    };
    match app.db.keep_answer(key, answer).await {
        Ok(()) => drop(app.once.kept.fetch_add(1, Ordering::Relaxed)),
        // It is done, so its answer is the truth, even if it cannot be given twice.
        Err(error) => tracing::error!(%error, "an answer cannot be kept under its key"),
    }
    Response::from_parts(parts, Body::from(body))
}

/// A kept answer.
fn again(answer: KeptAnswer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_strings_with_their_quotes_or_without() {
        let read = |values: &[&str]| {
            let values = values.iter().map(|value| (IDEMPOTENCY_KEY, HeaderValue::from_str(value).unwrap()));
            let mut headers = HeaderMap::new();
            for (name, value) in values {
                headers.append(name, value);
            }
            key(&headers).ok()
        };
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        for (value, found) in [
            ("\"8e03978e-40d5\"", Some("8e03978e-40d5")),
            ("8e03978e-40d5", Some("8e03978e-40d5")),
            ("", None),
            ("\"\"", None),
            ("\"a", None),
            ("\"a\";q=1", None),
            ("a b", None),
            (&long, None),
        ] {
            assert_eq!(read(&[value]).as_deref(), found, "{value}");
        }
        assert_eq!(read(&["a", "a"]), None);
    }
}
