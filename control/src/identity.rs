//! Who asks: viewers by tokens that others issue, operators by tokens with roles, edges by their shared secret.
//!
//! Knows no routes and no answers: what a caller may do is said where it is done (`api`). Whatever stands after `Bearer` is
//! somebody's or is refused; nobody is taken for somebody because a check could not be made.

pub(crate) mod address;
pub(crate) mod fetch;
pub(crate) mod jwks;
pub(crate) mod jwt;
pub(crate) mod operators;
pub(crate) mod user;
pub(crate) mod viewers;

use std::sync::Arc;

use http::HeaderMap;
use wire::secret::{Expected, Presented};

use self::{
    jwt::BadToken,
    operators::{Operator, Operators},
    user::UserId,
    viewers::Viewers,
};

/// Everyone who can be recognised.
pub(crate) struct Identity {
    pub(crate) operators: Operators,
    pub(crate) edge_secret: Expected,
    /// None where no tokens of viewers are taken.
    pub(crate) viewers: Option<Arc<Viewers>>,
    /// Whether whoever says nothing of himself may read what viewers may.
    pub(crate) is_open: bool,
}

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    Viewer(UserId),
    Operator(Operator),
    Edge,
    /// Says nothing of himself.
    Nobody,
    /// Says that he is somebody, and is not believed.
    Stranger(BadToken),
}

impl Identity {
    /// Who sends these headers.
    pub(crate) async fn caller(&self, headers: &HeaderMap, now_unix_s: i64) -> Caller {
        let Some(presented) = Presented::of(headers) else { return Caller::Nobody };
        if let Some(operator) = self.operators.find(&presented) {
            return Caller::Operator(operator.clone());
        }
        if self.edge_secret.is(&presented) {
            return Caller::Edge;
        }
        let Some(viewers) = &self.viewers else { return Caller::Stranger(BadToken::NotTaken) };
        let Ok(token) = str::from_utf8(presented.bytes()) else { return Caller::Stranger(BadToken::Malformed) };
        match viewers.check(token, presented.digest(), now_unix_s).await {
            Ok(user) => Caller::Viewer(user),
            Err(bad) => Caller::Stranger(bad),
        }
    }
}
