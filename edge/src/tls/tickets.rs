//! Session tickets (RFC 8446 §4.6.1, RFC 5077) under keys that all edges of a site make from one secret, so a player who moves to another
//! edge of the site shakes hands with it as with a friend: no certificate, no signature.
//!
//! Keys come from the secret and from the time, by HKDF (RFC 5869), so edges exchange nothing and keep nothing. A ticket is the name of its
//! key, 16 bytes, a nonce, 12 bytes, and the session, sealed by AES-256-GCM-SIV (RFC 8452): edges that draw nonces by chance cannot know
//! which were drawn elsewhere, and with this one two that are the same give away no more than that two sessions are.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
};
use rustls::server::ProducesTickets;
use wire::secret::Secret;

/// How long a key seals. It opens tickets for one period more, and for one before, for the sake of edges whose clocks are ahead.
const PERIOD_S: u64 = 6 * 60 * 60;
/// The shortest secret, in characters: whoever guesses it reads what it protects.
pub(super) const SECRET_CHARS_MIN: usize = 32;
const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;
/// The longest session that is sealed and the longest ticket that is looked at, in bytes; ours have some hundred.
const TICKET_BYTES_MAX: usize = 4096;
/// Sets these keys apart from whatever else is made of the same secret.
const PURPOSE: &[u8] = b"larder edge session tickets 1";

/// Makes tickets and takes them back.
pub(super) struct Tickets(ArcSwap<Keys>);

impl Tickets {
    pub(super) fn new(secret: &Secret) -> Self {
        Self(ArcSwap::from_pointee(Keys::of(root(secret), period(now_unix_s()))))
    }

    /// From now on keys come from this secret; tickets under another's are not taken any more.
    pub(super) fn change(&self, secret: &Secret) {
        self.0.store(Arc::new(Keys::of(root(secret), period(now_unix_s()))));
    }

    fn sealed(&self, session: &[u8], now_unix_s: u64) -> Option<Vec<u8>> {
        let key = &self.keys(now_unix_s).current;
        if session.len() > TICKET_BYTES_MAX / 2 {
            return None;
        }
        let mut sealed = session.to_vec();
        let nonce = key.cipher.seal_in_place_append_tag(Aad::from(key.name), &mut sealed).ok()?;
        Some([&key.name[..], nonce.as_ref(), &sealed].concat())
    }

    fn opened(&self, ticket: &[u8], now_unix_s: u64) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let keys = self.keys(now_unix_s);
        // A name is no secret: it stands in clear in every ticket.
        let key = [&keys.current, &keys.previous, &keys.next].into_iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let opened = key.cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(key.name), &mut sealed).ok()?;
        Some(opened.to_vec())
    }

    /// The keys of the moment.
    fn keys(&self, now_unix_s: u64) -> Arc<Keys> {
        let keys = self.0.load_full();
        if keys.period == period(now_unix_s) {
            return keys;
        }
        let fresh = Arc::new(Keys::of(keys.root.clone(), period(now_unix_s)));
        // Not over those of a secret that was changed meanwhile.
        self.0.compare_and_swap(&keys, fresh.clone());
        fresh
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    /// A ticket that is sealed at the end of a period is good for one more.
    fn lifetime(&self) -> u32 {
        PERIOD_S as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.sealed(plain, now_unix_s())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.opened(cipher, now_unix_s())
    }
}

/// Without keys.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

/// The keys of a period and of those beside it.
struct Keys {
    root: Prk,
    period: u64,
    previous: Key,
    current: Key,
    next: Key,
}

impl Keys {
    fn of(root: Prk, period: u64) -> Self {
        let key = |period| Key::of(&root, period);
        let (previous, current, next) = (key(period.wrapping_sub(1)), key(period), key(period.wrapping_add(1)));
        Self { root, period, previous, current, next }
    }
}

struct Key {
    name: [u8; NAME_BYTES],
    cipher: RandomizedNonceKey,
}

impl Key {
    fn of(root: &Prk, period: u64) -> Self {
        let mut bytes = [0; NAME_BYTES + KEY_BYTES];
        let info = [&period.to_be_bytes()[..]];
        root.expand(&info, Both).and_then(|made| made.fill(&mut bytes)).expect("HKDF makes up to 8160 bytes");
        let (name, key) = bytes.split_first_chunk().expect("longer than a name");
        let cipher = RandomizedNonceKey::new(&AES_256_GCM_SIV, key).expect("the length of its keys");
        Self { name: *name, cipher }
    }
}

/// What is made for a period: a name and a key.
struct Both;

