//! What viewers do: `/videos/{id}/last-watched-timestamp`, likes, `/me`, and `/users/{user}` for operators.
//!
//! Who a viewer is says her token alone; no address has anybody's name in it but those that are for admins.

use std::{collections::HashMap, str::FromStr, sync::Arc};

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header::CACHE_CONTROL};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::title::TitleId;

use super::{
    App,
    activity::behind,
    caching::NO_STORE,
    extract::{Administers, Named, Params, Sent, Viewer, up_to},
    idempotency::NothingKept,
    now_unix_ms,
    problem::{Kind, Problem},
    timestamp::{self, rfc3339},
    videos::{TitleIdText, catalogued, entry},
};
use crate::{
    identity::user::UserId,
    viewers::{
        EVENT_AGE_MAX, event_ms,
        mark::{Mark, Opinion},
        read::{Everything, Place},
        view::{View, is_finished},
    },
};

/// Entries a page has unless told, and at most.
const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 100;

/// JSON that is one person's.
fn personal(body: impl Serialize) -> Response {
    ([(CACHE_CONTROL, NO_STORE)], Json(body)).into_response()
}

/// Where a viewer is.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = WatchedPosition)]
pub(super) struct Watched {
    /// Milliseconds from the title's beginning. What is beyond its end is its end.
    position_ms: u64,
    /// When she was there, by the player's clock. What is further ahead than `history.clock_skew` counts as of now; what is older than
    /// 90 days is refused.
    #[schema(format = DateTime, example = "2026-11-21T09:45:55.000Z")]
    at: String,
    /// What she watches on, 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    device: Option<String>,
}

/// Keeps where the viewer is in a title: sent by players every few seconds, and on pause and stop.
///
/// The latest event by its own time wins; of two at one time, the one that is further. What is older changes nothing, so a request may be
/// sent again, late, and in any order. When this answers 204 the position is on disk.
#[utoipa::path(
    patch, path = "/videos/{id}/last-watched-timestamp", tag = "viewers", operation_id = "keepPosition", security(("viewer" = [])),
    params(("id" = inline(TitleIdText), Path, description = "The title's id.")),
    request_body = Watched,
    responses(
        (status = 204, description = "It is kept."),
        (status = 400, description = "The body is wrong, or the event is older than 90 days."),
        (status = 401, description = "Not a viewer."),
        (status = 404, description = "The title is not catalogued."),
        (status = 503, description = "Too much waits to be kept; Retry-After says in how many seconds to send it again."),
    )
)]
pub(super) async fn watched(
    State(app): State<Arc<App>>,
    Viewer(user): Viewer,
    Named(id): Named<TitleId>,
    Sent(body): Sent<Watched>,
) -> Result<StatusCode, Problem> {
    let at_ms = timestamp::parse(&body.at)
        .ok_or_else(|| Problem::new(Kind::BadBody, "at: expected a time as in RFC 3339").at("/at".into()))?;
    let at_ms = event_ms(at_ms, now_unix_ms(), app.ledger.clock_skew()).ok_or_else(|| {
        Problem::new(Kind::BadBody, format!("at: older than {} days", EVENT_AGE_MAX.as_secs() / 86_400)).at("/at".into())
    })?;
    let device = body.device.as_deref().map(str::parse).transpose();
    let device = device.map_err(|error| Problem::new(Kind::BadBody, format!("device: {error}")).at("/device".into()))?;
    let duration_ms = entry(&app, &id).await?.summary.duration_ms;
    app.ledger.watched(user, id, at_ms, body.position_ms.min(duration_ms), device).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where a viewer stopped in a title.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = StoppedPosition)]
pub(super) struct Stopped {
    video_id: TitleIdText,
    /// Milliseconds from the title's beginning; 0 if she has not watched it.
    position_ms: u64,
    /// The furthest she was in that view.
    furthest_ms: u64,
    /// Whether she has seen it all but the credits.
    finished: bool,
    /// When she was there; null if she has not watched it.
    #[schema(required, format = DateTime)]
    at: Option<String>,
    /// What she watched on.
    #[schema(required)]
    device: Option<String>,
}

