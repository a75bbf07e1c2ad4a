//! What an operator writes in `edge.toml`, and what the code trusts.

use std::{fmt, net::SocketAddr, num::NonZeroUsize, path::PathBuf, str::FromStr, thread, time::Duration};

use ::http::{Uri, uri::Scheme};
use cache::{DeviceConfig, DiskConfig, IoChoice, Policy, Rules};
use ipnet::IpNet;
use wire::{
    config::{BitsPerSecond, Bytes, Document, Seconds},
    report::PREFIXES_MAX,
};

use crate::{
    http::{Congestion, Limits},
    tls,
};

/// The bounds of `workers`.
const WORKERS_MAX: usize = 1024;
/// The bounds of `cache.slice`, in bytes.
const SLICE_BYTES: (u64, u64) = (256 << 10, 4 << 20);
/// The bounds of `cache.progress`, in bytes.
const PROGRESS_BYTES: (u64, u64) = (1 << 10, 4 << 20);
/// `cache.ram` holds at least so many slices: what readers hold, what fills write, and something that stays.
const SLICES_MIN: u64 = 16;
/// The bounds of `cache.segment`, in bytes; it holds at least so many slices, and a device at least so many segments.
const SEGMENT_BYTES: (u64, u64) = (1 << 20, 256 << 20);
const SEGMENT_SLICES_MIN: u64 = 4;
const DEVICE_SEGMENTS_MIN: u64 = 8;
/// What a device needs beside its segments, in bytes.
const DEVICE_HEAD_BYTES: u64 = 1 << 20;
/// The most devices.
const DEVICES_MAX: usize = 64;
/// The bounds of `cache.device_timeout`.
const DEVICE_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(300));
/// The bounds of every duration that something is waited for.
const WAIT: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(3600));
/// The bounds of `control.report_every`. Control forgets an edge that is silent for longer than a few seconds.
const REPORT_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// The bounds of `control.content_every`.
const CONTENT_EVERY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// The bounds of `capacity` and of the caps of `[pacing]`, in bits per second. Below, a player's patience ends before a segment does.
const RATE: (u64, u64) = (1_000_000, 100_000_000_000_000);
/// The longest name of an edge or a site, in characters.
const NAME_CHARS_MAX: usize = 64;

/// A checked configuration of the edge role.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where players reach it: HTTP/1.1 and HTTP/2 on TCP, HTTP/3 on UDP. Port 0 takes one that is free for both.
    pub listen: SocketAddr,
    /// Where those who come through a network that is trusted reach it without TLS: HTTP/1.1. Port 0 takes a free one.
    pub listen_plain: Option<SocketAddr>,
    /// Where operators reach `/metrics`, `/healthz`, `/readyz` and `/cache/`, plain HTTP/1.1. Port 0 takes a free one.
    pub admin_listen: SocketAddr,
    /// Who it is: in `Cache-Status`, and to control.
    pub name: Name,
    /// Where it stands.
    pub site: Name,
    /// Where players reach it, as control hands it out.
    pub public_url: HttpUrl,
    /// The networks whose players its site serves first.
    pub prefixes: Vec<IpNet>,
    /// A file with more of them, one a line, which is read anew when it changes.
    pub prefixes_file: Option<PathBuf>,
    /// The most that it can send to players, in bits per second, which is no more than it may; measured unless given.
    pub capacity_bits_per_second: Option<u64>,
    /// Serving threads, each with its own sockets.
    pub workers: NonZeroUsize,
    /// Its certificate, and how it shakes hands.
    pub tls: tls::Options,
    /// Whom it serves.
    pub tokens: Tokens,
    /// What it keeps in RAM.
    pub cache: cache::Config,
    /// Where bytes come from.
    pub origin: Origin,
    /// Whom it reports to; without it, it serves all the same.
    pub control: Option<Control>,
    /// Web origins whose scripts may read answers: any if this is `None`.
    pub allowed_origins: Option<Vec<WebOrigin>>,
    /// What clients may take.
    pub limits: Limits,
    /// What of it they share, and are told.
    pub pacing: Pacing,
}

/// Rates that clients share. The cap of one connection is in [`Limits`].
#[derive(Debug, Clone)]
pub struct Pacing {
    /// The most that is sent for one token, or for all tokens of one subject.
    pub token_bits_per_second_max: Option<u64>,
    /// The most that is sent to all players together.
    pub site_bits_per_second_max: Option<u64>,
    /// Players that send CMCD (CTA-5004) get CMSD (CTA-5006).
    pub has_hints: bool,
}

/// Whom an edge serves.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// A JWK set (RFC 7517): public keys, and secrets for HS256.
    pub keys_file: PathBuf,
    /// The `iss` that a token must have.
    pub issuer: String,
    /// If set, a token must have it as `aud`.
    pub audience: Option<String>,
    /// How far clocks may be apart, in whole seconds.
    pub leeway: Duration,
    /// Verified tokens that are remembered at once.
    pub remembered_max: usize,
    /// A private key of the edge's own (JWK), with which tokens that ask for it are renewed. None by default: a stolen edge signs nothing.
    pub renewal_key_file: Option<PathBuf>,
    /// Paths that are served, with all below them, without a token.
    pub open_paths: Vec<OpenPath>,
}

