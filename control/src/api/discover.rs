//! `/trending` and `/recommendations`: rows of titles. A row is made in its time or has a default, so that there is always something to watch.

use std::{collections::HashSet, sync::Arc};

use activity::{Activity, Trend, Window};
use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use http::{HeaderValue, header::CACHE_CONTROL};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::title::TitleId;

use super::{
    App,
    caching::{Conditions, Sharing},
    extract::{MaybeViewer, Params, up_to},
    problem::Problem,
    region::region_of,
    videos::{TitleIdText, VideoSummary, catalogued},
    viewers::begun,
};
use crate::{
    catalogue::Summary,
    discover::Overview,
    identity::{address::Client, user::UserId},
    resilience::dependency::Dependency,
};

/// Titles a list of trends has unless told, and at most.
const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 50;
/// Titles in a row.
const ROW_TITLES_MAX: usize = 20;
/// Candidates for a row: some are not catalogued any more, or known to the viewer.
const CANDIDATES_MAX: usize = 2 * LIMIT_MAX as usize;
/// Titles that rows are made for because they were watched.
const BECAUSE_MAX: usize = 2;

/// How far back.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum TrendWindow {
    /// The last hour.
    #[default]
    Hour,
    /// The last day.
    Day,
}

impl From<TrendWindow> for Window {
    fn from(window: TrendWindow) -> Self {
        match window {
            TrendWindow::Hour => Self::Hour,
            TrendWindow::Day => Self::Day,
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TrendParams {
    /// Where: the name of a region as steering has it. Where the client is, unless told.
    #[param(max_length = 64)]
    region: Option<String>,
    /// How far back; an hour unless told.
    window: Option<TrendWindow>,
    /// How many titles, from 1 to 50; 20 unless told.
    #[param(minimum = 1, maximum = 50, default = 20)]
    limit: Option<u32>,
}

/// What is played more than was to be expected.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trends {
    window: TrendWindow,
    /// Where the trends are from; null when nothing is known of the region and they are from everywhere.
    #[schema(required)]
    region: Option<String>,
    titles: Vec<TrendView>,
}

/// A title and how it rises.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Trend)]
pub(super) struct TrendView {
    video: VideoSummary,
    /// How often its playback began in the window.
    plays: u64,
    /// How often it was to be expected, by its share of what was played before.
    expected_plays: f64,
    /// What it is ranked by: log₁₀(1 + plays), and what is above the expected in deviations of it.
    score: f64,
}

/// Titles that are trending: those that are played more than their share lets expect, the first one most.
///
/// Plays are counted as they come in; what players send hours later does not count.
#[utoipa::path(
    get, path = "/trending", tag = "discovery", operation_id = "listTrends", params(TrendParams),
    security((), ("viewer" = []), ("operator" = [])),
    responses(
        (status = 200, description = "The titles; none where nothing was played.", body = Trends,
         headers(("ETag" = String, description = "Of this list."))),
        (status = 304, description = "It is the list that If-None-Match names."),
        (status = 400, description = "A parameter is wrong."),
        (status = 401, description = "Control is not open to those without a token, or the token is not good."),
    )
)]
pub(super) async fn trending(
    State(app): State<Arc<App>>,
    _: MaybeViewer,
    Extension(client): Extension<Client>,
    conditions: Conditions,
    Params(params): Params<TrendParams>,
) -> Result<Response, Problem> {
    let limit = up_to("limit", params.limit.unwrap_or(LIMIT_DEFAULT), LIMIT_MAX)?;
    let asked = params.region.filter(|region| !region.is_empty());
    if asked.as_ref().is_some_and(|region| region.len() > activity::REGION_BYTES_MAX) {
        return Err(Problem::bad_parameter("region", format!("it is longer than {} bytes", activity::REGION_BYTES_MAX)));
    }
    let window = params.window.unwrap_or_default();
    let region = asked.unwrap_or_else(|| region_of(&app, client));
    let overview = app.discover.overview();
    let (trends, is_of_region) = trends(&app.activity, &region, window.into(), &overview);
    let found = async {
        let found = join_all(trends.iter().map(|trend| found(&app, &trend.title))).await;
        found.into_iter().collect::<Result<Vec<_>, Problem>>()
    };
    let default = || trends.iter().map(|trend| remembered(&overview, &trend.title)).collect();
    let (found, _) = or_else(&app.needs.rows, found, default).await;
    let view = |(trend, summary): (&Trend, Option<Summary>)| {
        let score = (trend.score * 1000.0).round() / 1000.0;
        let expected_plays = (trend.expected * 10.0).round() / 10.0;
        Some(TrendView { video: summary?.into(), plays: trend.plays, expected_plays, score })
    };
    let titles = trends.iter().zip(found).filter_map(view).take(limit as usize).collect();
    let page = Trends { window, region: is_of_region.then_some(region), titles };
    Ok(conditions.answer(Sharing::of_catalogue(&app), &page))
}

