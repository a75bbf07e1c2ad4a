//! Fuzz targets: functions that take any bytes and must neither panic nor hang nor break what they assert.
//!
//! A coverage-guided fuzzer calls them as they are (`libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::token(data))`); the tests below run each on
//! mutations of good input, with a seed that is printed.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use control::steering::{
    geo::Places,
    prefixes::{self, Announcements},
    record::Line,
    replay::{Change, Replay},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use wire::{
    config::Document,
    object::ObjectPath,
    range::{Decision, RANGES_MAX, Version, Wish},
    title::Title,
    token::{self, KeySet, Rules, Verifier},
};

/// A target.
pub type Target = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: [(&str, Target); 8] = [
    ("config", config),
    ("decisions", decisions),
    ("object_path", object_path),
    ("places", places),
    ("prefixes", prefixes),
    ("range", range),
    ("title", title),
    ("token", token),
];

/// A configuration file: an error for everything that is wrong, and never a role from what is.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(mut document) = Document::parse(text) else { return };
    let config = edge::config::Config::read(&mut document);
    assert!(config.is_some() || document.finish().is_err(), "a configuration that is not read has a problem that says why");
}

/// A record of decisions, as an operator replays it: every line is taken or refused, and what is taken adds up.
pub fn decisions(data: &[u8]) {
    let change = Change { without_sites: BTreeSet::from(["paris".to_owned()]), load_percent: 150, ..Change::default() };
    let mut replay = Replay::new(change, Instant::now());
    let mut taken = 0;
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(line) = serde_json::from_slice::<Line>(line) {
            let is_taken = replay.line(&line).is_ok();
            taken += u64::from(is_taken && matches!(line, Line::Decision(_)));
        }
    }
    let outcome = replay.outcome();
    assert_eq!(outcome.decisions, taken);
    let served: u64 = outcome.edges.iter().map(|edge| edge.sessions.after).sum();
    assert_eq!(served + outcome.unserved.after, taken);
}

/// A file in MaxMind's format: an address is somewhere on the globe, or nowhere.
pub fn places(data: &[u8]) {
    let Ok(places) = Places::new(data.to_vec()) else { return };
    for address in [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::LOCALHOST] {
        let located = places.locate(address.into());
        assert!(located.place.is_none_or(|place| place.latitude().abs() <= 90.0 && place.longitude().abs() <= 180.0));
    }
}

/// A file of prefixes: each of them is found again by its own address.
pub fn prefixes(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(said) = prefixes::read(text) else { return };
    let mut all = Announcements::default();
    all.replace("file", said.iter().cloned()).expect("fewer than are kept");
    let table = all.table();
    for said in &said {
        let announced = table.announced(said.prefix.addr());
        assert!(announced.len() == 16 || announced.iter().any(|told| told.prefix == said.prefix && *told.site == *said.site));
    }
}

/// A path: what is accepted stays below its root, and reads the same again.
pub fn object_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(path) = ObjectPath::new(text) else { return };
    assert!(path.relative().split('/').all(|segment| !segment.is_empty() && !segment.starts_with('.')));
    assert_eq!(ObjectPath::new(path.as_str()), Ok(path));
}

/// Range and condition headers, a name and a value a line: each part lies within the object and has a byte, and none shares one with another.
pub fn range(data: &[u8]) {
    let (length, lines) = data.split_at_checked(8).unwrap_or((&[0; 8], data));
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').take(16) {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(0));
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.get(1..).unwrap_or_default()))
        {
            headers.append(name, value);
        }
    }
    let mut parts = match Wish::of(&Method::GET, &headers).decide(Version { etag: "\"v1\"", length, modified: None }) {
        Decision::Part(part) => vec![part],
        Decision::Parts(parts) => parts,
        _ => return,
    };
    assert!(parts.len() <= RANGES_MAX && parts.iter().all(|part| part.start < part.end && part.end <= length));
    parts.sort_by_key(|part| part.start);
    assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start));
}

/// A title as an origin publishes it: what is read is written and read again as the same.
pub fn title(data: &[u8]) {
    let Ok(title) = serde_json::from_slice::<Title>(data) else { return };
    let json = serde_json::to_vec(&title).expect("a title is JSON");
    assert_eq!(serde_json::from_slice::<Title>(&json).ok(), Some(title));
}

