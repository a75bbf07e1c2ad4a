//! A player without a screen: playback → multivariant playlist → media playlists → every segment of the best picture and of the
//! sound, over HTTP/3, every byte held against what the origin published.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use edge::http::Protocol;
use http::HeaderMap;
use m3u8_rs::{AlternativeMediaType, MasterPlaylist, MediaPlaylist};
use serde::Serialize;
use wire::{object::ObjectPath, title::Title};

use crate::{
    api::PlaybackEdge,
    client::{Answer, Client, Target, Trust},
    commands::fetch::{millis, percentile},
};

/// A playlist that is larger is none.
const PLAYLIST_BYTES_MAX: usize = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// One playing of a whole title.
#[derive(Debug, Serialize)]
pub(super) struct Pass {
    /// Where each object's first bytes came from, by the edge's own word (`Cache-Status`).
    #[serde(flatten)]
    pub(super) from: Tiers,
    /// Objects that were fetched, and media segments among them.
    pub(super) requests: u64,
    pub(super) segments: u64,
    pub(super) bytes: u64,
    /// Objects that are not, byte for byte, what the origin published.
    pub(super) mismatches: u64,
    pub(super) ttfb_ms_p50: f64,
    pub(super) total_ms: f64,
    #[serde(skip)]
    pub(super) ttfbs: Vec<Duration>,
    /// What is wrong with the mismatches.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) complaints: Vec<String>,
}

/// How many objects came from where.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Tiers {
    pub(super) ram: u64,
    pub(super) ssd: u64,
    pub(super) peer: u64,
    pub(super) origin: u64,
}

impl Tiers {
    /// Counts what the edge says: a hit is from RAM unless its detail names another tier, a forward to the origin unless its
    /// detail names a peer (RFC 9211 §2).
    fn count(&mut self, cache_status: &str) {
        let mut words = cache_status.split(';').skip(1).map(str::trim);
        let is_hit = words.clone().any(|word| word == "hit");
        let detail = words.find_map(|word| word.strip_prefix("detail=")).unwrap_or_default().trim_matches('"');
        match (is_hit, detail) {
            (true, detail) if detail.starts_with("ssd") => self.ssd += 1,
            (true, _) => self.ram += 1,
            (false, detail) if detail.starts_with("peer") => self.peer += 1,
            (false, _) => self.origin += 1,
        }
    }
}

/// Plays `title` from `edge`, which reaches its viewers with a certificate of the authority in `ca`.
pub(super) async fn play(title: &Title, edge: &PlaybackEdge, ca: &Path) -> anyhow::Result<Pass> {
    let start = Instant::now();
    let tls = Trust::File(ca).tls()?;
    let client = Client::connect(Protocol::Http3, &Target::parse(&edge.hls)?, None, &tls, PATIENCE).await?;
    let mut player = Player::new(title, client);

    let multivariant = player.text(&edge.hls).await?;
    let (_, multivariant) =
        m3u8_rs::parse_master_playlist(&multivariant).map_err(|_| anyhow!("{} is not a multivariant playlist", edge.hls))?;
    for playlist in chosen(&multivariant)? {
        let url = join(&edge.hls, playlist);
        let media = player.text(&url).await?;
        let (_, media) = m3u8_rs::parse_media_playlist(&media).map_err(|_| anyhow!("{url} is not a media playlist"))?;
        player.segments(&url, &media).await?;
    }
    Ok(player.finish(start.elapsed()))
}

/// The media playlists of the best picture and of the sound that goes with it.
fn chosen(multivariant: &MasterPlaylist) -> anyhow::Result<Vec<&str>> {
    let variants = multivariant.variants.iter().filter(|variant| !variant.is_i_frame);
    let best = variants.max_by_key(|variant| variant.bandwidth).context("the multivariant playlist has no variant")?;
    let mut playlists = vec![best.uri.as_str()];
    if let Some(group) = &best.audio {
        let mut sounds = multivariant
            .alternatives
            .iter()
            .filter(|media| media.media_type == AlternativeMediaType::Audio && media.group_id == *group);
        let default = sounds.clone().find(|media| media.default);
        playlists.extend(default.or_else(|| sounds.next()).and_then(|media| media.uri.as_deref()));
    }
    Ok(playlists)
}

/// What is fetched so far, and by what it is judged.
struct Player<'a> {
    title: &'a Title,
    published: HashMap<&'a str, &'a wire::title::TitleObject>,
    client: Client,
    from: Tiers,
    answers: Vec<Answer>,
    segments: u64,
    complaints: Vec<String>,
}

impl<'a> Player<'a> {
    fn new(title: &'a Title, client: Client) -> Self {
        let published = title.objects.iter().map(|object| (object.path.as_str(), object)).collect();
        Self { title, published, client, from: Tiers::default(), answers: Vec::new(), segments: 0, complaints: Vec::new() }
    }

