//! `/videos/{id}/playback`, `/cdn-url` and `/thumbnail`: signed URLs of a title's files on the edges that rank best.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    StatusCode,
    header::{CACHE_CONTROL, LOCATION},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::{object::PathError, title::TitleId};

use super::{
    App,
    // Signed URLs expire and edges come and go: an answer is good once.
    caching::NO_STORE,
    extract::{MaybeViewer, Named, Params},
    now_unix_ms,
    problem::{Kind, Problem},
    steer::{Ranked, rank},
    steering::{Reached, address, no_edge},
    timestamp::rfc3339,
    videos::{RenditionView, TitleIdText, entry},
};
use crate::{
    catalogue::Entry,
    db::{At, Found},
    identity::address::Client,
    playback::{Pass, Wanted, describe},
    view::Seen,
    viewers::view::{View, is_finished},
};

/// The longest `codec` or `resolution` filter, in characters.
const FILTER_CHARS_MAX: usize = 64;

/// How to play a title.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Playback {
    video_id: TitleIdText,
    title: String,
    duration_ms: u64,
    /// When the URLs stop being good; ask again before.
    #[schema(format = DateTime)]
    expires_at: String,
    /// Where the viewer who asks stopped; null if nobody known asks, or she has not watched it.
    #[schema(required)]
    resume: Option<Resume>,
    /// An HLS multivariant playlist on several edges, with content steering: the player moves when the ranking does.
    #[schema(format = "uri")]
    hls: String,
    /// The same as a DASH manifest. 404 for titles whose segments are not numbered.
    #[schema(format = "uri")]
    dash: String,
    /// Where the title may be played from, best first; all have the same files. At least one, at most eight. For players that choose themselves.
    edges: Vec<PlaybackEdge>,
    renditions: Vec<RenditionView>,
}

/// Where a viewer goes on with a title.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ResumePoint)]
struct Resume {
    /// Where to begin to play, in milliseconds from the title's beginning: where she stopped, or 0 if she has seen it all but the credits.
    position_ms: u64,
    /// Whether she has.
    finished: bool,
    /// When she stopped.
    #[schema(format = DateTime)]
    last_watched_at: String,
    /// What she watched on.
    #[schema(required)]
    device: Option<String>,
}

impl Resume {
    fn of(view: View, duration_ms: u64) -> Self {
        Self {
            position_ms: resume_ms(Some(&view), duration_ms),
            finished: is_finished(view.position_ms, duration_ms),
            last_watched_at: rfc3339(view.last_ms),
            device: view.device.map(|device| device.to_string()),
        }
    }
}

/// Where to go on after `stopped`, in a title that may have become shorter since.
fn resume_ms(stopped: Option<&View>, duration_ms: u64) -> u64 {
    stopped.map(|view| view.position_ms).filter(|position_ms| !is_finished(*position_ms, duration_ms)).unwrap_or(0)
}

/// An edge, and the title's URLs there. Relative URLs inside the playlists are good as they are.
#[derive(Serialize, ToSchema)]
pub(super) struct PlaybackEdge {
    /// The edge's id.
    edge: String,
    /// The edge's site.
    site: String,
    /// Scheme, host and port.
    #[schema(format = "uri")]
    url: String,
    /// The HLS multivariant playlist.
    #[schema(format = "uri")]
    hls: String,
    /// The DASH manifest.
    #[schema(format = "uri")]
    dash: String,
    /// The storyboard: WebVTT that points into a sprite.
    #[schema(format = "uri")]
    storyboard: String,
    /// The poster picture.
    #[schema(format = "uri")]
    poster: String,
}

impl PlaybackEdge {
    fn new(edge: &Seen, entry: &Entry, pass: &Pass<'_>) -> Result<Self, PathError> {
        let url = |path: &str| pass.url(&edge.url, path);
        Ok(Self {
            edge: edge.id.to_string(),
            hls: url(&entry.hls)?,
            dash: url(&entry.dash)?,
            storyboard: url(&entry.storyboard)?,
            poster: url(&entry.poster)?,
            site: edge.site.clone(),
            url: edge.url.clone(),
        })
    }
}

/// The edges for a title and a client, best first; at least one.
async fn ranked(app: &App, entry: &Entry, Client { address, .. }: Client, session: u64) -> Result<Ranked, Problem> {
    let ranked = rank(app, entry, address, session, true).await?;
    if ranked.is_empty() { Err(no_edge()) } else { Ok(ranked) }
}

fn pass<'a>(app: &App, entry: &'a Entry) -> Result<Pass<'a>, Problem> {
    Ok(app.signer.pass(&entry.root, now_unix_ms() / 1000)?)
}

