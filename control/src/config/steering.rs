//! `[steering]` and `[[sites]]`: whom viewers are sent to, and what is known of sites.

use std::{collections::HashSet, fmt, path::PathBuf, str::FromStr, time::Duration};

use ipnet::IpNet;
use wire::{
    config::{BitsPerSecond, Bytes, Document},
    report::PREFIXES_MAX,
};

use super::duration;
use crate::{
    fleet::{base_url, is_name},
    sites::SiteRecord,
    steering::{fleet::SITES_MAX, geo::Coordinates},
};

/// The bounds of `steering.ttl`.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// The bounds of a site's capacity, in bits per second.
const CAPACITY: (u64, u64) = (1_000_000, 1_000_000_000_000_000);
/// The bounds of `steering.record`, when it is not 0.
const RECORD_BYTES: (u64, u64) = (16 << 20, 1 << 44);

/// How viewers are sent to edges.
#[derive(Debug, Clone)]
pub struct SteeringConfig {
    /// How players reach control, for the addresses that it writes into playlists; as their request names it, unless given.
    pub public_url: Option<PublicUrl>,
    /// How long a player follows one ranking before it asks for the next.
    pub ttl: Duration,
    /// A file of prefixes and the sites that serve them.
    pub prefixes_file: Option<PathBuf>,
    /// A file in MaxMind's format: where clients are.
    pub places_file: Option<PathBuf>,
    /// A site that is further away is not near, in kilometres.
    pub reach_km: u32,
    /// A site that costs more is dear.
    pub cost_max: u32,
    /// From this load on an edge loses sessions, and at this one it has lost all, in thousandths.
    pub shed_from_permille: u16,
    pub full_at_permille: u16,
    /// What the record of decisions may take on disk, in bytes; none is kept at 0.
    pub record_bytes: u64,
    /// Of all sessions, the part whose decisions are recorded, from 0 to 1.
    pub record_share: f64,
    /// What is known of sites.
    pub sites: Vec<SiteRecord>,
}

impl Default for SteeringConfig {
    fn default() -> Self {
        Self {
            public_url: None,
            ttl: Duration::from_secs(30),
            prefixes_file: None,
            places_file: None,
            reach_km: 2500,
            cost_max: u32::MAX,
            shed_from_permille: 800,
            full_at_permille: 950,
            record_bytes: 256 << 20,
            record_share: 1.0,
            sites: Vec::new(),
        }
    }
}

pub(super) fn steering(doc: &mut Document) -> Option<SteeringConfig> {
    let default = SteeringConfig::default();
    let public_url = doc.optional("public_url", PublicUrl::EXPECTED);
    let ttl = duration(doc, "steering.ttl", default.ttl, TTL);
    let prefixes_file = doc.optional::<String>("steering.prefixes_file", "the path of a file of prefixes and sites");
    let places_file = doc.optional::<String>("steering.places_file", "the path of a file in MaxMind's format (MMDB)");
    let reach_km = doc.value("steering.reach_km", Some(default.reach_km), "a whole number of kilometres");
    let cost_max = doc.optional("steering.cost_max", "a whole number").unwrap_or(default.cost_max);
    let shed_from = share(doc, "steering.shed_from", f64::from(default.shed_from_permille) / 1000.0);
    let full_at = share(doc, "steering.full_at", f64::from(default.full_at_permille) / 1000.0);
    if let (Some(shed_from), Some(full_at)) = (shed_from, full_at)
        && shed_from > full_at
    {
        doc.problem("steering.full_at", "at least steering.shed_from");
        return None;
    }
    let record = doc.value("steering.record", Some(Bytes(default.record_bytes)), "a size such as 1GiB, or 0");
    let record = record.filter(|Bytes(bytes)| {
        let (min, max) = RECORD_BYTES;
        let is_good = *bytes == 0 || (min..=max).contains(bytes);
        if !is_good {
            doc.problem("steering.record", format!("0, or a size from {} to {}", Bytes(min), Bytes(max)));
        }
        is_good
    });
    let record_share = share(doc, "steering.record_share", default.record_share);
    let sites = sites(doc);
    let permille = |share: f64| (share * 1000.0).round() as u16;
    Some(SteeringConfig {
        public_url,
        ttl: ttl?,
        prefixes_file: prefixes_file.map(Into::into),
        places_file: places_file.map(Into::into),
        reach_km: reach_km?,
        cost_max,
        shed_from_permille: permille(shed_from?),
        full_at_permille: permille(full_at?),
        record_bytes: record?.0,
        record_share: record_share?,
        sites: sites?,
    })
}

