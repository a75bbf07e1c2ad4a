//! What an edge tells control about itself: once when it registers, then every few seconds.

use serde::{Deserialize, Serialize};

/// Registers an edge (`PUT /fleet/edges/{edge}`): who it is and where players reach it. Repeating it is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registration {
    /// Edges of one site share prefixes and a hash.
    pub site: String,
    /// Where players reach it: scheme, host and port, no path (`https://edge1.example:443`).
    pub url: String,
    /// The version of Larder it runs.
    pub version: String,
}

/// Sent every few seconds (`POST /fleet/edges/{edge}/reports`); an edge whose reports stop leaves the rankings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    pub health: Health,
    /// Connections open now, all protocols.
    pub connections: u64,
    /// Since the edge started: requests answered, and body bytes sent to players.
    pub requests: u64,
    pub bytes_sent: u64,
    /// Since the edge started: body bytes from RAM, and body bytes brought from the origin.
    pub bytes_ram: u64,
    pub bytes_filled: u64,
    /// RAM budget, and how much of it is in use.
    pub ram_bytes_max: u64,
    pub ram_bytes: u64,
}

/// What an edge says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Takes viewers.
    Ready,
    /// Finishes what it has, takes nobody new.
    Draining,
}