/// Where the viewer stopped in a title.
#[utoipa::path(
    get, path = "/videos/{id}/last-watched-timestamp", tag = "viewers", operation_id = "findPosition", security(("viewer" = [])),
    params(("id" = inline(TitleIdText), Path, description = "The title's id.")),
    responses(
        (status = 200, description = "Where; at the beginning if she has not watched it.", body = Stopped),
        (status = 401, description = "Not a viewer."),
        (status = 404, description = "The title is not catalogued."),
    )
)]
pub(super) async fn stopped(
    State(app): State<Arc<App>>,
    Viewer(user): Viewer,
    Named(id): Named<TitleId>,
) -> Result<Response, Problem> {
    let duration_ms = entry(&app, &id).await?.summary.duration_ms;
    let view = app.ledger.stopped(user, id.clone()).await?;
    Ok(personal(Stopped {
        video_id: TitleIdText(id),
        position_ms: view.as_ref().map_or(0, |view| view.position_ms),
        furthest_ms: view.as_ref().map_or(0, |view| view.furthest_ms),
        finished: view.as_ref().is_some_and(|view| is_finished(view.position_ms, duration_ms)),
        at: view.as_ref().map(|view| rfc3339(view.last_ms)),
        device: view.and_then(|view| view.device).map(|device| device.to_string()),
    }))
}

/// What a viewer thinks of a title.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schema(as = Opinion)]
pub(super) enum OpinionName {
    Like,
    Dislike,
    /// Neither, or neither any more.
    None,
}

impl From<Opinion> for OpinionName {
    fn from(opinion: Opinion) -> Self {
        match opinion {
            Opinion::None => Self::None,
            Opinion::Like => Self::Like,
            Opinion::Dislike => Self::Dislike,
        }
    }
}

impl From<OpinionName> for Opinion {
    fn from(name: OpinionName) -> Self {
        match name {
            OpinionName::None => Self::None,
            OpinionName::Like => Self::Like,
            OpinionName::Dislike => Self::Dislike,
        }
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RateParams {
    /// LIKE, DISLIKE, or NONE to undo either.
    op: OpinionName,
}

/// Keeps what the viewer thinks of a title, in place of what she thought before.
#[utoipa::path(
    patch, path = "/videos/{id}", tag = "viewers", operation_id = "rateVideo", security(("viewer" = [])),
    params(("id" = inline(TitleIdText), Path, description = "The title's id."), RateParams),
    responses(
        (status = 204, description = "It is kept."),
        (status = 400, description = "Not an opinion."),
        (status = 401, description = "Not a viewer."),
        (status = 404, description = "The title is not catalogued."),
        (status = 503, description = "Too much waits to be kept; Retry-After says in how many seconds to send it again."),
    )
)]
pub(super) async fn rate(
    State(app): State<Arc<App>>,
    Viewer(user): Viewer,
    Named(id): Named<TitleId>,
    Params(params): Params<RateParams>,
) -> Result<StatusCode, Problem> {
    entry(&app, &id).await?;
    app.ledger.rated(user, id, now_unix_ms(), params.op.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a viewer thinks of a title, and since when.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rating {
    video_id: TitleIdText,
    opinion: OpinionName,
    /// When she said so; null if she never said anything.
    #[schema(required, format = DateTime)]
    at: Option<String>,
}

impl From<Mark> for Rating {
    fn from(mark: Mark) -> Self {
        let at = Some(mark.opinion_ms).filter(|ms| *ms > 0).map(rfc3339);
        Self { video_id: TitleIdText(mark.title), opinion: mark.opinion.into(), at }
    }
}

/// What the viewer thinks of a title.
#[utoipa::path(
    get, path = "/videos/{id}/opinion", tag = "viewers", operation_id = "findOpinion", security(("viewer" = [])),
    params(("id" = inline(TitleIdText), Path, description = "The title's id.")),
    responses(
        (status = 200, description = "What she thinks.", body = Rating),
        (status = 401, description = "Not a viewer."),
        (status = 404, description = "The title is not catalogued."),
    )
)]
pub(super) async fn opinion(
    State(app): State<Arc<App>>,
    Viewer(user): Viewer,
    Named(id): Named<TitleId>,
) -> Result<Response, Problem> {
    entry(&app, &id).await?;
    Ok(personal(Rating::from(app.ledger.opinion(user, id).await?)))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// Where to go on: the `nextCursor` of the page before.
    next_cursor: Option<String>,
    /// How many entries, from 1 to 100; 20 unless told.
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
}

