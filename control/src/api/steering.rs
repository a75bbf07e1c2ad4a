//! `/steering`: what steered players ask for, a playlist of their own and then the order of its pathways again and again; and, for operators,
//! why an edge was chosen and how often the nearest site could not serve.
//!
//! Players come from web pages of any origin and are known by the address that they were given, so every origin may read the answers.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension, Json,
    extract::{FromRequestParts, Query, State},
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, HeaderValue,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, HOST},
    request::Parts,
    uri::Authority,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::title::{Segment, TitleId};

use super::{
    App,
    caching::NO_STORE,
    extract::{Looks, Named, Params, up_to},
    now_unix_ms,
    problem::{Kind, Problem},
    steer::{self, Ranked},
    videos::entry,
};
use crate::{
    catalogue::Entry,
    identity::address::Client,
    manifest::{
        dash, hls,
        steering::{Dialect, SteeringManifest},
    },
    misses::{Amount, Cell, KINDS, Played, Sums, bytes_played},
    playback::Pass,
    session::{NoSession, Session},
    steering::{
        decide::{Candidate, Content, Miss},
        reasons::Outcome,
    },
    view::View,
};

/// Every origin's scripts may read it.
const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");
/// What stands behind a session where players of DASH ask, so that one is known that tells nothing of itself yet: Shaka Player's first question has
/// no parameters. Clones are made otherwise than in HLS.
const IN_DASH: &str = "?dialect=dash";
/// A player that asks later than this was not playing all the time, in steering intervals.
const INTERVALS_COUNTED_MAX: u32 = 3;
/// Rows of an account that are told.
const ROWS_MAX: usize = 1000;
/// The longest time that is told of, in hours.
const HOURS_MAX: u64 = crate::misses::HOURS_MAX as u64;

/// An answer for players.
fn for_players(content_type: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
    headers.insert(TIMING_ALLOW_ORIGIN, ANY_ORIGIN);
    response
}

/// Players must be able to read what went wrong, too.
fn told(result: Result<Response, Problem>) -> Response {
    let mut response = result.into_response();
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN);
    response
}

/// How players reach control, scheme, host and port: as it is configured, or as their request names it.
pub(super) struct Reached(pub(super) String);

impl FromRequestParts<Arc<App>> for Reached {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        if let Some(url) = &app.public_url {
            return Ok(Self(url.as_str().to_owned()));
        }
        let host = || parts.headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
        let authority = parts.uri.authority().cloned().or_else(host).filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(|| Problem::new(Kind::BadParameter, "Host: it names no server"))?;
        Ok(Self(format!("http://{authority}")))
    }
}

/// Where a session's manifests are.
pub(super) fn address(app: &App, base: &str, session: &Session, rest: &str) -> String {
    format!("{base}/steering/{}{rest}", app.sealer.seal(session))
}

/// A session and its title, as long as the title is what it was.
struct Known {
    session: Session,
    entry: Arc<Entry>,
}

async fn known(app: &App, text: &str) -> Result<Known, Problem> {
    let session = app.sealer.open(text, now_unix_ms() / 1000).map_err(|error| match error {
        NoSession::Forged => Problem::new(Kind::NoSuchSession, error.to_string()),
        NoSession::Expired => Problem::new(Kind::SessionOver, error.to_string()),
    })?;
    let entry = entry(app, &session.title).await?;
    if steer::key(&entry) != session.root {
        return Err(Problem::new(Kind::SessionOver, "the title was published anew; ask for playback again"));
    }
    Ok(Known { session, entry })
}

fn pass<'a>(app: &App, known: &'a Known) -> Result<Pass<'a>, Problem> {
    Ok(app.signer.pass_until(&known.entry.root, known.session.expires_unix_s)?)
}

/// The HLS multivariant playlist of a session: every rendition on several edges, and where to ask which one to use.
#[utoipa::path(
    get, path = "/steering/{session}/master.m3u8", tag = "steering", operation_id = "readSteeredPlaylist",
    params(("session" = String, Path, description = "As it stands in a playback's `hls`.")),
    responses(
        (status = 200, description = "The playlist.", body = String, content_type = "application/vnd.apple.mpegurl"),
        (status = 404, description = "There is no such session."),
        (status = 410, description = "The session is over."),
        (status = 503, description = "No edge is up; Retry-After says in how many seconds to ask again."),
    )
)]
pub(super) async fn playlist(State(app): State<Arc<App>>, Named(text): Named<String>, Reached(base): Reached) -> Response {
    told(manifest_of(&app, &text, &base, Dialect::Hls).await)
}

