//! Which sites announce which networks, and the table that a client's address is looked up in. Pure.
//!
//! Several sources announce: the configuration, a file, edges, and whatever else yields [`Change`]s, such as a BGP session. What each says is kept
//! apart in [`Announcements`], so that one that is lost takes back what it said and nothing else. A [`Prefixes`] table is
//! made of all of them and replaced whole; a look-up never sees half of a change.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;
use prefix_trie::joint::JointPrefixMap;

use super::decide::Announced;
use crate::fleet::is_name;

/// The most announcements of all sources together: a full table of the Internet, both families, has about 1.2 million prefixes.
pub const ANNOUNCEMENTS_MAX: usize = 2_000_000;
/// The largest file of prefixes, in bytes.
pub const FILE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// The most announcements that are told for one address, the longest prefixes.
const ANNOUNCED_MAX: usize = 16;
/// The most faults of a file that are told at once.
const FAULTS_MAX: usize = 20;

/// A site serves clients of a network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Announcement {
    /// Without bits beyond the prefix.
    pub prefix: IpNet,
    pub site: Arc<str>,
}

impl Announcement {
    /// `site` serves `prefix`, whose bits beyond its length do not count.
    pub fn new(prefix: IpNet, site: impl Into<Arc<str>>) -> Self {
        Self { prefix: prefix.trunc(), site: site.into() }
    }
}

/// What a source yields from time to time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Announce(Announcement),
    Withdraw(Announcement),
    /// All that this source said before, as when its session is lost.
    WithdrawAll,
}

/// What every source has announced and not withdrawn.
#[derive(Debug, Default)]
pub struct Announcements {
    by_source: BTreeMap<Arc<str>, BTreeSet<Announcement>>,
}

impl Announcements {
    /// Takes a change from the source of this name. Refused, and nothing changed, where there are too many already.
    pub fn apply(&mut self, source: &str, change: Change) -> Result<(), TooManyAnnouncements> {
        match change {
            Change::Announce(announcement) => {
                if self.len() >= ANNOUNCEMENTS_MAX {
                    return Err(TooManyAnnouncements);
                }
                self.by_source.entry(source.into()).or_default().insert(announcement);
            }
            Change::Withdraw(announcement) => {
                let left = self.by_source.get_mut(source).map(|said| {
                    said.remove(&announcement);
                    said.len()
                });
                if left == Some(0) {
                    self.by_source.remove(source);
                }
            }
            Change::WithdrawAll => drop(self.by_source.remove(source)),
        }
        Ok(())
    }

    /// Takes this, and nothing else, for what the source says.
    pub fn replace(
        &mut self,
        source: &str,
        announcements: impl IntoIterator<Item = Announcement>,
    ) -> Result<(), TooManyAnnouncements> {
        let said: BTreeSet<_> = announcements.into_iter().take(ANNOUNCEMENTS_MAX + 1).collect();
        let others = self.len() - self.by_source.get(source).map_or(0, BTreeSet::len);
        if others + said.len() > ANNOUNCEMENTS_MAX {
            return Err(TooManyAnnouncements);
        }
        if said.is_empty() {
            drop(self.by_source.remove(source))
        } else {
            drop(self.by_source.insert(source.into(), said))
        }
        Ok(())
    }

    /// How many there are; what two sources say counts twice.
    pub fn len(&self) -> usize {
        self.by_source.values().map(BTreeSet::len).sum()
    }

    /// Whether nobody announces anything.
    pub fn is_empty(&self) -> bool {
        self.by_source.is_empty()
    }

    /// What the sources say, by source.
    pub fn by_source(&self) -> impl Iterator<Item = (&str, &BTreeSet<Announcement>)> {
        self.by_source.iter().map(|(source, said)| (source.as_ref(), said))
    }

    /// The table of all of it.
    pub fn table(&self) -> Prefixes {
        self.by_source.values().flatten().collect()
    }
}

/// [`ANNOUNCEMENTS_MAX`] announcements are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{ANNOUNCEMENTS_MAX} prefixes are announced, which is the most; announce shorter ones")]
pub struct TooManyAnnouncements;

/// The sites of each prefix, for looking up.
#[derive(Debug, Default)]
pub struct Prefixes {
    /// A place in `groups` for each prefix.
    map: JointPrefixMap<IpNet, u32>,
    /// Sites that announce one prefix, by name. Most prefixes share theirs with many others.
    groups: Vec<Vec<Arc<str>>>,
}

