//! How a request comes to a ranking: who asks, from where, for which title, and what edges hold of it.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Instant};

use wire::{
    placement::{Key, Popularity},
    title::Media,
};

use super::{App, now_unix_ms, problem::Problem};
use crate::{
    catalogue::Entry,
    db::DbError,
    fleet::files::{Files, Numbered},
    manifest::Pathway,
    playback::Pass,
    session::{PATHWAYS_MAX, Session},
    steering::{
        Wanted,
        decide::{Content, Explanation, Miss, Ranking},
        record::Decision,
    },
    view::{Seen, View},
};

/// Edges for a title, best first.
pub(super) struct Ranked {
    view: Arc<View>,
    ranking: Ranking,
}

impl Ranked {
    /// The edges, best first.
    pub(super) fn edges(&self) -> impl Iterator<Item = &Seen> {
        // One whose address is not known any more is of no use.
        self.ranking.edges.iter().map(|at| &self.view.edges[*at]).filter(|edge| !edge.url.is_empty())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.edges().next().is_none()
    }

    /// The nearest site.
    pub(super) fn home(&self) -> Option<String> {
        let home = self.ranking.home?;
        self.view.snapshot.sites().nth(home).map(|site| site.name.to_string())
    }

    /// Why the first edge is elsewhere, if it is.
    pub(super) fn miss(&self) -> Option<Miss> {
        self.ranking.miss
    }

    /// A session that begins with this ranking, good for as long as `pass` is.
    pub(super) fn session(&self, entry: &Entry, session: u64, pass: &Pass<'_>) -> Session {
        Session {
            id: session,
            title: entry.summary.id.clone(),
            root: key(entry),
            expires_unix_s: pass.expires_unix_s,
            at_unix_ms: now_unix_ms(),
            home: self.home(),
            miss: self.miss(),
            pathways: self.edges().take(PATHWAYS_MAX).map(|edge| edge.id.clone()).collect(),
        }
    }
}

/// A title, as placement has it.
pub(super) fn key(entry: &Entry) -> Key {
    Key::of(entry.root.as_str().as_bytes())
}

fn wanted(app: &App, entry: &Entry, client: IpAddr, session: u64) -> Wanted {
    // Loopback addresses are in nobody's prefix, and nowhere.
    let address = (!client.is_loopback()).then_some(client);
    let popularity =
        app.activity.shares().get(&entry.summary.id).map_or(Popularity::NONE, |share| Popularity::billionths(*share));
    Wanted { address, title: key(entry), popularity, session: Key::of(&session.to_be_bytes()) }
}

/// Ranks edges for a client. A decision with which a session begins is recorded.
pub(super) async fn rank(app: &App, entry: &Entry, client: IpAddr, session: u64, is_new: bool) -> Result<Ranked, Problem> {
    let view = app.views.now(&app.steering, &app.fleet);
    let files = files(app, entry, &view).await?;
    let content = content_of(entry, &view, files.as_deref());
    let wanted = wanted(app, entry, client, session);
    let now = Instant::now();
    let recorder = app.recorder.as_ref().filter(|recorder| is_new && recorder.wants(wanted.session.as_u64()));
    let Some(recorder) = recorder else {
        let ranking = app.steering.decide(&wanted, &view.snapshot, now, content);
        return Ok(Ranked { view, ranking });
    };
    let now_ms = now_unix_ms();
    let (ranking, decision) = app
        .steering
        .survey(&wanted, &view.snapshot, now, content, |question, ranking, known| Decision::of(question, known, ranking, now_ms));
    recorder.record(&view.snapshot, app.steering.rules(), now, now_ms, decision);
    Ok(Ranked { view, ranking })
}

/// What becomes of every edge for a client, and the fleet in which.
pub(super) async fn explain(app: &App, entry: &Entry, client: IpAddr, session: u64) -> Result<(Arc<View>, Explanation), Problem> {
    let view = app.views.now(&app.steering, &app.fleet);
    let files = files(app, entry, &view).await?;
    let content = content_of(entry, &view, files.as_deref());
    let explanation = app.steering.explain(&wanted(app, entry, client, session), &view.snapshot, Instant::now(), content);
    Ok((view, explanation))
}

/// Whether an edge, by its place, holds the title; asked of each edge once.
fn content_of(entry: &Entry, view: &View, files: Option<&Files>) -> impl FnMut(usize) -> Content {
    let title = key(entry);
    let mut answers = HashMap::new();
    move |edge| {
        *answers.entry(edge).or_insert_with(|| match (&view.edges[edge].contents, files) {
            (Some(contents), Some(files)) => contents.of(title, files),
            _ => Content::Unknown,
        })
    }
}

/// The names of the title's segments; none where no edge says what it holds, so that nobody asks for them.
async fn files(app: &App, entry: &Entry, view: &View) -> Result<Option<Arc<Files>>, DbError> {
    if view.edges.iter().all(|edge| edge.contents.is_none()) {
        return Ok(None);
    }
    let read = async {
        let video = entry.renditions.iter().filter(|rendition| matches!(rendition.media, Media::Video { .. }));
        let ends = app.db.segment_ends(entry.summary.id.clone(), video.map(|rendition| rendition.id.clone()).collect()).await?;
        let path = |path: &str| format!("{}/{path}", entry.root);
        let numbered = ends.into_iter().filter_map(|(first, last, count)| Numbered::of(&path(&first), &path(&last), count));
        Ok(Some(Arc::new(Files::new(numbered.collect()))))
    };
    app.files.find_or(&entry.root, read).await
}

/// The edges of a ranking as players use them.
pub(super) fn pathways<'a>(edges: impl Iterator<Item = &'a Seen>, pass: &'a Pass<'a>) -> Vec<Pathway<'a>> {
    edges.map(|edge| Pathway { id: &edge.id, base: &edge.url, pass }).collect()
}

/// The edges of a session's playlist that are still there, at their present addresses.
pub(super) fn base<'a>(view: &'a View, session: &'a Session, pass: &'a Pass<'a>) -> Vec<Pathway<'a>> {
    let known = session.pathways.iter().filter_map(|id| view.edge(id.as_str())).filter(|edge| !edge.url.is_empty());
    pathways(known, pass)
}
