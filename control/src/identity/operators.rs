//! Operators: each has a name, a role and a secret token. Who may do what is the API's business.

use std::{fmt, str::FromStr, sync::Arc};

use wire::secret::{Expected, Presented};

/// What an operator may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Looks at everything that operators may see.
    Viewer,
    /// Changes the catalogue and the fleet.
    Operator,
    /// Sees who did what, and deletes people's data.
    Admin,
}

impl Role {
    /// As it stands in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(name: &str) -> Result<Self, NoRole> {
        [Self::Viewer, Self::Operator, Self::Admin].into_iter().find(|role| role.name() == name).ok_or(NoRole)
    }
}

/// Not the name of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is viewer, operator or admin")]
pub struct NoRole;

/// An operator's name: 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-' and '@'. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperatorName(Arc<str>);

impl OperatorName {
    /// The operator of `operator_token_file`.
    pub(crate) fn of_the_first() -> Self {
        Self("operator".into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for OperatorName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
        if (1..=64).contains(&text.len()) && text.bytes().all(is_plain) { Ok(Self(text.into())) } else { Err(NotAName) }
    }
}

/// Not an operator's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an operator's name is 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-' and '@'")]
pub struct NotAName;

/// An operator who was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operator {
    pub(crate) name: OperatorName,
    pub(crate) role: Role,
}

/// All operators.
pub(crate) struct Operators(Vec<(Operator, Expected)>);

impl Operators {
    pub(crate) fn new(operators: Vec<(Operator, Expected)>) -> Self {
        Self(operators)
    }

    /// The operator whose secret this is. All are compared, so that the time says nothing about which.
    pub(crate) fn find(&self, presented: &Presented<'_>) -> Option<&Operator> {
        self.0.iter().fold(None, |found, (operator, expected)| if expected.is(presented) { Some(operator) } else { found })
    }
}
