//! What can be typed. Each subcommand explains itself and shows an example; what the words mean is the commands' business.

pub(crate) mod catalog;
pub(crate) mod edges;
pub(crate) mod operator;
pub(crate) mod site;
pub(crate) mod user_data;

use std::{net::IpAddr, path::PathBuf};

use cache::Policy;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use edge::http::Protocol;
use ipnet::IpNet;
use tracing::Level;
use wire::{
    config::{Bytes, Seconds},
    title::{TitleId, TitleKind, YEARS, is_language_tag},
    token::Algorithm,
};

use self::{
    catalog::{CATALOG, CatalogArgs},
    edges::{EDGE, EdgeArgs},
    operator::OperatorArgs,
    site::{SITE, SiteArgs},
    user_data::{USER_DATA, UserDataArgs},
};
use crate::config::Role;

/// The arguments contradict each other in a way that clap does not see. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misuse(pub(crate) String);

/// A video CDN: edges that serve players, an origin that packages and keeps titles, a control plane that knows both.
#[derive(Debug, Parser)]
#[command(name = "larder", version, propagate_version = true, after_help = START)]
pub(crate) struct Cli {
    /// How to write logs, which go to standard error. LARDER_LOG says which ("debug", "edge=trace,info")
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const START: &str = "\
Example, everything at once on this machine:
  larder demo

Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration.";

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an edge: serves players over HTTP/3, HTTP/2 and HTTP/1.1 from its cache, which it fills from the origin; or ask control
    /// about its edges
    #[command(after_help = EDGE, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Edge(EdgeArgs),
    /// Run an origin: keeps titles and serves them to edges
    #[command(after_help = ORIGIN)]
    Origin(RoleArgs),
    /// Run the control plane: catalogue, playback, signed URLs, fleet, and the web player; or back its database up
    #[command(after_help = CONTROL, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Control(ControlArgs),
    /// Read a configuration file and say what it means, or every error in it
    #[command(after_help = CHECK)]
    Check(CheckArgs),
    /// Run origin, control and two edges on this machine, with a title to watch
    #[command(after_help = DEMO)]
    Demo(DemoArgs),
    /// Package a film and publish it
    #[command(after_help = INGEST)]
    Ingest(IngestArgs),
    /// Sign a URL, or make a signing key
    #[command(after_help = SIGN)]
    Sign(SignArgs),
    /// Run a trace of requests through the cache's policies and say how much of it a cache of some size would have served
    #[command(after_help = REPLAY)]
    Replay(ReplayArgs),
    /// Fetch a URL over HTTP/1.1, 2 or 3 and say how it came
    #[command(after_help = FETCH)]
    Fetch(FetchArgs),
    /// Look into the cache of a running edge, purge from it, check and restore its devices
    #[command(after_help = CACHE)]
    Cache(CacheArgs),
    /// List, show, publish, update and remove titles of control's catalogue
    #[command(after_help = CATALOG)]
    Catalog(CatalogArgs),
    /// Show or forget what control keeps of a user
    #[command(after_help = USER_DATA)]
    UserData(UserDataArgs),
    /// Say why a viewer is sent to an edge, and what recorded decisions would be in another fleet
    #[command(after_help = STEER)]
    Steer(SteerArgs),
    /// List, show, set and remove sites: where edges stand, what that costs, and whom they serve
    #[command(after_help = SITE)]
    Site(SiteArgs),
}

impl Command {
    /// Roles tell what they do; commands are quiet unless something is wrong.
    pub(crate) fn log_level(&self) -> Level {
        match self {
            Self::Control(ControlArgs { command: Some(_), .. }) | Self::Edge(EdgeArgs { command: Some(_), .. }) => Level::WARN,
            Self::Edge(_) | Self::Origin(_) | Self::Control(_) => Level::INFO,
            _ => Level::WARN,
        }
    }
}

const ORIGIN: &str = "\
Example:
  larder origin --config origin.toml

SIGTERM or Ctrl-C finishes what is being sent and ends. A commented sample of the file is config/origin.toml.";

const CONTROL: &str = "\
Example:
  larder sign --new-key EdDSA --kid 2026-11 --out signing.jwk --public-out keys.json
  larder control --config control.toml

The API describes itself at /docs and /openapi.json. A commented sample of the file is config/control.toml.";

#[derive(Debug, Args)]
pub(crate) struct ControlArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ControlCommand>,
    /// The role's configuration (TOML)
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ControlCommand {
    /// Copy the database while control runs, and check the copy
    #[command(after_help = CONTROL_BACKUP)]
    Backup(ControlBackupArgs),
}

