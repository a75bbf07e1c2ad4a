//! A control with titles and viewers, which runs on threads of its own, and tokens for those viewers who are about.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use control::{
    Config, Control,
    config::{KeySource, Refresh, Rules, ViewersConfig},
    synthetic::{self, Crowd},
};
use serde_json::json;
use tempfile::TempDir;
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use wire::{
    object::{Digest, ObjectPath},
    title::{Media, Rendition, Segment, Title, TitleId, TitleObject},
};

use crate::{
    Report, Size, instance,
    search::{
        titles::{self, Watched},
        typist::{Mistake, Typist},
    },
};

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "larder";
/// How many of the viewers are about in one run: those who would write in ten seconds.
const ACTIVE_FULL: u64 = 100_000;
/// Of each viewer's hundred views: those of the last thirty days are rows, the others packed.
const LIVE_VIEWS: u64 = 15;
const PACKED_VIEWS: u64 = 85;
/// Draws the mistakes of queries, and how many queries there are.
const QUERY_SEED: u64 = 42;
const QUERIES: u64 = 1000;
/// How long each title is.
pub(super) const DURATION_MS: u64 = 2 * 3_600_000;

/// A control that runs.
pub(super) struct Stage {
    pub(super) addr: SocketAddr,
    /// The viewers who are about: their names and tokens, and the titles that they are in.
    pub(super) viewers: Vec<Active>,
    pub(super) titles: Arc<[TitleId]>,
    /// What people type who look for a title, with one mistake each, as it stands in a URI.
    pub(super) queries: Vec<String>,
    runtime: Runtime,
    task: JoinHandle<()>,
    stop: CancellationToken,
    _temporary: Option<TempDir>,
}

/// A viewer who is about.
pub(super) struct Active {
    pub(super) token: String,
    pub(super) title: TitleId,
}

impl Stage {
    /// Makes up what is not there yet, and starts control.
    pub(super) fn open(report: &mut Report) -> Self {
        let size = report.size();
        let (folder, temporary) = folder(size);
        let users = std::env::var("LARDER_BENCH_USERS").ok().filter(|_| size == Size::Full);
        let users = users.map_or(size.of(200, 1_000_000), |users| users.parse().expect("LARDER_BENCH_USERS is a number"));
        let watched = watched(size);
        let titles: Arc<[TitleId]> = (0..).zip(&watched).map(|(n, watched)| title_id(n, &watched.title)).collect();
        let crowd = Crowd { users, titles, live_views: LIVE_VIEWS, packed_views: PACKED_VIEWS, now_ms: now_ms() };
        let runtime = runtime();
        let config = config(&folder);
        fs::create_dir_all(&config.state_dir).expect("a directory");
        let filled = folder.join(format!("filled-{users}"));
        if !filled.exists() {
            assert!(!config.state_dir.join("control.db").exists(), "{} is of another size: remove it", folder.display());
            runtime.block_on(fill(&config.state_dir, &crowd, &watched));
            fs::write(&filled, crowd.now_ms.to_string()).expect("writes");
        }
        if size == Size::Full {
            weigh(report, &runtime, &crowd);
        }
        let key = Ed25519KeyPair::generate().expect("a key");
        write_keys(&folder, &key);
        let was_filled_ms = fs::read_to_string(&filled).expect("written above").parse().expect("a number");
        let crowd = Crowd { now_ms: was_filled_ms, ..crowd };
        let active = size.of(users, ACTIVE_FULL.min(users));
        let step = users / active;
        let viewers = (0..active)
            .map(|n| n * step)
            .map(|n| Active { token: token(&key, &synthetic::user_name(n)), title: synthetic::latest_title(&crowd, n) });
        let control = runtime.block_on(Control::open(config)).expect("control opens");
        let (addr, stop) = (control.addr(), CancellationToken::new());
        let running = control.run(stop.clone());
        let task = runtime.spawn(async move {
            let Ok(()) = running.await;
        });
        let queries = queries(&watched, size.of(20, QUERIES));
        Self { addr, viewers: viewers.collect(), titles: crowd.titles, queries, runtime, task, stop, _temporary: temporary }
    }

    /// Those who are about, in turns, each far from the one before.
    pub(super) fn viewer(&self, n: u64) -> &Active {
        &self.viewers[(n * 7919 % self.viewers.len() as u64) as usize]
    }

    /// Stops control and waits until it has.
    pub(super) fn stop(self) {
        self.stop.cancel();
        self.runtime.block_on(self.task).expect("control ends well");
    }
}