impl KeyType for Both {
    fn len(&self) -> usize {
        NAME_BYTES + KEY_BYTES
    }
}

fn root(secret: &Secret) -> Prk {
    Salt::new(HKDF_SHA256, PURPOSE).extract(secret.in_clear().as_bytes())
}

fn period(now_unix_s: u64) -> u64 {
    now_unix_s / PERIOD_S
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Some time in the middle of a period.
    const NOW: u64 = 80_000 * PERIOD_S + PERIOD_S / 2;
    const SESSION: &[u8] = b"who shook hands, and with which keys";

    fn tickets(secret: &str) -> Tickets {
        let secret = Secret::read(Path::new("/s"), "key", Ok(secret.as_bytes())).unwrap();
        Tickets(ArcSwap::from_pointee(Keys::of(root(&secret), period(NOW))))
    }

    #[test]
    fn a_ticket_of_one_edge_is_taken_by_another_with_the_same_secret_alone() {
        let (one, other, stranger) =
            (tickets("secret-of-the-site"), tickets("secret-of-the-site"), tickets("another-one-s-secret"));
        let ticket = one.sealed(SESSION, NOW).unwrap();
        assert_eq!(other.opened(&ticket, NOW).as_deref(), Some(SESSION));
        assert_eq!(stranger.opened(&ticket, NOW), None);
        assert_ne!(one.sealed(SESSION, NOW), Some(ticket), "each has a nonce of its own");
    }

    #[test]
    fn a_ticket_is_taken_until_the_end_of_the_period_after_its_own() {
        let (sealer, opener) = (tickets("secret-of-the-site"), tickets("secret-of-the-site"));
        let begin = NOW - NOW % PERIOD_S;
        for sealed_at in [begin, NOW, begin + PERIOD_S - 1] {
            let ticket = sealer.sealed(SESSION, sealed_at).unwrap();
            for (at, is_taken) in [
                (begin - PERIOD_S - 1, false),
                // By an edge whose clock is behind.
                (begin - PERIOD_S, true),
                (sealed_at, true),
                (sealed_at + sealer.lifetime() as u64, true),
                (begin + 2 * PERIOD_S - 1, true),
                (begin + 2 * PERIOD_S, false),
            ] {
                assert_eq!(opener.opened(&ticket, at).is_some(), is_taken, "sealed at {sealed_at}, opened at {at}");
            }
        }
    }

    #[test]
    fn each_period_has_a_key_of_its_own() {
        let tickets = tickets("secret-of-the-site");
        let names = [NOW - PERIOD_S, NOW, NOW + PERIOD_S].map(|at| tickets.sealed(SESSION, at).unwrap()[..NAME_BYTES].to_vec());
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
        let keys = tickets.keys(NOW);
        assert_eq!([keys.previous.name, keys.current.name, keys.next.name].map(|name| name.to_vec()), names);
    }

    #[test]
    fn garbage_of_any_length_is_no_ticket() {
        let tickets = tickets("secret-of-the-site");
        let ticket = tickets.sealed(SESSION, NOW).unwrap();
        for length in 0..ticket.len() {
            assert_eq!(tickets.opened(&ticket[..length], NOW), None, "cut to {length}");
            let mut flipped = ticket.clone();
            flipped[length] ^= 1;
            assert_eq!(tickets.opened(&flipped, NOW), None, "a bit of byte {length} is another");
        }
        for length in [ticket.len() + 1, TICKET_BYTES_MAX, TICKET_BYTES_MAX + 1, 65_535] {
            let mut long = ticket.clone();
            long.resize(length, 7);
            assert_eq!(tickets.opened(&long, NOW), None, "{length}");
            assert_eq!(tickets.opened(&vec![7; length], NOW), None, "{length}");
        }
        assert_eq!(tickets.sealed(&vec![7; TICKET_BYTES_MAX], NOW), None);
    }

    #[test]
    fn keys_follow_the_secret_and_never_go_back_to_an_earlier_one() {
        let tickets = tickets("secret-of-the-site");
        let before = tickets.0.load_full();
        let ticket = tickets.sealed(SESSION, NOW).unwrap();
        tickets.change(&Secret::read(Path::new("/s"), "key", Ok(&b"another-one-s-secret"[..])).unwrap());
        assert_eq!(tickets.opened(&ticket, NOW), None);
        let ticket = tickets.sealed(SESSION, NOW).unwrap();
        // A thread that found the period over just before the change.
        tickets.0.compare_and_swap(&before, Arc::new(Keys::of(before.root.clone(), before.period + 1)));
        assert!(tickets.opened(&ticket, NOW).is_some());
    }
}
