//! Reads that a second instance answers, or is given a copy of.

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};

use super::{App, admission::is_for_viewers};
use crate::{
    canary::Canary,
    identity::{Caller, address::Client},
};

/// Answers a request here, or has it answered there; counts both, so that they can be compared.
pub(super) async fn choose(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let is_viewers = is_for_viewers(extensions.get::<MatchedPath>().map(MatchedPath::as_str));
    let (Some(canary), true) = (&app.canary, is_viewers && Canary::may_leave(&request)) else { return next.run(request).await };
    let client: Client = *extensions.get().expect("the caller's address was found before");
    let caller: &Caller = extensions.get().expect("the caller was recognised before");
    let begun = Instant::now();
    if canary.answers(caller, client) {
        match canary.ask(&request, client).await {
            Ok(answer) => {
                app.metrics.arms.answered("canary", answer.status(), begun.elapsed());
                return answer.map(Body::from);
            }
            Err(error) => {
                app.metrics.arms.not_answered("canary", error.name());
                tracing::debug!(%error, "the second instance does not answer; this one does");
            }
        }
    }
    let begun = Instant::now();
    let mirror = canary.mirror(&request, client);
    let response = next.run(request).await;
    let status = response.status();
    app.metrics.arms.answered("stable", status, begun.elapsed());
    if let Some(mirror) = mirror {
        let (app, canary) = (Arc::clone(&app), Arc::clone(canary));
        tokio::spawn(async move {
            let begun = Instant::now();
            match canary.send(mirror).await {
                Ok(there) => {
                    app.metrics.arms.answered("mirror", there, begun.elapsed());
                    if there != status {
                        app.metrics.arms.differed();
                    }
                }
                Err(error) => app.metrics.arms.not_answered("mirror", error.name()),
            }
        });
    }
    response
}
