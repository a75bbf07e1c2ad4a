//! Which requests come first, and who is turned away when there are too many.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::Method;

use super::{
    App,
    problem::{Kind, Problem},
};
use crate::resilience::admission::Priority;

/// Lets a request in, or answers it at once, before anything is done for it.
pub(super) async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let priority = priority(request.method(), route, request.uri().query());
    match app.admission.admit(priority) {
        Ok(_admitted) => next.run(request).await,
        Err(shed) => Problem::new(Kind::Overloaded, shed.to_string()).into_response(),
    }
}

/// Whether a route is for viewers' applications, and not about this instance or for edges, operators and monitoring.
pub(super) fn is_for_viewers(route: Option<&str>) -> bool {
    let first = route.and_then(|route| route[1..].split('/').next());
    matches!(first, Some("videos" | "me" | "trending" | "recommendations" | "steering"))
        && priority(&Method::GET, route, None) != Priority::Operation
}

/// What a request is for. What is not named here is the catalogue's.
fn priority(method: &Method, route: Option<&str>, query: Option<&str>) -> Priority {
    let Some(route) = route else { return Priority::Catalogue };
    let first = route[1..].split('/').next().unwrap_or_default();
    let last = route.rsplit('/').next().unwrap_or_default();
    match (first, last) {
        ("fleet" | "sites" | "purges" | "search" | "audit" | "healthz" | "readyz" | "metrics" | "keys.json", _)
        | ("steering", "explain" | "misses") => Priority::Operation,
        ("videos", "playback" | "cdn-url") | ("steering", _) => Priority::Playback,
        ("videos", "last-watched-timestamp") | ("me", _) => Priority::Resume,
        ("videos", "{id}") if *method == Method::PATCH => Priority::Resume,
        ("videos", "videos") if query.is_some_and(|query| query.contains("searchQuery=")) => Priority::Search,
        ("trending" | "recommendations", _) => Priority::Recommendations,
        ("activity", _) => Priority::Activity,
        _ => Priority::Catalogue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_viewer_waits_for_most_comes_first() {
        for (method, route, query, expected) in [
            (Method::GET, Some("/videos/{id}/playback"), None, Priority::Playback),
            (Method::GET, Some("/videos/{id}/cdn-url"), Some("segment=1"), Priority::Playback),
            (Method::GET, Some("/steering/{session}"), None, Priority::Playback),
            (Method::GET, Some("/steering/{session}/master.m3u8"), None, Priority::Playback),
            (Method::GET, Some("/steering/explain"), None, Priority::Operation),
            (Method::GET, Some("/steering/misses"), None, Priority::Operation),
            (Method::POST, Some("/purges"), None, Priority::Operation),
            (Method::POST, Some("/fleet/edges/{edge}/stream"), None, Priority::Operation),
            (Method::PATCH, Some("/videos/{id}/last-watched-timestamp"), None, Priority::Resume),
            (Method::PATCH, Some("/videos/{id}"), Some("op=LIKE"), Priority::Resume),
            (Method::GET, Some("/me/history"), None, Priority::Resume),
            (Method::GET, Some("/videos/{id}"), None, Priority::Catalogue),
            (Method::PUT, Some("/videos/{id}"), None, Priority::Catalogue),
            (Method::GET, Some("/videos/{id}/thumbnail"), None, Priority::Catalogue),
            (Method::GET, Some("/videos"), Some("limit=5"), Priority::Catalogue),
            (Method::GET, Some("/videos"), Some("limit=5&searchQuery=x"), Priority::Search),
            (Method::GET, Some("/recommendations"), None, Priority::Recommendations),
            (Method::POST, Some("/activity"), None, Priority::Activity),
            (Method::POST, Some("/fleet/edges/{id}/reports"), None, Priority::Operation),
            (Method::POST, Some("/search/rebuild"), None, Priority::Operation),
            (Method::PATCH, Some("/videos/{id}/metadata"), None, Priority::Catalogue),
            (Method::GET, Some("/metrics"), None, Priority::Operation),
            (Method::GET, None, None, Priority::Catalogue),
        ] {
            assert_eq!(priority(&method, route, query), expected, "{method} {route:?}");
        }
        let own = ["/openapi.json", "/docs", "/problems/{code}", "/metrics", "/steering/explain", "/fleet/edges"];
        assert!(!own.into_iter().any(|route| is_for_viewers(Some(route))) && !is_for_viewers(None));
        assert!(is_for_viewers(Some("/videos/{id}/playback")));
    }
}
