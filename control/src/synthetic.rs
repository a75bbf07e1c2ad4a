//! Made-up titles and viewers, put where control will find them: for benchmarks, which cannot wait until a million people have watched.
//!
//! A viewer watches something about every second evening: three in five views are the next episode of a series, on one of three devices.
//! What is old is packed by the code that packs, from a thousand different viewers, and then copied under the others' names; the newest
//! views are rows of each viewer's own.

use std::{path::Path, sync::Arc};

use wire::title::{Title, TitleId};

use crate::{
    db::{Db, DbError, Due, Viewer},
    identity::user::UserId,
    viewers::{
        pack::{PackHead, pack, period_of},
        view::{Device, View, joined},
    },
};

const DAY_MS: u64 = 86_400_000;
/// How many viewers differ in what is packed of them.
const DIFFERENT: u64 = 1000;
/// Users in one transaction.
const BATCH: u64 = 2000;

/// Whom to make up.
#[derive(Debug, Clone)]
pub struct Crowd {
    pub users: u64,
    /// What they watch.
    pub titles: Arc<[TitleId]>,
    /// Views that are rows.
    pub live_views: u64,
    /// Views that are packed.
    pub packed_views: u64,
    /// The newest view of anyone.
    pub now_ms: u64,
}

/// What a view takes on disk, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Weight {
    /// As a row.
    pub live: f64,
    /// In a pack, its part of the row that has the pack included.
    pub packed: f64,
    /// Its part of the pack alone.
    pub pack: f64,
}

/// The name of a made-up user.
pub fn user_name(n: u64) -> String {
    // As long as what identity providers have, and not in the order in which people come.
    format!("{:016x}-{n:08}", mix(n))
}

/// The title that a made-up user watched last.
pub fn latest_title(crowd: &Crowd, n: u64) -> TitleId {
    let views = views(&crowd.titles, n, crowd.live_views, crowd.now_ms);
    views.last().map_or_else(|| crowd.titles[0].clone(), |view| view.title.clone())
}

/// Catalogues `titles` in the database of a control that does not run.
pub async fn catalogue(state_dir: &Path, titles: Vec<Title>) -> Result<(), String> {
    let db = open(state_dir)?;
    for title in titles {
        db.put_title(title, 1000, None).await.map_err(text)?;
    }
    Ok(())
}

/// Puts a crowd into the database of a control that does not run.
pub async fn viewers(state_dir: &Path, crowd: Crowd) -> Result<(), String> {
    let db = open(state_dir)?;
    let live_from_ms = crowd.now_ms - crowd.live_views * 2 * DAY_MS;
    let packs: Vec<_> = (0..DIFFERENT.min(crowd.users)).map(|n| packs(&crowd, n, live_from_ms)).collect();
    let (crowd, packs) = (Arc::new(crowd), Arc::new(packs));
    // In the order of names, as pages are filled best.
    let mut order: Vec<(String, u64)> = (0..crowd.users).map(|n| (user_name(n), n)).collect();
    order.sort_unstable();
    let order = Arc::new(order);
    for batch in (0..order.len()).step_by(BATCH as usize) {
        let (crowd, packs, order) = (Arc::clone(&crowd), Arc::clone(&packs), Arc::clone(&order));
        let done = db.change_viewers(move |viewers| {
            for (name, n) in order.iter().skip(batch).take(BATCH as usize) {
                let user: UserId = name.parse().map_err(|error| DbError::Damaged { what: "name", why: format!("{error}") })?;
                let viewer = viewers.viewer(&user);
                let live = views(&crowd.titles, *n, crowd.live_views, crowd.now_ms);
                put_live(&viewer, &live)?;
                put_packs(&viewer, &packs[(*n % packs.len() as u64) as usize])?;
            }
            Ok(())
        });
        done.await.map_err(text)?;
    }
    Ok(())
}

/// Weighs what views take, by one crowd that is all rows and one that is all packs.
pub async fn weigh(state_dir: &Path, crowd: Crowd) -> Result<Weight, String> {
    let views = (crowd.users * (crowd.live_views + crowd.packed_views)) as f64;
    let each = |live_views: u64, packed_views: u64| Crowd { live_views, packed_views, ..crowd.clone() };
    let total = crowd.live_views + crowd.packed_views;
    let (rows, packed) = (state_dir.join("rows"), state_dir.join("packs"));
    for dir in [&rows, &packed] {
        std::fs::create_dir_all(dir).map_err(text)?;
    }
    viewers(&rows, each(total, 0)).await?;
    viewers(&packed, each(0, total)).await?;
    let weighed = async |dir: &Path, sql: &'static str| open(dir)?.weigh(sql).await.map_err(text);
    let live = weighed(&rows, "SELECT sum(pgsize) FROM dbstat WHERE name = 'views'").await?;
    let all = weighed(&packed, "SELECT sum(pgsize) FROM dbstat WHERE name = 'view_packs'").await?;
    let pack = weighed(&packed, "SELECT sum(length(data)) FROM view_packs").await?;
    Ok(Weight { live: live / views, packed: all / views, pack: pack / views })
}

