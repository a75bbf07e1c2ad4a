//! What an edge and control tell each other: an edge registers, then opens one stream to control (`POST /fleet/edges/{edge}/stream`) on which both
//! speak, a message a line, each line one JSON object.
//!
//! Either side may be the newer one: members that it does not know are passed over, messages that it does not know are [`Up::Unknown`] and
//! [`Down::Unknown`], and a command that an edge does not know is refused and not lost. What has come since a release has a default.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{content, operate::What};

/// The version of what is spoken on the stream. It grows when a peer that does not know the new would do something wrong.
pub const PROTOCOL: u32 = 1;
/// The media type of the stream, both ways.
pub const MEDIA_TYPE: &str = "application/x-ndjson";
/// The longest line that control takes from an edge, in bytes: a content digest is the longest message.
pub const UP_LINE_BYTES_MAX: usize = 1 << 20;
/// The longest line that an edge takes from control.
pub const DOWN_LINE_BYTES_MAX: usize = 128 << 10;
/// The most prefixes that one edge announces.
pub const PREFIXES_MAX: usize = 50_000;
/// Whoever hears nothing for so many of the agreed intervals takes the stream for broken.
pub const SILENT_INTERVALS_MAX: u32 = 3;

/// Registers an edge (`PUT /fleet/edges/{edge}`): who it is and where players reach it. Repeating it is harmless.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// Edges of one site share prefixes and a hash.
    pub site: String,
    /// Where players reach it: scheme, host and port, no path (`https://edge1.example:443`).
    pub url: String,
    /// The version of Larder it runs.
    pub version: String,
    /// The networks whose players its site serves first; at most [`PREFIXES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<IpNet>,
}

/// How an edge does; an edge whose reports stop leaves the rankings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub health: Health,
    /// Connections open now, all protocols, and the most that it takes.
    pub connections: u64,
    #[serde(default)]
    pub connections_max: Option<u64>,
    /// How much of what it can do it does now.
    #[serde(default)]
    pub load: Load,
    /// Since the edge started: requests answered, and body bytes sent to players.
    pub requests: u64,
    pub bytes_sent: u64,
    /// Since the edge started: body bytes from RAM and from SSD, and body bytes brought from the origin.
    pub bytes_ram: u64,
    #[serde(default)]
    pub bytes_ssd: u64,
    pub bytes_filled: u64,
    /// RAM budget, and how much of it is in use.
    pub ram_bytes_max: u64,
    pub ram_bytes: u64,
    /// What the devices that serve can hold.
    #[serde(default)]
    pub ssd_bytes_max: u64,
    /// Of the slices that were wanted in the last minute.
    #[serde(default)]
    pub hit_ratios: HitRatios,
    /// Devices of the SSD tier, and how many of them were given up.
    #[serde(default)]
    pub devices: u64,
    #[serde(default)]
    pub devices_off: u64,
}

/// How busy an edge is.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Bits of bodies sent to players each second, over the last few seconds.
    pub bits_per_second: u64,
    /// The most that it can send: as configured, or else as measured; `None` while that is not known.
    pub bits_per_second_max: Option<u64>,
    /// The part of their time that the serving threads were running, over the last few seconds, from 0 to 1. `None` where the system does not tell.
    pub cpu_share: Option<f64>,
}

/// Which tiers slices came from, as shares from 0 to 1; the rest came from the origin. `None` while nothing was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct HitRatios {
    pub ram: Option<f64>,
    pub ssd: Option<f64>,
}

/// What an edge says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Takes viewers.
    Ready,
    /// Finishes what it has, takes nobody new.
    Draining,
    /// Something that a newer edge says. Nobody is sent there.
    #[serde(other)]
    Unknown,
}

impl Report {
    /// How busy the edge is: the largest of what it sends against what it can send, the time of its threads, and its connections against its limit. From 0;
    /// 1 is as much as it can do.
    pub fn busy(&self) -> f64 {
        let share = |now: u64, max: Option<u64>| max.filter(|max| *max > 0).map_or(0.0, |max| now as f64 / max as f64);
        let Load { bits_per_second, bits_per_second_max, cpu_share } = self.load;
        let shares = [
            share(bits_per_second, bits_per_second_max),
            cpu_share.unwrap_or(0.0),
            share(self.connections, self.connections_max),
        ];
        // What is no number is not the largest.
        shares.into_iter().fold(0.0, f64::max)
    }
}

/// A message from an edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Up {
    /// The first one.
    Hello { protocol: u32, version: String },
    /// Every few seconds, and when its health changes; also tells that it is alive.
    Report(Report),
    /// What it holds, when that has changed much, and not often.
    Content(content::Digest),
    /// The command with this number was carried out, or why not.
    Done {
        id: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// What a newer edge says.
    #[serde(other)]
    Unknown,
}