impl<'a> FromIterator<&'a Announcement> for Prefixes {
    fn from_iter<I: IntoIterator<Item = &'a Announcement>>(announcements: I) -> Self {
        let mut said: Vec<_> = announcements.into_iter().map(|said| (said.prefix, &said.site)).collect();
        said.sort_unstable();
        said.dedup();
        let mut table = Self::default();
        let mut known = HashMap::new();
        for of_prefix in said.chunk_by(|(a, _), (b, _)| a == b) {
            let sites: Vec<_> = of_prefix.iter().map(|(_, site)| *site).collect();
            let group = *known.entry(sites).or_insert_with_key(|sites| {
                table.groups.push(sites.iter().copied().cloned().collect());
                u32::try_from(table.groups.len() - 1).expect("fewer groups than announcements")
            });
            table.map.insert(of_prefix[0].0, group);
        }
        table
    }
}

impl Prefixes {
    /// Who announces networks with this address in it, the longest prefixes first and those of one prefix by name; at most 16.
    pub fn announced(&self, address: IpAddr) -> Vec<Announced<'_>> {
        let mut prefixes: Vec<(IpNet, u32)> =
            self.map.cover(&IpNet::from(address.to_canonical())).map(|(prefix, group)| (prefix, *group)).collect();
        prefixes.reverse();
        let of_prefix = |(prefix, group): (IpNet, u32)| {
            self.groups[group as usize].iter().map(move |site| Announced { site: site.as_ref(), prefix })
        };
        prefixes.into_iter().flat_map(of_prefix).take(ANNOUNCED_MAX).collect()
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads a file of prefixes: on each line a network or an address, blanks, and the site that serves it. What follows a `#`, and a line with
/// nothing before it, is for people.
///
/// ```text
/// # the customers of an ISP
/// 192.0.2.0/24     berlin
/// 2001:db8::/32    berlin
/// ```
pub fn read(text: &str) -> Result<Vec<Announcement>, FlawedPrefixes> {
    let mut announcements = Vec::new();
    let mut faults = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        match announcement(line.split('#').next().unwrap_or_default()) {
            Ok(announcement) => announcements.extend(announcement),
            Err(fault) => faults.push((number, fault)),
        }
    }
    if faults.is_empty() { Ok(announcements) } else { Err(FlawedPrefixes { faults }) }
}

fn announcement(line: &str) -> Result<Option<Announcement>, Fault> {
    let mut words = line.split_whitespace();
    let Some(prefix) = words.next() else {
        return Ok(None);
    };
    let address = || prefix.parse::<IpAddr>().map(IpNet::from);
    let prefix: IpNet = prefix.parse().or_else(|_| address()).map_err(|_| Fault::Prefix(prefix.into()))?;
    match (words.next(), words.next()) {
        (Some(site), None) if is_name(site) => Ok(Some(Announcement::new(prefix, site))),
        (Some(site), None) => Err(Fault::Site(site.into())),
        (None, _) => Err(Fault::NoSite),
        (Some(_), Some(more)) => Err(Fault::More(more.into())),
    }
}

/// Why a text is not a file of prefixes: every fault with its line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FlawedPrefixes {
    /// Never empty.
    pub faults: Vec<(usize, Fault)>,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("expected a network such as 192.0.2.0/24 or 2001:db8::/32, found {0:?}")]
    Prefix(String),
    #[error("expected a blank and the name of a site after the network")]
    NoSite,
    #[error("expected the name of a site (1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'), found {0:?}")]
    Site(String),
    #[error("expected nothing after the site, found {0:?}")]
    More(String),
}