/// Where bytes come from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Objects' paths are appended to it.
    pub url: HttpUrl,
    /// A file with the secret that this edge and the origin share.
    pub token_file: PathBuf,
    /// Certificates (PEM) of the authorities that the origin's may come from; the public web's unless given.
    pub ca_file: Option<PathBuf>,
    /// How long connecting may take, and how long the origin may then be silent.
    pub timeout: Duration,
    /// Fills under way at once, and so connections. More wait, for [`Origin::timeout`] at most.
    pub fills_max: usize,
}

/// Whom an edge reports to.
#[derive(Debug, Clone)]
pub struct Control {
    /// Where it is.
    pub url: HttpUrl,
    /// A file with the secret of its edges.
    pub token_file: PathBuf,
    /// As [`Origin::ca_file`].
    pub ca_file: Option<PathBuf>,
    /// The longest pause between two reports; control may ask for a shorter one.
    pub report_every: Duration,
    /// The shortest pause between two accounts of what it holds.
    pub content_every: Duration,
}

const FILE: &str = "the path of a file";
const DURATION: &str = "a duration such as 10s, 250ms or 2m";

impl Config {
    /// Reads and checks a document. `None` when anything in it is wrong: `doc.finish()` then says everything that is.
    pub fn read(doc: &mut Document) -> Option<Self> {
        const ADDRESS: &str = "an address and port such as 0.0.0.0:443";
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let listen = doc.value("listen", Some(SocketAddr::from(([0, 0, 0, 0], 443))), ADDRESS);
        let listen_plain = listen_plain(doc, listen, ADDRESS);
        let admin_listen = doc.value("admin_listen", Some(SocketAddr::from(([127, 0, 0, 1], 9440))), ADDRESS);
        let name = doc.value("name", None, Name::EXPECTED);
        let site = doc.value("site", None, Name::EXPECTED);
        let public_url = public_url(doc);
        let prefixes = prefixes(doc);
        let prefixes_file =
            doc.optional::<String>("prefixes_file", "the path of a file with prefixes, one a line").map(Into::into);
        let capacity = rate(doc, "capacity");
        let workers = within(doc, "workers", cores, (1, WORKERS_MAX)).and_then(NonZeroUsize::new);
        let tls = tls(doc);
        let tokens = tokens(doc);
        let cache = cache(doc);
        let origin = origin(doc);
        let control = control(doc);
        let allowed_origins = doc.list::<WebOrigin>("cors.allowed_origins", WebOrigin::EXPECTED);
        let is_open = allowed_origins.is_empty() || allowed_origins.iter().any(WebOrigin::is_any);
        let limits = limits(doc);
        let pacing = pacing(doc);
        // Viewers who come because there is room must not find that there is none.
        let site_max = pacing.as_ref().and_then(|pacing| pacing.site_bits_per_second_max);
        Some(Self {
            listen: listen?,
            listen_plain: listen_plain?,
            admin_listen: admin_listen?,
            name: name?,
            site: site?,
            public_url: public_url?,
            prefixes,
            prefixes_file,
            capacity_bits_per_second: [capacity?, site_max].into_iter().flatten().min(),
            workers: workers?,
            tls: tls?,
            tokens: tokens?,
            cache: cache?,
            origin: origin?,
            control: control?,
            allowed_origins: (!is_open).then_some(allowed_origins),
            limits: limits?,
            pacing: pacing?,
        })
    }
}

/// The outer `None` is a problem, the inner one is an edge that speaks TLS alone.
fn listen_plain(doc: &mut Document, listen: Option<SocketAddr>, expected: &'static str) -> Option<Option<SocketAddr>> {
    let Some(plain) = doc.optional::<SocketAddr>("listen_plain", expected) else { return Some(None) };
    if plain.port() != 0 && listen == Some(plain) {
        doc.problem("listen_plain", "another address or port than listen, where TLS is spoken");
        return None;
    }
    Some(Some(plain))
}

fn tls(doc: &mut Document) -> Option<tls::Options> {
    let certificate_file = doc.value::<String>("tls.certificate_file", None, FILE);
    let key_file = doc.value::<String>("tls.key_file", None, FILE);
    let ticket_secret_file = doc.optional::<String>("tls.ticket_secret_file", "the path of a file with a secret of the site");
    let aes_256 = doc.value("tls.aes_256", Some(false), "true or false");
    Some(tls::Options {
        ticket_secret_file: ticket_secret_file.map(Into::into),
        aes_256: aes_256?,
        ..tls::Options::new(certificate_file?, key_file?)
    })
}

fn public_url(doc: &mut Document) -> Option<HttpUrl> {
    const EXPECTED: &str = "a URL such as https://edge1.example:443, where players reach this edge";
    let url: HttpUrl = doc.value("public_url", None, EXPECTED)?;
    if !url.is_https || !url.prefix.is_empty() {
        doc.problem("public_url", format!("{EXPECTED}: https, and no path"));
        return None;
    }
    Some(url)
}