/// A message from control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Down {
    /// The first one: which version answers, how long after one report it expects the next at the latest, and whether operators want the edge
    /// to take nobody new.
    Hello {
        protocol: u32,
        version: String,
        report_every_ms: u64,
        #[serde(default)]
        is_drained: bool,
    },
    /// Nothing, said so that silence means a broken stream.
    Beat,
    /// To be carried out and answered with [`Up::Done`]. Commands come in the order of their numbers; one that was not answered comes again on the
    /// next stream.
    Command { id: u64, command: Command },
    /// Another stream of this edge was opened, and this one ends.
    Replaced,
    /// What a newer control says.
    #[serde(other)]
    Unknown,
}

/// What an edge is told to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "camelCase")]
pub enum Command {
    /// Forget what it has of these.
    Purge { purge: Vec<What> },
    /// Take nobody new, until told otherwise.
    Drain,
    /// Take viewers again.
    Undrain,
}

/// The number of a command of which no more than that is understood, so that it can be refused.
pub fn command_id(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Numbered {
        id: u64,
    }
    serde_json::from_slice(line).ok().map(|Numbered { id }| id)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json, to_value};

    use super::*;

    fn report() -> Value {
        json!({ "health": "ready", "connections": 3, "requests": 1, "bytesSent": 2, "bytesRam": 3, "bytesFilled": 4, "ramBytesMax": 5, "ramBytes": 6 })
    }

    #[test]
    fn a_report_of_an_older_edge_lacks_what_it_does_not_know() {
        let old: Report = from_value(report()).unwrap();
        assert_eq!((old.connections_max, old.load, old.devices_off), (None, Load::default(), 0));
        assert!(old.busy().abs() < f64::EPSILON, "what is not told is not busy");
    }

    #[test]
    fn what_a_newer_peer_says_is_passed_over() {
        let mut newer = report();
        newer["health"] = json!("resting");
        newer["moonPhase"] = json!({ "full": true });
        assert_eq!(from_value::<Report>(newer).unwrap().health, Health::Unknown);
        assert_eq!(from_value::<Up>(json!({ "type": "song", "text": "la" })).unwrap(), Up::Unknown);
        assert_eq!(from_value::<Down>(json!({ "type": "plan", "id": 1 })).unwrap(), Down::Unknown);
        let site = json!({ "site": "s", "url": "https://e", "version": "9", "colour": "red" });
        assert_eq!(from_value::<Registration>(site).unwrap().prefixes, []);
    }

    #[test]
    fn a_command_that_is_not_known_can_be_refused_by_its_number() {
        let line = br#"{"type":"command","id":17,"command":{"name":"dance"}}"#;
        assert!(serde_json::from_slice::<Down>(line).is_err());
        assert_eq!(command_id(line), Some(17));
        assert_eq!(command_id(br#"{"type":"beat"}"#), None);
        assert_eq!(command_id(b"no JSON"), None);
    }

    #[test]
    fn messages_are_lines_of_json() {
        let down = Down::Command { id: 7, command: Command::Purge { purge: vec![What::Prefix("/a/".into()), What::All] } };
        let json = json!({ "type": "command", "id": 7, "command": { "name": "purge", "purge": [{ "prefix": "/a/" }, "all"] } });
        assert_eq!((to_value(&down).unwrap(), from_value::<Down>(json.clone()).unwrap()), (json, down));
        let hello = Down::Hello { protocol: 1, version: "1".into(), report_every_ms: 3000, is_drained: true };
        let json = json!({ "type": "hello", "protocol": 1, "version": "1", "reportEveryMs": 3000, "isDrained": true });
        assert_eq!(to_value(&hello).unwrap(), json);
        let up = Up::Report(from_value(report()).unwrap());
        assert_eq!(to_value(&up).unwrap()["type"], "report");
        assert_eq!(from_value::<Up>(to_value(&up).unwrap()).unwrap(), up);
        assert_eq!(to_value(Up::Done { id: 7, error: None }).unwrap(), json!({ "type": "done", "id": 7 }));
        assert_eq!(to_value(Down::Command { id: 8, command: Command::Drain }).unwrap()["command"], json!({ "name": "drain" }));
    }

    #[test]
    fn an_edge_is_as_busy_as_what_is_scarcest() {
        let of = |bits, bits_max, cpu_share, connections| Report {
            load: Load { bits_per_second: bits, bits_per_second_max: bits_max, cpu_share },
            connections,
            connections_max: Some(100),
            ..from_value(report()).unwrap()
        };
        for (report, busy) in [
            (of(500, Some(1000), Some(0.2), 10), 0.5),
            (of(500, None, Some(0.2), 10), 0.2),
            (of(500, Some(0), None, 95), 0.95),
            (of(2000, Some(1000), Some(0.2), 10), 2.0),
            (of(100, Some(1000), Some(f64::NAN), 20), 0.2),
        ] {
            assert!((report.busy() - busy).abs() < 1e-9, "{report:?}");
        }
    }
}
