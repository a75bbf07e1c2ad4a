//! What passes between the tiers of Larder: plain types and their rules, no I/O, no async, no clock.
//!
//! Every tier imports this crate and none imports another, so a shape that two tiers must agree on stands here once.

pub mod config;
pub mod content;
pub mod lines;
pub mod object;
pub mod operate;
pub mod placement;
pub mod range;
pub mod report;
pub mod secret;
pub mod title;
pub mod token;