/// How to play a title: ranked edges with signed playlist URLs, and what the playlists offer.
///
/// One token opens every file of the title on every edge until it expires.
#[utoipa::path(
    get, path = "/videos/{id}/playback", tag = "playback", operation_id = "playVideo", security((), ("viewer" = []), ("operator" = [])),
    params(("id" = inline(TitleIdText), Path, description = "The title's id.")),
    responses(
        (status = 200, description = "Where and what to play.", body = Playback),
        (status = 401, description = "Control is not open to those without a token, or the token is not good."),
        (status = 404, description = "The title is not catalogued."),
        (status = 503, description = "No edge is up; Retry-After says in how many seconds to ask again."),
    )
)]
pub(super) async fn playback(
    State(app): State<Arc<App>>,
    MaybeViewer(viewer): MaybeViewer,
    Named(id): Named<TitleId>,
    Extension(client): Extension<Client>,
    Reached(base): Reached,
) -> Result<Response, Problem> {
    let entry = entry(&app, &id).await?;
    let session = app.steering.new_session().as_u64();
    let ranked = ranked(&app, &entry, client, session).await?;
    let pass = pass(&app, &entry)?;
    let steered = ranked.session(&entry, session, &pass);
    if let Some(home) = &steered.home {
        app.misses.lock().decided(&id, home, steered.miss, now_unix_ms());
    }
    let stopped = match viewer {
        Some(user) => app.needs.resume.call(app.ledger.stopped(user, id.clone())).await.unwrap_or_else(|unavailable| {
            // Playing from the beginning is better than not at all, or late.
            tracing::warn!(error = %unavailable, title = %id, "a title is played without knowing where its viewer stopped");
            None
        }),
        None => None,
    };
    let playback = Playback {
        video_id: TitleIdText(id),
        title: entry.summary.title.clone(),
        duration_ms: entry.summary.duration_ms,
        expires_at: rfc3339(pass.expires_unix_s * 1000),
        resume: stopped.map(|view| Resume::of(view, entry.summary.duration_ms)),
        hls: address(&app, &base, &steered, "/master.m3u8"),
        dash: address(&app, &base, &steered, "/manifest.mpd"),
        edges: ranked.edges().map(|edge| PlaybackEdge::new(edge, &entry, &pass)).collect::<Result<_, _>>()?,
        renditions: entry.renditions.iter().map(RenditionView::from).collect(),
    };
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(playback)).into_response())
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SegmentParams {
    /// The segment's number, from 1. Give this, `lastWatchedTimestamp`, or neither: then it is the one in which the viewer who asks stopped.
    #[param(minimum = 1)]
    segment: Option<u32>,
    /// Where to go on, in milliseconds from the title's beginning.
    last_watched_timestamp: Option<u64>,
    /// Only renditions with this codec: the beginning of an RFC 6381 string ("avc1", "mp4a.40.2"), or h264, h265, hevc, av1, vp9, aac.
    #[param(max_length = 64, example = "h264")]
    codec: Option<String>,
    /// Only video of this size: "720p" or "1280x720".
    #[param(max_length = 64, example = "720p")]
    resolution: Option<String>,
}

impl SegmentParams {
    /// None if that is for the viewer's position to say.
    fn at(&self) -> Result<Option<At>, Problem> {
        match (self.segment, self.last_watched_timestamp) {
            (Some(0), None) => Err(Problem::bad_parameter("segment", "segments are numbered from 1")),
            (Some(number), None) => Ok(Some(At::Number(number))),
            (None, Some(ms)) => Ok(Some(At::TimeMs(ms))),
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(Problem::new(Kind::BadParameter, "give either segment or lastWatchedTimestamp, not both")),
        }
    }

    fn wanted(self) -> Result<Wanted, Problem> {
        for (name, filter) in [("codec", &self.codec), ("resolution", &self.resolution)] {
            if filter.as_ref().is_some_and(|filter| filter.is_empty() || filter.chars().count() > FILTER_CHARS_MAX) {
                return Err(Problem::bad_parameter(name, format!("it must have 1 to {FILTER_CHARS_MAX} characters")));
            }
        }
        let resolution = self.resolution.map(|resolution| resolution.parse()).transpose();
        Ok(Wanted { codec: self.codec, resolution: resolution.map_err(|error| Problem::bad_parameter("resolution", error))? })
    }
}

/// Where one segment is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CdnUrl {
    /// The segment on each edge, best first; the bytes are the same.
    #[schema(format = "uri")]
    urls: Vec<String>,
    /// The id of the rendition that was chosen.
    rendition: String,
    /// The segment's number, from 1.
    segment: u32,
    /// When the segment begins, in milliseconds from the title's beginning.
    start_ms: u64,
    duration_ms: u64,
    /// Where to begin to play, in milliseconds from the title's beginning: the time that was asked for, where the viewer stopped, or, of a
    /// segment that was asked for by its number, its beginning.
    position_ms: u64,
}

