//! Lists and positions: what memory has, over live rows, over packed ones.
//!
//! Knows no clock and no SQL. A page goes on after a place, not after a number of lines: what comes, goes or is packed meanwhile shifts
//! nothing.

use std::{cmp::Reverse, collections::HashMap, fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use wire::title::TitleId;

use super::{
    mark::{Mark, Opinion},
    memory::Edits,
    view::{View, joined},
};
use crate::db::{DbError, Viewer};

/// How many marks are read at once.
const MARKS_MAX: usize = 1000;
/// What JSON numbers carry exactly (RFC 8259 §6).
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// A place in a list, newest first: a time and a title, together unique in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) ms: u64,
    pub(crate) title: TitleId,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(format!("{}.{}", self.ms, self.title)))
    }
}

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NotAPlace)?;
        let (ms, title) = str::from_utf8(&bytes).ok().and_then(|text| text.split_once('.')).ok_or(NotAPlace)?;
        let ms = ms.parse().ok().filter(|ms| *ms <= NUMBER_MAX).ok_or(NotAPlace)?;
        Ok(Self { ms, title: title.parse().map_err(|_| NotAPlace)? })
    }
}

/// Not a cursor that a list gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a cursor that this list gave; take the last answer's nextCursor as it is, or begin without one")]
pub(crate) struct NotAPlace;

/// Whether `place` comes after `after` in a list.
fn is_after(place: (u64, &TitleId), after: Option<&Place>) -> bool {
    after.is_none_or(|after| place < (after.ms, &after.title))
}

/// The view in which she stopped, of one title. `edits` are of that title.
pub(crate) fn stopped(viewer: &Viewer<'_>, edits: Edits, title: &TitleId) -> Result<Option<View>, DbError> {
    let mut views = edits.views;
    if edits.forgotten_ms.is_none() {
        views.extend(viewer.views_of(title)?);
        let last_ms = views.iter().map(|view| view.last_ms).max().unwrap_or(0);
        for pack in viewer.packs(last_ms)?.iter().filter(|pack| pack.may_have(title)) {
            views.extend(viewer.unpacked(pack)?.into_iter().filter(|view| view.title == *title));
        }
    }
    Ok(latest(views))
}

/// The one whose last event wins.
pub(crate) fn latest(views: Vec<View>) -> Option<View> {
    views.into_iter().reduce(|mut latest, view| {
        if (view.last(), &view.device) > (latest.last(), &latest.device) {
            latest = view;
        }
        latest
    })
}

/// Up to `limit` views, by when they began, the newest first, after `after`.
pub(crate) fn history(
    viewer: &Viewer<'_>,
    edits: Edits,
    after: Option<&Place>,
    limit: usize,
    gap_ms: u64,
) -> Result<Vec<View>, DbError> {
    let mut parts = edits.views;
    let mut packs = Vec::new();
    if edits.forgotten_ms.is_none() {
        parts.extend(viewer.views()?);
        packs = viewer.packs(0)?;
    }
    let newest_first = |views: &mut Vec<View>| views.sort_by(|a, b| (b.begun_ms, &b.title).cmp(&(a.begun_ms, &a.title)));
    let is_wanted = |view: &View| is_after((view.begun_ms, &view.title), after);

    // What is packed does not touch what is packed elsewhere; it may touch what came late and is not packed yet.
    for pack in packs.extract_if(.., |pack| parts.iter().any(|view| pack.may_touch(view, gap_ms))).collect::<Vec<_>>() {
        parts.extend(viewer.unpacked(&pack)?);
    }
    let mut views = joined(parts, gap_ms);
    views.retain(is_wanted);
    newest_first(&mut views);
    packs.sort_by_key(|pack| Reverse(pack.last_begun_ms));
    for pack in packs {
        let is_full = limit.checked_sub(1).is_none_or(|last| views.get(last).is_some_and(|v| v.begun_ms > pack.last_begun_ms));
        if is_full {
            break;
        }
        if after.is_none_or(|after| pack.first_begun_ms <= after.ms) {
            views.extend(viewer.unpacked(&pack)?.into_iter().filter(is_wanted));
            newest_first(&mut views);
        }
    }
    views.truncate(limit);
    Ok(views)
}