impl PageParams {
    fn checked(self) -> Result<(Option<Place>, usize), Problem> {
        let limit = up_to("limit", self.limit.unwrap_or(LIMIT_DEFAULT), LIMIT_MAX)?;
        let place = self.next_cursor.as_deref().map(Place::from_str).transpose();
        Ok((place.map_err(|error| Problem::bad_parameter("nextCursor", error))?, limit as usize))
    }
}

/// The first `limit` of `entries`, and the cursor after them if there are more.
fn page<T>(mut entries: Vec<T>, limit: usize, place: impl Fn(&T) -> Place) -> (Vec<T>, Option<String>) {
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next_cursor = entries.last().filter(|_| more).map(|last| place(last).to_string());
    (entries, next_cursor)
}

/// What lists of a viewer show of a title.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListedVideo {
    id: TitleIdText,
    /// What viewers read; null once the title is not catalogued any more, like all that follows.
    #[schema(required)]
    title: Option<String>,
    /// How long it plays, in milliseconds.
    #[schema(required)]
    duration_ms: Option<u64>,
    /// Its poster, relative to this server.
    #[schema(required)]
    thumbnail_url: Option<String>,
}

/// Looks titles up, each once.
struct Videos<'a> {
    app: &'a App,
    found: HashMap<TitleId, ListedVideo>,
}

impl<'a> Videos<'a> {
    fn of(app: &'a App) -> Self {
        Self { app, found: HashMap::new() }
    }

    async fn find(&mut self, id: &TitleId) -> Result<ListedVideo, Problem> {
        if let Some(found) = self.found.get(id) {
            return Ok(found.clone());
        }
        let entry = catalogued(self.app, id).await?;
        let found = ListedVideo {
            title: entry.as_ref().map(|entry| entry.summary.title.clone()),
            duration_ms: entry.as_ref().map(|entry| entry.summary.duration_ms),
            thumbnail_url: entry.map(|_| format!("/videos/{id}/thumbnail")),
            id: TitleIdText(id.clone()),
        };
        self.found.insert(id.clone(), found.clone());
        Ok(found)
    }
}

/// What a viewer can go on with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Unfinished {
    video: ListedVideo,
    /// Where she stopped, in milliseconds from the title's beginning.
    position_ms: u64,
    /// The same as a part of the whole, from 0 to 1.
    progress: f64,
    /// When.
    #[schema(format = DateTime)]
    last_watched_at: String,
    /// What she watched on.
    #[schema(required)]
    device: Option<String>,
}

/// A page of what a viewer can go on with, the newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContinuePage {
    videos: Vec<Unfinished>,
    /// Give it as `nextCursor` for the next page; null after the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// What the viewer has begun and not finished, the latest first, a page at a time.