fn prefixes(doc: &mut Document) -> Vec<IpNet> {
    let prefixes = doc.list::<IpNet>("prefixes", "a prefix such as \"203.0.113.0/24\" or \"2001:db8::/32\"");
    if prefixes.len() > PREFIXES_MAX {
        doc.problem("prefixes", format!("at most {PREFIXES_MAX} prefixes"));
    }
    prefixes
}

/// The outer `None` is a problem, the inner one is a rate that is not written.
fn rate(doc: &mut Document, key: &str) -> Option<Option<u64>> {
    let Some(BitsPerSecond(rate)) = doc.optional(key, "a rate such as 40Gbit/s") else { return Some(None) };
    let (min, max) = RATE;
    if (min..=max).contains(&rate) {
        return Some(Some(rate));
    }
    doc.problem(key, format!("a rate from {} to {}", BitsPerSecond(min), BitsPerSecond(max)));
    None
}

fn tokens(doc: &mut Document) -> Option<Tokens> {
    let keys_file = doc.value::<String>("tokens.keys_file", None, "the path of a file with a JWK set (RFC 7517)");
    let issuer = doc.value::<String>("tokens.issuer", None, "the issuer of control's tokens (its token_issuer)");
    let audience = doc.optional("tokens.audience", "the audience that tokens must name");
    // RFC 9246 §2.1.4: "URI Signing implementations MUST NOT allow for any time-synchronization "leeway"": more is the operator's decision.
    let mut leeway = duration(doc, "tokens.leeway", Duration::ZERO, (Duration::ZERO, Duration::from_secs(300)));
    if leeway.is_some_and(|leeway| leeway.subsec_nanos() > 0) {
        doc.problem("tokens.leeway", "a duration in whole seconds");
        leeway = None;
    }
    let remembered_max = within(doc, "tokens.remembered_max", 100_000, (0, 10_000_000));
    let renewal_key_file = doc.optional::<String>("tokens.renewal_key_file", "the path of a file with a private JWK (RFC 7517)");
    let open_paths = doc.list("tokens.open_paths", OpenPath::EXPECTED);
    Some(Tokens {
        keys_file: keys_file?.into(),
        issuer: issuer?,
        audience,
        leeway: leeway?,
        remembered_max: remembered_max?,
        renewal_key_file: renewal_key_file.map(Into::into),
        open_paths,
    })
}

fn cache(doc: &mut Document) -> Option<cache::Config> {
    let default = cache::Config::default();
    let ram = doc.value("cache.ram", Some(Bytes(default.ram_bytes)), "a size such as 64GiB");
    let slice = doc.value("cache.slice", Some(Bytes(default.slice_bytes as u64)), "a size such as 1MiB");
    let policy = doc.value("cache.policy", Some(Policy::S3Fifo), "s3fifo, sieve, lfu, lru or fifo");
    let memory_wait_max = duration(doc, "cache.memory_wait", default.memory_wait_max, WAIT);
    let rules = rules(doc);
    let disk = disk(doc, slice);
    let (Bytes(ram_bytes), Bytes(slice_bytes)) = (ram?, slice?);
    let (min, max) = SLICE_BYTES;
    if !(slice_bytes.is_power_of_two() && (min..=max).contains(&slice_bytes)) {
        doc.problem("cache.slice", format!("a power of two from {} to {}", Bytes(min), Bytes(max)));
        return None;
    }
    if ram_bytes < SLICES_MIN * slice_bytes {
        let least = Bytes(SLICES_MIN * slice_bytes);
        doc.problem("cache.ram", format!("at least {least}, which is {SLICES_MIN} slices of {}", Bytes(slice_bytes)));
        return None;
    }
    let slice_bytes = usize::try_from(slice_bytes).expect("at most 4 MiB");
    Some(cache::Config { ram_bytes, slice_bytes, policy: policy?, memory_wait_max: memory_wait_max?, rules: rules?, disk: disk? })
}

fn rules(doc: &mut Document) -> Option<Rules> {
    let default = Rules::default();
    let (min, max) = PROGRESS_BYTES;
    let progress = doc.value("cache.progress", Some(Bytes(default.progress_bytes_min as u64)), "a size such as 64KiB");
    let progress = progress.filter(|Bytes(bytes)| {
        let is_good = (min..=max).contains(bytes);
        if !is_good {
            doc.problem("cache.progress", format!("from {} to {}", Bytes(min), Bytes(max)));
        }
        is_good
    });
    let progress_window = duration(doc, "cache.progress_window", default.progress_window, WAIT);
    let abandoned_share = doc.value("cache.abandoned_share", Some(default.abandoned_share), "a number from 0 to 1");
    let abandoned_share = abandoned_share.filter(|share| bounded(doc, "cache.abandoned_share", share, (0.0, 1.0)));
    let read_ahead_max = within(doc, "cache.read_ahead", default.read_ahead_max, (0, 64));
    Some(Rules {
        progress_bytes_min: usize::try_from(progress?.0).expect("at most 4 MiB"),
        progress_window: progress_window?,
        abandoned_share: abandoned_share?,
        read_ahead_max: read_ahead_max?,
    })
}

