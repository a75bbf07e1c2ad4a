//! `[viewers]` and `[[operators]]`: whom control recognises, and by what.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use wire::config::Document;

use super::duration;
pub use crate::identity::{
    jwt::Rules,
    operators::{NoRole, NotAName, OperatorName, Role},
};

/// The most operators: each is compared with whatever secret is presented.
const OPERATORS_MAX: usize = 64;
/// The bounds of `viewers.clock_skew`.
const CLOCK_SKEW: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(600));

/// Whose tokens make a viewer.
#[derive(Debug, Clone)]
pub struct ViewersConfig {
    /// Where the keys are that verify them.
    pub keys: KeySource,
    /// What they must say.
    pub rules: Rules,
}

/// Where a JWK set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file of this machine.
    File(PathBuf),
}

/// An operator besides the one of `operator_token_file`.
#[derive(Debug, Clone)]
pub struct OperatorConfig {
    /// What the audit log calls him.
    pub name: OperatorName,
    /// What he may do.
    pub role: Role,
    /// The file with his secret.
    pub token_file: PathBuf,
}

pub(super) fn viewers(doc: &mut Document) -> Option<ViewersConfig> {
    const TEXTS: &str = "a text";
    let file = doc.optional::<String>("viewers.jwks_file", "the path of a file");
    let issuers = doc.list::<String>("viewers.issuers", TEXTS);
    let audiences = doc.list::<String>("viewers.audiences", TEXTS);
    let clock_skew = duration(doc, "viewers.clock_skew", Duration::from_secs(60), CLOCK_SKEW);
    let profile_claim = doc.optional::<String>("viewers.profile_claim", "the name of a claim");
    let keys = KeySource::File(file?.into());
    // RFC 8725 §3.8 and §3.9: what is not made for us, by whom we trust, is not for us.
    for (key, given) in [("viewers.issuers", &issuers), ("viewers.audiences", &audiences)] {
        if given.is_empty() {
            doc.problem(key, "at least one, as there is a key set");
        }
    }
    Some(ViewersConfig { keys, rules: Rules { issuers, audiences, clock_skew: clock_skew?, profile_claim } })
}

pub(super) fn operators(doc: &mut Document) -> Vec<OperatorConfig> {
    let tables = doc.tables("operators", "a table with name, role and token_file");
    if tables.len() > OPERATORS_MAX {
        doc.problem("operators", format!("at most {OPERATORS_MAX}"));
    }
    let mut names = HashSet::from([OperatorName::of_the_first()]);
    let mut operators = Vec::new();
    for table in tables {
        let key = format!("{table}.name");
        let name = doc.value::<OperatorName>(&key, None, "1 to 64 of A-Z, a-z, 0-9, '.', '_', '-' and '@'");
        let role = doc.value::<Role>(&format!("{table}.role"), None, "\"viewer\", \"operator\" or \"admin\"");
        let token_file = doc.value::<String>(&format!("{table}.token_file"), None, "the path of a file");
        if name.as_ref().is_some_and(|name| !names.insert(name.clone())) {
            doc.problem(&key, "a name that no other operator has (the one of operator_token_file is called \"operator\")");
        }
        if let (Some(name), Some(role), Some(token_file)) = (name, role, token_file) {
            operators.push(OperatorConfig { name, role, token_file: token_file.into() });
        }
    }
    operators
}
