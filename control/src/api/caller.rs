//! What is found out of every request before its route is: who asks, from where, and whether not too often.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, header::RETRY_AFTER};

use super::{
    App, now_unix_s,
    problem::{Kind, Problem},
};
use crate::{
    identity::{Caller, address::Client},
    limits::{Taken, Who},
    server::Peer,
};

/// draft-ietf-httpapi-ratelimit-headers-11.
pub(super) const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Adds [`Caller`] and [`Client`] to the request for all that comes after, and turns away who asks too often.
pub(super) async fn identify(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let Peer(peer) = *request.extensions().get().expect("the server says who the peer is");
    let client = app.proxies.client(peer, request.headers());
    let caller = app.identity.caller(request.headers(), now_unix_s()).await;
    app.metrics.identity.asked(&caller);
    let taken = who(&caller, client).and_then(|who| app.limits.take(who, Instant::now()));
    let mut response = match taken {
        Some(taken) if taken.retry_after.is_some() => {
            app.metrics.identity.turned_away(&caller);
            Problem::new(Kind::TooMany, taken.to_string()).into_response()
        }
        _ => {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(client);
            next.run(request).await
        }
    };
    if let Some(taken) = taken {
        tell(&mut response, taken);
    }
    response
}

/// Whose bucket a request is taken out of. Edges have none: what they send is bounded by their reports' interval.
fn who(caller: &Caller, client: Client) -> Option<Who> {
    match caller {
        Caller::Viewer(user) => Some(Who::Viewer(user.clone())),
        Caller::Operator(operator) => Some(Who::Operator(operator.name.clone())),
        Caller::Nobody | Caller::Stranger(_) if !client.is_trusted => Some(Who::Address(client.neighbourhood())),
        Caller::Edge | Caller::Nobody | Caller::Stranger(_) => None,
    }
}

fn tell(response: &mut Response, taken: Taken) {
    let text = |text: String| HeaderValue::try_from(text).expect("digits and names");
    let headers = response.headers_mut();
    headers.insert(RATE_LIMIT_POLICY, text(taken.policy()));
    headers.insert(RATE_LIMIT, text(taken.limit()));
    if let Some(seconds) = taken.retry_after_s() {
        headers.insert(RETRY_AFTER, seconds.into());
    }
}
