//! What handlers take out of requests; whatever is wrong in one becomes a problem.

use std::{fmt::Display, str::FromStr, sync::Arc};

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
};
use http::{StatusCode, request::Parts};
use serde::de::DeserializeOwned;

use super::{
    App, BODY_BYTES_MAX, REGISTRATION_BYTES_MAX, TITLE_BYTES_MAX,
    problem::{Kind, Problem},
};
use crate::identity::{
    Caller,
    jwt::BadToken,
    operators::{Operator, OperatorName, Role},
    user::UserId,
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

/// A parameter's number, which may be from 1 to `max`.
pub(super) fn up_to<T: Copy + Display + From<u8> + PartialOrd>(name: &str, number: T, max: T) -> Result<T, Problem> {
    if (T::from(1)..=max).contains(&number) {
        return Ok(number);
    }
    Err(Problem::bad_parameter(name, format!("it must be from 1 to {max}, not {number}")))
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
            format!(
                "a title's body may have {TITLE_BYTES_MAX} bytes, an edge's or a site's {REGISTRATION_BYTES_MAX}, any other {BODY_BYTES_MAX}"
            ),
        ),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(Kind::NotJson, "send the body with Content-Type: application/json"),
        _ => Problem::new(Kind::BadBody, rejection.body_text()),
    }
}

/// A viewer: whoever asks has a good token.
pub(super) struct Viewer(pub(super) UserId);

impl<S: Send + Sync> FromRequestParts<S> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match caller(parts) {
            Caller::Viewer(user) => Ok(Self(user)),
            Caller::Stranger(bad) => Err(bad_token(bad)),
            Caller::Operator(_) | Caller::Edge | Caller::Nobody => Err(no_token()),
        }
    }
}

/// Whoever may read what viewers read: a viewer, an operator or, where control is open, anybody. A bad token is refused also there.
pub(super) struct MaybeViewer(pub(super) Option<UserId>);

impl FromRequestParts<Arc<App>> for MaybeViewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        match caller(parts) {
            Caller::Viewer(user) => Ok(Self(Some(user))),
            Caller::Operator(_) => Ok(Self(None)),
            Caller::Edge | Caller::Nobody if app.identity.is_open => Ok(Self(None)),
            Caller::Edge | Caller::Nobody => Err(no_token()),
            Caller::Stranger(bad) => Err(bad_token(bad)),
        }
    }
}

/// Whoever may send what viewers do: a viewer, an operator who sends for others or, where control is open, anybody.
pub(super) struct MaySend {
    /// Whose it is, when it is a viewer's own.
    pub(super) user: Option<UserId>,
    /// Whether whoever sends may say whose each event is.
    pub(super) is_relay: bool,
}

impl FromRequestParts<Arc<App>> for MaySend {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        match caller(parts) {
            Caller::Operator(_) => operator(parts, Role::Operator).map(|_| Self { user: None, is_relay: true }),
            _ => MaybeViewer::from_request_parts(parts, app).await.map(|MaybeViewer(user)| Self { user, is_relay: false }),
        }
    }
}

fn bad_token(bad: BadToken) -> Problem {
    let kind = if bad == BadToken::NoKeys { Kind::NoKeys } else { Kind::BadToken };
    Problem::new(kind, bad.to_string())
}

fn no_token() -> Problem {
    Problem::new(Kind::NoToken, "this is for viewers: send Authorization: Bearer and a viewer's token")
}

/// An operator of any role; by name.
pub(super) struct Looks(pub(super) OperatorName);

/// An operator who may change the catalogue and the fleet; by name.
pub(super) struct Operates(pub(super) OperatorName);

/// An operator who may see who did what, and delete people's data; by name.
pub(super) struct Administers(pub(super) OperatorName);

impl<S: Send + Sync> FromRequestParts<S> for Looks {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        operator(parts, Role::Viewer).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Operates {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        operator(parts, Role::Operator).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Administers {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        operator(parts, Role::Admin).map(Self)
    }
}

fn operator(parts: &Parts, least: Role) -> Result<OperatorName, Problem> {
    match caller(parts) {
        Caller::Operator(operator) if operator.role >= least => Ok(operator.name),
        Caller::Operator(Operator { name, role }) => {
            let detail = format!("this is for operators whose role is {least} or more; {name} is {role}");
            Err(Problem::new(Kind::RoleTooSmall, detail))
        }
        _ => Err(no_secret("operators")),
    }
}

/// Whoever asks has the edges' secret.
pub(super) struct AnEdge;

impl<S: Send + Sync> FromRequestParts<S> for AnEdge {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match caller(parts) {
            Caller::Edge => Ok(Self),
            _ => Err(no_secret("edges")),
        }
    }
}

fn no_secret(whose: &str) -> Problem {
    Problem::new(Kind::NoSecret, format!("this is for {whose}: send Authorization: Bearer and their secret"))
}

/// As it was found out before any route was.
fn caller(parts: &Parts) -> Caller {
    parts.extensions.get().cloned().expect("every request goes through identify()")
}
