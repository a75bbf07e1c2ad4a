//! Who shares which rate: all that one token is sent, and all that players are sent. Neither is capped unless the operator or the token says so.
//!
//! A token's bearer is its subject where it names one, so that a renewed token is the same bearer's, and otherwise the token itself.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use wire::token::Grant;

use crate::http::{Cap, Counters, Gate};

/// Bearers whose use is known at once. Those that have asked for nothing of late make room; if nobody has, newcomers are not held to their cap.
const BEARERS_MAX: usize = 65_536;
/// How often it is looked for such at most: all are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The caps of an edge.
pub(crate) struct Caps {
    token_bits_per_second: Option<u64>,
    site: Option<Arc<Gate>>,
    bearers: Mutex<Bearers>,
    hasher: RandomState,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Bearers {
    /// By a hash that nobody can foresee. Two that have the same, should that ever happen, share a rate.
    gates: HashMap<u64, Bearer>,
    swept: Option<Instant>,
}

struct Bearer {
    gate: Arc<Gate>,
    bits_per_second: u64,
}

impl Caps {
    pub(crate) fn new(token_bits_per_second: Option<u64>, site_bits_per_second: Option<u64>, counters: Arc<Counters>) -> Self {
        let site = site_bits_per_second.map(|rate| Arc::new(Gate::new(rate, Cap::Site, counters.clone())));
        Self { token_bits_per_second, site, bearers: Mutex::default(), hasher: RandomState::new(), counters }
    }

    /// The most that what `grant` is for may be sent, all together.
    pub(crate) fn of_token(&self, grant: &Grant) -> Option<u64> {
        match (grant.bits_per_second_max(), self.token_bits_per_second) {
            (Some(own), Some(all)) => Some(own.min(all)),
            (own, all) => own.or(all),
        }
    }

    /// What an answer to it has to pass; nothing, mostly. `token` is what was presented for it.
    pub(crate) fn gates(&self, grant: &Grant, token: Option<&str>) -> Option<Vec<Arc<Gate>>> {
        // Nobody bears what is open to all.
        let bearer = token.filter(|_| !grant.is_open_path()).map(|token| grant.subject().unwrap_or(token));
        let own = match (bearer, self.of_token(grant)) {
            (Some(bearer), Some(bits_per_second)) => self.bearer(bearer, bits_per_second, Instant::now()),
            _ => None,
        };
        if own.is_none() && self.site.is_none() {
            return None;
        }
        Some(own.into_iter().chain(self.site.clone()).collect())
    }

    fn bearer(&self, bearer: &str, bits_per_second: u64, now: Instant) -> Option<Arc<Gate>> {
        let key = self.hasher.hash_one(bearer);
        let mut bearers = self.bearers.lock();
        if let Some(known) = bearers.gates.get_mut(&key) {
            if known.bits_per_second != bits_per_second {
                known.bits_per_second = bits_per_second;
                known.gate.retune(bits_per_second);
            }
            return Some(known.gate.clone());
        }
        if !bearers.has_room(now) {
            return None;
        }
        let gate = Arc::new(Gate::new(bits_per_second, Cap::Token, self.counters.clone()));
        bearers.gates.insert(key, Bearer { gate: gate.clone(), bits_per_second });
        Some(gate)
    }
}

impl Bearers {
    fn has_room(&mut self, now: Instant) -> bool {
        if self.gates.len() < BEARERS_MAX {
            return true;
        }
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP_EVERY) {
            return false;
        }
        self.swept = Some(now);
        // Whose gate is as new is forgotten without loss, unless a body still is to pass it.
        self.gates.retain(|_, bearer| Arc::strong_count(&bearer.gate) > 1 || !bearer.gate.is_fresh(now));
        self.gates.len() < BEARERS_MAX
    }
}

#[cfg(test)]
mod tests {
    use wire::{
        object::ObjectPath,
        token::{Algorithm, Claims, KeySet, Rules, SigningKey, Verifier, find, in_path, sign},
    };

    use super::*;

    const MBIT: u64 = 1_000_000;

    struct Signer {
        key: SigningKey,
        verifier: Verifier,
    }

    impl Signer {
        fn new() -> Self {
            let key = SigningKey::generate(Algorithm::EdDsa, "k").expect("a key");
            let jwks = serde_json::json!({ "keys": [key.public_jwk()] }).to_string();
            let verifier = Verifier::new(KeySet::from_jwks(&jwks).expect("keys"), Rules::default());
            Self { key, verifier }
        }

