//! Segments' paths, in the one form in which packagers number them: a film's thousand names in a few dozen bytes.

/// The segments of a title's video renditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    renditions: Vec<Numbered>,
}

impl Files {
    pub(crate) fn new(renditions: Vec<Numbered>) -> Self {
        Self { renditions }
    }

    /// The best first.
    pub(crate) fn renditions(&self) -> impl Iterator<Item = &Numbered> {
        self.renditions.iter()
    }

    /// About how many bytes it takes in memory.
    pub(crate) fn weight(&self) -> usize {
        let of = |numbered: &Numbered| size_of::<Numbered>() + numbered.before.len() + numbered.after.len();
        size_of::<Self>() + self.renditions.iter().map(of).sum::<usize>()
    }
}

/// Paths that differ in one number: `before`, the number with at least so many digits, and `after`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) before: String,
    pub(crate) digits: usize,
    pub(crate) after: String,
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl Numbered {
    /// The paths from `first` to `last`, `count` in all, if they are numbered so.
    pub(crate) fn of(first: &str, last: &str, count: u64) -> Option<Self> {
        // The number is the last one in the name of the file, before its extension, which may have a digit too (m4s, mp4).
        let name = first.rfind('/').map_or(0, |at| at + 1);
        let stem = first[name..].rfind('.').map_or(first.len(), |at| name + at);
        let end = first[name..stem].rfind(|c: char| c.is_ascii_digit()).map(|at| name + at + 1)?;
        let digits = first[name..end].bytes().rev().take_while(u8::is_ascii_digit).count();
        let begin = end - digits;
        let numbered = Self {
            before: first[..begin].to_owned(),
            digits,
            after: first[end..].to_owned(),
            first: first[begin..end].parse().ok()?,
            count,
        };
        let last_number = numbered.first.checked_add(count.checked_sub(1)?)?;
        (numbered.path(numbered.first) == first && numbered.path(last_number) == last).then_some(numbered)
    }

    pub(crate) fn path(&self, number: u64) -> String {
        let Self { before, digits, after, .. } = self;
        format!("{before}{number:0digits$}{after}")
    }

    /// Every path once, such that the first few of them come from all over.
    pub(crate) fn spread(&self) -> impl Iterator<Item = String> {
        let count = self.count.max(1);
        // Steps by the golden ratio leave no large gap (Weyl's sequence); one that has no divisor in common with the count comes everywhere.
        let mut step = (count as f64 * 0.618_033_988_749_895) as u64;
        while gcd(step.max(1), count) != 1 {
            step += 1;
        }
        let step = step.max(1);
        (0..self.count).map(move |n| self.path(self.first + (u128::from(n) * u128::from(step) % u128::from(count)) as u64))
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_numbered_in_their_last_number() {
        for (first, last, count, expected) in [
            ("/t/v720/00001.m4s", "/t/v720/01350.m4s", 1350, Some(("/t/v720/", 5, ".m4s", 1))),
            ("/t/v720/seg-0.mp4", "/t/v720/seg-12.mp4", 13, Some(("/t/v720/seg-", 1, ".mp4", 0))),
            ("/t/v720/init.mp4", "/t/v720/init.mp4", 1, None),
            ("/t/v720/seg-0.ts", "/t/v720/seg-12.ts", 13, Some(("/t/v720/seg-", 1, ".ts", 0))),
            ("/t/1/part.m4s", "/t/2/part.m4s", 2, None),
            ("/t/00001.m4s", "/t/00003.m4s", 2, None),
            ("/t/00001.m4s", "/t/00001.m4s", 0, None),
            ("/t/99999999999999999999.m4s", "/t/99999999999999999999.m4s", 1, None),
            ("/t/é1", "/t/é2", 2, Some(("/t/é", 1, "", 1))),
        ] {
            let numbered = Numbered::of(first, last, count);
            let found = numbered.as_ref().map(|n| (n.before.as_str(), n.digits, n.after.as_str(), n.first));
            assert_eq!(found, expected, "{first}");
        }
    }

    #[test]
    fn a_spread_is_every_path_once_and_its_beginning_comes_from_all_over() {
        for count in [1, 2, 3, 10, 64, 1350, 4096] {
            let numbered = Numbered { before: String::new(), digits: 1, after: String::new(), first: 1, count };
            let numbers: Vec<u64> = numbered.spread().map(|path| path.parse().unwrap()).collect();
            assert_eq!(numbers.iter().collect::<HashSet<_>>().len() as u64, count);
            let mut early: Vec<_> = numbers.iter().take(64).copied().collect();
            early.sort_unstable();
            let gap = early.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
            assert!(gap <= 3 * count.div_ceil(64), "{count}: {gap}");
        }
    }
}
