//! `/videos/{id}`: titles to look up, publish and remove; `/videos/{id}/metadata`: what is said of them, to amend.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{
    HeaderValue, StatusCode,
    header::{ETAG, LOCATION},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use wire::title::{Media, Rendition, Title, TitleId, TitleKind};

use super::{
    App,
    caching::{Conditions, Sharing, changed_meanwhile, etag},
    extract::{MaybeViewer, Named, Operates, Params, Sent},
    now_unix_ms,
    problem::{Kind, Problem},
    schema,
    timestamp::rfc3339,
};
use crate::{
    catalogue::{Entry, Metadata, Summary, check},
    db::{Amended, Condition, DbError, Put, Removed},
};

/// A title in a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct VideoSummary {
    /// Its name in addresses.
    id: TitleIdText,
    /// What viewers read.
    title: String,
    /// A few sentences; may be empty.
    description: String,
    /// Who is in it, the most prominent first.
    cast: Vec<String>,
    /// The age rating, as the service writes it.
    rating: Option<String>,
    /// As the service names them.
    genres: Vec<String>,
    /// When it came out.
    year: Option<u16>,
    /// Of the original: a language tag (BCP 47).
    language: Option<String>,
    #[schema(inline)]
    kind: Option<KindName>,
    /// How long it plays, in milliseconds.
    duration_ms: u64,
    /// Its poster, relative to this server.
    thumbnail_url: String,
    /// When it was first catalogued.
    #[schema(format = DateTime)]
    created_at: String,
}

/// 1 to 64 of a-z, 0-9 and -, not beginning with -.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = TitleId, value_type = String, pattern = "^[a-z0-9][a-z0-9-]{0,63}$")]
pub(super) struct TitleIdText(pub(super) TitleId);

impl From<Summary> for VideoSummary {
    fn from(summary: Summary) -> Self {
        Self {
            thumbnail_url: format!("/videos/{}/thumbnail", summary.id),
            created_at: rfc3339(summary.created_at_ms),
            id: TitleIdText(summary.id),
            title: summary.title,
            description: summary.description,
            cast: summary.cast,
            rating: summary.rating,
            genres: summary.genres,
            year: summary.year,
            language: summary.language,
            kind: summary.kind.map(KindName),
            duration_ms: summary.duration_ms,
        }
    }
}

/// What a title is.
#[derive(Serialize, ToSchema)]
#[schema(value_type = schema::TitleKind)]
pub(super) struct KindName(TitleKind);

/// A title.
#[derive(Serialize, ToSchema)]
pub(super) struct Video {
    #[serde(flatten)]
    summary: VideoSummary,
    /// Video renditions, best first, then audio renditions.
    renditions: Vec<RenditionView>,
}

impl From<&Entry> for Video {
    fn from(entry: &Entry) -> Self {
        Self { renditions: entry.renditions.iter().map(RenditionView::from).collect(), summary: entry.summary.clone().into() }
    }
}

/// One codec × resolution × bitrate of a title, or one of its audio tracks.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RenditionSummary)]
pub(super) struct RenditionView {
    /// Unique in the title.
    #[schema(example = "v720")]
    id: String,
    kind: Kinds,
    /// As RFC 6381 has it.
    #[schema(example = "avc1.64001f")]
    codecs: String,
    /// Of video: pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    /// Of video: pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    /// Of video: frames per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_rate: Option<f64>,
    /// Of audio.
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<u32>,
    /// Of audio: BCP 47, "und" when unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    /// Bits per second of its largest segment.
    bits_per_second_peak: u64,
    /// Bits per second over the whole title.
    bits_per_second_mean: u64,
}

/// What a rendition carries.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RenditionKind)]
pub(super) enum Kinds {
    Video,
    Audio,
}

impl From<&Rendition> for RenditionView {
    fn from(rendition: &Rendition) -> Self {
        let view = Self {
            id: rendition.id.clone(),
            kind: Kinds::Audio,
            codecs: rendition.codecs.clone(),
            width: None,
            height: None,
            frame_rate: None,
            channels: None,
            language: None,
            bits_per_second_peak: rendition.bits_per_second_peak,
            bits_per_second_mean: rendition.bits_per_second_mean,
        };
        match &rendition.media {
            Media::Video { width, height, frame_rate } => {
                Self { kind: Kinds::Video, width: Some(*width), height: Some(*height), frame_rate: Some(*frame_rate), ..view }
            }
            Media::Audio { channels, language, .. } => {
                Self { channels: Some(*channels), language: Some(language.clone()), ..view }
            }
        }
    }
}