/// The outer `None` is a problem, the inner one is an edge without an SSD tier. All keys are read in either case.
fn disk(doc: &mut Document, slice: Option<Bytes>) -> Option<Option<DiskConfig>> {
    const STATE_DIR: &str = "/var/lib/larder/edge";
    let default = DiskConfig::new(STATE_DIR.into());
    let state_dir = doc.value("cache.state_dir", Some(String::from(STATE_DIR)), "the path of a directory");
    let segment = doc.value("cache.segment", Some(Bytes(default.segment_bytes)), "a size such as 64MiB");
    let planned_share = doc.value("cache.planned_share", Some(default.planned_share), "a number from 0 to 0.95");
    let planned_share = planned_share.filter(|share| bounded(doc, "cache.planned_share", share, (0.0, 0.95)));
    let io = doc.value("cache.io", Some(Io(default.io)), Io::EXPECTED);
    let device_timeout = duration(doc, "cache.device_timeout", default.device_timeout, DEVICE_TIMEOUT);
    let segment = segment.filter(|segment| is_segment(doc, *segment, slice));
    let devices = devices(doc, segment)?;
    let disk = DiskConfig {
        devices,
        state_dir: state_dir?.into(),
        segment_bytes: segment?.0,
        planned_share: planned_share?,
        io: io?.0,
        device_timeout: device_timeout?,
    };
    Some((!disk.devices.is_empty()).then_some(disk))
}

fn is_segment(doc: &mut Document, Bytes(bytes): Bytes, slice: Option<Bytes>) -> bool {
    let (min, max) = SEGMENT_BYTES;
    let slice = slice.unwrap_or(Bytes(0));
    if !(bytes.is_power_of_two() && (min..=max).contains(&bytes)) {
        doc.problem("cache.segment", format!("a power of two from {} to {}", Bytes(min), Bytes(max)));
        return false;
    }
    if bytes < SEGMENT_SLICES_MIN.saturating_mul(slice.0) {
        doc.problem("cache.segment", format!("at least {SEGMENT_SLICES_MIN} slices of {slice}"));
        return false;
    }
    true
}

fn devices(doc: &mut Document, segment: Option<Bytes>) -> Option<Vec<DeviceConfig>> {
    const DEVICE: &str = "a table such as { path = \"/var/cache/larder/a\", size = \"400GiB\" }";
    let tables = doc.tables("cache.devices", DEVICE);
    if tables.len() > DEVICES_MAX {
        doc.problem("cache.devices", format!("at most {DEVICES_MAX} devices"));
    }
    let mut devices: Vec<DeviceConfig> = Vec::new();
    let mut is_good = tables.len() <= DEVICES_MAX;
    for table in tables {
        let (path_key, size_key) = (format!("{table}.path"), format!("{table}.size"));
        let path = doc.value::<String>(&path_key, None, "the path of a file or of a block device");
        let size = doc.optional::<Bytes>(&size_key, "a size such as 400GiB");
        let least = segment.map_or(0, |segment| DEVICE_HEAD_BYTES + DEVICE_SEGMENTS_MIN * segment.0);
        if size.is_some_and(|size| size.0 < least) {
            doc.problem(&size_key, format!("at least {}, which is {DEVICE_SEGMENTS_MIN} segments and a head", Bytes(least)));
            is_good = false;
        }
        let Some(path) = path.map(PathBuf::from) else {
            is_good = false;
            continue;
        };
        if devices.iter().any(|device| device.path == path) {
            doc.problem(&path_key, "each device once");
            is_good = false;
        }
        devices.push(DeviceConfig { path, bytes: size.map(|size| size.0) });
    }
    is_good.then_some(devices)
}

/// How devices are driven, as it is written.
struct Io(IoChoice);

impl Io {
    const EXPECTED: &str = "auto or threads";
}

impl FromStr for Io {
    type Err = Flaw;

    fn from_str(text: &str) -> Result<Self, Flaw> {
        match text {
            "auto" => Ok(Self(IoChoice::Auto)),
            "threads" => Ok(Self(IoChoice::Threads)),
            _ => Err(Flaw(Self::EXPECTED)),
        }
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            IoChoice::Auto => "auto",
            IoChoice::Threads => "threads",
        })
    }
}

fn origin(doc: &mut Document) -> Option<Origin> {
    let url = doc.value("origin.url", None, "a URL such as http://origin.example:9450");
    let token_file = doc.value::<String>("origin.token_file", None, "the path of a file with the origin's fill token");
    let ca_file = doc.optional::<String>("origin.ca_file", FILE);
    let timeout = duration(doc, "origin.timeout", Duration::from_secs(10), WAIT);
    let fills_max = within(doc, "origin.fills", 128, (1, 10_000));
    Some(Origin {
        url: url?,
        token_file: token_file?.into(),
        ca_file: ca_file.map(Into::into),
        timeout: timeout?,
        fills_max: fills_max?,
    })
}