/// The trends of a region, or of everywhere when nothing is known of it; and whether they are of the region.
fn trends(activity: &Activity, region: &str, window: Window, overview: &Overview) -> (Vec<Trend>, bool) {
    let of = |region| {
        let mut trends = activity.trending(region, window, usize::MAX);
        trends.retain(|trend| overview.may_have(&trend.title));
        trends.truncate(CANDIDATES_MAX);
        trends
    };
    let trends = of(Some(region));
    if trends.is_empty() { (of(None), false) } else { (trends, true) }
}

/// A title, if it is catalogued. An id that no title may have is nobody's.
async fn found(app: &App, id: &str) -> Result<Option<Summary>, Problem> {
    let Ok(id) = id.parse::<TitleId>() else { return Ok(None) };
    Ok(catalogued(app, &id).await?.map(|entry| entry.summary.clone()))
}

/// The same as it was a while ago, without asking anybody.
fn remembered(overview: &Overview, id: &str) -> Option<Summary> {
    overview.find(&id.parse().ok()?).map(|summary| Summary::clone(summary))
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RowKind {
    /// What the viewer began and did not finish; where she stopped is at `/me/continue-watching`.
    ContinueWatching,
    /// Watched by those who watched a title that the viewer watched.
    BecauseYouWatched,
    /// Trending where the viewer is.
    Trending,
    /// The newest.
    New,
    /// With the same people as a title that the viewer watched.
    Similar,
    /// What is watched most; the newest, where nothing was watched. There when no other row is.
    Popular,
}

impl RowKind {
    const fn name(self) -> &'static str {
        match self {
            Self::ContinueWatching => "continue-watching",
            Self::BecauseYouWatched => "because-you-watched",
            Self::Trending => "trending",
            Self::New => "new",
            Self::Similar => "similar",
            Self::Popular => "popular",
        }
    }
}

/// A row of titles.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    /// Its name among these rows; `row` of impressions and clicks.
    #[schema(example = "because-you-watched:dark-days")]
    id: String,
    kind: RowKind,
    /// The title that it is there for, of rows that are.
    #[serde(skip_serializing_if = "Option::is_none")]
    because: Option<TitleIdText>,
    /// Whether what it is made of failed or was too slow, so that this is its default.
    fallback: bool,
    /// The best first; at least one.
    videos: Vec<VideoSummary>,
}

/// Rows of titles to watch next.
#[derive(Serialize, ToSchema)]
pub(super) struct Recommendations {
    /// In the order in which they are best shown. None is empty; there is none only where nothing is catalogued.
    rows: Vec<Row>,
}

/// Rows of titles to watch next: for a viewer by what she watched, for anybody by what is new and what is trending.
///
/// Each row is made within a quarter of a second or has a default.
#[utoipa::path(
    get, path = "/recommendations", tag = "discovery", operation_id = "recommend", security((), ("viewer" = []), ("operator" = [])),
    responses(
        (status = 200, description = "The rows.", body = Recommendations),
        (status = 401, description = "Control is not open to those without a token, or the token is not good."),
    )
)]
pub(super) async fn recommendations(
    State(app): State<Arc<App>>,
    MaybeViewer(user): MaybeViewer,
    Extension(client): Extension<Client>,
) -> Response {
    let rows = rows(&app, user.as_ref(), &region_of(&app, client)).await;
    let cache = HeaderValue::from_static("private, no-store");
    ([(CACHE_CONTROL, cache)], Json(Recommendations { rows })).into_response()
}

/// A row before its titles were looked up.
struct Plan {
    kind: RowKind,
    because: Option<TitleId>,
    /// Best first; more than are shown.
    titles: Vec<TitleId>,
}

async fn rows(app: &Arc<App>, user: Option<&UserId>, region: &str) -> Vec<Row> {
    let overview = app.discover.overview();
    let mut plans = plans(app, user, &overview);
    plans.push(Plan { kind: RowKind::Trending, because: None, titles: trending_ids(&app.activity, region, &overview) });
    let made = join_all(plans.into_iter().map(|plan| made(app, plan, &overview)));
    let (unfinished, made, newest) = tokio::join!(unfinished(app, user), made, newest(app, &overview));
    // What is for this viewer, then what is for all; what is alike last, as it says least.
    let (similar, made): (Vec<_>, Vec<_>) = made.into_iter().partition(|row| row.kind == RowKind::Similar);
    let mut rows: Vec<_> = unfinished.into_iter().chain(made).collect();
    rows.push(newest);
    rows.extend(similar);
    rows.retain(|row| !row.videos.is_empty());
    if rows.is_empty() {
        rows.extend(popular(app, &overview));
    }
    rows
}