const CONTROL_BACKUP: &str = "\
Example:
  larder control backup --config /etc/larder/control.toml --out /backup/control-2026-11-21.db

Run it on control's machine, as control's user. The copy is one moment of the database, however much is written
meanwhile, and is there under its name only when it is whole and checked. To restore: stop control, put it in
the place of control.db in the state directory without control.db-wal and control.db-shm, start control.";

#[derive(Debug, Args)]
pub(crate) struct ControlBackupArgs {
    /// Control's configuration, which says where the database is
    #[arg(long, value_name = "FILE", default_value = "/etc/larder/control.toml")]
    pub(crate) config: PathBuf,
    /// The copy; must not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RoleArgs {
    /// The role's configuration (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

const CHECK: &str = "\
Example:
  larder check /etc/larder/edge.toml

Prints each key, its value, and whether it is the default. An error names file, line, key, what was expected and
what was found; all errors are told at once, and the exit code is 2.";

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration file; its key `role` says whose it is
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Expect this role
    #[arg(long, value_name = "edge|origin|control")]
    pub(crate) role: Option<Role>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const DEMO: &str = "\
Examples:
  larder demo                          a test clip of a minute; prints where to watch it; Ctrl-C ends it
  larder demo --input film.mp4         your own
  larder demo --once --json            plays it all twice over HTTP/3, checks every byte, and exits

The state directory keeps what was packaged, so a second run starts at once, and what the edges have on their SSDs (files of 256 MiB), so that it
begins warm. Remove it to start anew.";

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// A film to package, instead of a test clip of 60 seconds
    #[arg(long, value_name = "VIDEO")]
    pub(crate) input: Option<PathBuf>,
    /// Play the whole title twice as a player would, check every byte, print a table, and exit: 0 if all of it held
    #[arg(long)]
    pub(crate) once: bool,
    /// Print JSON: addresses when it is up, or with --once the result on the last line
    #[arg(long)]
    pub(crate) json: bool,
    /// Where titles, keys, certificates and configurations are kept [default: $XDG_STATE_HOME/larder/demo]
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

const INGEST: &str = "\
Example:
  larder ingest film.mp4 --title \"A film\" --cast \"Ada Example\" --cast \"Bo Example\" --config origin.toml

Runs where the origin keeps its titles, needs ffmpeg and ffprobe, and catalogues the title at control.url of the
origin's configuration. A film that was packaged before is found by its fingerprint and not packaged again.";

#[derive(Debug, Args)]
pub(crate) struct IngestArgs {
    /// The film: anything that ffmpeg reads
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// What viewers read
    #[arg(long, value_name = "TEXT")]
    pub(crate) title: String,
    /// Its name in the catalogue: 1 to 64 of a-z, 0-9 and - [default: made from title and fingerprint]
    #[arg(long)]
    pub(crate) id: Option<TitleId>,
    /// What it is about
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) description: String,
    /// Who is in it; once for each
    #[arg(long, value_name = "NAME")]
    pub(crate) cast: Vec<String>,
    /// The age rating, such as PG-13
    #[arg(long)]
    pub(crate) rating: Option<String>,
    /// A genre, as the service names it; once for each
    #[arg(long, value_name = "NAME")]
    pub(crate) genre: Vec<String>,
    /// When it came out
    #[arg(long, value_parser = year)]
    pub(crate) year: Option<u16>,
    /// The language of the original, such as en or pt-BR (BCP 47)
    #[arg(long, value_name = "TAG", value_parser = language)]
    pub(crate) language: Option<String>,
    /// What it is: film, episode, short, special, trailer or clip
    #[arg(long)]
    pub(crate) kind: Option<TitleKind>,
    /// Catalogue it although the same film is catalogued under another id
    #[arg(long)]
    pub(crate) allow_duplicate: bool,
    /// The origin's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/larder/origin.toml")]
    pub(crate) config: PathBuf,
    /// Print one JSON object: the title with its renditions, without its segments and objects
    #[arg(long)]
    pub(crate) json: bool,
}

const SIGN: &str = "\
Examples:
  larder sign --new-key EdDSA --kid 2026-11 --out signing.jwk --public-out keys.json
  larder sign https://edge1.example/titles/2c26…/master.m3u8 --key signing.jwk --issuer larder.example --tree

The token is a URI Signing package (RFC 9246). In the path (the default) the relative URLs of a playlist inherit it;
--tree makes it good for everything in the URL's folder, which they need.";