fn share(doc: &mut Document, key: &str, default: f64) -> Option<f64> {
    let share = doc.value(key, Some(default), "a number from 0 to 1")?;
    if !(0.0..=1.0).contains(&share) {
        doc.problem(key, "a number from 0 to 1");
        return None;
    }
    Some(share)
}

fn sites(doc: &mut Document) -> Option<Vec<SiteRecord>> {
    let tables = doc.tables("sites", "a table such as { name = \"berlin\", latitude = 52.52, longitude = 13.4 }");
    if tables.len() > SITES_MAX {
        doc.problem("sites", format!("at most {SITES_MAX} sites"));
        return None;
    }
    // All of them are read, so that every problem is told.
    let sites: Vec<_> = tables.iter().map(|table| site(doc, table)).collect();
    let sites: Vec<_> = sites.into_iter().collect::<Option<_>>()?;
    let mut names = HashSet::new();
    for (table, site) in tables.iter().zip(&sites) {
        if !names.insert(&site.name) {
            doc.problem(&format!("{table}.name"), "each site once");
            return None;
        }
    }
    Some(sites)
}

fn site(doc: &mut Document, table: &str) -> Option<SiteRecord> {
    const NAME: &str = "the name of a site: 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'";
    let key = |name: &str| format!("{table}.{name}");
    let name = doc.value::<String>(&key("name"), None, NAME).filter(|name| {
        if !is_name(name) {
            doc.problem(&key("name"), NAME);
        }
        is_name(name)
    });
    let latitude = doc.optional::<f64>(&key("latitude"), "degrees north, from -90 to 90");
    let longitude = doc.optional::<f64>(&key("longitude"), "degrees east, from -180 to 180");
    let place = match (latitude, longitude) {
        (None, None) => Some(None),
        (Some(latitude), Some(longitude)) => Coordinates::new(latitude, longitude).map(Some),
        _ => None,
    };
    if place.is_none() {
        let missing = if latitude.is_none() { "latitude" } else { "longitude" };
        doc.problem(&key(missing), "both degrees north (-90 to 90) and degrees east (-180 to 180), or neither");
    }
    let cost = doc.value(&key("cost"), Some(0), "a whole number");
    let capacity = doc.optional::<BitsPerSecond>(&key("capacity"), "a rate such as 40Gbit/s");
    let (min, max) = CAPACITY;
    let is_capacity = capacity.is_none_or(|capacity| (min..=max).contains(&capacity.0));
    if !is_capacity {
        doc.problem(&key("capacity"), format!("a rate from {} to {}", BitsPerSecond(min), BitsPerSecond(max)));
    }
    let open = doc.value(&key("open"), Some(true), "true or false");
    let prefixes = doc.list::<IpNet>(&key("prefixes"), "a prefix such as \"203.0.113.0/24\" or \"2001:db8::/32\"");
    if prefixes.len() > PREFIXES_MAX {
        doc.problem(&key("prefixes"), format!("at most {PREFIXES_MAX} prefixes; a file has room for more"));
    }
    let capacity_bits_per_second = capacity.filter(|_| is_capacity).map(|capacity| capacity.0);
    Some(SiteRecord { name: name?, place: place?, cost: cost?, capacity_bits_per_second, open: open?, prefixes })
        .filter(|_| is_capacity)
}

