//! Bringing bytes to the cache. One source so far: the origin.

mod head;
mod origin;

pub(crate) use origin::Origin;