#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The URL to sign: scheme, host and path
    #[arg(required_unless_present = "new_key", conflicts_with = "new_key")]
    pub(crate) url: Option<String>,
    /// The private key (JWK), as --new-key writes it
    #[arg(long, value_name = "FILE", required_unless_present = "new_key", conflicts_with = "new_key")]
    pub(crate) key: Option<PathBuf>,
    /// How long it is good
    #[arg(long, value_name = "DURATION", default_value = "6h")]
    pub(crate) expires: Seconds,
    /// Sign for everything in the URL's folder, not for the URL alone
    #[arg(long)]
    pub(crate) tree: bool,
    /// Whom it is for (claim sub)
    #[arg(long)]
    pub(crate) subject: Option<String>,
    /// Good only from this address, or from these (claim cdniip)
    #[arg(long, value_name = "CIDR", value_parser = prefix)]
    pub(crate) ip: Option<IpNet>,
    /// Who signs (claim iss): as in the edge's tokens.issuer
    #[arg(long)]
    pub(crate) issuer: Option<String>,
    /// How the token travels
    #[arg(long, value_enum, default_value_t = Carrier::Path)]
    pub(crate) carrier: Carrier,
    /// Make a key for this algorithm: ES256, EdDSA or HS256
    #[arg(long, value_name = "ALG", requires_all = ["kid", "out"])]
    pub(crate) new_key: Option<Algorithm>,
    /// The new key's name, which tokens carry
    #[arg(long, requires = "new_key")]
    pub(crate) kid: Option<String>,
    /// Where to write the new private key, readable for its owner alone
    #[arg(long, value_name = "FILE", requires = "new_key")]
    pub(crate) out: Option<PathBuf>,
    /// Where to write the key set for edges [default: print it]
    #[arg(long, value_name = "FILE", requires = "new_key")]
    pub(crate) public_out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Carrier {
    Path,
    Query,
    Cookie,
}

const FETCH: &str = "\
Examples:
  larder fetch --http 3 https://edge1.example/files/hello.txt
  larder fetch --http 3 --ca ca.pem --repeat 200 --parallel 50 \"$(larder sign --key signing.jwk --issuer larder.example https://127.0.0.1:8443/…)\"

Prints protocol, status, time to first byte, bytes, SHA-256 and Cache-Status of each answer. Other than 2xx is exit code 1.";

#[derive(Debug, Clone, Args)]
pub(crate) struct FetchArgs {
    /// The URL (https)
    pub(crate) url: String,
    /// The protocol: 1.1, 2 or 3; never another than this
    #[arg(long, value_name = "VERSION", default_value = "2", value_parser = protocol)]
    pub(crate) http: Protocol,
    /// Trust the certificates in this file (PEM) alone [default: the web's]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Connect to this address, whatever the URL's host resolves to
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<IpAddr>,
    /// Only these bytes: A-B (B included), A- or -N
    #[arg(long, value_name = "A-B", value_parser = range, allow_hyphen_values = true)]
    pub(crate) range: Option<String>,
    /// A cookie to send, such as larder sign --carrier cookie prints
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) cookie: Option<String>,
    /// How many times in all
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) repeat: u32,
    /// How many at the same time, each on a connection of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) parallel: u32,
    /// Give up when nothing comes for this long
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub(crate) timeout: Seconds,
    /// Write the body to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const CACHE: &str = "\
Examples:
  larder cache stat
  larder cache devices --admin http://10.1.2.3:9440
  larder cache purge --prefix /titles/2c26/
  larder cache verify

They talk to the edge's admin_listen: http://127.0.0.1:9440 unless its configuration says otherwise.
Exit codes: 0 done, 1 faults found or failed, 2 wrong arguments or configuration.";

#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show what RAM and SSD hold, how often they are hit, and what they were spared
    #[command(after_help = CACHE_STAT)]
    Stat(CacheStatArgs),
    /// Show each device: state, fill, latency, and why it was given up
    #[command(after_help = CACHE_DEVICES)]
    Devices(CacheDevicesArgs),
    /// Forget objects, so that they are fetched again
    #[command(after_help = CACHE_PURGE)]
    Purge(CachePurgeArgs),
    /// Read all that is on the devices and check every byte
    #[command(after_help = CACHE_VERIFY)]
    Verify(CacheVerifyArgs),
}

/// Which edge is meant.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// The edge's address for operators
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9440", conflicts_with = "config")]
    pub(crate) admin: String,
    /// Find the edge by its configuration, on this machine
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