/// How players reach control: scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    const EXPECTED: &str = "a URL such as https://control.example, where players reach control: no path";

    /// Without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PublicUrl {
    type Err = NotAPublicUrl;

    fn from_str(text: &str) -> Result<Self, NotAPublicUrl> {
        base_url(text).map(Self).map_err(|_| NotAPublicUrl)
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not how players could reach control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {}", PublicUrl::EXPECTED)]
pub struct NotAPublicUrl;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<SteeringConfig, Vec<String>> {
        let mut doc = Document::parse(text).unwrap();
        let config = steering(&mut doc);
        match doc.finish() {
            Ok(_) => Ok(config.unwrap()),
            Err(problems) => Err(problems.iter().map(|problem| problem.to_string()).collect()),
        }
    }

    #[test]
    fn sites_are_read_with_what_is_known_of_them() {
        let config = read(
            "public_url = \"https://Control.example/\"\n[steering]\nttl = \"2s\"\nshed_from = 0.5\n[[sites]]\nname = \"berlin\"\nlatitude = 52.52\n\
             longitude = 13.4\ncapacity = \"40Gbit/s\"\nopen = false\ncost = 3\nprefixes = [\"203.0.113.0/24\"]\n[[sites]]\nname = \"paris\"\n",
        )
        .unwrap();
        assert_eq!(config.public_url.as_ref().map(PublicUrl::as_str), Some("https://control.example"));
        assert_eq!((config.ttl, config.shed_from_permille, config.full_at_permille), (Duration::from_secs(2), 500, 950));
        let [berlin, paris] = &config.sites[..] else { panic!("two sites") };
        assert_eq!(berlin.place.map(|place| (place.latitude(), place.longitude())), Some((52.52, 13.4)));
        assert_eq!((berlin.cost, berlin.capacity_bits_per_second, berlin.open), (3, Some(40_000_000_000), false));
        assert_eq!((paris.place, paris.cost, paris.open, paris.prefixes.len()), (None, 0, true, 0));
    }

    #[test]
    fn every_flaw_of_a_site_is_told_with_its_line() {
        let flaws = read(
            "[steering]\nshed_from = 2\nrecord = \"1MiB\"\n[[sites]]\nname = \"a b\"\nlatitude = 5\n[[sites]]\nname = \"x\"\nlatitude = 95\n\
             longitude = 0\ncapacity = \"1kbit/s\"\nprefixes = [\"x\"]\n",
        )
        .unwrap_err();
        assert_eq!(
            flaws,
            [
                "2: steering.shed_from: expected a number from 0 to 1, found 2",
                "3: steering.record: expected 0, or a size from 16MiB to 16TiB, found \"1MiB\"",
                "4: sites[0].longitude: expected both degrees north (-90 to 90) and degrees east (-180 to 180), or neither, found nothing",
                "5: sites[0].name: expected the name of a site: 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', found \"a b\"",
                "10: sites[1].longitude: expected both degrees north (-90 to 90) and degrees east (-180 to 180), or neither, found 0",
                "11: sites[1].capacity: expected a rate from 1Mbit/s to 1000Tbit/s, found \"1kbit/s\"",
                "12: sites[1].prefixes: expected a prefix such as \"203.0.113.0/24\" or \"2001:db8::/32\", found \"x\"",
            ]
        );
        let twice = read("[[sites]]\nname = \"a\"\n[[sites]]\nname = \"a\"\n").unwrap_err();
        assert_eq!(twice, ["4: sites[1].name: expected each site once, found \"a\""]);
        let order = read("[steering]\nshed_from = 0.9\nfull_at = 0.8\n").unwrap_err();
        assert_eq!(order, ["3: steering.full_at: expected at least steering.shed_from, found 0.8"]);
    }
}