/// The outer `None` is a problem, the inner one is an edge without control.
fn control(doc: &mut Document) -> Option<Option<Control>> {
    let url = doc.optional("control.url", "a URL such as http://control.example:8080");
    let token_file = doc.optional::<String>("control.token_file", "the path of a file with the secret of control's edges");
    let ca_file = doc.optional::<String>("control.ca_file", FILE).map(Into::into);
    let report_every = duration(doc, "control.report_every", Duration::from_secs(3), REPORT_EVERY);
    let content_every = duration(doc, "control.content_every", Duration::from_secs(60), CONTENT_EVERY);
    match (url, token_file) {
        (Some(url), Some(token_file)) => {
            let (report_every, content_every) = (report_every?, content_every?);
            Some(Some(Control { url, token_file: token_file.into(), ca_file, report_every, content_every }))
        }
        (None, None) => Some(None),
        (url, _) => {
            let missing = if url.is_none() { "control.url" } else { "control.token_file" };
            doc.problem(missing, "both control.url and control.token_file, or neither");
            None
        }
    }
}

fn limits(doc: &mut Document) -> Option<Limits> {
    let default = Limits::default();
    let connections_max = within(doc, "limits.connections", default.connections_max, (1, 10_000_000));
    let streams_max = within(doc, "limits.streams", default.streams_max, (1, 10_000));
    let header_bytes = doc.value("limits.header_bytes", Some(Bytes(default.header_bytes_max.into())), "a size such as 16KiB");
    let header_timeout = duration(doc, "limits.header_timeout", default.header_timeout, WAIT);
    let idle_timeout = duration(doc, "limits.idle_timeout", default.idle_timeout, WAIT);
    let write_stall_max = duration(doc, "limits.write_stall", default.write_stall_max, WAIT);
    let drain_timeout = duration(doc, "limits.drain_timeout", default.drain_timeout, (Duration::ZERO, WAIT.1));
    let connection_bits_per_second_max = rate(doc, "pacing.connection_max");
    let congestion = doc.value("pacing.congestion", Some(default.congestion), "cubic or reno");
    let Bytes(header_bytes) = header_bytes?;
    if !(8 << 10..=1 << 20).contains(&header_bytes) {
        doc.problem("limits.header_bytes", "a size from 8KiB to 1MiB");
        return None;
    }
    Some(Limits {
        connections_max: connections_max?,
        streams_max: streams_max?,
        header_bytes_max: u32::try_from(header_bytes).expect("at most 1 MiB"),
        header_timeout: header_timeout?,
        idle_timeout: idle_timeout?,
        write_stall_max: write_stall_max?,
        drain_timeout: drain_timeout?,
        connection_bits_per_second_max: connection_bits_per_second_max?,
        congestion: congestion?,
    })
}

fn pacing(doc: &mut Document) -> Option<Pacing> {
    let token_bits_per_second_max = rate(doc, "pacing.token_max");
    let site_bits_per_second_max = rate(doc, "pacing.site_max");
    let has_hints = doc.value("pacing.rate_hint", Some(true), "true or false");
    Some(Pacing {
        token_bits_per_second_max: token_bits_per_second_max?,
        site_bits_per_second_max: site_bits_per_second_max?,
        has_hints: has_hints?,
    })
}

impl FromStr for Congestion {
    type Err = Flaw;

    fn from_str(text: &str) -> Result<Self, Flaw> {
        match text {
            "cubic" => Ok(Self::Cubic),
            "reno" => Ok(Self::NewReno),
            _ => Err(Flaw("cubic or reno")),
        }
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cubic => "cubic",
            Self::NewReno => "reno",
        })
    }
}

fn duration(doc: &mut Document, key: &str, default: Duration, (min, max): (Duration, Duration)) -> Option<Duration> {
    let Seconds(value) = doc.value(key, Some(Seconds(default)), DURATION)?;
    if value < min || value > max {
        doc.problem(key, format!("a duration from {} to {}", Seconds(min), Seconds(max)));
        return None;
    }
    Some(value)
}

fn within<T: FromStr + fmt::Display + PartialOrd>(doc: &mut Document, key: &str, default: T, (min, max): (T, T)) -> Option<T> {
    let value = doc.value(key, Some(default), "a whole number")?;
    bounded(doc, key, &value, (min, max)).then_some(value)
}

fn bounded<T: fmt::Display + PartialOrd>(doc: &mut Document, key: &str, value: &T, (min, max): (T, T)) -> bool {
    // What is no number is not within any bounds.
    let is_within = (&min..=&max).contains(&value);
    if !is_within {
        doc.problem(key, format!("a number from {min} to {max}"));
    }
    is_within
}

