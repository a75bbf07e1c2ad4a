//! What an operator's tool tells an edge to do, on the edge's own address for operators, and what comes back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Forgets what the edge has of these (`POST /cache/purge`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purge {
    /// One after the other; at least one.
    pub purge: Vec<What>,
}

/// What to forget: `{"object": "/a/1"}`, `{"prefix": "/a/"}`, `{"tag": "film"}` or `"all"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The object with this path.
    Object(String),
    /// All objects whose paths begin so.
    Prefix(String),
    /// All objects that came with this tag (`Cache-Tag` or `Surrogate-Key`).
    Tag(String),
    /// Everything.
    All,
}

/// Takes a device back that was given up (`POST /cache/devices/restore`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// As it is configured.
    pub device: PathBuf,
}

/// A line of what a verification says (`POST /cache/verify`); the last one is [`Step::Verified`], or it was broken off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// How far it is, in bytes.
    Progress {
        /// Read so far.
        bytes: u64,
        /// In all; may still grow.
        bytes_max: u64,
    },
    /// What was found.
    Verified(Verified),
}

/// What a verification of all devices found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Segments that were read.
    pub segments: u64,
    /// Slices that are right.
    pub slices: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// All that is wrong.
    pub fault_count: u64,
    /// The first of it, a line each.
    pub faults: Vec<String>,
}

/// Why an edge did not do what it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// A sentence for the operator.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_purge_is_plain_json() {
        let purge = vec![What::Object("/a/1".into()), What::Prefix("/a/".into()), What::Tag("film".into()), What::All];
        let json = r#"{"purge":[{"object":"/a/1"},{"prefix":"/a/"},{"tag":"film"},"all"]}"#;
        assert_eq!(serde_json::to_string(&Purge { purge: purge.clone() }).unwrap(), json);
        assert_eq!(serde_json::from_str::<Purge>(json).unwrap(), Purge { purge });
        for wrong in
            [r#"{}"#, r#"{"purge":["everything"]}"#, r#"{"purge":[],"more":1}"#, r#"{"purge":[{"object":"/a","tag":"b"}]}"#]
        {
            assert!(serde_json::from_str::<Purge>(wrong).is_err(), "{wrong}");
        }
    }
}
