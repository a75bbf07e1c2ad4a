//! What an operator's tool tells an edge to do, on the edge's own address for operators, and what comes back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::object::{ObjectPath, PATH_BYTES_MAX};

/// The longest tag, in bytes.
const TAG_BYTES_MAX: usize = 1024;

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

impl What {
    /// Whether it can name anything.
    pub fn check(&self) -> Result<(), NamesNothing> {
        let wrong = |why: String| Err(NamesNothing(why));
        match self {
            Self::All => Ok(()),
            Self::Object(path) => match ObjectPath::new(path.as_str()) {
                Ok(_) => Ok(()),
                Err(error) => wrong(format!("{path:?} names no object: {error}")),
            },
            Self::Prefix(prefix) if prefix.starts_with('/') && prefix.len() <= PATH_BYTES_MAX => Ok(()),
            Self::Prefix(prefix) => {
                wrong(format!("{prefix:?} begins no path: a prefix begins with a slash and has at most {PATH_BYTES_MAX} bytes"))
            }
            Self::Tag(tag) if !tag.is_empty() && tag.len() <= TAG_BYTES_MAX => Ok(()),
            Self::Tag(_) => wrong(format!("a tag has 1 to {TAG_BYTES_MAX} bytes")),
        }
    }
}

/// What is to be purged names nothing; says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NamesNothing(String);

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

    #[test]
    fn what_names_nothing_is_told_apart() {
        let told = |what: What| what.check().map_err(|error| error.to_string());
        for good in [What::Object("/a/1.m4s".into()), What::Prefix("/a/".into()), What::Tag("film".into()), What::All] {
            assert_eq!(told(good), Ok(()));
        }
        assert_eq!(told(What::Object("a".into())), Err("\"a\" names no object: a path begins with a slash".into()));
        for (bad, why) in [
            (What::Object("/a/".into()), "\"/a/\" names no object: "),
            (What::Prefix("a/".into()), "\"a/\" begins no path: "),
            (What::Tag(String::new()), "a tag has "),
            (What::Tag("x".repeat(1025)), "a tag has "),
        ] {
            assert!(told(bad).unwrap_err().starts_with(why), "{why}");
        }
    }
}
