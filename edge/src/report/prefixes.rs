//! The networks that an edge announces: those of its configuration, and those of a file that may change while it runs.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use ipnet::IpNet;
use wire::report::PREFIXES_MAX;

/// The largest file of prefixes, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// What is announced.
pub(crate) struct Prefixes {
    configured: Vec<IpNet>,
    file: Option<PathBuf>,
    /// When the file that was read last was written, and its size.
    read: Option<Stamp>,
    all: Vec<IpNet>,
}

type Stamp = (SystemTime, u64);

/// Why a file of prefixes is not used: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum PrefixesError {
    /// It cannot be read.
    #[error("cannot read the prefixes in {}: {reason}", .file.display())]
    File {
        /// Where.
        file: PathBuf,
        /// The system's words.
        reason: io::Error,
    },
    /// A line is none.
    #[error(
        "{}:{line}: {text:?} is no prefix; a line is one such as 203.0.113.0/24 or 2001:db8::/32, and \"#\" begins a comment", .file.display()
    )]
    Line {
        /// Where.
        file: PathBuf,
        /// From 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// There are too many.
    #[error("there are {count} prefixes in the configuration and in its file; an edge announces at most {PREFIXES_MAX}")]
    TooMany {
        /// How many.
        count: usize,
    },
}

impl Prefixes {
    /// Reads the file, if there is one.
    pub(crate) fn open(configured: Vec<IpNet>, file: Option<PathBuf>) -> Result<Self, PrefixesError> {
        let mut prefixes = Self { configured, file, read: None, all: Vec::new() };
        prefixes.all = prefixes.read(prefixes.stamp())?;
        Ok(prefixes)
    }

    /// Sorted, each once, with no bit set beyond its length.
    pub(super) fn all(&self) -> &[IpNet] {
        &self.all
    }

    /// Reads the file again if it was written since. Says whether the prefixes are others now; they stay as they were if it is flawed.
    pub(super) fn refresh(&mut self) -> bool {
        let stamp = self.stamp();
        if stamp.is_none() || stamp == self.read {
            return false;
        }
        match self.read(stamp) {
            Ok(all) => {
                let is_other = all != self.all;
                self.all = all;
                is_other
            }
            Err(error) => {
                tracing::warn!(%error, "the prefixes stay as they were");
                false
            }
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let written = fs::metadata(self.file.as_ref()?).ok()?;
        Some((written.modified().ok()?, written.len()))
    }

    fn read(&mut self, stamp: Option<Stamp>) -> Result<Vec<IpNet>, PrefixesError> {
        // Also where it is flawed: it is not complained about again until it is written again.
        self.read = stamp;
        let mut all: BTreeSet<_> = self.configured.iter().map(IpNet::trunc).collect();
        if let Some(file) = &self.file {
            all.extend(in_file(file)?);
        }
        if all.len() > PREFIXES_MAX {
            return Err(PrefixesError::TooMany { count: all.len() });
        }
        Ok(all.into_iter().collect())
    }
}

fn in_file(file: &Path) -> Result<Vec<IpNet>, PrefixesError> {
    let unreadable = |reason| PrefixesError::File { file: file.to_owned(), reason };
    if fs::metadata(file).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {FILE_BYTES_MAX} bytes"))));
    }
    let text = fs::read_to_string(file).map_err(unreadable)?;
    let lines = (1..).zip(text.lines()).map(|(line, text)| (line, text.split('#').next().unwrap_or_default().trim()));
    let prefixes = lines.filter(|(_, text)| !text.is_empty()).map(|(line, text)| match text.parse::<IpNet>() {
        Ok(prefix) => Ok(prefix.trunc()),
        Err(_) => Err(PrefixesError::Line { file: file.to_owned(), line, text: text.to_owned() }),
    });
    prefixes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn configuration_and_file_together_are_announced_each_prefix_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prefixes");
        fs::write(&file, "# ours\n203.0.113.0/24\n\n2001:db8::/32 # theirs\n203.0.113.7/24\n").unwrap();
        let mut prefixes = Prefixes::open(vec![net("10.1.2.3/8"), net("203.0.113.0/24")], Some(file.clone())).unwrap();
        assert_eq!(prefixes.all(), [net("10.0.0.0/8"), net("203.0.113.0/24"), net("2001:db8::/32")]);
        assert!(!prefixes.refresh(), "nobody has written it");
        fs::write(&file, "198.51.100.0/24").unwrap();
        assert!(prefixes.refresh());
        assert_eq!(prefixes.all(), [net("10.0.0.0/8"), net("198.51.100.0/24"), net("203.0.113.0/24")]);
        fs::write(&file, "198.51.100.0/24\nnonsense").unwrap();
        assert!(!prefixes.refresh());
        assert_eq!(prefixes.all().len(), 3, "a flawed file changes nothing");
    }

    #[test]
    fn a_flaw_is_told_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prefixes");
        let error = Prefixes::open(Vec::new(), Some(file.clone())).err().unwrap().to_string();
        assert!(error.starts_with(&format!("cannot read the prefixes in {}: ", file.display())), "{error}");
        fs::write(&file, "# a\n10.0.0.0\n").unwrap();
        let error = Prefixes::open(Vec::new(), Some(file.clone())).err().unwrap().to_string();
        assert!(error.starts_with(&format!("{}:2: \"10.0.0.0\" is no prefix", file.display())), "{error}");
        let many: Vec<_> =
            (0..=PREFIXES_MAX as u32).map(|n| IpNet::new(std::net::Ipv4Addr::from(n).into(), 32).unwrap()).collect();
        assert!(matches!(Prefixes::open(many, None), Err(PrefixesError::TooMany { .. })));
    }
}