///
/// Finished is who has seen all but the last three minutes or 5 %, whichever is more, but never more than a fifth. What is watched
/// meanwhile goes to the front; nothing else changes its place.
#[utoipa::path(
    get, path = "/me/continue-watching", tag = "viewers", operation_id = "continueWatching", security(("viewer" = [])),
    params(PageParams),
    responses(
        (status = 200, description = "A page of titles.", body = ContinuePage),
        (status = 400, description = "A parameter is wrong."),
        (status = 401, description = "Not a viewer."),
    )
)]
pub(super) async fn continue_watching(
    State(app): State<Arc<App>>,
    Viewer(user): Viewer,
    Params(params): Params<PageParams>,
) -> Result<Response, Problem> {
    let (after, limit) = params.checked()?;
    let unfinished = unfinished(&app, user, after, limit).await?;
    let place = |(view, ..): &(View, _, _)| Place { ms: view.last_ms, title: view.title.clone() };
    let (unfinished, next_cursor) = page(unfinished, limit, place);
    let videos = unfinished.into_iter().map(|(view, video, duration_ms)| Unfinished {
        video,
        position_ms: view.position_ms,
        progress: view.position_ms as f64 / duration_ms.max(1) as f64,
        last_watched_at: rfc3339(view.last_ms),
        device: view.device.map(|device| device.to_string()),
    });
    Ok(personal(ContinuePage { videos: videos.collect(), next_cursor }))
}

/// What she can go on with after a place: where, what, and how long that plays. One more than `limit`, if there are so many.
async fn unfinished(
    app: &App,
    user: UserId,
    after: Option<Place>,
    limit: usize,
) -> Result<Vec<(View, ListedVideo, u64)>, Problem> {
    let mut unfinished = Vec::new();
    let mut videos = Videos::of(app);
    for view in app.ledger.stopped_lately(user, after, now_unix_ms()).await? {
        let video = videos.find(&view.title).await?;
        let Some(duration_ms) = video.duration_ms.filter(|duration_ms| !is_finished(view.position_ms, *duration_ms)) else {
            continue;
        };
        unfinished.push((view, video, duration_ms));
        if unfinished.len() > limit {
            break;
        }
    }
    Ok(unfinished)
}

/// The titles that she can go on with, the latest first.
pub(super) async fn begun(app: &App, user: UserId, limit: usize) -> Result<Vec<TitleId>, Problem> {
    let unfinished = unfinished(app, user, None, limit).await?;
    Ok(unfinished.into_iter().take(limit).map(|(view, ..)| view.title).collect())
}

/// Takes a title off the list of what the viewer can go on with, until she watches it again.
#[utoipa::path(
    delete, path = "/me/continue-watching/{id}", tag = "viewers", operation_id = "hideUnfinished", security(("viewer" = [])),
    params(("id" = inline(TitleIdText), Path, description = "The title's id.")),
    responses(
        (status = 204, description = "It is off the list, or was not on it."),
        (status = 401, description = "Not a viewer."),
        (status = 404, description = "The title is not catalogued, so it is on nobody's list."),
        (status = 503, description = "Too much waits to be kept; Retry-After says in how many seconds to send it again."),
    )
)]
pub(super) async fn hide(
    State(app): State<Arc<App>>,
    Viewer(user): Viewer,
    Named(id): Named<TitleId>,
) -> Result<StatusCode, Problem> {
    entry(&app, &id).await?;
    app.ledger.hidden(user, id, now_unix_ms()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What of a title was watched in one go.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = View)]
pub(super) struct ViewEntry {
    video: ListedVideo,
    #[serde(flatten)]
    view: BareView,
}

/// When and how far.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ViewTimes)]
pub(super) struct BareView {
    /// Its first event.
    #[schema(format = DateTime)]
    begun_at: String,
    /// Its last event.
    #[schema(format = DateTime)]
    last_seen_at: String,
    /// Where it stopped, in milliseconds from the title's beginning.
    position_ms: u64,
    /// The furthest it went.
    furthest_ms: u64,
    /// What it was last watched on.
    #[schema(required)]
    device: Option<String>,
}