impl fmt::Display for FlawedPrefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (line, fault)) in self.faults.iter().take(FAULTS_MAX).enumerate() {
            write!(f, "{}line {line}: {fault}", if at > 0 { "; " } else { "" })?;
        }
        match self.faults.len().saturating_sub(FAULTS_MAX) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn told(table: &Prefixes, address: &str) -> Vec<String> {
        let announced = table.announced(address.parse().unwrap());
        announced.iter().map(|Announced { site, prefix }| format!("{prefix} {site}")).collect()
    }

    fn table(text: &str) -> Prefixes {
        let mut all = Announcements::default();
        all.replace("file", read(text).unwrap()).unwrap();
        all.table()
    }

    #[test]
    fn the_longest_prefix_comes_first_and_sites_of_one_by_name() {
        let table = table(
            "192.0.0.0/8 transit\n192.0.2.0/24 berlin\n192.0.2.0/24 aachen\n192.0.2.7 desk\n2001:db8::/32 berlin\n0.0.0.0/0 anyone",
        );
        assert_eq!(
            told(&table, "192.0.2.7"),
            ["192.0.2.7/32 desk", "192.0.2.0/24 aachen", "192.0.2.0/24 berlin", "192.0.0.0/8 transit", "0.0.0.0/0 anyone"]
        );
        assert_eq!(told(&table, "192.0.3.1"), ["192.0.0.0/8 transit", "0.0.0.0/0 anyone"]);
        assert_eq!(told(&table, "::ffff:192.0.3.1"), ["192.0.0.0/8 transit", "0.0.0.0/0 anyone"], "IPv4 in IPv6's clothes");
        assert_eq!(told(&table, "2001:db8:ffff::1"), ["2001:db8::/32 berlin"]);
        assert_eq!(told(&table, "2001:db9::1"), Vec::<String>::new());
        assert_eq!(table.len(), 5);
    }

    #[test]
    fn a_file_has_a_network_and_a_site_a_line_and_all_its_faults_are_told() {
        assert_eq!(
            read(" # nothing\n\n10.1.2.3/8\tberlin # host bits do not count\r\n::1 lab").unwrap(),
            [Announcement::new("10.0.0.0/8".parse().unwrap(), "berlin"), Announcement::new("::1/128".parse().unwrap(), "lab")]
        );
        let flawed = read("10.0.0.0/33 berlin\n10.0.0.0/8\n10.0.0.0/8 a/b\nok\n10.0.0.0/8 berlin 65001").unwrap_err();
        assert_eq!(
            flawed.to_string(),
            "line 1: expected a network such as 192.0.2.0/24 or 2001:db8::/32, found \"10.0.0.0/33\"; \
             line 2: expected a blank and the name of a site after the network; \
             line 3: expected the name of a site (1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'), found \"a/b\"; \
             line 4: expected a network such as 192.0.2.0/24 or 2001:db8::/32, found \"ok\"; \
             line 5: expected nothing after the site, found \"65001\""
        );
        let many = read(&"x\n".repeat(25)).unwrap_err().to_string();
        assert!(many.ends_with("; and 5 more"), "{many}");
    }

    #[test]
    fn what_a_source_said_leaves_with_it_and_with_nobody_else() {
        let said = |prefix: &str, site: &str| Announcement::new(prefix.parse().unwrap(), site);
        let mut all = Announcements::default();
        all.replace("configuration", [said("192.0.2.0/24", "berlin")]).unwrap();
        all.apply("bgp 192.0.2.1", Change::Announce(said("192.0.2.0/24", "berlin"))).unwrap();
        all.apply("bgp 192.0.2.1", Change::Announce(said("198.51.100.0/24", "berlin"))).unwrap();
        assert_eq!((all.len(), all.table().len()), (3, 2));
        all.apply("bgp 192.0.2.1", Change::Withdraw(said("198.51.100.0/24", "berlin"))).unwrap();
        assert_eq!(told(&all.table(), "198.51.100.1"), Vec::<String>::new());
        all.apply("bgp 192.0.2.1", Change::WithdrawAll).unwrap();
        assert_eq!(told(&all.table(), "192.0.2.1"), ["192.0.2.0/24 berlin"], "the configuration says so too");
        assert_eq!(all.by_source().map(|(source, said)| (source, said.len())).collect::<Vec<_>>(), [("configuration", 1)]);
        all.replace("configuration", []).unwrap();
        assert!(all.is_empty() && all.table().is_empty());
        all.apply("nobody", Change::Withdraw(said("198.51.100.0/24", "berlin"))).unwrap();
    }

    #[test]
    fn one_address_is_told_a_bounded_number_of_announcements() {
        let sites: String = (10..40).map(|n| format!("192.0.2.0/24 s{n}\n")).collect();
        assert_eq!(told(&table(&sites), "192.0.2.1").len(), 16);
    }

    fn network() -> impl Strategy<Value = IpNet> {
        let v4 =
            (any::<u32>(), 0..=32_u8).prop_map(|(bits, len)| IpNet::new(IpAddr::V4((bits & 0xC000_0003).into()), len).unwrap());
        let v6 = (any::<u128>(), 0..=128_u8)
            .prop_map(|(bits, len)| IpNet::new(IpAddr::V6((bits & (3 << 126 | 1 << 96 | 3)).into()), len).unwrap());
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn a_table_tells_what_going_through_all_would(networks in vec((network(), 0..3_u8), 0..40), looked_up in network()) {
            let said: Vec<_> = networks.iter().map(|(net, site)| Announcement::new(*net, format!("s{site}"))).collect();
            let mut all = Announcements::default();
            all.replace("test", said.iter().cloned()).unwrap();
            let table = all.table();
            let address = looked_up.addr();
            let mut expected: Vec<_> = said.iter().filter(|said| said.prefix.contains(&address)).collect();
            expected.sort_by(|a, b| b.prefix.prefix_len().cmp(&a.prefix.prefix_len()).then(a.site.cmp(&b.site)));
            expected.dedup();
            expected.truncate(ANNOUNCED_MAX);
            let told = table.announced(address);
            prop_assert_eq!(told.len(), expected.len());
            for (told, expected) in told.iter().zip(expected) {
                prop_assert_eq!((told.site, told.prefix), (expected.site.as_ref(), expected.prefix));
            }
        }
    }
}