const CACHE_STAT: &str = "\
Examples:
  larder cache stat
  larder cache stat --json --config /etc/larder/edge.toml";

#[derive(Debug, Args)]
pub(crate) struct CacheStatArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const CACHE_DEVICES: &str = "\
Examples:
  larder cache devices
  larder cache devices --restore /dev/nvme1n1

A device that failed is given up until an operator says otherwise, also after a restart. Restore it
once it is mended: what is on it counts again, as far as it is right and still current.";

#[derive(Debug, Args)]
pub(crate) struct CacheDevicesArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Take this device back; its path is as in cache.devices
    #[arg(long, value_name = "PATH")]
    pub(crate) restore: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const CACHE_PURGE: &str = "\
Examples:
  larder cache purge --object /titles/2c26/v1080/00001.m4s
  larder cache purge --prefix /titles/2c26/ --prefix /titles/7d87/
  larder cache purge --tag film-17
  larder cache purge --all --yes

It holds from the next request on, also for what is being filled, and outlasts a restart. It takes
the same time however much it covers. Bytes that are on their way to a viewer go on.";

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["object", "prefix", "tag", "all"]))]
pub(crate) struct CachePurgeArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// The object with this path; may be given again
    #[arg(long, value_name = "PATH")]
    pub(crate) object: Vec<String>,
    /// All objects whose paths begin so; may be given again
    #[arg(long, value_name = "PATH")]
    pub(crate) prefix: Vec<String>,
    /// All objects that the origin gave this tag (Cache-Tag, Surrogate-Key); may be given again
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// Everything; asks first
    #[arg(long)]
    pub(crate) all: bool,
    /// Do not ask
    #[arg(long, requires = "all")]
    pub(crate) yes: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const CACHE_VERIFY: &str = "\
Examples:
  larder cache verify
  larder cache verify --offline --config /etc/larder/edge.toml

With --offline the edge must be stopped. Whatever is wrong is listed and is exit code 1; it was never
served, since each range is checked when it is read.";