/// Names an edge or a site: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    const EXPECTED: &str = "a name of 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', beginning with a letter or digit";

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Flaw;

    fn from_str(name: &str) -> Result<Self, Flaw> {
        let is_name = name.len() <= NAME_CHARS_MAX
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if is_name { Ok(Self(name.to_owned())) } else { Err(Flaw(Self::EXPECTED)) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path that is served, with all below it, without a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPath(String);

impl OpenPath {
    const EXPECTED: &str = "a path such as /files/, which is open with all below it";

    /// Whether `path` is this one or below it.
    pub fn opens(&self, path: &str) -> bool {
        let below = path.strip_prefix(&self.0);
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for OpenPath {
    type Err = Flaw;

    /// `/` opens everything.
    fn from_str(path: &str) -> Result<Self, Flaw> {
        let path = if path == "/" { "" } else { path.strip_suffix('/').unwrap_or(path) };
        if path.is_empty() || wire::object::ObjectPath::new(path).is_ok() {
            return Ok(Self(path.to_owned()));
        }
        Err(Flaw(Self::EXPECTED))
    }
}

impl fmt::Display for OpenPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.0)
    }
}

/// `*`, or a web origin as browsers write it: scheme, host, and port unless it is the scheme's own (RFC 6454 §6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(String);

impl WebOrigin {
    const EXPECTED: &str = "\"*\" or an origin such as \"https://app.example\"";

    /// As it stands in a header.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_any(&self) -> bool {
        self.0 == "*"
    }
}

impl FromStr for WebOrigin {
    type Err = Flaw;

    fn from_str(text: &str) -> Result<Self, Flaw> {
        let is_origin = || text.parse::<HttpUrl>().is_ok_and(|url| url.prefix.is_empty() && url.to_string() == text);
        if text == "*" || is_origin() { Ok(Self(text.to_owned())) } else { Err(Flaw(Self::EXPECTED)) }
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where another tier is: scheme, host, port, and perhaps a path before every path that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    is_https: bool,
    /// Host, and port as written, lower case.
    authority: String,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// Empty, or begins with a slash and does not end with one.
    prefix: String,
}

impl HttpUrl {
    /// Whether it is reached by TLS.
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    /// The value of `Host` (RFC 9110 §7.2).
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A host name, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, written or the scheme's own.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What stands before every path; empty, or without a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl FromStr for HttpUrl {
    type Err = Flaw;