impl From<View> for BareView {
    fn from(view: View) -> Self {
        Self {
            begun_at: rfc3339(view.begun_ms),
            last_seen_at: rfc3339(view.last_ms),
            position_ms: view.position_ms,
            furthest_ms: view.furthest_ms,
            device: view.device.map(|device| device.to_string()),
        }
    }
}

/// A page of what a viewer watched, by when it began, the newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HistoryPage {
    views: Vec<ViewEntry>,
    /// Give it as `nextCursor` for the next page; null after the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// What the viewer watched, by when she began, the newest first, a page at a time.
///
/// A view is what was watched of one title without a pause of more than `history.view_gap`. Pages neither repeat nor skip a view while
/// others are added.
#[utoipa::path(
    get, path = "/me/history", tag = "viewers", operation_id = "listHistory", security(("viewer" = [])), params(PageParams),
    responses(
        (status = 200, description = "A page of views.", body = HistoryPage),
        (status = 400, description = "A parameter is wrong."),
        (status = 401, description = "Not a viewer."),
    )
)]
pub(super) async fn history(
    State(app): State<Arc<App>>,
    Viewer(user): Viewer,
    Params(params): Params<PageParams>,
) -> Result<Response, Problem> {
    let (after, limit) = params.checked()?;
    let views = app.ledger.history(user, after, limit + 1).await?;
    let (found, next_cursor) = page(views, limit, |view| Place { ms: view.begun_ms, title: view.title.clone() });
    let mut videos = Videos::of(&app);
    let mut views = Vec::with_capacity(found.len());
    for view in found {
        views.push(ViewEntry { video: videos.find(&view.title).await?, view: view.into() });
    }
    Ok(personal(HistoryPage { views, next_cursor }))
}

/// A title that a viewer likes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Liked {
    video: ListedVideo,
    /// When she said so.
    #[schema(format = DateTime)]
    liked_at: String,
}

/// A page of what a viewer likes, the newest first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LikesPage {
    likes: Vec<Liked>,
    /// Give it as `nextCursor` for the next page; null after the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// What the viewer likes, the newest first, a page at a time.
#[utoipa::path(
    get, path = "/me/likes", tag = "viewers", operation_id = "listLikes", security(("viewer" = [])), params(PageParams),
    responses(
        (status = 200, description = "A page of titles.", body = LikesPage),
        (status = 400, description = "A parameter is wrong."),
        (status = 401, description = "Not a viewer."),
    )
)]
pub(super) async fn likes(
    State(app): State<Arc<App>>,
    Viewer(user): Viewer,
    Params(params): Params<PageParams>,
) -> Result<Response, Problem> {
    let (after, limit) = params.checked()?;
    let marks = app.ledger.opinions(user, Opinion::Like, after, limit + 1).await?;
    let (marks, next_cursor) = page(marks, limit, |mark| Place { ms: mark.opinion_ms, title: mark.title.clone() });
    let mut videos = Videos::of(&app);
    let mut likes = Vec::with_capacity(marks.len());
    for mark in marks {
        likes.push(Liked { video: videos.find(&mark.title).await?, liked_at: rfc3339(mark.opinion_ms) });
    }
    Ok(personal(LikesPage { likes, next_cursor }))
}

/// Forgets the viewer: positions, history, likes, all that is kept under her name.
///
/// When this answers 204 nothing of it is left in control's files but a digest of her id, for 90 days, so that what players did before and
/// send late is not taken; and recommendations know nothing of her. Events that were sent to `/activity` stay in its log and its lake until they
/// are as old as the operator keeps any: under a pseudonym, as all events do. What she does afterwards is kept as anyone's.
#[utoipa::path(
    delete, path = "/me", tag = "viewers", operation_id = "forgetMe", security(("viewer" = [])),
    responses(
        (status = 204, description = "It is gone."),
        (status = 401, description = "Not a viewer."),
        (status = 503, description = "It is not gone yet, or not known to be; send it again."),
    )
)]
pub(super) async fn forget_me(State(app): State<Arc<App>>, Viewer(user): Viewer) -> Result<Response, Problem> {
    forget_everywhere(&app, user).await?;
    Ok((Extension(NothingKept), StatusCode::NO_CONTENT).into_response())
}