/// The DASH manifest of a session: the title's timeline, several edges as service locations, and where to ask which one to use.
#[utoipa::path(
    get, path = "/steering/{session}/manifest.mpd", tag = "steering", operation_id = "readSteeredManifest",
    params(("session" = String, Path, description = "As it stands in a playback's `dash`.")),
    responses(
        (status = 200, description = "The manifest.", body = String, content_type = "application/dash+xml"),
        (status = 404, description = "There is no such session, or the title's segments are not numbered: use HLS."),
        (status = 410, description = "The session is over."),
        (status = 503, description = "No edge is up; Retry-After says in how many seconds to ask again."),
    )
)]
pub(super) async fn manifest(State(app): State<Arc<App>>, Named(text): Named<String>, Reached(base): Reached) -> Response {
    told(manifest_of(&app, &text, &base, Dialect::Dash).await)
}

/// In either dialect, which differ in how the title is written.
async fn manifest_of(app: &App, text: &str, base: &str, dialect: Dialect) -> Result<Response, Problem> {
    let known = known(app, text).await?;
    let period = match dialect {
        Dialect::Hls => None,
        Dialect::Dash => Some(period(app, &known.entry).await?),
    };
    let pass = pass(app, &known)?;
    let view = app.views.now(&app.steering, &app.fleet);
    let pathways = steer::base(&view, &known.session, &pass);
    if pathways.is_empty() {
        return Err(no_edge());
    }
    let asked_at = |rest| address(app, base, &known.session, rest);
    let Entry { renditions, summary, .. } = &*known.entry;
    Ok(match period {
        None => for_players("application/vnd.apple.mpegurl", hls::multivariant(renditions, &pathways, &asked_at(""))?),
        Some(period) => {
            for_players("application/dash+xml", dash::manifest(&period, summary.duration_ms, &pathways, &asked_at(IN_DASH))?)
        }
    })
}

/// The title's timeline, which is made of all of its segments once.
async fn period(app: &App, entry: &Entry) -> Result<Arc<str>, Problem> {
    let read = async {
        let mut tracks: Vec<(_, Vec<Segment>)> = Vec::new();
        for rendition in &entry.renditions {
            tracks.push((rendition, app.db.segments(entry.summary.id.clone(), rendition.id.clone()).await?));
        }
        Ok::<_, crate::db::DbError>(dash::period(&tracks).map(Arc::<str>::from))
    };
    let period = app.periods.find_or(&entry.root, read).await?;
    period.ok_or_else(|| {
        Problem::new(Kind::NoSuchRendition, "the title's segments are not numbered, so there is no DASH manifest of it; use HLS")
    })
}

pub(super) fn no_edge() -> Problem {
    Problem::new(Kind::NoEdge, "no edge has reported lately that it is ready")
}

/// What a player tells of itself, in its dialect.
struct Told {
    dialect: Dialect,
    /// The pathways that it used since it asked last, and how fast each was, in bits per second.
    pathways: Vec<(String, Option<u64>)>,
}

impl Told {
    /// Parameters that are not known, or twice there, hurt nobody.
    fn of(parameters: &[(String, String)]) -> Self {
        let find = |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.trim_matches('"'));
        let is_dash = find("dialect") == Some("dash") || find("_DASH_pathway").or(find("_DASH_throughput")).is_some();
        let dialect = if is_dash { Dialect::Dash } else { Dialect::Hls };
        let (pathways, speeds) = match dialect {
            Dialect::Hls => (find("_HLS_pathway"), find("_HLS_throughput")),
            Dialect::Dash => (find("_DASH_pathway"), find("_DASH_throughput")),
        };
        let mut speeds = speeds.unwrap_or_default().split(',').map(|speed| speed.trim().parse::<f64>().ok());
        let pathways = pathways.unwrap_or_default().split(',').filter(|pathway| !pathway.is_empty());
        // An edge's throughput is not negative, and `as` cuts what is too large.
        let pathways = pathways.map(|pathway| (pathway.trim().to_owned(), speeds.next().flatten().map(|speed| speed as u64)));
        Self { dialect, pathways: pathways.take(crate::session::PATHWAYS_MAX * 2).collect() }
    }
}

