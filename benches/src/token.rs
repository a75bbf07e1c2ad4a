//! What does it cost to check a token: verified cold and remembered, per algorithm, on one core and on all?
//!
//! Parameters: a token for a title's tree, as control makes it (path carrier, `iss`, `exp`, `regex:` container), asked with a
//! segment's URI. The bound beside a cold check is the signature check alone, by aws-lc itself.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::Barrier,
    thread,
};

use aws_lc_rs::{
    hmac, rand,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        UnparsedPublicKey,
    },
};
use serde_json::json;
use wire::{
    object::ObjectPath,
    token::{Algorithm, Claims, KeySet, Presented, Rules, SigningKey, Verifier, find, in_path, sign},
};

use crate::{Report, Size, cpu_time};

const NOW: u64 = 1_700_000_000;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const ROOT: &str = "/titles/0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";
const ALGORITHMS: [Algorithm; 3] = [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256];
/// How many checks each core does when all work at once.
const PARALLEL_CHECKS: u32 = 400_000;
/// How many tokens are put into a table to weigh it.
const WEIGHED: u64 = 40_000;

/// Runs the benchmark.
///
/// # Panics
/// If any check has another outcome than it should.
pub fn run(size: Size) -> Report {
    let mut report = Report::new("What does it cost to check a token?", size);
    if size == Size::Full {
        // First, while no freed memory is lying about.
        weigh(&mut report);
    }
    for algorithm in ALGORITHMS {
        check(&mut report, algorithm);
    }
    patterns(&mut report);
    finding(&mut report);
    if size == Size::Full {
        parallel(&mut report);
    }
    report
}

/// A signer, and what its verifiers trust.
struct Issuer {
    key: SigningKey,
    keys: KeySet,
}

impl Issuer {
    fn new(algorithm: Algorithm) -> Self {
        let key = SigningKey::generate(algorithm, "2026-11").expect("a key");
        let keys = KeySet::from_jwks(&json!({ "keys": [key.verifying_jwk()] }).to_string()).expect("a set");
        Self { key, keys }
    }

    fn verifier(&self, remembered_max: usize) -> Verifier {
        Verifier::new(self.keys.clone(), Rules { issuers: vec!["larder.example".into()], remembered_max, ..Rules::default() })
    }

    fn token(&self, root: &str, more: Claims) -> String {
        let root = ObjectPath::new(root).expect("a path");
        let tree = Claims::for_tree(&root, NOW + 3600);
        let claims = Claims { iss: Some("larder.example".into()), exp: tree.exp, cdniuc: tree.cdniuc, ..more };
        sign(&self.key, &claims).expect("signs")
    }
}

/// What a player asks for, taken apart.
fn presented(token: &str, root: &str) -> Presented {
    let path = ObjectPath::new(format!("{root}/v720/00042.m4s")).expect("a path");
    let target = in_path("", token, &path);
    find("https", "edge1.example:8443", &target, std::iter::empty()).expect("readable").presented.expect("has a token")
}

fn code(verifier: &Verifier, presented: &Presented, now_unix_s: u64) -> &'static str {
    verifier.check(presented, CLIENT, now_unix_s).map_or_else(|refusal| refusal.code(), |_| "granted")
}

fn check(report: &mut Report, algorithm: Algorithm) {
    let issuer = Issuer::new(algorithm);
    let good = presented(&issuer.token(ROOT, Claims::default()), ROOT);
    let (message, _) = good.token.rsplit_once('.').expect("three parts");
    let forged = presented(&Issuer::new(algorithm).token(ROOT, Claims::default()), ROOT);
    let elsewhere = Presented { uri: good.uri.replace("0f1e", "1f1e"), ..good.clone() };
    let (cold, remembering) = (issuer.verifier(0), issuer.verifier(1024));
    for (verifier, which) in [(&cold, "cold"), (&remembering, "remembering")] {
        for (presented, now, what, expected) in [
            (&good, NOW, "good", "granted"),
            (&good, NOW + 3599, "in its last second", "granted"),
            (&good, NOW + 3600, "ended", "stale-token"),
            (&elsewhere, NOW, "for another title", "wrong-token"),
            (&forged, NOW, "forged", "bad-token"),
        ] {
            report.expect(&format!("{algorithm} {which}, {what}"), code(verifier, presented, now), expected);
        }
    }
    report.expect(&format!("{algorithm} remembered"), (cold.remembered(), remembering.remembered()), (0, 1));

    report.measure(format!("{algorithm} cold"), || code(&cold, &good, NOW));
    signature_alone(report, algorithm, message);
    report.measure(format!("{algorithm} forged"), || code(&remembering, &forged, NOW));
    report.measure(format!("{algorithm} remembered"), || code(&remembering, &good, NOW));
}

