//! The SSD tier as readers and flights see it: the engine, or, in tests, a double that can be held back.

use std::{ops::Range, sync::Arc};

use crate::{
    Generation,
    disk::{self, Disk, Loaded, Offer, Planned},
    slab::{Permit, Slab},
};

/// The SSD tier.
#[derive(Clone)]
pub(crate) enum Ssd {
    Engine(Arc<Disk>),
    #[cfg(test)]
    Double(Arc<crate::tests::disk::Double>),
}

/// Where a slice may be.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Engine(disk::Place),
    #[cfg(test)]
    Double,
}

/// A slice of an object.
#[derive(Clone, Copy)]
pub(crate) struct SliceName<'a> {
    pub(crate) key: &'a str,
    pub(crate) index: u64,
}

impl Ssd {
    /// See [`Disk::find`].
    pub(crate) fn find(&self, slice: SliceName<'_>) -> Option<Place> {
        match self {
            Self::Engine(disk) => disk.find(slice.key, slice.index).map(Place::Engine),
            #[cfg(test)]
            Self::Double(double) => double.find(slice).then_some(Place::Double),
        }
    }

    /// See [`Disk::used`].
    pub(crate) fn used(&self, slice: SliceName<'_>) {
        match self {
            Self::Engine(disk) => disk.used(slice.key, slice.index),
            #[cfg(test)]
            Self::Double(double) => double.used(slice),
        }
    }

    /// See [`Disk::contains`].
    pub(crate) fn contains(&self, slice: SliceName<'_>) -> bool {
        match self {
            Self::Engine(disk) => disk.contains(slice.key, slice.index),
            #[cfg(test)]
            Self::Double(double) => double.contains(slice),
        }
    }

    /// See [`Disk::may_hold`].
    pub(crate) fn may_hold(&self, key: &str) -> bool {
        match self {
            Self::Engine(disk) => disk.may_hold(key),
            #[cfg(test)]
            Self::Double(double) => double.may_hold(key),
        }
    }

    /// See [`Disk::load`].
    pub(crate) async fn load(
        &self,
        slice: SliceName<'_>,
        place: Place,
        expected: Option<&Generation>,
        permit: Permit,
    ) -> Option<Loaded> {
        match (self, place) {
            (Self::Engine(disk), Place::Engine(place)) => disk.load(slice.key, slice.index, place, expected, permit).await,
            #[cfg(test)]
            (Self::Double(double), _) => double.load(slice, expected, permit).await,
            #[cfg(test)]
            (Self::Engine(_), Place::Double) => None,
        }
    }

    /// See [`Disk::load_part`].
    pub(crate) async fn load_part(
        &self,
        slice: SliceName<'_>,
        place: Place,
        expected: &Generation,
        range: Range<usize>,
        permit: Permit,
    ) -> Option<(Arc<Slab>, usize)> {
        match (self, place) {
            (Self::Engine(disk), Place::Engine(place)) => {
                disk.load_part(slice.key, slice.index, place, expected, range, permit).await
            }
            #[cfg(test)]
            (Self::Double(double), _) => double.load_part(slice, expected, range, permit).await,
            #[cfg(test)]
            (Self::Engine(_), Place::Double) => None,
        }
    }

    /// See [`Disk::is_planned`].
    pub(crate) fn is_planned(&self, slice: SliceName<'_>) -> Option<bool> {
        match self {
            Self::Engine(disk) => disk.is_planned(slice.key, slice.index),
            #[cfg(test)]
            Self::Double(double) => double.is_planned(slice),
        }
    }

    /// See [`Disk::plan`].
    pub(crate) async fn plan(&self, key: &Arc<str>, index: u64, generation: &Arc<Generation>) -> Planned {
        match self {
            Self::Engine(disk) => disk.plan(key, index, generation).await,
            #[cfg(test)]
            Self::Double(double) => double.plan(SliceName { key, index }, generation),
        }
    }

    /// See [`Disk::sees_all`].
    pub(crate) fn sees_all(&self) -> bool {
        match self {
            Self::Engine(disk) => disk.sees_all(),
            #[cfg(test)]
            Self::Double(_) => true,
        }
    }

    /// See [`Disk::room`].
    pub(crate) async fn room(&self, bytes: u64) {
        match self {
            Self::Engine(disk) => disk.room(bytes).await,
            #[cfg(test)]
            Self::Double(_) => {}
        }
    }

    /// See [`Disk::offer`].
    pub(crate) fn offer(&self, offer: Offer) {
        match self {
            // What is refused is counted there.
            Self::Engine(disk) => _ = disk.offer(offer),
            #[cfg(test)]
            Self::Double(double) => double.offer(offer),
        }
    }
}