fn open(state_dir: &Path) -> Result<Db, String> {
    Db::open(&state_dir.join("control.db")).map_err(text)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// A number that looks like none before it (the finaliser of SplitMix64).
const fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The views of a user, the oldest first; the newest is about `now_ms`.
fn views(titles: &[TitleId], user: u64, count: u64, now_ms: u64) -> Vec<View> {
    let devices: [Device; 3] = ["living room", "phone", "web"].map(|name| name.parse().expect("a name"));
    let series = mix(user) as usize % titles.len();
    let one = |n: u64| {
        let random = mix(user.wrapping_mul(1_000_003) ^ (n << 40));
        // Small numbers are watched by most.
        let popular = (random >> 32) as f64 / f64::from(u32::MAX);
        let film = (popular * popular * (titles.len() - 1) as f64) as usize;
        let title = if random.is_multiple_of(5) || random % 5 == 1 { film } else { (series + n as usize / 2) % titles.len() };
        let begun_ms = now_ms - (count - n) * 2 * DAY_MS + random % (5 * 3_600_000);
        let lasted_ms = 600_000 + (random >> 20) % 6_000_000;
        let position_ms = lasted_ms.saturating_sub((random >> 50) % 60_000);
        let further_ms = if random.is_multiple_of(10) { 45_000 } else { 0 };
        View {
            title: titles[title].clone(),
            begun_ms,
            last_ms: begun_ms + lasted_ms,
            position_ms,
            furthest_ms: position_ms + further_ms,
            device: Some(devices[(random >> 8) as usize % devices.len()].clone()),
        }
    };
    (0..count).map(one).collect()
}

/// What of a user is packed: it ends when what is live begins.
fn packs(crowd: &Crowd, user: u64, live_from_ms: u64) -> Vec<(PackHead, Vec<u8>)> {
    let mut views = joined(views(&crowd.titles, user, crowd.packed_views, live_from_ms), 4 * 3_600_000);
    let mut packs = Vec::new();
    while let Some(view) = views.first() {
        let period = period_of(view.begun_ms);
        packs.extend(pack(period, views.extract_if(.., |view| period_of(view.begun_ms) == period).collect()));
    }
    packs
}

fn put_live(viewer: &Viewer<'_>, views: &[View]) -> Result<(), DbError> {
    let mut views = views.to_vec();
    views.sort_by(|a, b| (&a.title, a.begun_ms).cmp(&(&b.title, b.begun_ms)));
    for view in &views {
        viewer.put_view(view)?;
    }
    let mut periods: Vec<u64> = views.iter().map(|view| period_of(view.begun_ms)).collect();
    periods.sort_unstable();
    for same in periods.chunk_by(|a, b| a == b) {
        viewer.note_due(Due::Packing, same[0], same.len() as u64)?;
    }
    Ok(())
}

fn put_packs(viewer: &Viewer<'_>, packs: &[(PackHead, Vec<u8>)]) -> Result<(), DbError> {
    for (head, data) in packs {
        viewer.put_pack(head, data)?;
    }
    for same in packs.chunk_by(|(a, _), (b, _)| a.period == b.period) {
        viewer.note_due(Due::Dropping, same[0].0.period, same.len() as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the decision on what viewers do says of them.
    #[tokio::test]
    async fn a_view_takes_as_few_bytes_as_is_said() {
        let titles =
            (0..10_000).map(|n| format!("the-night-agent-{}-s01e{:02}", n / 10, n % 10).parse().expect("an id")).collect();
        let crowd = Crowd { users: 200, titles, live_views: 15, packed_views: 85, now_ms: 660 * 30 * DAY_MS };
        let dir = tempfile::tempdir().expect("a directory");
        let weight = weigh(dir.path(), crowd).await.expect("views are weighed");
        println!("{weight:.1?}");
        assert!(weight.live < 140.0 && weight.packed < 50.0 && weight.pack < 30.0, "{weight:?}");
    }
}