/// Where one of the two cannot now, the other forgets all the same.
async fn forget_everywhere(app: &App, user: UserId) -> Result<(), Problem> {
    let activity = app.activity.forget(user.as_str()).await;
    app.ledger.forget(user, now_unix_ms()).await?;
    activity.map_err(behind)
}

/// All that is kept of a user.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserData {
    user: String,
    /// What she watched, the newest first.
    views: Vec<ExportedView>,
    /// What she thinks of titles, by title.
    opinions: Vec<Rating>,
    /// What she took off the list of what she can go on with.
    hidden: Vec<Hidden>,
    /// Titles that recommendations know her to have watched, begun or disliked of late.
    known_titles: Vec<TitleIdText>,
}

/// What of a title was watched in one go.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExportedView {
    video_id: TitleIdText,
    #[serde(flatten)]
    view: BareView,
}

/// A title that is not to be gone on with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hidden {
    video_id: TitleIdText,
    #[schema(format = DateTime)]
    at: String,
}

/// A user: the subject of her tokens, "!" and their issuer if that is not the first, "/" and a profile if there is one.
#[derive(ToSchema)]
#[schema(as = UserId, value_type = String, min_length = 1, max_length = 200, example = "alice")]
#[expect(dead_code, reason = "described, never made")]
pub(super) struct UserIdText(String);

/// All that is kept of a user, to be handed to her.
#[utoipa::path(
    get, path = "/users/{user}", tag = "viewers", operation_id = "exportUser", security(("operator" = [])),
    params(("user" = inline(UserIdText), Path, description = "The user's id.")),
    responses(
        (status = 200, description = "All of it; empty for a user who never did anything.", body = UserData),
        (status = 401, description = "Not an operator."),
        (status = 403, description = "Not an admin."),
    )
)]
pub(super) async fn export(State(app): State<Arc<App>>, _: Administers, Named(user): Named<UserId>) -> Result<Response, Problem> {
    let Everything { views, marks } = app.ledger.everything(user.clone()).await?;
    let hidden = marks.iter().filter(|mark| mark.hidden_ms > 0);
    let hidden = hidden.map(|mark| Hidden { video_id: TitleIdText(mark.title.clone()), at: rfc3339(mark.hidden_ms) }).collect();
    let exported = |view: View| ExportedView { video_id: TitleIdText(view.title.clone()), view: view.into() };
    Ok(personal(UserData {
        user: user.to_string(),
        views: views.into_iter().map(exported).collect(),
        opinions: marks.into_iter().filter(|mark| mark.opinion_ms > 0).map(Rating::from).collect(),
        hidden,
        known_titles: app.activity.known_to(user.as_str()).into_iter().map(TitleIdText).collect(),
    }))
}

/// Forgets a user, as she can do herself.
#[utoipa::path(
    delete, path = "/users/{user}", tag = "viewers", operation_id = "forgetUser", security(("operator" = [])),
    params(("user" = inline(UserIdText), Path, description = "The user's id.")),
    responses(
        (status = 204, description = "Nothing is kept of her any more, if anything was."),
        (status = 401, description = "Not an operator."),
        (status = 403, description = "Not an admin."),
        (status = 503, description = "It is not gone yet, or not known to be; send it again."),
    )
)]
pub(super) async fn forget(
    State(app): State<Arc<App>>,
    _: Administers,
    Named(user): Named<UserId>,
) -> Result<StatusCode, Problem> {
    forget_everywhere(&app, user).await?;
    Ok(StatusCode::NO_CONTENT)
}
