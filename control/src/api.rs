//! The HTTP API: a file per resource, one router that is also the source of `/openapi.json`, one shape for every error.

mod activity;
mod admission;
mod arms;
mod audit;
mod caching;
mod caller;
mod discover;
mod docs;
mod extract;
mod fleet;
mod idempotency;
mod listing;
mod me;
mod operation;
mod playback;
mod problem;
mod purges;
mod region;
mod schema;
mod search;
mod sites;
mod steer;
mod steering;
mod stream;
mod timestamp;
mod videos;
mod viewers;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ::activity::Activity;
use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    Method, StatusCode,
    header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH, LOCATION, RETRY_AFTER},
};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::{
    OpenApi,
    openapi::{
        Content, Header, ObjectBuilder, Ref, RefOr, Required, Response as Answer, Type,
        path::{ParameterBuilder, ParameterIn},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};
use wire::{
    object::{Digest, ObjectPath},
    title::TitleId,
};

use crate::{
    canary::Canary,
    catalogue::Entry,
    config::{AllowedOrigin, Proxies, PublicUrl},
    db::Db,
    discover::Discover,
    finder::Finder,
    fleet::{Fleet, files::Files, streams::Streams},
    hot::Hot,
    identity::Identity,
    inputs::Inputs,
    limits::Limits,
    metrics::Metrics,
    misses::Misses,
    playback::Signer,
    player,
    purges::Purges,
    recorder::Recorder,
    resilience::{Needs, admission::Admission},
    session::Sealer,
    sites::Sites,
    steering::Steering,
    view::Views,
    viewers::Ledger,
};
pub(crate) use activity::BATCHES_MAX;
use caller::{RATE_LIMIT, RATE_LIMIT_POLICY};
pub(crate) use idempotency::Once;
use idempotency::{IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_PATTERN, REPLAYED};
use problem::{Kind, PROBLEM_JSON, Problem};

/// A title of ten hours in fifteen renditions takes a third of this.
const TITLE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A registration or a site, with all of its prefixes.
const REGISTRATION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Any other body.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// From a request's head, body included, to its answer's head.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What handlers share.
pub(crate) struct App {
    pub(crate) db: Db,
    pub(crate) finder: Finder,
    /// Titles as they were read last.
    pub(crate) titles: Hot<TitleId, Arc<Entry>>,
    pub(crate) fleet: RwLock<Fleet>,
    /// An edge whose last report is older leaves the rankings.
    pub(crate) edge_timeout: Duration,
    pub(crate) steering: Arc<Steering>,
    pub(crate) inputs: Arc<Inputs>,
    pub(crate) sites: RwLock<Sites>,
    /// The fleet as answers need it.
    pub(crate) views: Views,
    /// The streams that edges have open, and the tasks that speak on them.
    pub(crate) streams: Arc<Streams>,
    pub(crate) conversations: TaskTracker,
    pub(crate) purges: Purges,
    /// Names of titles' segments, and titles' timelines, by root.
    pub(crate) files: Hot<ObjectPath, Arc<Files>>,
    pub(crate) periods: Hot<ObjectPath, Arc<str>>,
    pub(crate) sealer: Sealer,
    pub(crate) public_url: Option<PublicUrl>,
    pub(crate) steering_ttl: Duration,
    pub(crate) misses: Mutex<Misses>,
    /// Answers to steered players that were accounted for: sessions, and when they were given them.
    pub(crate) accounted: Hot<(u64, u64), ()>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) signer: Signer,
    /// What viewers do.
    pub(crate) ledger: Arc<Ledger>,
    /// The public keys, as `/keys.json` gives them.
    pub(crate) keys: Bytes,
    pub(crate) identity: Identity,
    pub(crate) proxies: Proxies,
    pub(crate) limits: Limits,
    pub(crate) once: Once,
    pub(crate) needs: Needs,
    /// Who is let in while control is behind.
    pub(crate) admission: Admission,
    /// A second instance that is tried out.
    pub(crate) canary: Option<Arc<Canary>>,
    /// Writes that are done to their end, whether or not anyone still waits.
    pub(crate) writes: TaskTracker,
    pub(crate) metrics: Metrics,
    /// What viewers do.
    pub(crate) activity: Activity,
    /// Whoever holds one of these receives and reads a batch of that.
    pub(crate) batches: Semaphore,
    pub(crate) discover: Discover,
    /// The description of the API, as `/openapi.json` gives it.
    pub(crate) openapi: Described,
    /// The same to be read.
    pub(crate) docs: docs::Page,
}

impl App {
    /// Tells all who keep something of title `id` that it may have been catalogued, changed or removed.
    fn title_changed(&self, id: &TitleId) {
        self.titles.forget(id);
        self.finder.changed(id);
        self.discover.changed();
    }
}

/// The description and its entity tag.
pub(crate) struct Described {
    json: Bytes,
    etag: HeaderValue,
    /// What may be written: path and method.
    writes: HashSet<(String, Method)>,
}

