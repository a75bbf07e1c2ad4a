//! What handlers take out of requests; whatever is wrong in one becomes a problem.

use std::{fmt::Display, str::FromStr, sync::Arc};

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
};
use http::{StatusCode, request::Parts};
use serde::de::DeserializeOwned;
use wire::secret::Expected;

use super::{
    App, BODY_BYTES_MAX, TITLE_BYTES_MAX,
    problem::{Kind, Problem},
};

/// The one parameter in a route's path.
pub(super) struct Named<T>(pub(super) T);

impl<S: Send + Sync, T: FromStr<Err: Display>> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(name) = path.map_err(|rejection| Problem::new(Kind::BadParameter, rejection.body_text()))?;
        name.parse().map(Self).map_err(|error: T::Err| Problem::new(Kind::BadParameter, error.to_string()))
    }
}

/// The parameters after the question mark.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::from_request_parts(parts, state).await;
        query.map(|Query(params)| Self(params)).map_err(|rejection| Problem::new(Kind::BadParameter, rejection.body_text()))
    }
}

/// A JSON body.
pub(super) struct Sent<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(refused(&rejection)),
        }
    }
}

fn refused(rejection: &JsonRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            Kind::BodyTooLarge,
            format!("a title's body may have {TITLE_BYTES_MAX} bytes, any other {BODY_BYTES_MAX}"),
        ),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(Kind::NotJson, "send the body with Content-Type: application/json"),
        _ => Problem::new(Kind::BadBody, rejection.body_text()),
    }
}

/// Whoever asks has the operators' secret.
pub(super) struct Operator;

impl FromRequestParts<Arc<App>> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        require(&app.operator_secret, parts, "operators").map(|()| Self)
    }
}

/// Whoever asks has the edges' secret.
pub(super) struct AnEdge;

impl FromRequestParts<Arc<App>> for AnEdge {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        require(&app.edge_secret, parts, "edges").map(|()| Self)
    }
}

fn require(secret: &Expected, parts: &Parts, whose: &str) -> Result<(), Problem> {
    match secret.is_presented(&parts.headers) {
        true => Ok(()),
        false => Err(Problem::new(Kind::NoSecret, format!("this is for {whose}: send Authorization: Bearer and their secret"))),
    }
}