/// Which pathways to use from now on, best first: a steering manifest, as HLS and DASH have it.
///
/// Players add `_HLS_pathway` and `_HLS_throughput`, or `_DASH_pathway` and `_DASH_throughput`, of what they did since they asked last.
#[utoipa::path(
    get, path = "/steering/{session}", tag = "steering", operation_id = "steer",
    params(
        ("session" = String, Path, description = "As it stands in a playlist or in the last answer's RELOAD-URI."),
        ("dialect" = Option<String>, Query, description = "`dash` for players of DASH; stands in the addresses that they are given."),
        ("_HLS_pathway" = Option<String>, Query, description = "The pathway that is used."),
        ("_HLS_throughput" = Option<String>, Query, description = "Bits per second that came from there."),
        ("_DASH_pathway" = Option<String>, Query, description = "The service locations that were used, with commas."),
        ("_DASH_throughput" = Option<String>, Query, description = "Bits per second that came from each, with commas."),
    ),
    responses(
        (status = 200, description = "The manifest: VERSION, TTL, RELOAD-URI, PATHWAY-PRIORITY and, where needed, PATHWAY-CLONES.", body = Object),
        (status = 404, description = "There is no such session."),
        (status = 410, description = "The session is over: players stop asking."),
    )
)]
pub(super) async fn steer(
    State(app): State<Arc<App>>,
    Named(text): Named<String>,
    Query(parameters): Query<Vec<(String, String)>>,
    Extension(Client { address, .. }): Extension<Client>,
) -> Response {
    told(steer_on(&app, &text, &Told::of(&parameters), address).await)
}

async fn steer_on(app: &App, text: &str, told: &Told, client: IpAddr) -> Result<Response, Problem> {
    let known = known(app, text).await?;
    let Known { session, entry } = &known;
    account(app, &known, told);
    let ranked = steer::rank(app, entry, client, session.id, false).await?;
    app.metrics.steering.steered(told.dialect);
    // Where nobody can serve, the player stays where it is.
    let (home, miss) = if ranked.is_empty() { (session.home.clone(), session.miss) } else { (ranked.home(), ranked.miss()) };
    let next = Session { at_unix_ms: now_unix_ms(), home, miss, ..session.clone() };
    // Relative to this answer's own address, so it leads wherever that came from.
    let rest = if told.dialect == Dialect::Dash { IN_DASH } else { "" };
    let reload = format!("/steering/{}{rest}", app.sealer.seal(&next));
    let manifest = next_order(app, &known, &ranked, told.dialect, reload)?;
    Ok(for_players("application/json", Json(manifest)))
}

fn next_order(app: &App, known: &Known, ranked: &Ranked, dialect: Dialect, reload: String) -> Result<SteeringManifest, Problem> {
    let ttl_s = app.steering_ttl.as_secs().max(1);
    let pass = pass(app, known)?;
    let view = app.views.now(&app.steering, &app.fleet);
    let base = steer::base(&view, &known.session, &pass);
    let ranked = steer::pathways(ranked.edges(), &pass);
    let manifest = SteeringManifest::new(dialect, ttl_s, reload.clone(), &base, &ranked, &known.entry.renditions)?;
    if manifest.names_nobody() {
        return Ok(SteeringManifest::stay(ttl_s, reload, known.session.pathways.iter().map(ToString::to_string)));
    }
    Ok(manifest)
}

/// Counts what the player did since it asked last, once for each answer that it was given.
fn account(app: &App, Known { session, entry }: &Known, told: &Told) {
    let Some(home) = &session.home else { return };
    let seen = (session.id, session.at_unix_ms);
    if told.pathways.is_empty() || app.accounted.find(&seen).is_some() {
        return;
    }
    app.accounted.keep(app.accounted.reading(&seen), seen, ());
    let longest_ms = u64::try_from(app.steering_ttl.as_millis()).unwrap_or(u64::MAX).saturating_mul(INTERVALS_COUNTED_MAX.into());
    let now_ms = now_unix_ms();
    let ms = now_ms.saturating_sub(session.at_unix_ms).min(longest_ms) / told.pathways.len() as u64;
    let view = app.views.now(&app.steering, &app.fleet);
    let mut misses = app.misses.lock();
    for (pathway, speed) in &told.pathways {
        let Some(edge) = view.edge(pathway) else { continue };
        // A player that left the nearest site by itself did so because it was not well served.
        let miss = (edge.site != *home).then(|| session.miss.unwrap_or(Miss::Health));
        let amount = Amount { ms, bytes: bytes_played(&entry.renditions, *speed, ms) };
        misses.played(&Played { title: &session.title, home, miss, amount }, now_ms);
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ExplainParams {
    /// The client's address.
    #[param(value_type = String, example = "203.0.113.7")]
    client: IpAddr,
    /// The title's id.
    #[param(value_type = String)]
    video: TitleId,
    /// Which session it is about, from 0: sessions take turns among equal edges, and an edge that is almost full loses some before others.
    #[param(default = 0)]
    session: Option<u64>,
}

/// Where a client would be sent, and what became of every edge.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Explained {
    /// Its country and subdivision (ISO 3166-2), if known.
    #[schema(required)]
    region: Option<String>,
    /// The nearest site.
    #[schema(required)]
    home: Option<String>,
    /// Why the first edge is at another site: content, health or rules; null if it is not.
    #[schema(required)]
    miss: Option<&'static str>,
    /// Every edge of the fleet: those that are in the answer first, best first.
    candidates: Vec<ExplainedEdge>,
}

/// One edge, and why it is in the answer or is not.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExplainedEdge {
    edge: String,
    site: String,
    /// Its place in the answer, from 1; null when it is not in it.
    #[schema(required)]
    place: Option<usize>,
    /// Why, in a sentence.
    reason: String,
    /// The longest of its site's prefixes with the client in it.
    #[schema(required)]
    prefix: Option<String>,
    /// From the client to its site.
    #[schema(required)]
    distance_km: Option<u32>,
    /// Whether it has the title: holds, lacks or unknown; null where nobody asked.
    #[schema(required)]
    content: Option<&'static str>,
    /// How full it is, in thousandths of what it can do.
    load_permille: u16,
}