    async fn text(&mut self, url: &str) -> anyhow::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.get(url, Some(&mut text)).await?;
        Ok(text)
    }

    async fn segments(&mut self, playlist_url: &str, playlist: &MediaPlaylist) -> anyhow::Result<()> {
        ensure!(!playlist.segments.is_empty(), "{playlist_url} has no segment");
        for segment in &playlist.segments {
            if let Some(map) = &segment.map {
                self.get(&join(playlist_url, &map.uri), None).await?;
            }
            self.get(&join(playlist_url, &segment.uri), None).await?;
            self.segments += 1;
        }
        Ok(())
    }

    async fn get(&mut self, url: &str, mut keep: Option<&mut Vec<u8>>) -> anyhow::Result<()> {
        let sink = |piece: &bytes::Bytes, _| {
            if let Some(text) = &mut keep {
                ensure!(text.len() + piece.len() <= PLAYLIST_BYTES_MAX, "it is longer than a playlist may be");
                text.extend_from_slice(piece);
            }
            Ok(())
        };
        let answer = self.client.get(&Target::parse(url)?, HeaderMap::new(), sink).await.with_context(|| url.to_owned())?;
        ensure!(answer.status.is_success(), "the edge answers {} to {url}", answer.status);
        self.from.count(answer.cache_status.as_deref().with_context(|| format!("no Cache-Status came with {url}"))?);
        self.judge(url, &answer);
        self.answers.push(answer);
        Ok(())
    }

    fn judge(&mut self, url: &str, answer: &Answer) {
        let path = below(&self.title.root, url);
        let complaint = match path.and_then(|path| self.published.get(path)) {
            None => "the origin published no such object".to_owned(),
            Some(object) if object.digest == answer.digest && object.bytes == answer.bytes => return,
            Some(object) => {
                format!("{} bytes of {} came, digest {} instead of {}", answer.bytes, object.bytes, answer.digest, object.digest)
            }
        };
        self.complaints.push(format!("{}: {complaint}", path.unwrap_or(url)));
    }

    fn finish(self, took: Duration) -> Pass {
        let mut ttfbs: Vec<_> = self.answers.iter().map(|answer| answer.ttfb).collect();
        ttfbs.sort_unstable();
        Pass {
            from: self.from,
            requests: self.answers.len() as u64,
            segments: self.segments,
            bytes: self.answers.iter().map(|answer| answer.bytes).sum(),
            mismatches: self.complaints.len() as u64,
            ttfb_ms_p50: percentile(&ttfbs, 50).map_or(0.0, millis),
            total_ms: millis(took),
            ttfbs,
            complaints: self.complaints,
        }
    }
}

/// The part of a URL below a title's root.
fn below<'u>(root: &ObjectPath, url: &'u str) -> Option<&'u str> {
    let path = url.split(['?', '#']).next()?;
    path.split_once(root.as_str())?.1.strip_prefix('/')
}

/// Resolves a playlist's relative reference (RFC 3986 §5.2, without the dot segments that our playlists never have).
fn join(base: &str, reference: &str) -> String {
    let base = base.split(['?', '#']).next().unwrap_or(base);
    let host_end = base.find("://").and_then(|scheme| base[scheme + 3..].find('/').map(|slash| scheme + 3 + slash));
    match (reference, host_end) {
        (reference, _) if reference.contains("://") => reference.to_owned(),
        (reference, Some(end)) if reference.starts_with('/') => format!("{}{reference}", &base[..end]),
        _ => format!("{}{reference}", &base[..base.rfind('/').map_or(base.len(), |slash| slash + 1)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_resolve_as_in_a_player() {
        let base = "https://edge:1/token/titles/x/master.m3u8?a=/b";
        assert_eq!(join(base, "v720/playlist.m3u8"), "https://edge:1/token/titles/x/v720/playlist.m3u8");
        assert_eq!(join(base, "/other"), "https://edge:1/other");
        assert_eq!(join(base, "https://else/where"), "https://else/where");
        let root = ObjectPath::new("/titles/x").unwrap();
        assert_eq!(below(&root, base), Some("master.m3u8"));
        assert_eq!(below(&root, "https://edge:1/token/titles/xy/a"), None);
    }

    #[test]
    fn an_edges_word_says_where_bytes_came_from() {
        let mut tiers = Tiers::default();
        for said in [
            "edge-a; hit; ttl=300",
            "edge-a; hit; detail=ssd",
            "edge-a; fwd=uri-miss; fwd-status=206; stored",
            "edge-a; fwd=uri-miss; detail=\"peer edge-b\"",
            "edge-a; fwd=uri-miss; collapsed",
        ] {
            tiers.count(said);
        }
        assert_eq!(tiers, Tiers { ram: 1, ssd: 1, peer: 1, origin: 2 });
    }
}