/// Where one segment of a title is: by its number, by a time, or, asked for by a viewer with neither, the one to go on with. That is where she
/// stopped, or the first one if she has not watched the title or has finished it.
///
/// Of the renditions that the filters leave, the best video is chosen; audio, if they leave no video.
#[utoipa::path(
    get, path = "/videos/{id}/cdn-url", tag = "playback", operation_id = "findSegment", security((), ("viewer" = []), ("operator" = [])),
    params(("id" = inline(TitleIdText), Path, description = "The title's id."), SegmentParams),
    responses(
        (status = 200, description = "The segment's signed URLs.", body = CdnUrl),
        (status = 400, description = "Both segment and lastWatchedTimestamp, neither of them and no viewer, or a bad filter."),
        (status = 401, description = "Control is not open to those without a token, or the token is not good."),
        (status = 404, description = "No such title, rendition or segment. For renditions, `available` lists what there is."),
        (status = 503, description = "No edge is up; Retry-After says in how many seconds to ask again."),
    )
)]
pub(super) async fn cdn_url(
    State(app): State<Arc<App>>,
    MaybeViewer(viewer): MaybeViewer,
    Named(id): Named<TitleId>,
    Params(params): Params<SegmentParams>,
    Extension(client): Extension<Client>,
) -> Result<Response, Problem> {
    let asked = params.at()?;
    let wanted = params.wanted()?;
    let entry = entry(&app, &id).await?;
    let rendition = wanted.choose(&entry.renditions).ok_or_else(|| {
        let available: Vec<_> = entry.renditions.iter().map(describe).collect();
        Problem::new(Kind::NoSuchRendition, format!("there is: {}", available.join("; "))).instead_of(available)
    })?;
    let at = match (asked, viewer) {
        (Some(at), _) => at,
        (None, Some(user)) => {
            let stopped = app.ledger.stopped(user, id.clone()).await?;
            At::TimeMs(resume_ms(stopped.as_ref(), entry.summary.duration_ms))
        }
        (None, None) => {
            let detail = "give segment or lastWatchedTimestamp, or a viewer's token to go on where she stopped";
            return Err(Problem::new(Kind::BadParameter, detail));
        }
    };
    if let At::TimeMs(ms) = at
        && ms >= entry.summary.duration_ms
    {
        return Err(Problem::new(Kind::NoSuchSegment, format!("the title ends after {} ms", entry.summary.duration_ms)));
    }
    let (number, segment) = match app.db.segment(id, rendition.id.clone(), at).await? {
        Found::Segment { number, segment } => (number, segment),
        Found::Beyond { count } => {
            return Err(Problem::new(Kind::NoSuchSegment, format!("rendition {} has segments 1 to {count}", rendition.id)));
        }
    };
    let ranked = ranked(&app, &entry, client, app.steering.new_session().as_u64()).await?;
    let pass = pass(&app, &entry)?;
    let found = CdnUrl {
        urls: ranked.edges().map(|edge| pass.url(&edge.url, &segment.path)).collect::<Result<_, _>>()?,
        rendition: rendition.id.clone(),
        segment: number,
        start_ms: segment.start_ms,
        duration_ms: segment.duration_ms,
        position_ms: match at {
            At::TimeMs(ms) => ms,
            At::Number(_) => segment.start_ms,
        },
    };
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(found)).into_response())
}

/// The title's poster picture: a redirect to the edge that ranks best.
#[utoipa::path(
    get, path = "/videos/{id}/thumbnail", tag = "playback", operation_id = "showThumbnail", security((), ("viewer" = []), ("operator" = [])),
    params(("id" = inline(TitleIdText), Path, description = "The title's id.")),
    responses(
        (status = 302, description = "Where the picture is.", headers(("Location" = String, description = "Its signed URL."))),
        (status = 401, description = "Control is not open to those without a token, or the token is not good."),
        (status = 404, description = "The title is not catalogued."),
        (status = 503, description = "No edge is up; Retry-After says in how many seconds to ask again."),
    )
)]
pub(super) async fn thumbnail(
    State(app): State<Arc<App>>,
    _: MaybeViewer,
    Named(id): Named<TitleId>,
    Extension(client): Extension<Client>,
) -> Result<Response, Problem> {
    let entry = entry(&app, &id).await?;
    let ranked = rank(&app, &entry, client.address, app.steering.new_session().as_u64(), false).await?;
    let best = ranked.edges().next().ok_or_else(no_edge)?;
    let url = pass(&app, &entry)?.url(&best.url, &entry.poster)?;
    Ok((StatusCode::FOUND, [(CACHE_CONTROL, NO_STORE)], [(LOCATION, url)]).into_response())
}