impl ExplainedEdge {
    fn of(candidate: &Candidate, view: &View) -> Self {
        let seen = &view.edges[candidate.edge];
        let (place, reason) = match &candidate.outcome {
            Outcome::Won { place, why } => (Some(*place), why.to_string()),
            Outcome::Lost(why) => (None, why.to_string()),
        };
        Self {
            edge: seen.id.to_string(),
            site: seen.site.clone(),
            place,
            reason,
            prefix: candidate.prefix.map(|prefix| prefix.to_string()),
            distance_km: candidate.distance_km,
            content: candidate.content.map(|content| match content {
                Content::Holds => "holds",
                Content::Lacks => "lacks",
                Content::Unknown => "unknown",
            }),
            load_permille: view.snapshot.edges()[candidate.edge].load_permille,
        }
    }
}

/// Why a client would be sent where it would be: every edge of the fleet, and the reason for which it is in the answer or is not.
#[utoipa::path(
    get, path = "/steering/explain", tag = "steering", operation_id = "explainSteering", security(("operator" = [])),
    params(ExplainParams),
    responses(
        (status = 200, description = "The explanation.", body = Explained),
        (status = 400, description = "A parameter is wrong."),
        (status = 401, description = "Not an operator."),
        (status = 404, description = "The title is not catalogued."),
    )
)]
pub(super) async fn explain(
    State(app): State<Arc<App>>,
    Looks(operator): Looks,
    Params(params): Params<ExplainParams>,
) -> Result<Response, Problem> {
    tracing::debug!(%operator, client = %params.client, video = %params.video, "steering explained");
    let entry = entry(&app, &params.video).await?;
    let (view, explanation) = steer::explain(&app, &entry, params.client, params.session.unwrap_or(0)).await?;
    let site = |at: usize| view.snapshot.sites().nth(at).map(|site| site.name.to_string());
    let explained = Explained {
        region: app.steering.locate(params.client).region,
        home: explanation.ranking.home.and_then(site),
        miss: explanation.ranking.miss.map(name_of),
        candidates: explanation.candidates.iter().map(|candidate| ExplainedEdge::of(candidate, &view)).collect(),
    };
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(explained)).into_response())
}

fn name_of(miss: Miss) -> &'static str {
    KINDS.iter().find(|(kind, _)| *kind == miss).map_or("", |(_, name)| name)
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MissParams {
    /// How many hours back, this one included.
    #[param(minimum = 1, maximum = 48, default = 24)]
    hours: Option<u64>,
    /// Rows for each title, each site, or each pair of them.
    #[param(inline)]
    by: Option<By>,
    /// Only this title.
    #[param(value_type = Option<String>)]
    video: Option<TitleId>,
    /// Only this site.
    site: Option<String>,
}

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum By {
    Title,
    Site,
    #[default]
    TitleAndSite,
}

/// For how long, and with how many bytes, sessions were not served by their nearest site.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MissAccount {
    /// How many hours it is about; the account begins when control does.
    hours: u64,
    total: MissSums,
    /// Those with the most time elsewhere first; at most 1000.
    rows: Vec<MissRow>,
}

/// One title, site, or both.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MissRow {
    /// The title; null where rows are of sites, or where there were too many to tell apart.
    #[schema(required)]
    video: Option<String>,
    /// The nearest site of those who watched.
    #[schema(required)]
    site: Option<String>,
    #[serde(flatten)]
    sums: MissSums,
}

