//! `/activity`: what viewers do, in batches; and the quality of what they saw, for operators.

use std::{collections::BTreeMap, sync::Arc};

use activity::{
    CDN_BYTES_MAX, ERRORS_MAX, Flaw, HOURS_MAX, KEYS, Key, NAME_BYTES_MAX, NotKept, Quality, Receipt, Refused, Sender, Sketch,
    Unit, WORD_BYTES_MAX,
};
use axum::{
    Extension, Json,
    extract::{FromRequest as _, Request, State, rejection::BytesRejection},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use utoipa::{
    ToSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, RefOr, Schema, Type,
        schema::{AdditionalProperties, SchemaType},
    },
};

use super::{
    App,
    caching::NO_STORE,
    extract::{Looks, MaySend, Params, up_to},
    problem::{Kind, Problem},
    region::region_of,
};
use crate::identity::{address::Client, user::UserId};

/// The body of a batch.
pub(super) const BATCH_BYTES_MAX: usize = 512 * 1024;
/// Bodies that are received and read at the same time: with their size, the memory that batches may take. Others are told to come again.
pub(crate) const BATCHES_MAX: usize = 256;
/// Hours of quality that are summed unless told.
const HOURS_DEFAULT: u64 = 24;

/// Events in the order in which they happened.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) struct ActivityBatch {
    /// When the batch was sent, by the same clock as its events. With it a clock that is wrong is corrected.
    #[schema(format = DateTime, required = false)]
    sent_at: Option<String>,
    /// At most 1000, unless control's configuration says otherwise.
    events: Vec<ActivityEvent>,
}

/// Something that happened. Members that an event's type does not have are refused, as are members that are not known.
///
/// | type | must have, besides type, id, at, session and title | may have |
/// |---|---|---|
/// | play | | rendition, positionMs, cmcd |
/// | pause | | rendition, positionMs, playedMs, cmcd |
/// | seek | positionMs | rendition, fromMs, playedMs, cmcd |
/// | stop | playedMs | rendition, positionMs, cmcd |
/// | click, impression | | row, rank |
/// | like, dislike | | |
/// | quality | cmcd | rendition, positionMs, playedMs |
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) struct ActivityEvent {
    #[schema(inline)]
    r#type: EventType,
    /// The client's own name for the event, best a UUID in lower case: it is counted once, however often it is sent.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._:~-]{1,64}$")]
    id: String,
    /// When it happened. Older than a day is refused, unless control's configuration says otherwise; the future is now.
    #[schema(format = DateTime)]
    at: String,
    /// The playback session, or the visit, where none was: CMCD's `sid`, best a UUID in lower case.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._:~-]{1,64}$")]
    session: String,
    /// The title's id.
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,63}$")]
    title: String,
    /// The rendition's id in the title.
    #[schema(min_length = 1, max_length = 64)]
    rendition: Option<String>,
    /// Where in the title, in milliseconds from its beginning.
    position_ms: Option<u64>,
    /// Where the viewer was before a seek.
    from_ms: Option<u64>,
    /// How much of the title was shown since the session's last event that said so.
    #[schema(maximum = 86_400_000)]
    played_ms: Option<u64>,
    /// The row of the page, by the `id` that `/recommendations` gives it.
    #[schema(min_length = 1, max_length = 128)]
    row: Option<String>,
    /// The place in the row, from 0.
    #[schema(maximum = 10_000)]
    rank: Option<u64>,
    cmcd: Option<Cmcd>,
    /// Whose event it is, by the name that `/me` has for her. Only an operator may say so, who sends for others: a viewer is known by her token.
    #[schema(min_length = 1, max_length = 200)]
    user: Option<String>,
    /// Where it was. Only an operator may say so, who sends for others.
    #[schema(min_length = 1, max_length = 64)]
    region: Option<String>,
}

/// What happened.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) enum EventType {
    Play,
    Pause,
    Seek,
    Stop,
    Click,
    Like,
    Dislike,
    Impression,
    Quality,
}

/// Common Media Client Data; described from the table that the check reads.
pub(super) struct Cmcd;

