//! Sites: where edges stand, what it costs to send from there, how much goes out, and whom they serve.
//!
//! Pure. Sites of the configuration are as it says; others come and go by the API and are kept in the database. A site that neither
//! knows is one of which nothing is known but that edges say they stand there.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ipnet::IpNet;
use wire::placement::Line;

use crate::steering::{
    fleet::{SITES_MAX, Site},
    geo::Coordinates,
    prefixes::Announcement,
};

/// What is known of a site.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteRecord {
    /// Its name, by which edges name it.
    pub name: String,
    /// Where it stands.
    pub place: Option<Coordinates>,
    /// What a gigabyte from there costs beside the others, in any unit.
    pub cost: u32,
    /// Bits per second that all of its edges together may send.
    pub capacity_bits_per_second: Option<u64>,
    /// Whether it serves clients in none of its prefixes too.
    pub open: bool,
    /// The networks that it serves first, besides those that its edges announce.
    pub prefixes: Vec<IpNet>,
}

/// All that are known.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    configured: BTreeMap<String, SiteRecord>,
    kept: BTreeMap<String, SiteRecord>,
}

/// Why a site is not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotChanged {
    #[error("the site stands in control's configuration; change it there")]
    Configured,
    #[error("there are {SITES_MAX} sites, which is the most; delete some")]
    Full,
}

impl Sites {
    /// Those of the configuration, and those that were kept. Of two of one name the configured one holds.
    pub(crate) fn new(configured: Vec<SiteRecord>, kept: Vec<SiteRecord>) -> Self {
        let by_name = |sites: Vec<SiteRecord>| sites.into_iter().map(|site| (site.name.clone(), site)).collect();
        Self { configured: by_name(configured), kept: by_name(kept) }
    }

    /// By name, each with whether it is configured.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&SiteRecord, bool)> {
        let kept = self.kept.values().filter(|site| !self.configured.contains_key(&site.name));
        let mut all: Vec<_> = self.configured.values().map(|site| (site, true)).chain(kept.map(|site| (site, false))).collect();
        all.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        all.into_iter()
    }

    pub(crate) fn site(&self, name: &str) -> Option<(&SiteRecord, bool)> {
        let configured = self.configured.get(name).map(|site| (site, true));
        configured.or_else(|| self.kept.get(name).map(|site| (site, false)))
    }

    /// Whether the site may be put or removed.
    pub(crate) fn may_change(&self, name: &str) -> Result<(), NotChanged> {
        if self.configured.contains_key(name) {
            return Err(NotChanged::Configured);
        }
        let is_full = self.configured.len() + self.kept.len() >= SITES_MAX && !self.kept.contains_key(name);
        if is_full { Err(NotChanged::Full) } else { Ok(()) }
    }

    /// Keeps a site, in place of an earlier one. True when it is new.
    pub(crate) fn put(&mut self, site: SiteRecord) -> bool {
        self.kept.insert(site.name.clone(), site).is_none()
    }

    /// Forgets a site. False when it was not kept.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        self.kept.remove(name).is_some()
    }

    /// As steering has them.
    pub(crate) fn steered(&self) -> Vec<Site> {
        let site = |site: &SiteRecord| Site {
            name: site.name.as_str().into(),
            place: site.place,
            cost: site.cost,
            open: site.open,
            line: Line::NO_HEAD,
        };
        self.all().map(|(record, _)| site(record)).collect()
    }

    /// What each can send, in bits per second, where that is known.
    pub(crate) fn capacities(&self) -> HashMap<String, u64> {
        self.all().filter_map(|(site, _)| Some((site.name.clone(), site.capacity_bits_per_second?))).collect()
    }

    /// The prefixes of all of them.
    pub(crate) fn announcements(&self) -> Vec<Announcement> {
        let of = |site: &SiteRecord| {
            let name: Arc<str> = site.name.as_str().into();
            site.prefixes.iter().map(|prefix| Announcement::new(*prefix, Arc::clone(&name))).collect::<Vec<_>>()
        };
        self.all().flat_map(|(site, _)| of(site)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str, cost: u32) -> SiteRecord {
        SiteRecord {
            name: name.into(),
            place: None,
            cost,
            capacity_bits_per_second: (cost > 0).then_some(u64::from(cost)),
            open: true,
            prefixes: vec!["10.0.0.1/8".parse().unwrap()],
        }
    }

    #[test]
    fn the_configuration_holds_against_what_was_kept() {
        let mut sites = Sites::new(vec![site("b", 1)], vec![site("a", 0), site("b", 2)]);
        let all: Vec<_> = sites.all().map(|(site, configured)| (site.name.as_str(), site.cost, configured)).collect();
        assert_eq!(all, [("a", 0, false), ("b", 1, true)]);
        assert_eq!((sites.may_change("b"), sites.may_change("a")), (Err(NotChanged::Configured), Ok(())));
        assert_eq!(sites.capacities(), [("b".to_owned(), 1)].into());
        assert!(!sites.put(site("a", 5)) && sites.put(site("c", 0)) && sites.remove("a") && !sites.remove("a"));
        assert_eq!(sites.steered().iter().map(|site| &*site.name).collect::<Vec<_>>(), ["b", "c"]);
        let announced: Vec<_> = sites.announcements().into_iter().map(|said| format!("{} {}", said.prefix, said.site)).collect();
        assert_eq!(announced, ["10.0.0.0/8 b", "10.0.0.0/8 c"]);
    }

    #[test]
    fn sites_are_bounded() {
        let mut sites = Sites::new(Vec::new(), (0..SITES_MAX).map(|n| site(&format!("s{n}"), 0)).collect());
        assert_eq!((sites.may_change("more"), sites.may_change("s1")), (Err(NotChanged::Full), Ok(())));
        sites.remove("s1");
        assert_eq!(sites.may_change("more"), Ok(()));
    }
}