/// One title, with its renditions.
#[utoipa::path(
    get, path = "/videos/{id}", tag = "videos", operation_id = "lookUpVideo", security((), ("viewer" = []), ("operator" = [])),
    params(("id" = inline(TitleIdText), Path, description = "The title's id.")),
    responses(
        (status = 200, description = "The title.", body = Video, headers(("ETag" = String, description = "Of the title as it is."))),
        (status = 304, description = "It is as If-None-Match has it."),
        (status = 401, description = "Control is not open to those without a token, or the token is not good."),
        (status = 404, description = "It is not catalogued."),
    )
)]
pub(super) async fn look_up(
    State(app): State<Arc<App>>,
    _: MaybeViewer,
    conditions: Conditions,
    Named(id): Named<TitleId>,
) -> Result<Response, Problem> {
    let video = Video::from(&*entry(&app, &id).await?);
    Ok(conditions.answer(Sharing::of_catalogue(&app), &video))
}

/// The catalogued title `id`.
pub(super) async fn entry(app: &App, id: &TitleId) -> Result<Arc<Entry>, Problem> {
    catalogued(app, id).await?.ok_or_else(|| not_catalogued(id))
}

/// The title `id` if it is catalogued.
pub(super) async fn catalogued(app: &App, id: &TitleId) -> Result<Option<Arc<Entry>>, DbError> {
    app.titles.find_or(id, async { Ok(app.db.title(id.clone()).await?.map(Arc::new)) }).await
}

/// The catalogued titles among `ids`, in their order.
pub(super) async fn entries(app: &App, ids: Vec<TitleId>) -> Result<Vec<Arc<Entry>>, Problem> {
    let mut found: Vec<Option<Arc<Entry>>> = ids.iter().map(|id| app.titles.find(id)).collect();
    let missing: Vec<TitleId> = ids.iter().zip(&found).filter(|(_, entry)| entry.is_none()).map(|(id, _)| id.clone()).collect();
    let tickets: Vec<_> = missing.iter().map(|id| app.titles.reading(id)).collect();
    if !missing.is_empty() {
        let mut read = missing.iter().cloned().zip(tickets).zip(app.db.titles(missing.clone()).await?);
        for entry in found.iter_mut().filter(|entry| entry.is_none()) {
            if let Some(((id, ticket), Some(title))) = read.next() {
                let title = Arc::new(title);
                app.titles.keep(ticket, id, Arc::clone(&title));
                *entry = Some(title);
            }
        }
    }
    Ok(found.into_iter().flatten().collect())
}

fn not_catalogued(id: &TitleId) -> Problem {
    Problem::new(Kind::NoSuchTitle, format!("no title {:?} is catalogued", id.as_str()))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PublishParams {
    /// Whether to catalogue it although its source is catalogued under another id.
    #[serde(default)]
    #[param(default = false)]
    allow_duplicate: bool,
}

/// Catalogues a title that the origin published, or catalogues it anew.
///
/// A source (by its fingerprint) is catalogued under one id, unless a duplicate is asked for; then that need not be said again. A title
/// that is catalogued anew keeps its place in lists.
#[utoipa::path(
    put, path = "/videos/{id}", tag = "videos", operation_id = "publishVideo", security(("operator" = [])),
    params(("id" = inline(TitleIdText), Path, description = "The title's id, the same as in the body."), PublishParams),
    request_body(content = schema::Title, description = "The title as the origin published it; at most 32 MiB."),
    responses(
        (status = 201, description = "It is catalogued.", body = Video, headers(("Location" = String, description = "Its address."))),
        (status = 200, description = "It is catalogued in place of the earlier one.", body = Video),
        (status = 400, description = "A parameter is wrong, or the body is not JSON."),
        (status = 401, description = "Not an operator."),
        (status = 403, description = "The operator's role is viewer."),
        (status = 409, description = "Its source is catalogued under other ids: `available` lists them, at most ten."),
        (status = 412, description = "The title is not as If-Match or If-None-Match asks for; nothing was changed."),
        (status = 413, description = "It is larger than the limit."),
        (status = 422, description = "It contradicts itself."),
    )
)]
pub(super) async fn publish(
    State(app): State<Arc<App>>,
    Operates(operator): Operates,
    conditions: Conditions,
    Named(id): Named<TitleId>,
    Params(PublishParams { allow_duplicate }): Params<PublishParams>,
    Sent(title): Sent<Title>,
) -> Result<Response, Problem> {
    check(&title, &id).map_err(|flaw| Problem::new(Kind::FlawedTitle, flaw.to_string()).at(flaw.pointer))?;
    let (now_ms, condition) = (now_unix_ms(), condition(conditions));
    let put = match allow_duplicate {
        true => app.db.put_duplicate(title, now_ms, condition).await?,
        false => app.db.put_title(title, now_ms, condition).await?,
    };
    app.title_changed(&id);
    match &put {
        Put::Taken(others) => {
            let others: Vec<String> = others.iter().map(TitleId::to_string).collect();
            let detail = format!("the same source is catalogued as {}", others.join(", "));
            return Err(Problem::new(Kind::FingerprintTaken, detail).instead_of(others));
        }
        Put::Unwanted => return Err(changed_meanwhile()),
        Put::Created | Put::Replaced => {}
    }
    tracing::info!(%id, %operator, replaced = put == Put::Replaced, "title catalogued");
    let video = as_it_is(&app, &id).await?;
    match put {
        Put::Created => Ok((StatusCode::CREATED, [(LOCATION, format!("/videos/{id}"))], video).into_response()),
        _ => Ok(video.into_response()),
    }
}