/// What was played, and what of it another site than the nearest served.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MissSums {
    /// Playbacks that began.
    playbacks: u64,
    served: Amounts,
    /// The nearest site lacked the title.
    content_miss: MissAmounts,
    /// It was full or not well, or the player found it so.
    health_miss: MissAmounts,
    /// It is further away or dearer than the rules like.
    rules_miss: MissAmounts,
}

/// So much.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Amounts {
    seconds: f64,
    /// An estimate: the time at the mean rate of the rendition that the player's speed allows.
    bytes: u64,
}

/// So much, elsewhere.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MissAmounts {
    /// Playbacks that were sent elsewhere when they began.
    playbacks: u64,
    seconds: f64,
    bytes: u64,
}

impl From<&Sums> for MissSums {
    fn from(sums: &Sums) -> Self {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let missed = |at: usize| MissAmounts {
            playbacks: sums.decisions_missed[at],
            seconds: seconds(sums.missed[at].ms),
            bytes: sums.missed[at].bytes,
        };
        Self {
            playbacks: sums.decisions,
            served: Amounts { seconds: seconds(sums.served.ms), bytes: sums.served.bytes },
            content_miss: missed(0),
            health_miss: missed(1),
            rules_miss: missed(2),
        }
    }
}

/// How often, for how long, and with how many bytes sessions were not served by their nearest site, and why.
///
/// Told by the players themselves when they ask for their next ranking.
#[utoipa::path(
    get, path = "/steering/misses", tag = "steering", operation_id = "accountMisses", security(("operator" = [])),
    params(MissParams),
    responses(
        (status = 200, description = "The account.", body = MissAccount),
        (status = 400, description = "A parameter is wrong."),
        (status = 401, description = "Not an operator."),
    )
)]
pub(super) async fn misses(
    State(app): State<Arc<App>>,
    Looks(operator): Looks,
    Params(params): Params<MissParams>,
) -> Result<Response, Problem> {
    tracing::debug!(%operator, "misses looked at");
    let hours = up_to("hours", params.hours.unwrap_or(24), HOURS_MAX)?;
    let by = params.by.unwrap_or_default();
    let cell_of = |cell: &Cell| {
        let is_wanted = params.video.as_ref().is_none_or(|video| cell.title.as_ref() == Some(video))
            && params.site.as_ref().is_none_or(|site| cell.site.as_deref() == Some(site));
        is_wanted.then(|| Cell {
            title: cell.title.clone().filter(|_| by != By::Site),
            site: cell.site.clone().filter(|_| by != By::Title),
        })
    };
    let rows = app.misses.lock().rows(hours, now_unix_ms(), cell_of);
    let mut total = Sums::default();
    rows.iter().for_each(|(_, sums)| total.add(sums));
    let row = |(cell, sums): &(Cell, Sums)| MissRow {
        video: cell.title.as_ref().map(ToString::to_string),
        site: cell.site.as_ref().map(ToString::to_string),
        sums: sums.into(),
    };
    let account = MissAccount { hours, total: (&total).into(), rows: rows.iter().take(ROWS_MAX).map(row).collect() };
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(account)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(query: &[(&str, &str)]) -> (Dialect, Vec<(String, Option<u64>)>) {
        let parameters: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let told = Told::of(&parameters);
        (told.dialect, told.pathways)
    }

    #[test]
    fn players_tell_in_two_dialects_what_they_did() {
        let one = |id: &str, speed: Option<u64>| vec![(id.to_owned(), speed)];
        assert_eq!(told(&[("_HLS_pathway", "e1"), ("_HLS_throughput", "5000000")]), (Dialect::Hls, one("e1", Some(5_000_000))));
        assert_eq!(told(&[("_HLS_pathway", "\"e1\""), ("x", "y")]), (Dialect::Hls, one("e1", None)));
        assert_eq!(told(&[]), (Dialect::Hls, Vec::new()));
        assert_eq!(told(&[("dialect", "dash")]), (Dialect::Dash, Vec::new()), "a player that has played nothing yet");
        let two = vec![("e2".to_owned(), Some(9)), ("e1".to_owned(), Some(3))];
        assert_eq!(told(&[("_DASH_pathway", "\"e2,e1\""), ("_DASH_throughput", "9,3.7")]), (Dialect::Dash, two));
        assert_eq!(told(&[("_HLS_pathway", "e1"), ("_HLS_throughput", "NaN")]).1, one("e1", Some(0)));
        assert_eq!(told(&[("_DASH_pathway", &"e,".repeat(1000))]).1.len(), 8, "not more than there can be");
    }
}