#[derive(Debug, Args)]
pub(crate) struct CacheVerifyArgs {
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Read the devices of a stopped edge; needs --config
    #[arg(long, requires = "config")]
    pub(crate) offline: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const STEER: &str = "\
Examples:
  larder steer explain --client 203.0.113.7 --video film-17
  larder steer replay --without-site berlin

A viewer is sent to the site that announces the longest prefix of his address, else to the nearest; edges that are
silent, draining or full are left out, and those that lack the title, shed load, are far or dear come last.";

#[derive(Debug, Args)]
pub(crate) struct SteerArgs {
    #[command(subcommand)]
    pub(crate) command: SteerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SteerCommand {
    /// Show every edge that a viewer could be sent to, and why it is in the answer or is not
    #[command(after_help = STEER_EXPLAIN)]
    Explain(SteerExplainArgs),
    /// Take recorded decisions again in a fleet with a difference: what if all of a site fails?
    #[command(after_help = STEER_REPLAY)]
    Replay(SteerReplayArgs),
}

const STEER_EXPLAIN: &str = "\
Examples:
  larder steer explain --client 203.0.113.7 --video film-17
  larder steer explain --client 2001:db8::7 --video film-17 --session 2 --control http://10.1.2.3:8080 --json

It asks control as it is now, and changes nothing. Edges in the answer come first, in its order; then those that are
not, each with the first reason that kept it out.";

#[derive(Debug, Args)]
pub(crate) struct SteerExplainArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The viewer's address
    #[arg(long, value_name = "IP")]
    pub(crate) client: IpAddr,
    /// The title's id in the catalogue
    #[arg(long, value_name = "ID")]
    pub(crate) video: TitleId,
    /// Another session of the same viewer: sessions take turns among equal edges
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) session: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const STEER_REPLAY: &str = "\
Examples:
  larder steer replay --without-site berlin
  larder steer replay --decisions /backup/decisions --without-edge b1 --without-edge b2 --load 150
  larder steer replay --decisions 0000000007.jsonl --json

Control records the decisions of a share of all sessions in state_dir/decisions (steering.record). Each is taken twice
here, in the fleet as it was and with the difference; what is shown is the second beside the first. An edge's load
is reckoned from what it reported and the sessions that come and go: above 100 % it could not bear them. It is a first
step: sessions that a full edge would shed are not sent on. No file is changed, and control need not run.";

#[derive(Debug, Args)]
pub(crate) struct SteerReplayArgs {
    /// A file of decisions, or a folder of them; may be given again
    #[arg(long, value_name = "PATH", default_value = "/var/lib/larder/control/decisions")]
    pub(crate) decisions: Vec<PathBuf>,
    /// As if all edges of this site were gone; may be given again
    #[arg(long, value_name = "NAME")]
    pub(crate) without_site: Vec<String>,
    /// As if this edge were gone; may be given again
    #[arg(long, value_name = "ID")]
    pub(crate) without_edge: Vec<String>,
    /// As if every edge had this much of its load, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) load: u32,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const REPLAY: &str = "\
Examples:
  larder replay requests.csv.gz --ram 1GiB --ssd 20GiB
  larder replay requests.csv.gz --compare --sizes 5GiB,10GiB,20GiB,40GiB,80GiB,160GiB
  larder replay wiki.oracleGeneral.zst --ram 0 --ssd 500GiB --limit 10000000 --json

A trace is lines of time,object,kilobytes (1000 bytes), or libCacheSim's oracleGeneral; plain, gzip or zstd. A request is for the
first bytes of its object. No byte is read or written: policies are asked, and hits are counted. Memory: about 40 bytes for each
object of the trace and 180 for each slice that the cache holds; with --compare that for each size and policy, and besides 12 for
each slice whenever it is asked for and 80 for each slice that there is: --limit bounds it.";

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The trace
    #[arg(value_name = "TRACE")]
    pub(crate) trace: PathBuf,
    /// RAM for slices; 0 for none
    #[arg(long, value_name = "BYTES", default_value = "1GiB")]
    pub(crate) ram: Bytes,
    /// The SSD; 0 for none
    #[arg(long, value_name = "BYTES", default_value = "0")]
    pub(crate) ssd: Bytes,
    /// Who leaves when RAM is full: s3fifo, sieve, lfu, lru or fifo
    #[arg(long, value_name = "POLICY", default_value_t = cache::Config::default().policy)]
    pub(crate) policy: Policy,
    /// Bytes per slice
    #[arg(long, value_name = "BYTES", default_value = "1MiB")]
    pub(crate) slice: Bytes,
    /// Bytes per segment of the SSD
    #[arg(long, value_name = "BYTES", default_value = "64MiB")]
    pub(crate) segment: Bytes,
    /// Compare each tier alone with LRU, FIFO, S3-FIFO, SIEVE and W-TinyLFU of the same size, and with one that knows the future
    #[arg(long)]
    pub(crate) compare: bool,
    /// Sizes to compare at [default: that of --ssd, or of --ram]
    #[arg(long, value_name = "BYTES,…", value_delimiter = ',', requires = "compare")]
    pub(crate) sizes: Vec<Bytes>,
    /// Only the first N requests
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// An address is the prefix that holds it alone.
fn prefix(text: &str) -> Result<IpNet, String> {
    let alone = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| alone()).map_err(|_| "expected an address or prefix such as 192.0.2.7 or 2001:db8::/32".into())
}

fn year(text: &str) -> Result<u16, String> {
    let expected = || format!("expected a year from {} to {}", YEARS.start(), YEARS.end());
    text.parse().ok().filter(|year| YEARS.contains(year)).ok_or_else(expected)
}

fn language(text: &str) -> Result<String, String> {
    if is_language_tag(text) { Ok(text.to_owned()) } else { Err("expected a language tag such as en or pt-BR (BCP 47)".into()) }
}

fn protocol(version: &str) -> Result<Protocol, String> {
    match version {
        "1.1" | "1" => Ok(Protocol::Http1),
        "2" => Ok(Protocol::Http2),
        "3" => Ok(Protocol::Http3),
        _ => Err("expected 1.1, 2 or 3".into()),
    }
}

/// A byte range as it follows `bytes=` (RFC 9110 §14.1.2).
fn range(range: &str) -> Result<String, String> {
    let number = |text: &str| text.parse::<u64>().ok();
    let is_range = match range.split_once('-') {
        Some(("", suffix)) => number(suffix).is_some(),
        Some((first, "")) => number(first).is_some(),
        Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
        None => false,
    };
    if is_range { Ok(range.to_owned()) } else { Err("expected A-B, A- or -N, such as 0-1023".into()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ranges_are_as_rfc_9110_has_them() {
        for good in ["0-0", "0-1023", "5-", "-5"] {
            assert_eq!(range(good), Ok(good.into()));
        }
        for bad in ["", "-", "5", "5-4", "a-b", "0-1,5-6"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }
}