/// Of each title that was watched since then the view in which she stopped, the newest first, after `after`. Hidden ones are left out.
pub(crate) fn stopped_since(
    viewer: &Viewer<'_>,
    edits: Edits,
    after: Option<&Place>,
    since_ms: u64,
) -> Result<Vec<View>, DbError> {
    let mut hidden: HashMap<TitleId, u64> = HashMap::new();
    let mut hide = |mark: &Mark| {
        if mark.hidden_ms > 0 {
            let hidden_ms = hidden.entry(mark.title.clone()).or_default();
            *hidden_ms = mark.hidden_ms.max(*hidden_ms);
        }
    };
    let mut parts = edits.views;
    edits.marks.iter().for_each(&mut hide);
    if edits.forgotten_ms.is_none() {
        parts.extend(viewer.views()?);
        for pack in viewer.packs(since_ms)? {
            parts.extend(viewer.unpacked(&pack)?);
        }
        all_marks(viewer, |mark| hide(&mark))?;
    }
    let mut latest: HashMap<TitleId, View> = HashMap::new();
    for view in parts {
        match latest.get_mut(&view.title) {
            Some(there) if (there.last(), &there.device) >= (view.last(), &view.device) => {}
            Some(there) => *there = view,
            None => drop(latest.insert(view.title.clone(), view)),
        }
    }
    let is_wanted = |view: &View| {
        view.last_ms >= since_ms
            && is_after((view.last_ms, &view.title), after)
            && hidden.get(&view.title).is_none_or(|hidden_ms| *hidden_ms < view.last_ms)
    };
    let mut views: Vec<_> = latest.into_values().filter(is_wanted).collect();
    views.sort_by(|a, b| (b.last_ms, &b.title).cmp(&(a.last_ms, &a.title)));
    Ok(views)
}

/// Up to `limit` titles of which she has this opinion, the newest first, after `after`.
pub(crate) fn opinions(
    viewer: &Viewer<'_>,
    edits: Edits,
    opinion: Opinion,
    after: Option<&Place>,
    limit: usize,
) -> Result<Vec<Mark>, DbError> {
    let is_forgotten = edits.forgotten_ms.is_some();
    let mut marks = match is_forgotten {
        true => Vec::new(),
        // As many more as memory may take out.
        false => viewer.marks_newest(opinion, after.map(|after| (after.ms, &after.title)), limit + edits.marks.len())?,
    };
    for mut mark in edits.marks {
        marks.retain(|there| there.title != mark.title);
        if !is_forgotten && let Some(there) = viewer.mark(&mark.title)? {
            mark.join(&there);
        }
        if mark.opinion == opinion && is_after((mark.opinion_ms, &mark.title), after) {
            marks.push(mark);
        }
    }
    marks.sort_by(|a, b| (b.opinion_ms, &b.title).cmp(&(a.opinion_ms, &a.title)));
    marks.truncate(limit);
    Ok(marks)
}

/// What she thinks of one title. `edits` are of that title.
pub(crate) fn opinion(viewer: &Viewer<'_>, edits: Edits, title: &TitleId) -> Result<Mark, DbError> {
    let mut mark = Mark::none(title.clone());
    edits.marks.iter().for_each(|edit| mark.join(edit));
    if edits.forgotten_ms.is_none()
        && let Some(there) = viewer.mark(title)?
    {
        mark.join(&there);
    }
    Ok(mark)
}

/// All that is kept of a viewer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Everything {
    /// The newest first.
    pub(crate) views: Vec<View>,
    /// By title.
    pub(crate) marks: Vec<Mark>,
}

/// All that is kept of a viewer.
pub(crate) fn everything(viewer: &Viewer<'_>, edits: Edits, gap_ms: u64) -> Result<Everything, DbError> {
    let mut marks = edits.marks.clone();
    if edits.forgotten_ms.is_none() {
        all_marks(viewer, |mark| {
            super::mark::fold(&mut marks, mark);
        })?;
    }
    marks.sort_by(|a, b| a.title.cmp(&b.title));
    Ok(Everything { views: history(viewer, edits, None, usize::MAX, gap_ms)?, marks })
}

fn all_marks(viewer: &Viewer<'_>, mut each: impl FnMut(Mark)) -> Result<(), DbError> {
    let mut after = None;
    loop {
        let marks = viewer.marks(after.as_ref(), MARKS_MAX)?;
        let Some(last) = marks.last() else { return Ok(()) };
        after = Some(last.title.clone());
        marks.into_iter().for_each(&mut each);
    }
}