impl utoipa::PartialSchema for Cmcd {
    fn schema() -> RefOr<Schema> {
        let text = |about: &str, max: usize| {
            ObjectBuilder::new().schema_type(Type::String).description(Some(about)).max_length(Some(max))
        };
        let about = "Keys of Common Media Client Data, version 2 (CTA-5004-A), with its names and units. Where it has a list by object type, \
                     one number stands here: of video, or of all that plays where that is muxed.";
        let codes = ArrayBuilder::new()
            .items(text("A code of the player's own, without commas.", WORD_BYTES_MAX))
            .max_items(Some(ERRORS_MAX))
            .description(Some("Errors since the last report."));
        let mut keys = ObjectBuilder::new()
            .description(Some(about))
            .property(
                "cdn",
                text("The edge that the player takes the title from, by the id that /playback gives it.", CDN_BYTES_MAX),
            )
            .property("ec", codes)
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
        for Key { name, unit, about } in KEYS {
            let key = ObjectBuilder::new().description(Some(about));
            let key = match unit {
                Unit::Kbps | Unit::Ms | Unit::Count => key.schema_type(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX)),
                Unit::Thousandths => key.schema_type(Type::Number).minimum(Some(0)).maximum(Some(1000)),
                Unit::Truth => key.schema_type(SchemaType::new(Type::Boolean)),
                Unit::Token(tokens) => key.schema_type(Type::String).enum_values(Some(tokens.iter().copied())),
            };
            keys = keys.property(name, key);
        }
        keys.into()
    }
}

impl ToSchema for Cmcd {
    fn name() -> std::borrow::Cow<'static, str> {
        "Cmcd".into()
    }
}

/// What became of a batch's events: their numbers add up to all of them.
#[derive(Serialize, ToSchema)]
pub(super) struct ActivityReceipt {
    /// Kept: they outlast a crash and a loss of power.
    accepted: u64,
    /// Kept already, when they were sent before.
    duplicates: u64,
    /// Others of a sample stand for them, as control is behind. Not to be sent again.
    sampled: u64,
    /// Left out, as control is behind. Not to be sent again.
    dropped: u64,
    /// Not as they should be: how many by reason, which is one of malformed, unknown-field, missing-field, bad-value, too-old and not-allowed.
    refused: BTreeMap<&'static str, u64>,
    /// The first of these.
    #[schema(max_items = 10)]
    flaws: Vec<ActivityFlaw>,
}

/// A refused event.
#[derive(Serialize, ToSchema)]
pub(super) struct ActivityFlaw {
    /// Why, as it is counted in `refused`.
    reason: &'static str,
    /// Where in the body (RFC 6901).
    #[schema(example = "/events/3/title")]
    pointer: String,
    /// What is wrong.
    detail: String,
}

impl From<Receipt> for ActivityReceipt {
    fn from(receipt: Receipt) -> Self {
        let Receipt { accepted, duplicates, sampled, dropped, refused, flaws } = receipt;
        let flaw = |Flaw { reason, pointer, detail }| ActivityFlaw { reason: reason.name(), pointer, detail };
        Self { accepted, duplicates, sampled, dropped, refused, flaws: flaws.into_iter().map(flaw).collect() }
    }
}

/// Takes what viewers did.
///
/// The answer comes when the events that are kept are on disk, some ten milliseconds later; players send batches every few seconds and wait for
/// nothing. A batch that got no answer, or 503, may be sent again as it is: events are known by their ids and sessions. Events that are flawed are
/// refused one by one. When control is behind, impressions and reports of quality are sampled, then left out, then clicks, seeks and pauses, and
/// plays, stops and likes last.
#[utoipa::path(
    post, path = "/activity", tag = "discovery", operation_id = "sendActivity", security((), ("viewer" = []), ("operator" = [])),
    request_body(content = ActivityBatch, description = "The batch; at most 512 KiB."),
    responses(
        (status = 202, description = "What became of each event.", body = ActivityReceipt),
        (status = 400, description = "It is not a batch, or it has too many events."),
        (status = 401, description = "Control is not open to those without a token, or the token is not good."),
        (status = 403, description = "An operator whose role is viewer."),
        (status = 413, description = "It is larger than the limit."),
        (status = 503, description = "Nothing of it is known to be kept; Retry-After says in how many seconds to send it again."),
    )
)]
pub(super) async fn send(
    State(app): State<Arc<App>>,
    MaySend { user, is_relay }: MaySend,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Problem> {
    let is_json =
        request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
            value.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
        });
    if !is_json {
        return Err(Problem::new(Kind::NotJson, "send the body with Content-Type: application/json"));
    }
    let reading = app.batches.try_acquire().map_err(|_| behind(NotKept::TooSlow))?;
    let body = Bytes::from_request(request, &()).await.map_err(|rejection| unread(&rejection))?;
    // A relay's viewers are named as their tokens name them, so that what is theirs is found, and forgotten, by one name.
    let is_viewer: fn(&str) -> bool = |text| text.parse::<UserId>().is_ok();
    let region = if is_relay { String::new() } else { region_of(&app, client) };
    let sender = Sender { user: user.as_ref().map(UserId::as_str), region: &region, relay: is_relay.then_some(is_viewer) };
    let kept = app.activity.submit(&body, sender);
    // What waits for the disk is in the queue, which has a bound of its own.
    drop((body, reading));
    let receipt = kept.await.map_err(|refused| match refused {
        Refused::Batch(error) => Problem::new(Kind::BadBody, error.to_string()),
        Refused::Log(why) => behind(why),
    })?;
    Ok((StatusCode::ACCEPTED, [(CACHE_CONTROL, NO_STORE)], Json(ActivityReceipt::from(receipt))).into_response())
}