/// Where it stands: a directory that goes again, unless one is named.
fn folder(size: Size) -> (PathBuf, Option<TempDir>) {
    match std::env::var_os("LARDER_BENCH_DIR").filter(|_| size == Size::Full) {
        Some(dir) => (PathBuf::from(dir).join("control"), None),
        None => {
            let dir = tempfile::tempdir().expect("a directory");
            (dir.path().to_owned(), Some(dir))
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn config(folder: &Path) -> Config {
    let viewers = ViewersConfig {
        keys: vec![KeySource::File(folder.join("viewers.jwks"))],
        // All who are about, so that each token's signature is checked once.
        tokens_remembered: 2 * ACTIVE_FULL as usize,
        refresh: Refresh { every: Duration::from_secs(3600), pause: Duration::from_secs(3600) },
        rules: Rules {
            issuers: vec![ISSUER.into()],
            audiences: vec![AUDIENCE.into()],
            clock_skew: Duration::from_secs(60),
            profile_claim: None,
        },
    };
    Config { viewers: Some(viewers), ..instance::config(folder) }
}

async fn fill(state_dir: &Path, crowd: &Crowd, watched: &[Watched]) {
    let titles = crowd.titles.iter().zip(watched).map(|(id, watched)| title(id, &watched.title)).collect();
    synthetic::catalogue(state_dir, titles).await.expect("titles are catalogued");
    synthetic::viewers(state_dir, crowd.clone()).await.expect("viewers are put");
}

/// What views take on disk, of a thousand viewers.
fn weigh(report: &mut Report, runtime: &Runtime, crowd: &Crowd) {
    let dir = tempfile::tempdir().expect("a directory");
    let crowd = Crowd { users: 1000, ..crowd.clone() };
    let weight = runtime.block_on(synthetic::weigh(dir.path(), crowd)).expect("views are weighed");
    report.figure("a view as a row", weight.live, "B");
    report.figure("a packed view, with its part of what stands around the pack", weight.packed, "B");
    report.figure("a packed view, its part of the pack alone", weight.pack, "B");
}

/// The titles that were watched most.
fn watched(size: Size) -> Vec<Watched> {
    let all = titles::traces().filter(|_| size == Size::Full).map(|traces| titles::all(&traces).expect("the list of titles"));
    let mut watched = all.unwrap_or_else(|| titles::selection().expect("the selection of titles"));
    watched.truncate(size.of(50, 10_000) as usize);
    watched
}

/// What people type who look for one of these titles.
fn queries(watched: &[Watched], count: u64) -> Vec<String> {
    let mut typist = Typist::new(watched, QUERY_SEED);
    let escaped = |text: String| text.bytes().fold(String::new(), |escaped, byte| escaped + &format!("%{byte:02X}"));
    (0..count).map(|_| escaped(typist.next_of(&Mistake::TYPOS).text)).collect()
}

/// The words of its title, as far as an id has room, and its place in the list.
fn title_id(n: u64, title: &str) -> TitleId {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut id: String = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    id.truncate(50);
    format!("{id}-{n}").trim_start_matches('-').parse().expect("an id")
}

fn title(id: &TitleId, name: &str) -> Title {
    let object = |path: &str| TitleObject {
        path: path.into(),
        bytes: 1000,
        digest: Digest::of(path.as_bytes()),
        content_type: "video/mp4".into(),
    };
    let paths = ["master.m3u8", "manifest.mpd", "poster.jpg", "storyboard.vtt", "v/p.m3u8", "v/i.mp4", "v/1.m4s"];
    Title {
        title: name.to_owned(),
        description: String::new(),
        cast: Vec::new(),
        rating: None,
        genres: Vec::new(),
        year: None,
        language: None,
        kind: None,
        duration_ms: DURATION_MS,
        root: ObjectPath::new(format!("/titles/{}", Digest::of(id.as_str().as_bytes()))).expect("a path"),
        fingerprint: Digest::of(format!("source of {id}").as_bytes()),
        hls: paths[0].into(),
        dash: paths[1].into(),
        poster: paths[2].into(),
        storyboard: paths[3].into(),
        renditions: vec![Rendition {
            id: "v".into(),
            media: Media::Video { width: 1280, height: 720, frame_rate: 25.0 },
            codecs: "avc1.64001f".into(),
            bits_per_second_peak: 3_000_000,
            bits_per_second_mean: 2_000_000,
            playlist: paths[4].into(),
            init: paths[5].into(),
            segments: vec![Segment { path: paths[6].into(), start_ms: 0, duration_ms: DURATION_MS }],
        }],
        objects: paths.into_iter().map(object).collect(),
        id: id.clone(),
    }
}

fn write_keys(folder: &Path, key: &Ed25519KeyPair) {
    let x = BASE64_URL_SAFE_NO_PAD.encode(key.public_key());
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "id", "alg": "EdDSA", "use": "sig" });
    fs::write(folder.join("viewers.jwks"), json!({ "keys": [jwk] }).to_string()).expect("writes");
}

fn token(key: &Ed25519KeyPair, user: &str) -> String {
    let part = |json: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let now_s = now_ms() / 1000;
    let claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": user, "iat": now_s, "exp": now_s + 86_400 });
    let message = format!("{}.{}", part(json!({ "typ": "JWT", "alg": "EdDSA", "kid": "id" })), part(claims));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).as_ref());
    format!("{message}.{signature}")
}