/// The catalogued title `id` and its ETag, for whoever has just changed it.
async fn as_it_is(app: &App, id: &TitleId) -> Result<impl IntoResponse, Problem> {
    let video = Video::from(&*entry(app, id).await?);
    let tag = HeaderValue::try_from(etag(&video)).expect("hexadecimal digits");
    Ok(([(ETAG, tag)], Json(video)))
}

/// What a write depends on, as the database asks it.
fn condition(conditions: Conditions) -> Option<Condition> {
    if !conditions.is_any() {
        return None;
    }
    Some(Box::new(move |entry| conditions.allow(entry.map(|entry| etag(&Video::from(entry))).as_deref())))
}

/// Changes what is said of a title: its words, year, kind and the like. Its files stay as they are.
///
/// The body is a merge patch (RFC 7396): what it does not name stays, and null takes away. Publishing the title anew says everything
/// anew.
#[utoipa::path(
    patch, path = "/videos/{id}/metadata", tag = "videos", operation_id = "amendVideo", security(("operator" = [])),
    params(("id" = inline(TitleIdText), Path, description = "The title's id.")),
    request_body(
        content = schema::MetadataPatch, content_type = "application/merge-patch+json", description = "What is to be said instead."
    ),
    responses(
        (status = 200, description = "The title as it is now.", body = Video),
        (status = 400, description = "The body is not JSON."),
        (status = 401, description = "Not an operator."),
        (status = 403, description = "The operator's role is viewer."),
        (status = 404, description = "It is not catalogued."),
        (status = 412, description = "The title is not as If-Match asks for; nothing was changed."),
        (status = 415, description = "The body is not of this type."),
        (status = 422, description = "The title cannot be so; nothing was changed."),
    )
)]
pub(super) async fn amend(
    State(app): State<Arc<App>>,
    Operates(operator): Operates,
    conditions: Conditions,
    Named(id): Named<TitleId>,
    Sent(patch): Sent<Value>,
) -> Result<Response, Problem> {
    let amendment = Box::new(move |words: &Metadata| words.patched(&patch));
    let amended = app.db.amend_title(id.clone(), amendment, condition(conditions)).await?;
    app.title_changed(&id);
    match amended {
        Amended::Done => {}
        Amended::NotThere => return Err(not_catalogued(&id)),
        Amended::Unwanted => return Err(changed_meanwhile()),
        Amended::Flawed(flaw) => return Err(Problem::new(Kind::FlawedTitle, flaw.to_string()).at(flaw.pointer)),
    }
    tracing::info!(%id, %operator, "title amended");
    Ok(as_it_is(&app, &id).await?.into_response())
}

/// Removes a title from the catalogue. Its files stay at the origin; URLs that were signed stay good until they expire.
#[utoipa::path(
    delete, path = "/videos/{id}", tag = "videos", operation_id = "removeVideo", security(("operator" = [])),
    params(("id" = inline(TitleIdText), Path, description = "The title's id.")),
    responses(
        (status = 204, description = "It is gone."),
        (status = 401, description = "Not an operator."),
        (status = 403, description = "The operator's role is viewer."),
        (status = 404, description = "It was not catalogued."),
        (status = 412, description = "The title is not as If-Match asks for; nothing was changed."),
    )
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Operates(operator): Operates,
    conditions: Conditions,
    Named(id): Named<TitleId>,
) -> Result<StatusCode, Problem> {
    let removed = app.db.remove_title(id.clone(), condition(conditions)).await?;
    app.title_changed(&id);
    match removed {
        Removed::NotThere => Err(not_catalogued(&id)),
        Removed::Unwanted => Err(changed_meanwhile()),
        Removed::Done => {
            tracing::info!(%id, %operator, "title removed");
            Ok(StatusCode::NO_CONTENT)
        }
    }
}
