//! `/fleet/edges/{edge}/stream`: the one long exchange with an edge, lines of JSON both ways at the same time.
//!
//! Here the body of a request becomes chunks and messages become the body of the answer; what is said is [`crate::converse`]'s.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{
    HeaderValue,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use wire::report::{Down, MEDIA_TYPE};

use super::{
    App,
    caching::NO_STORE,
    extract::{AnEdge, Named},
    fleet::not_registered,
    problem::Problem,
};
use crate::{
    converse::{Ended, converse},
    fleet::EdgeId,
};

/// Opens an edge's stream: it reports and answers commands in the request's body, control speaks in the answer's, a line a message.
///
/// Both go on at the same time, so this is for HTTP/2. A newer stream of an edge ends the older one.
#[utoipa::path(
    post, path = "/fleet/edges/{edge}/stream", tag = "fleet", operation_id = "streamEdge", security(("edge" = [])),
    params(("edge" = String, Path, description = "The edge's id.")),
    request_body(content = String, description = "What the edge says, a JSON object a line.", content_type = "application/x-ndjson"),
    responses(
        (status = 200, description = "What control says, a JSON object a line.", body = String, content_type = "application/x-ndjson"),
        (status = 401, description = "Not an edge."),
        (status = 404, description = "It is not registered: it should register again."),
    )
)]
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    _: AnEdge,
    Named(id): Named<EdgeId>,
    request: Request,
) -> Result<Response, Problem> {
    if app.fleet.read().edge(id.as_str()).is_none() {
        return Err(not_registered(&id));
    }
    let (hold, mut messages) = app.streams.open(id.clone());
    let chunks = request.into_body().into_data_stream();
    let task = {
        let app = Arc::clone(&app);
        async move {
            app.metrics.steering.stream_opened();
            let ended = converse(&app, hold, chunks).await;
            match ended {
                Ok(()) | Err(Ended::Closed | Ended::Stopping) => tracing::info!(edge = %id, "stream ended"),
                Err(error) => tracing::warn!(edge = %id, %error, "stream ended"),
            }
        }
    };
    app.conversations.spawn(task);
    let lines = stream::poll_fn(move |cx| messages.poll_recv(cx)).map(|message| Ok::<_, Infallible>(line(&message)));
    let head = [(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE)), (CACHE_CONTROL, NO_STORE)];
    Ok((head, Body::from_stream(lines)).into_response())
}

fn line(message: &Down) -> Bytes {
    let mut line = serde_json::to_vec(message).expect("strings and numbers always become JSON");
    line.push(b'\n');
    line.into()
}