impl Described {
    fn of(openapi: &Value) -> Self {
        let json = openapi.to_string();
        let etag = HeaderValue::try_from(Digest::of(json.as_bytes()).etag()).expect("hexadecimal digits");
        let paths = openapi["paths"].as_object().into_iter().flatten();
        let operations = paths.flat_map(|(path, item)| item.as_object().into_iter().flatten().map(move |(name, _)| (path, name)));
        let writes = operations
            .filter_map(|(path, name)| Some((path.clone(), Method::from_bytes(name.to_ascii_uppercase().as_bytes()).ok()?)))
            .filter(|(_, method)| !method.is_safe())
            .collect();
        Self { json: json.into(), etag, writes }
    }
}

impl App {
    /// What is known of sites is otherwise now: decisions go by it.
    pub(crate) fn sites_changed(&self) {
        let (steered, capacities, announcements) = {
            let sites = self.sites.read();
            (sites.steered(), sites.capacities(), sites.announcements())
        };
        self.fleet.write().limit_sites(capacities);
        self.steering.describe(steered);
        self.inputs.announce_sites(announcements);
    }

    /// Runs `work` to its end, also when whoever waits for it is gone.
    async fn to_the_end(&self, work: impl Future<Output = Response> + Send + 'static) -> Response {
        self.writes.spawn(work).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a write ended before its end");
            Problem::new(Kind::Internal, "control could not answer; its log says why").into_response()
        })
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Larder control",
        description = "Catalogue, playback and the fleet of a Larder video CDN. Times are RFC 3339 in UTC, durations are milliseconds. \
                       Every error is a problem (RFC 9457) whose `type` is a page of this server that explains it.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "videos", description = "Titles: search, look up, publish, amend."),
        (name = "playback", description = "Signed URLs of a title's files on the edges that serve it best."),
        (name = "discovery", description = "What viewers do, and what is found from it: trends, rows to watch next."),
        (name = "viewers", description = "What belongs to one viewer, whom her token names."),
        (name = "steering", description = "Where players go on, and why."),
        (name = "fleet", description = "Edges and sites: registration, reports, state, purges."),
        (name = "operation", description = "Keys, health, metrics, and this description.")
    ),
    components(schemas(problem::Body))
)]
struct Description;

/// Every route of the API with its description. The player's pages are the router's fallback.
pub(crate) fn routes() -> (Router<Arc<App>>, Described, docs::Page) {
    let (router, mut openapi) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(listing::list))
        .routes(routes!(videos::look_up, videos::publish, videos::remove).layer(DefaultBodyLimit::max(TITLE_BYTES_MAX)))
        .routes(routes!(viewers::rate))
        .routes(routes!(viewers::stopped, viewers::watched))
        .routes(routes!(viewers::opinion))
        .routes(routes!(viewers::continue_watching))
        .routes(routes!(viewers::hide))
        .routes(routes!(viewers::history))
        .routes(routes!(viewers::likes))
        .routes(routes!(viewers::forget_me))
        .routes(routes!(viewers::export, viewers::forget))
        .routes(routes!(videos::amend))
        .routes(routes!(search::inspect))
        .routes(routes!(search::rebuild))
        .routes(routes!(playback::playback))
        .routes(routes!(playback::cdn_url))
        .routes(routes!(playback::thumbnail))
        .routes(routes!(fleet::list))
        .routes(routes!(fleet::register, fleet::remove).layer(DefaultBodyLimit::max(REGISTRATION_BYTES_MAX)))
        .routes(routes!(fleet::report))
        .routes(routes!(activity::send).layer(DefaultBodyLimit::max(activity::BATCH_BYTES_MAX)))
        .routes(routes!(activity::quality))
        .routes(routes!(discover::trending))
        .routes(routes!(discover::recommendations))
        .routes(routes!(fleet::drain))
        .routes(routes!(fleet::undrain))
        .routes(routes!(stream::stream))
        .routes(routes!(purges::purge))
        .routes(routes!(purges::look_up))
        .routes(routes!(sites::list))
        .routes(routes!(sites::look_up, sites::put, sites::remove).layer(DefaultBodyLimit::max(REGISTRATION_BYTES_MAX)))
        .routes(routes!(steering::explain))
        .routes(routes!(steering::misses))
        .routes(routes!(steering::steer))
        .routes(routes!(steering::playlist))
        .routes(routes!(steering::manifest))
        .routes(routes!(me::me))
        .routes(routes!(audit::read))
        .routes(routes!(operation::keys))
        .routes(routes!(operation::openapi))
        .routes(routes!(docs::docs))
        .routes(routes!(operation::healthz))
        .routes(routes!(operation::readyz))
        .routes(routes!(operation::metrics))
        .routes(routes!(problem::explain))
        .split_for_parts();
    describe_what_all_share(&mut openapi);
    let value = serde_json::to_value(&openapi).expect("strings, numbers and lists always become JSON");
    (router, Described::of(&value), docs::Page::of(&value))
}

