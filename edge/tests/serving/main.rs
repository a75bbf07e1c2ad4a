//! The whole edge, with real sockets on both sides: players that ask, an origin that answers as it is told to, a control that listens.

mod admin;
mod control;
mod drain;
mod faults;
mod handover;
mod lies;
mod objects;
mod open;
mod origin;
mod pacing;
mod parts;
mod ssd;
mod stampede;
mod support;
mod tokens;
