//! From memory to the database, and there from live rows to packs: what becomes of one user's rows in one transaction.
//!
//! Knows no clock and no SQL. Everything here may be done again: the same edits make the same rows.

use super::{
    mark::Mark,
    memory::{Edits, forgotten_id},
    pack::{pack, period_of},
    view::{self, fold},
};
use crate::{
    db::{DbError, Due, Viewer, Viewers},
    identity::user::UserId,
};

/// Live views of one period above which they are packed before it is over.
const LIVE_VIEWS_MAX: u64 = 1000;

/// Adds a user's edits to her rows. Says in which periods she has too many live views now.
pub(crate) fn settle(viewers: &Viewers<'_>, user: &UserId, edits: Edits, gap_ms: u64) -> Result<Vec<u64>, DbError> {
    let viewer = viewers.viewer(user);
    if let Some(at_ms) = edits.forgotten_ms {
        viewer.erase()?;
        viewers.put_forgotten(&forgotten_id(user), at_ms)?;
    }
    let mut crowded = Vec::new();
    for part in edits.views {
        let before = viewer.views_of(&part.title)?;
        let mut after = before.clone();
        fold(&mut after, part, gap_ms);
        for gone in before.iter().filter(|view| !after.iter().any(|other| other.begun_ms == view.begun_ms)) {
            viewer.remove_view(&gone.title, gone.begun_ms)?;
        }
        for view in after.iter().filter(|view| !before.contains(view)) {
            viewer.put_view(view)?;
            let period = period_of(view.begun_ms);
            let is_new = !before.iter().any(|other| other.begun_ms == view.begun_ms);
            if is_new && viewer.note_due(Due::Packing, period, 1)? >= LIVE_VIEWS_MAX {
                crowded.push(period);
            }
        }
    }
    for mark in edits.marks {
        let mut joined = viewer.mark(&mark.title)?.unwrap_or_else(|| Mark::none(mark.title.clone()));
        joined.join(&mark);
        viewer.put_mark(&joined)?;
    }
    crowded.dedup();
    Ok(crowded)
}

/// Packs the live views of one period that ended before `ended_before_ms`. Says how many those were.
///
/// No two packed views touch, so those that the new ones may touch are packed anew with them, their whole periods at once.
pub(crate) fn pack_period(viewer: &Viewer<'_>, period: u64, ended_before_ms: u64, gap_ms: u64) -> Result<u64, DbError> {
    let live: Vec<_> = viewer.views()?.into_iter().filter(|view| period_of(view.begun_ms) == period).collect();
    let (ended, going_on): (Vec<_>, Vec<_>) = live.into_iter().partition(|view| view.last_ms < ended_before_ms);
    if !ended.is_empty() {
        let packs = viewer.packs(0)?;
        let touched = packs.iter().filter(|pack| ended.iter().any(|view| pack.may_touch(view, gap_ms)));
        let mut periods: Vec<u64> = touched.map(|pack| pack.period).chain([period]).collect();
        periods.sort_unstable();
        periods.dedup();
        let mut views = ended.clone();
        for pack in packs.iter().filter(|pack| periods.contains(&pack.period)) {
            views.extend(viewer.unpacked(pack)?);
        }
        let mut views = view::joined(views, gap_ms);
        for period in periods {
            viewer.remove_packs(period)?;
            viewer.remove_due(Due::Dropping, period)?;
            let of_period: Vec<_> = views.extract_if(.., |view| period_of(view.begun_ms) == period).collect();
            if !of_period.is_empty() {
                viewer.note_due(Due::Dropping, period, of_period.len() as u64)?;
            }
            for (head, data) in pack(period, of_period) {
                viewer.put_pack(&head, &data)?;
            }
        }
        assert!(views.is_empty(), "a joined view begins when one of its parts does");
        for view in &ended {
            viewer.remove_view(&view.title, view.begun_ms)?;
        }
    }
    viewer.remove_due(Due::Packing, period)?;
    if !going_on.is_empty() {
        viewer.note_due(Due::Packing, period, going_on.len() as u64)?;
    }
    Ok(ended.len() as u64)
}

/// Drops a user's packs of one period: they are older than history is kept.
pub(crate) fn drop_period(viewer: &Viewer<'_>, period: u64) -> Result<(), DbError> {
    viewer.remove_packs(period)?;
    viewer.remove_due(Due::Dropping, period)
}