/// A request's target and its cookie, a line each: no token of anybody but the key's owner opens anything.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (target, cookie) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(found) = token::find("https", "edge.example", target, std::iter::once(cookie)) else { return };
    let Some(presented) = found.presented else { return };
    let verifier = Verifier::new(KeySet::from_jwks("{\"keys\":[]}").expect("no keys"), Rules::default());
    assert!(verifier.check(&presented, IpAddr::V4(Ipv4Addr::LOCALHOST), 1_800_000_000).is_err());
}

#[cfg(test)]
mod tests {
    use wire::token::{Algorithm, Claims, SigningKey, in_path, sign};

    use super::*;

    /// Inputs a target is run on.
    const ROUNDS: usize = 20_000;

    /// SplitMix64 (Steele et al., 2014): small, and the same everywhere.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ z >> 31) % end.max(1) as u64) as usize
        }

        /// `good` with a few bytes changed, doubled, cut out, or replaced by what parsers stumble over.
        fn mutate(&mut self, good: &[u8]) -> Vec<u8> {
            const TRAPS: [&[u8]; 8] = [b"\0", b"..", b"%2f", b"18446744073709551616", b"\"", b"[[", b"-", b"\xc3\xa4"];
            let mut data = good.to_vec();
            for _ in 0..=self.below(4) {
                let at = self.below(data.len());
                match self.below(5) {
                    0 if !data.is_empty() => data[at] ^= 1 << self.below(8),
                    1 => drop(data.splice(at..at, TRAPS[self.below(TRAPS.len())].iter().copied())),
                    2 => drop(data.drain(at..(at + self.below(9)).min(data.len()))),
                    3 => data.truncate(at),
                    _ => data.extend_from_within(at..(at + self.below(33)).min(data.len())),
                }
            }
            data
        }
    }

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        match target {
            "config" => vec![include_bytes!("../../config/edge.toml").to_vec()],
            "decisions" => vec![include_bytes!("../corpus/decisions.jsonl").to_vec()],
            "places" => vec![include_bytes!("../corpus/places.mmdb").to_vec()],
            "prefixes" => vec![b"# two sites\n192.0.2.0/24 berlin\n2001:db8::/32\tparis # v6\n0.0.0.0/0 paris\n".to_vec()],
            "object_path" => vec![b"/titles/0a1b/v720/00001.m4s".to_vec(), b"/files/a~b=c/d.e".to_vec()],
            "range" => [
                "range: bytes=0-499",
                "range:bytes=0-1,5-9, -3",
                "range:bytes=-5\nif-range:\"v1\"",
                "if-none-match:W/\"v1\", \"a,b\"\nif-match:*",
            ]
            .map(|lines| [&1000u64.to_le_bytes(), lines.as_bytes()].concat())
            .to_vec(),
            "title" => vec![include_bytes!("../corpus/title.json").to_vec()],
            "token" => {
                let key = SigningKey::generate(Algorithm::EdDsa, "k").expect("a key");
                let path = ObjectPath::new("/titles/a/b.m4s").expect("a path");
                let token = sign(&key, &Claims::for_tree(&path, 1_900_000_000)).expect("signs");
                let in_path = in_path("", &token, &path);
                vec![
                    in_path.into_bytes(),
                    format!("{path}?a=1&URISigningPackage={token}&b").into_bytes(),
                    format!("{path}\nx=1; URISigningPackage={token}").into_bytes(),
                ]
            }
            _ => unreachable!("every target has a corpus"),
        }
    }

    #[test]
    fn targets_withstand_mutations_of_good_input() {
        let seed = std::env::var("FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121);
        println!("FUZZ_SEED={seed}");
        for (name, target) in TARGETS {
            let mut random = Random(seed);
            let corpus = corpus(name);
            for good in &corpus {
                target(good);
            }
            for round in 0..ROUNDS {
                let data = random.mutate(&corpus[round % corpus.len()]);
                if std::panic::catch_unwind(|| target(&data)).is_err() {
                    panic!("{name} fails on {:?}", String::from_utf8_lossy(&data));
                }
            }
        }
    }
}