/// Handlers say which failures they have; that all of them are problems is said here.
fn describe_what_all_share(openapi: &mut utoipa::openapi::OpenApi) {
    let components = openapi.components.get_or_insert_default();
    for (name, description) in [
        (
            "viewer",
            "A viewer's token: a JWT that the service's own sign-in issues, and whose keys control is told by `[viewers]`.",
        ),
        ("operator", "The secret of an operator: of one in control's `[[operators]]`, or the one in `operator_token_file`."),
        ("edge", "The secret in control's `edge_token_file`."),
    ] {
        let mut scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description));
        if name == "viewer" {
            scheme = scheme.bearer_format("JWT");
        }
        let scheme = scheme.build();
        components.add_security_scheme(name, SecurityScheme::Http(scheme));
    }
    let problem = RefOr::T(Content::new(Some(Ref::from_schema_name("Problem"))));
    let other = "Any other failure: the request is not as described here, or control cannot answer it now.";
    for path in openapi.paths.paths.values_mut() {
        for operation in [&mut path.put, &mut path.post, &mut path.patch, &mut path.delete].into_iter().flatten() {
            let key = ParameterBuilder::new()
                .name("Idempotency-Key")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(
                    "A string, best a new UUID. Of requests of one caller with the same key to the same address one is done; the others \
                     are given its answer, for a day.",
                ))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String).pattern(Some(IDEMPOTENCY_KEY_PATTERN))))
                .build();
            operation.parameters.get_or_insert_default().push(RefOr::T(key));
        }
        for operation in [&mut path.get, &mut path.put, &mut path.post, &mut path.patch, &mut path.delete].into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            responses.insert("429".into(), RefOr::T(too_many()));
            responses.insert("default".into(), RefOr::T(Answer::new(other)));
            for (status, response) in responses {
                if let RefOr::T(response) = response
                    && (status == "default" || status.starts_with(['4', '5']))
                {
                    response.content.insert(PROBLEM_JSON.into(), problem.clone());
                }
            }
        }
    }
}

fn too_many() -> Answer {
    let mut answer = Answer::new("Too many requests of this caller.");
    for (name, description) in [
        ("Retry-After", "In how many seconds to ask again."),
        ("RateLimit-Policy", "What is allowed: `q` requests at once, which come back in `w` seconds."),
        ("RateLimit", "What is left: `r` requests, for `t` seconds."),
    ] {
        let mut header = Header::default();
        header.description = Some(description.into());
        answer.headers.insert(name.into(), RefOr::T(header));
    }
    answer
}

/// The router with everything around it that holds for all routes.
pub(crate) fn service(router: Router<Arc<App>>, app: Arc<App>, origins: &[AllowedOrigin]) -> Router {
    let router = router
        .fallback(page_or_nothing)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), audit::record))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), idempotency::once))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), arms::choose))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), caller::identify))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), admission::admit))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), observe));
    if origins.is_empty() { router.with_state(app) } else { router.layer(cors(origins)).with_state(app) }
}

/// Applications send their secret in a header and never cookies, so no origin is trusted with credentials.
fn cors(origins: &[AllowedOrigin]) -> CorsLayer {
    let allowed = match origins.iter().any(AllowedOrigin::is_any) {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().map(AllowedOrigin::header)),
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY])
        .expose_headers([ETAG, LOCATION, RETRY_AFTER, RATE_LIMIT, RATE_LIMIT_POLICY, REPLAYED])
        .max_age(Duration::from_secs(3600))
}

/// Ends a request that takes too long, counts it and logs it.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(Kind::TooSlow, format!("the request took longer than {REQUEST_TIMEOUT:?}")).into_response(),
    };
    let took = begun.elapsed();
    app.metrics.answered(route.as_ref().map(MatchedPath::as_str), &method, response.status(), took);
    tracing::debug!(%method, path, status = response.status().as_u16(), took_us = took.as_micros(), "answered");
    response
}

/// What no route took: a page of the player, or nothing.
async fn page_or_nothing(request: Request) -> Response {
    let path = request.uri().path();
    let Some(page) = player::page(path, request.headers()) else {
        return Problem::new(Kind::NoSuchRoute, format!("there is nothing at {path}; /openapi.json lists what there is"))
            .into_response();
    };
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return page;
    }
    let mut response = method_not_allowed(request.method().clone()).await.into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,HEAD"));
    response
}

/// The router adds `Allow`.
async fn method_not_allowed(method: Method) -> Problem {
    Problem::new(Kind::MethodNotAllowed, format!("{method} is not a method of this resource"))
}

/// Milliseconds since 1970.
pub(crate) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970, as tokens have them.
fn now_unix_s() -> i64 {
    i64::try_from(now_unix_ms() / 1000).unwrap_or(i64::MAX)
}

/// JSON that was made before.
fn json(bytes: Bytes, content_type: &'static str) -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, HeaderValue::from_static(content_type))], bytes).into_response()
}
