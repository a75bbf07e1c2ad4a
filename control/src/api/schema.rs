//! How the types that tiers share look in `/openapi.json`.
//!
//! `wire` stays plain and knows no OpenAPI, so its shapes are described here, for the description only. A test holds
//! them against the real ones, member by member.

use utoipa::ToSchema;

/// A title as the origin publishes it.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) struct Title {
    /// The catalogue's name for it: 1 to 64 of a-z, 0-9 and -, not beginning with -.
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,63}$")]
    id: String,
    /// What viewers read.
    #[schema(min_length = 1, max_length = 300)]
    title: String,
    #[schema(required = false, max_length = 10000)]
    description: String,
    #[schema(required = false, max_items = 200)]
    cast: Vec<String>,
    /// The age rating, as the service writes it.
    rating: Option<String>,
    /// As the service names them.
    #[schema(required = false, max_items = 16)]
    genres: Vec<String>,
    /// When it came out.
    #[schema(minimum = 1870, maximum = 2200)]
    year: Option<u16>,
    /// Of the original: a language tag (BCP 47).
    #[schema(max_length = 35, pattern = "^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]
    language: Option<String>,
    kind: Option<TitleKind>,
    #[schema(minimum = 1)]
    duration_ms: u64,
    /// The folder of all its objects; the other paths here are relative to it.
    #[schema(example = "/titles/2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")]
    root: String,
    /// SHA-256 of the source file, in hexadecimal.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    fingerprint: String,
    /// The HLS multivariant playlist.
    hls: String,
    /// The DASH manifest.
    dash: String,
    /// The poster picture.
    poster: String,
    /// The storyboard: WebVTT that points into a sprite.
    storyboard: String,
    /// Video renditions, best first, then audio renditions.
    #[schema(min_items = 1, max_items = 64)]
    renditions: Vec<Rendition>,
    /// Every object of the title, the renditions' segments included.
    #[schema(max_items = 200_000)]
    objects: Vec<TitleObject>,
}

/// What a title is.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) enum TitleKind {
    Film,
    Episode,
    Short,
    Special,
    Trailer,
    Clip,
}

/// What is to be said of a title instead: what is not named stays, null takes away.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) struct MetadataPatch {
    /// What viewers read; it cannot be taken away.
    #[schema(required = false, min_length = 1, max_length = 300)]
    title: String,
    #[schema(max_length = 10000)]
    description: Option<String>,
    #[schema(max_items = 200)]
    cast: Option<Vec<String>>,
    /// The age rating, as the service writes it.
    #[schema(min_length = 1, max_length = 32)]
    rating: Option<String>,
    /// As the service names them.
    #[schema(max_items = 16)]
    genres: Option<Vec<String>>,
    /// When it came out.
    #[schema(minimum = 1870, maximum = 2200)]
    year: Option<u16>,
    /// Of the original: a language tag (BCP 47).
    #[schema(max_length = 35, pattern = "^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")]
    language: Option<String>,
    kind: Option<TitleKind>,
}

/// One object of a title.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) struct TitleObject {
    /// Relative to the title's root.
    path: String,
    bytes: u64,
    /// SHA-256, in hexadecimal.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    digest: String,
    content_type: String,
}

/// One codec × resolution × bitrate of a title, or one audio track.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) struct Rendition {
    /// Unique in the title, and the folder of its segments.
    id: String,
    #[serde(flatten)]
    media: Media,
    /// As RFC 6381 has it.
    codecs: String,
    /// Bits per second of its largest segment.
    bits_per_second_peak: u64,
    /// Bits per second over the whole title.
    bits_per_second_mean: u64,
    /// The HLS media playlist, relative to the root.
    playlist: String,
    /// The initialisation segment, relative to the root.
    init: String,
    /// The media segments in play order.
    #[schema(min_items = 1)]
    segments: Vec<Segment>,
}

/// What a rendition carries.
#[derive(ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) enum Media {
    /// Pixels, and frames per second.
    #[serde(rename_all = "camelCase")]
    Video { width: u32, height: u32, frame_rate: f64 },
    /// Channels, samples per second, and the BCP 47 language ("und" when unknown).
    #[serde(rename_all = "camelCase")]
    Audio { channels: u32, sample_rate: u32, language: String },
}

/// A few seconds of a rendition.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) struct Segment {
    /// Relative to the title's root.
    path: String,
    start_ms: u64,
    #[schema(minimum = 1)]
    duration_ms: u64,
}

/// Who an edge is and where players reach it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, never made")]
pub(super) struct Registration {
    /// Edges of one site share prefixes and a hash. 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.
    site: String,
    /// Scheme, host and port, no path.
    #[schema(example = "https://edge1.example:443")]
    url: String,
    /// The version of Larder it runs.
    version: String,
    /// The networks whose clients its site serves first.
    #[schema(required = false, max_items = 50000, example = json!(["203.0.113.0/24"]))]
    prefixes: Vec<String>,
}

/// How an edge does.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) struct Report {
    health: Health,
    /// Connections open now, all protocols.
    connections: u64,
    /// The most that it takes.
    connections_max: Option<u64>,
    #[schema(required = false)]
    load: Load,
    /// Requests answered since the edge started.
    requests: u64,
    /// Body bytes sent to players since the edge started.
    bytes_sent: u64,
    /// Body bytes from RAM since the edge started.
    bytes_ram: u64,
    /// Body bytes from SSD since the edge started.
    #[schema(required = false)]
    bytes_ssd: u64,
    /// Body bytes brought from the origin since the edge started.
    bytes_filled: u64,
    /// The RAM budget.
    ram_bytes_max: u64,
    /// How much of the RAM budget is in use.
    ram_bytes: u64,
    /// What the devices that serve can hold.
    #[schema(required = false)]
    ssd_bytes_max: u64,
    #[schema(required = false)]
    hit_ratios: HitRatios,
    /// Devices of the SSD tier.
    #[schema(required = false)]
    devices: u64,
    /// Of these, how many were given up.
    #[schema(required = false)]
    devices_off: u64,
}

/// How busy an edge is.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) struct Load {
    /// Bits of bodies sent to players each second, over the last few seconds.
    bits_per_second: u64,
    /// The most that it can send, configured or measured.
    bits_per_second_max: Option<u64>,
    /// The part of their time that serving threads were running, from 0 to 1.
    cpu_share: Option<f64>,
}

/// Which tiers slices came from in the last minute, from 0 to 1.
#[derive(ToSchema)]
#[expect(dead_code, reason = "described, never made")]
pub(super) struct HitRatios {
    ram: Option<f64>,
    ssd: Option<f64>,
}

/// What is to be forgotten: `{"object": "/a/1"}`, `{"prefix": "/a/"}`, `{"tag": "film"}` or `"all"`.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "described, never made")]
pub(super) enum What {
    /// The object with this path.
    Object(String),
    /// All objects whose paths begin so.
    Prefix(String),
    /// All objects that came with this tag.
    Tag(String),
    /// Everything.
    All,
}

/// What an edge says of itself.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "described, never made")]
pub(super) enum Health {
    /// Takes viewers.
    Ready,
    /// Finishes what it has, takes nobody new.
    Draining,
}