    fn from_str(text: &str) -> Result<Self, Flaw> {
        const FLAW: Flaw = Flaw("a URL of http or https with a host, and without user, query or fragment");
        let uri: Uri = text.parse().map_err(|_| FLAW)?;
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(FLAW),
        };
        let authority = uri.authority().ok_or(FLAW)?;
        // `Uri` takes ports that are none, and drops fragments.
        let has_bad_port = authority.port_u16().is_none() && authority.as_str() != authority.host();
        if authority.host().is_empty() || authority.as_str().contains('@') || has_bad_port {
            return Err(FLAW);
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(FLAW);
        }
        Ok(Self {
            is_https,
            authority: authority.as_str().to_ascii_lowercase(),
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(if is_https { 443 } else { 80 }),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

/// Not what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct Flaw(&'static str);

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"name = "edge-a"
site = "site-1"
public_url = "https://edge-a.example"
tls = { certificate_file = "/tls/crt", key_file = "/tls/key" }
tokens = { keys_file = "/keys.json", issuer = "control" }
origin = { url = "http://origin:9450/store/", token_file = "/fill.token" }
"#;

    fn problems(text: &str) -> Vec<String> {
        let mut doc = Document::parse(text).unwrap();
        let config = Config::read(&mut doc);
        match doc.finish() {
            Ok(_) => Vec::new(),
            Err(problems) => {
                assert!(config.is_none() || problems.iter().all(|problem| problem.expected.contains("key")), "{problems:?}");
                problems.iter().map(|problem| problem.to_string()).collect()
            }
        }
    }

    #[test]
    fn what_need_not_be_written_has_a_default() {
        let mut doc = Document::parse(WHOLE).unwrap();
        let config = Config::read(&mut doc).unwrap();
        doc.finish().unwrap();
        assert_eq!((config.listen.port(), config.admin_listen.to_string().as_str()), (443, "127.0.0.1:9440"));
        assert_eq!((config.cache.ram_bytes, config.cache.slice_bytes), (1 << 30, 1 << 20));
        assert_eq!((config.origin.url.to_string().as_str(), config.origin.url.port()), ("http://origin:9450/store", 9450));
        assert!(config.control.is_none() && config.allowed_origins.is_none() && config.tokens.open_paths.is_empty());
        assert_eq!(config.limits.streams_max, 100);
        assert!(config.listen_plain.is_none() && config.tls.ticket_secret_file.is_none() && !config.tls.aes_256);
    }

    #[test]
    fn what_tls_and_its_absence_are_told_is_checked() {
        let text =
            WHOLE.replace("key_file = \"/tls/key\" }", "key_file = \"/tls/key\", ticket_secret_file = \"/s\", aes_256 = true }");
        let text = format!("listen_plain = \"10.0.0.1:80\"\n{text}");
        let mut doc = Document::parse(&text).unwrap();
        let config = Config::read(&mut doc).unwrap();
        doc.finish().unwrap();
        assert_eq!(config.listen_plain, Some("10.0.0.1:80".parse().unwrap()));
        assert_eq!((config.tls.ticket_secret_file, config.tls.aes_256), (Some("/s".into()), true));
        let text = format!(
            "listen = \"127.0.0.1:443\"\nlisten_plain = \"127.0.0.1:443\"\n{}",
            WHOLE.replace("/tls/key\"", "/tls/key\", aes_256 = 1")
        );
        assert_eq!(
            problems(&text),
            [
                "2: listen_plain: expected another address or port than listen, where TLS is spoken, found \"127.0.0.1:443\"",
                "6: tls.aes_256: expected true or false, found 1",
            ]
        );
    }

    #[test]
    fn one_star_opens_answers_to_all_scripts() {
        let allowed = |list: &str| {
            let mut doc = Document::parse(&format!("{WHOLE}[cors]\nallowed_origins = {list}\n")).unwrap();
            Config::read(&mut doc).unwrap().allowed_origins.map(|origins| origins.len())
        };
        assert_eq!(allowed("[]"), None);
        assert_eq!(allowed("[\"https://a.example\", \"*\"]"), None);
        assert_eq!(allowed("[\"https://a.example\", \"http://localhost:3000\"]"), Some(2));
    }

    #[test]
    fn every_problem_is_told_with_its_line() {
        assert_eq!(problems("").len(), 9, "what has no default must be written");
        let text = format!(
            "{WHOLE}workers = 0\nlisten = \"443\"\n[cache]\nram = \"8MiB\"\nslice = \"1000KiB\"\nrma = 1\n[control]\nurl = \"http://c\"\n\
             [cors]\nallowed_origins = [\"https://app.example/\"]\n[limits]\nidle_timeout = \"1ms\"\n"
        );
        assert_eq!(
            problems(&text),
            [
                "7: workers: expected a number from 1 to 1024, found 0",
                "8: listen: expected an address and port such as 0.0.0.0:443, found \"443\"",
                "11: cache.slice: expected a power of two from 256KiB to 4MiB, found \"1000KiB\"",
                "12: cache.rma: expected a key that is known here, perhaps cache.ram, found 1",
                "13: control.token_file: expected both control.url and control.token_file, or neither, found nothing",
                "16: cors.allowed_origins: expected \"*\" or an origin such as \"https://app.example\", found \"https://app.example/\"",
                "18: limits.idle_timeout: expected a duration from 10ms to 1h, found \"1ms\"",
            ]
        );
        let text = format!("{WHOLE}[cache]\nram = \"8MiB\"\n");
        assert_eq!(problems(&text), ["8: cache.ram: expected at least 16MiB, which is 16 slices of 1MiB, found \"8MiB\""]);
        let text = WHOLE.replace("https://edge-a.example", "http://edge-a.example");
        assert_eq!(
            problems(&text),
            [
                "3: public_url: expected a URL such as https://edge1.example:443, where players reach this edge: https, and no path, \
                 found \"http://edge-a.example\""
            ]
        );
    }

    #[test]
    fn devices_make_an_ssd_tier_and_each_flaw_of_them_is_told_with_its_line() {
        let text = format!(
            "{WHOLE}[cache]\nio = \"threads\"\n[[cache.devices]]\npath = \"/dev/nvme0n1\"\n[[cache.devices]]\npath = \"/c/b\"\nsize = \"400GiB\"\n"
        );
        let mut doc = Document::parse(&text).unwrap();
        let disk = Config::read(&mut doc).unwrap().cache.disk.unwrap();
        doc.finish().unwrap();
        let devices: Vec<_> = disk.devices.iter().map(|device| (device.path.to_str().unwrap(), device.bytes)).collect();
        assert_eq!(devices, [("/dev/nvme0n1", None), ("/c/b", Some(400 << 30))]);
        assert_eq!((disk.segment_bytes, disk.planned_share, disk.io), (64 << 20, 0.8, IoChoice::Threads));
        assert_eq!((disk.state_dir.to_str(), disk.device_timeout), (Some("/var/lib/larder/edge"), Duration::from_secs(10)));

        let text = format!(
            "{WHOLE}[cache]\nslice = \"4MiB\"\nsegment = \"8MiB\"\nplanned_share = nan\nio = \"uring\"\ndevice_timeout = \"1ms\"\ndevices = [\n\
             {{ path = \"/a\", size = \"1GiB\" }},\n{{ path = \"/a\" }},\n{{ size = \"1GiB\" }},\n]\n"
        );
        assert_eq!(
            problems(&text),
            [
                "9: cache.segment: expected at least 4 slices of 4MiB, found \"8MiB\"",
                "10: cache.planned_share: expected a number from 0 to 0.95, found nan",
                "11: cache.io: expected auto or threads, found \"uring\"",
                "12: cache.device_timeout: expected a duration from 100ms to 5m, found \"1ms\"",
                "15: cache.devices[1].path: expected each device once, found \"/a\"",
                "16: cache.devices[2].path: expected the path of a file or of a block device, found nothing",
            ]
        );
        let text =
            format!("{WHOLE}[cache]\nsegment = \"100MiB\"\nplanned_share = 1\ndevices = [{{ path = \"/a\", sise = 1 }}]\n");
        assert_eq!(
            problems(&text),
            [
                "8: cache.segment: expected a power of two from 1MiB to 256MiB, found \"100MiB\"",
                "9: cache.planned_share: expected a number from 0 to 0.95, found 1",
                "10: cache.devices[0].sise: expected a key that is known here, perhaps cache.devices[0].size, found 1",
            ]
        );
        let text = format!("{WHOLE}[cache]\ndevices = [{{ path = \"/a\", size = \"512MiB\" }}]\n");
        assert_eq!(
            problems(&text),
            ["8: cache.devices[0].size: expected at least 513MiB, which is 8 segments and a head, found \"512MiB\""]
        );
        let many = "{ path = \"/a\" },".repeat(65);
        let text = format!("{WHOLE}[cache]\ndevices = [{many}]\n");
        assert!(problems(&text).contains(&"8: cache.devices: expected at most 64 devices, found an array".to_owned()));
    }

    #[test]
    fn nothing_is_paced_unless_it_is_written_and_rates_are_within_reason() {
        let read = |pacing: &str| {
            let mut doc = Document::parse(&format!("{WHOLE}{pacing}")).unwrap();
            let config = Config::read(&mut doc).unwrap();
            doc.finish().unwrap();
            config
        };
        let config = read("");
        assert_eq!((config.limits.connection_bits_per_second_max, config.limits.congestion), (None, Congestion::Cubic));
        assert_eq!((config.pacing.token_bits_per_second_max, config.pacing.site_bits_per_second_max), (None, None));
        assert!(config.pacing.has_hints);
        let config = read(
            "[pacing]\nconnection_max = \"50Mbit/s\"\ntoken_max = \"60Mbit/s\"\nsite_max = \"9Gbit/s\"\nrate_hint = false\n\
             congestion = \"reno\"\n",
        );
        assert_eq!(config.limits.connection_bits_per_second_max, Some(50_000_000));
        assert_eq!(config.pacing.token_bits_per_second_max, Some(60_000_000));
        assert_eq!(config.pacing.site_bits_per_second_max, Some(9_000_000_000));
        assert_eq!(config.capacity_bits_per_second, Some(9_000_000_000), "control is told");
        let of = |capacity: &str| {
            let text = format!("capacity = \"{capacity}\"\n{WHOLE}[pacing]\nsite_max = \"9Gbit/s\"\n");
            Config::read(&mut Document::parse(&text).unwrap()).unwrap().capacity_bits_per_second
        };
        assert_eq!((of("8Gbit/s"), of("10Gbit/s")), (Some(8_000_000_000), Some(9_000_000_000)));
        assert_eq!((config.limits.congestion, config.pacing.has_hints), (Congestion::NewReno, false));
        let text = format!(
            "{WHOLE}[pacing]\nconnection_max = \"900kbit/s\"\ntoken_max = \"1Mbps\"\nsite_max = \"101Tbit/s\"\nrate_hint = 1\n\
             congestion = \"bbr\"\n"
        );
        assert_eq!(
            problems(&text),
            [
                "8: pacing.connection_max: expected a rate from 1Mbit/s to 100Tbit/s, found \"900kbit/s\"",
                "9: pacing.token_max: expected a rate such as 40Gbit/s, found \"1Mbps\"",
                "10: pacing.site_max: expected a rate from 1Mbit/s to 100Tbit/s, found \"101Tbit/s\"",
                "11: pacing.rate_hint: expected true or false, found 1",
                "12: pacing.congestion: expected cubic or reno, found \"bbr\"",
            ]
        );
    }

    #[test]
    fn urls_are_http_with_a_host_and_nothing_that_is_not_a_path() {
        for (text, host, port, prefix) in [
            ("http://Origin", "origin", 80, ""),
            ("https://origin.example:8443/a/b/", "origin.example", 8443, "/a/b"),
            ("http://[::1]:9450", "::1", 9450, ""),
        ] {
            let url: HttpUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port(), url.prefix()), (host, port, prefix), "{text}");
        }
        for text in
            ["", "origin:9450", "ftp://origin", "http://", "http://u:p@origin", "http://o?q", "http://o:99999", "http://o#f"]
        {
            assert!(text.parse::<HttpUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_open_path_opens_what_is_below_it_and_not_what_begins_like_it() {
        let open: OpenPath = "/files/".parse().unwrap();
        assert_eq!(open, "/files".parse().unwrap());
        assert!(open.opens("/files") && open.opens("/files/a/b"));
        assert!(!open.opens("/filesystem") && !open.opens("/file") && !open.opens("/a/files/b"));
        assert!("/".parse::<OpenPath>().unwrap().opens("/anything"));
        assert!("files".parse::<OpenPath>().is_err() && "/a/../b".parse::<OpenPath>().is_err());
    }
}
