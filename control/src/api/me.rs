//! `/me`: whom control takes a viewer for.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::header::CACHE_CONTROL;
use serde::Serialize;
use utoipa::ToSchema;

use super::{caching::NO_STORE, extract::Viewer};

/// A viewer.
#[derive(Serialize, ToSchema)]
pub(super) struct Me {
    /// Under what her rows are kept: the account, and the profile if her token names one.
    #[schema(example = "alice/kids")]
    user: String,
    /// The account alone.
    #[schema(example = "alice")]
    account: String,
}

/// Whom the token names.
#[utoipa::path(
    get, path = "/me", tag = "viewers", operation_id = "whoAmI", security(("viewer" = [])),
    responses(
        (status = 200, description = "The viewer.", body = Me),
        (status = 401, description = "There is no token, or it is not good."),
        (status = 503, description = "Control has no keys to verify tokens with at the moment."),
    )
)]
pub(super) async fn me(Viewer(user): Viewer) -> Response {
    let me = Me { user: user.as_str().to_owned(), account: user.account().to_owned() };
    ([(CACHE_CONTROL, NO_STORE)], Json(me)).into_response()
}