pub(super) fn behind(why: NotKept) -> Problem {
    Problem::new(Kind::ActivityBehind, why.to_string())
}

fn unread(rejection: &BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(Kind::BodyTooLarge, format!("a batch of events may have {BATCH_BYTES_MAX} bytes"))
        }
        _ => Problem::new(Kind::BadBody, rejection.body_text()),
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct QualityParams {
    /// How many hours up to now, this one included, from 1 to 840; 24 unless told.
    #[param(minimum = 1, maximum = 840, default = 24)]
    hours: Option<u64>,
}

/// The quality of experience by region.
#[derive(Serialize, ToSchema)]
pub(super) struct QualityByRegion {
    /// In the order of their names.
    regions: Vec<RegionQuality>,
}

/// The quality of experience in a region. Reports that stand for others count for all of them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RegionQuality {
    /// Its name; empty where it is not known.
    region: String,
    /// Playbacks that began.
    plays: u64,
    /// Reports of players.
    reports: u64,
    /// How long was played.
    played_ms: u64,
    /// How long it stood still.
    stalled_ms: u64,
    /// How long it stood still of the time that it should have played, from 0 to 1: the rebuffering ratio.
    stalled_share: f64,
    /// Reports with a stall.
    stalls: u64,
    /// Reports with an error.
    errors: u64,
    /// Dropped frames, of sessions that told at their end.
    dropped_frames: u64,
    /// From the order to play to the first picture, in milliseconds.
    start_ms: Quantiles,
    /// What was selected, in kilobits per second.
    bitrate_kbps: Quantiles,
    /// What came in, in kilobits per second.
    throughput_kbps: Quantiles,
}

/// Quantiles, to a sixteenth.
#[derive(Serialize, ToSchema)]
pub(super) struct Quantiles {
    /// Of how many numbers.
    count: u64,
    /// Half are below; null when there are none.
    #[schema(required)]
    p50: Option<u64>,
    /// 95 of 100 are below.
    #[schema(required)]
    p95: Option<u64>,
    /// 5 of 100 are below.
    #[schema(required)]
    p5: Option<u64>,
}

impl From<&Sketch> for Quantiles {
    fn from(sketch: &Sketch) -> Self {
        Self { count: sketch.count(), p50: sketch.quantile(0.5), p95: sketch.quantile(0.95), p5: sketch.quantile(0.05) }
    }
}

impl RegionQuality {
    fn new(region: String, quality: &Quality) -> Self {
        Self {
            region,
            plays: quality.plays,
            reports: quality.reports,
            played_ms: quality.played_ms,
            stalled_ms: quality.stalled_ms,
            stalled_share: (quality.stalled_share() * 1e6).round() / 1e6,
            stalls: quality.stalls,
            errors: quality.errors,
            dropped_frames: quality.dropped_frames,
            start_ms: (&quality.start_ms).into(),
            bitrate_kbps: (&quality.bitrate_kbps).into(),
            throughput_kbps: (&quality.throughput_kbps).into(),
        }
    }
}

/// How the picture was, by region, as players reported it.
#[utoipa::path(
    get, path = "/activity/quality", tag = "discovery", operation_id = "readQuality", security(("operator" = [])), params(QualityParams),
    responses(
        (status = 200, description = "The quality of each region.", body = QualityByRegion),
        (status = 400, description = "A parameter is wrong."),
        (status = 401, description = "Not an operator."),
    )
)]
pub(super) async fn quality(
    State(app): State<Arc<App>>,
    _: Looks,
    Params(params): Params<QualityParams>,
) -> Result<Response, Problem> {
    let hours = up_to("hours", params.hours.unwrap_or(HOURS_DEFAULT), HOURS_MAX)?;
    let activity = app.activity.clone();
    let regions = spawn_blocking(move || activity.quality(hours)).await.map_err(Problem::from)?.map_err(Problem::from)?;
    let regions = regions.into_iter().map(|(region, quality)| RegionQuality::new(region, &quality)).collect();
    Ok(([(CACHE_CONTROL, NO_STORE)], Json(QualityByRegion { regions })).into_response())
}

const _: () = assert!(NAME_BYTES_MAX == 64, "as the description says");