/// What a pattern costs that is more than a title's tree: this one holds the video segments of a tree alone.
fn patterns(report: &mut Report) {
    let issuer = Issuer::new(Algorithm::EdDsa);
    let pattern = |root: &str| Some(format!("regex:https?://[^/?#]+{root}/v[0-9]+/[0-9]{{5}}\\.m4s"));
    let signed = |root: &str| {
        let claims = Claims { exp: Some(NOW + 3600), cdniuc: pattern(root), ..Claims::default() };
        presented(&sign(&issuer.key, &claims).expect("signs"), root)
    };
    let remembering = issuer.verifier(1024);
    let good = signed(ROOT);
    let elsewhere = Presented { uri: good.uri.replace("/v720/", "/a1/"), ..good.clone() };
    for _ in 0..2 {
        report.expect("pattern, good", code(&remembering, &good, NOW), "granted");
        report.expect("pattern, for other segments", code(&remembering, &elsewhere, NOW), "wrong-token");
    }
    let forgetful = issuer.verifier(0);
    report.measure("EdDSA remembered, with a pattern", || code(&remembering, &good, NOW));
    report.measure("EdDSA cold, with a pattern that is compiled", || code(&forgetful, &good, NOW));
    // More patterns than are kept.
    let strangers: Vec<Presented> = (0..report.size().of(8, 4096)).map(|n| signed(&format!("/titles/{n:064x}"))).collect();
    let mut next = strangers.iter().cycle();
    report.measure("EdDSA cold, with a pattern that is new", || next.next().map(|first| code(&forgetful, first, NOW)));
}

/// The bound: what of a cold check is the signature.
fn signature_alone(report: &mut Report, algorithm: Algorithm, message: &str) {
    let message = message.as_bytes();
    let name = format!("{algorithm} signature alone, the bound of cold");
    match algorithm {
        Algorithm::Es256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
            let signature = pair.sign(&rand::SystemRandom::new(), message).expect("signs");
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
            report.measure(name, || key.verify(message, signature.as_ref()));
        }
        Algorithm::EdDsa => {
            let pair = Ed25519KeyPair::generate().expect("a key");
            let signature = pair.sign(message);
            let key = UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref());
            report.measure(name, || key.verify(message, signature.as_ref()));
        }
        Algorithm::Hs256 => {
            let secret = [7; 32];
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message);
            report.measure(name, || hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message, tag.as_ref()));
        }
    }
}

fn finding(report: &mut Report) {
    let token = Issuer::new(Algorithm::EdDsa).token(ROOT, Claims::default());
    let path = ObjectPath::new(format!("{ROOT}/v720/00042.m4s")).expect("a path");
    let target = in_path("", &token, &path);
    let find = || find("https", "edge1.example:8443", &target, std::iter::empty()).expect("readable");
    report.expect("found", find().path, path.to_string());
    report.measure("find, in the path of a request", find);
}

/// All cores ask one verifier for one token: the worst case of sharing.
fn parallel(report: &mut Report) {
    let issuer = Issuer::new(Algorithm::EdDsa);
    let good = presented(&issuer.token(ROOT, Claims::default()), ROOT);
    let verifier = issuer.verifier(1024);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let barrier = Barrier::new(cores);
    let slowest_ns = thread::scope(|scope| {
        let work = || {
            barrier.wait();
            let start = cpu_time();
            for _ in 0..PARALLEL_CHECKS {
                assert_eq!(code(&verifier, &good, NOW), "granted");
            }
            cpu_time().saturating_sub(start).as_nanos() as f64 / f64::from(PARALLEL_CHECKS)
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).fold(0.0, f64::max)
    });
    report.figure(format!("EdDSA remembered, {cores} threads on one token, each"), slowest_ns, "ns");
}

/// What a remembered token and a compiled pattern take.
fn weigh(report: &mut Report) {
    let issuer = Issuer::new(Algorithm::Hs256);
    let verifier = issuer.verifier(2 * WEIGHED as usize);
    let viewer = |n: u64| Claims { sub: Some(format!("{n:016x}")), ..Claims::default() };
    let mut grow = |name: &str, count: u64, token: &dyn Fn(u64) -> (String, String)| {
        let before = resident_bytes();
        for n in 0..count {
            let (token, root) = token(n);
            report.expect(name, code(&verifier, &presented(&token, &root), NOW), "granted");
        }
        report.figure(name, (resident_bytes().saturating_sub(before)) as f64 / count as f64, "B");
    };
    grow("for each remembered token", WEIGHED, &|n| (issuer.token(ROOT, viewer(n)), ROOT.into()));
    grow("for each compiled pattern, and a token", 1000, &|n| {
        let root = format!("/titles/{n:064x}");
        let pattern = format!("regex:https?://[^/?#]+{root}/v[0-9]+/[0-9]{{5}}\\.m4s");
        let claims = Claims { exp: Some(NOW + 3600), cdniuc: Some(pattern), ..viewer(n) };
        (sign(&issuer.key, &claims).expect("signs"), root)
    });
}

/// 0 where `/proc` does not tell.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_run_has_every_outcome_as_expected_twice() {
        assert_eq!(crate::small_twice(run), 38);
        assert!(run(Size::Small).print(false).contains("38 outcomes as expected"));
    }
}