/// The rows that are there for titles that a viewer watched.
fn plans(app: &App, user: Option<&UserId>, overview: &Overview) -> Vec<Plan> {
    let Some(user) = user else { return Vec::new() };
    let known: HashSet<TitleId> = app.activity.known_to(user.as_str()).into_iter().collect();
    let watched = app.activity.watched_by(user.as_str());
    let unknown = |titles: Vec<TitleId>| titles.into_iter().filter(|id| !known.contains(id)).collect();
    let because = watched.iter().take(BECAUSE_MAX).map(|title| {
        let with = app.activity.watched_with(title, CANDIDATES_MAX).into_iter().map(|(id, _)| id).collect();
        Plan { kind: RowKind::BecauseYouWatched, because: Some(title.clone()), titles: unknown(with) }
    });
    let similar = watched.first().map(|title| {
        let similar = overview.similar(title, CANDIDATES_MAX);
        Plan { kind: RowKind::Similar, because: Some(title.clone()), titles: unknown(similar) }
    });
    because.chain(similar).collect()
}

fn trending_ids(activity: &Activity, region: &str, overview: &Overview) -> Vec<TitleId> {
    let (trends, _) = trends(activity, region, Window::Hour, overview);
    trends.into_iter().filter_map(|trend| trend.title.parse().ok()).collect()
}

/// Looks a row's titles up, in its time; after that they are as they were a while ago.
async fn made(app: &Arc<App>, Plan { kind, because, titles }: Plan, overview: &Overview) -> Row {
    let looked_up = async {
        let mut videos = Vec::new();
        for id in &titles {
            videos.extend(found(app, id.as_str()).await?);
            if videos.len() == ROW_TITLES_MAX {
                break;
            }
        }
        Ok::<_, Problem>(videos)
    };
    let default = || titles.iter().filter_map(|id| remembered(overview, id.as_str())).take(ROW_TITLES_MAX).collect();
    let (videos, fallback) = or_else(&app.needs.rows, looked_up, default).await;
    row(app, kind, because, videos, fallback)
}

/// What a viewer can go on with. Nobody remembers it but the ledger, so its default is empty.
async fn unfinished(app: &Arc<App>, user: Option<&UserId>) -> Option<Row> {
    let user = user?.clone();
    let looked_up = async {
        let ids = begun(app, user, ROW_TITLES_MAX).await?;
        let videos = join_all(ids.iter().map(|id| found(app, id.as_str()))).await;
        videos.into_iter().filter_map(Result::transpose).collect::<Result<Vec<_>, Problem>>()
    };
    let (videos, fallback) = or_else(&app.needs.unfinished, looked_up, Vec::new).await;
    Some(row(app, RowKind::ContinueWatching, None, videos, fallback))
}

async fn newest(app: &Arc<App>, overview: &Overview) -> Row {
    let default = || overview.newest().take(ROW_TITLES_MAX).map(|summary| Summary::clone(summary)).collect();
    let (videos, fallback) = or_else(&app.needs.rows, app.db.newest(None, ROW_TITLES_MAX as u32), default).await;
    row(app, RowKind::New, None, videos, fallback)
}

/// What comes of `work`, or its default where it fails, is late, or is not worth to be tried; and whether it is the default.
async fn or_else<T, E>(need: &Dependency, work: impl Future<Output = Result<T, E>>, default: impl FnOnce() -> T) -> (T, bool) {
    match need.call(work).await {
        Ok(made) => (made, false),
        Err(_) => (default(), true),
    }
}

/// The row that needs nobody: out of memory.
fn popular(app: &App, overview: &Overview) -> Option<Row> {
    let videos: Vec<_> = overview.by_popularity(&app.activity.popularity()).into_iter().take(ROW_TITLES_MAX).collect();
    let videos: Vec<_> = videos.into_iter().map(|summary| Summary::clone(summary)).collect();
    (!videos.is_empty()).then(|| row(app, RowKind::Popular, None, videos, true))
}

fn row(app: &App, kind: RowKind, because: Option<TitleId>, videos: Vec<Summary>, fallback: bool) -> Row {
    if fallback {
        app.metrics.activity.fell_back(kind.name());
    }
    let id = match &because {
        Some(title) => format!("{}:{title}", kind.name()),
        None => kind.name().to_owned(),
    };
    Row { id, kind, because: because.map(TitleIdText), fallback, videos: videos.into_iter().map(VideoSummary::from).collect() }
}