        /// A token and its grant. `number` tells apart tokens that say the same.
        fn grant(&self, subject: Option<&str>, rate: Option<u64>, number: u64) -> (Grant, String) {
            let root = ObjectPath::new("/t").expect("a path");
            let mut claims = Claims { sub: subject.map(Into::into), iat: Some(number), ..Claims::for_tree(&root, 1_000_000) };
            if let Some(rate) = rate {
                claims.extensions.insert(wire::token::RATE_CLAIM.into(), rate.into());
            }
            let token = sign(&self.key, &claims).expect("signs");
            let target = in_path("", &token, &ObjectPath::new("/t/a").expect("a path"));
            let presented = find("https", "edge", &target, std::iter::empty()).expect("found").presented.expect("a token");
            let grant = self.verifier.check(&presented, [192, 0, 2, 1].into(), 999).expect("good");
            (grant, token)
        }
    }

    fn gates(caps: &Caps, (grant, token): &(Grant, String)) -> Option<Vec<Arc<Gate>>> {
        caps.gates(grant, Some(token))
    }

    fn same(one: &[Arc<Gate>], other: &[Arc<Gate>]) -> bool {
        one.len() == other.len() && one.iter().zip(other).all(|(one, other)| Arc::ptr_eq(one, other))
    }

    #[test]
    fn nothing_is_in_the_way_unless_somebody_says_so() {
        let signer = Signer::new();
        let none = Caps::new(None, None, Arc::default());
        assert!(gates(&none, &signer.grant(Some("a"), None, 1)).is_none());
        assert!(none.gates(&Grant::open_path(), None).is_none());
        let site = Caps::new(None, Some(MBIT), Arc::default());
        let (one, two) = (signer.grant(None, None, 1), signer.grant(None, None, 2));
        assert!(same(&gates(&site, &one).expect("a gate"), &gates(&site, &two).expect("a gate")));
        assert_eq!(site.gates(&Grant::open_path(), Some("a.b.c")).expect("the site's").len(), 1);
        let token = Caps::new(Some(MBIT), None, Arc::default());
        assert!(token.gates(&Grant::open_path(), Some("a.b.c")).is_none(), "nobody's");
    }

    #[test]
    fn a_bearer_is_a_subject_or_else_a_token() {
        let signer = Signer::new();
        let caps = Caps::new(Some(4 * MBIT), Some(100 * MBIT), Arc::default());
        let of = |subject, number| gates(&caps, &signer.grant(subject, None, number)).expect("gates");
        assert_eq!(of(None, 1).len(), 2);
        assert!(same(&of(None, 1), &of(None, 1)) && !same(&of(None, 1), &of(None, 2)));
        assert!(same(&of(Some("anna"), 1), &of(Some("anna"), 2)), "a renewed token");
        assert!(!same(&of(Some("anna"), 1), &of(Some("bert"), 1)));
    }

    #[test]
    fn the_smaller_cap_of_token_and_operator_holds() {
        let signer = Signer::new();
        let caps = Caps::new(Some(4 * MBIT), None, Arc::default());
        for (own, expected) in [(None, 4), (Some(3 * MBIT), 3), (Some(5 * MBIT), 4)] {
            assert_eq!(caps.of_token(&signer.grant(None, own, 1).0), Some(expected * MBIT), "{own:?}");
        }
        let none = Caps::new(None, None, Arc::default());
        assert_eq!(none.of_token(&signer.grant(None, Some(3 * MBIT), 1).0), Some(3 * MBIT));
        assert_eq!(gates(&none, &signer.grant(None, Some(3 * MBIT), 1)).expect("a gate").len(), 1);
    }

    #[test]
    fn bearers_who_ask_for_nothing_make_room_and_newcomers_without_room_are_let_through() {
        let caps = Caps::new(Some(MBIT), None, Arc::default());
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let kept = caps.bearer("kept", MBIT, at(0)).expect("room");
        for number in 1..BEARERS_MAX {
            caps.bearer(&number.to_string(), MBIT, at(0)).expect("room");
        }
        let new = caps.bearer("new", MBIT, at(1)).expect("all but one are as if they were new");
        assert_eq!(caps.bearers.lock().gates.len(), 2);
        assert!(Arc::ptr_eq(&kept, &caps.bearer("kept", MBIT, at(1)).expect("known")), "a body is to pass it");
        let held: Vec<_> = (0..BEARERS_MAX).filter_map(|number| caps.bearer(&number.to_string(), MBIT, at(2))).collect();
        assert_eq!(held.len(), BEARERS_MAX - 2);
        assert!(caps.bearer("late", MBIT, at(1500)).is_none());
        drop((held, new));
        assert!(caps.bearer("late", MBIT, at(1600)).is_none(), "not looked for so soon");
        assert!(caps.bearer("late", MBIT, at(2500)).is_some());
    }
}
