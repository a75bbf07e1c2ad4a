//! Configuration files as commands read them: whose file it is, and every error in it with the file's name.

use std::{
    fmt,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::Context as _;
use wire::config::{Document, Effective, Problem};

/// A larger file is no configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a configuration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Edge,
    Origin,
    Control,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edge => "edge",
            Self::Origin => "origin",
            Self::Control => "control",
        })
    }
}

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(name: &str) -> Result<Self, NoRole> {
        match name {
            "edge" => Ok(Self::Edge),
            "origin" => Ok(Self::Origin),
            "control" => Ok(Self::Control),
            _ => Err(NoRole),
        }
    }
}

/// Not the name of a role.
#[derive(Debug, thiserror::Error)]
#[error("expected edge, origin or control")]
pub(crate) struct NoRole;

/// A configuration file that is wrong, and all that is wrong in it. Exit code 2.
#[derive(Debug)]
pub(crate) struct Flawed {
    pub(crate) file: PathBuf,
    pub(crate) problems: Vec<Problem>,
}

impl fmt::Display for Flawed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, problems } = self;
        write!(f, "{}", if problems.len() == 1 { "an error in the configuration" } else { "errors in the configuration" })?;
        problems.iter().try_for_each(|problem| write!(f, "\n{}:{problem}", file.display()))
    }
}

impl std::error::Error for Flawed {}

/// A configuration file that is being read.
pub(crate) struct ConfigFile {
    path: PathBuf,
    document: Document,
    pub(crate) role: Role,
}

impl ConfigFile {
    /// Opens the file. Its key `role` says whose it is; with `expected`, it must say that.
    pub(crate) fn open(path: &Path, expected: Option<Role>) -> anyhow::Result<Self> {
        let text = read(path).with_context(|| format!("cannot read the configuration {}", path.display()))?;
        let flawed = |problems| Flawed { file: path.to_owned(), problems };
        let mut document = Document::parse(&text).map_err(|problem| flawed(vec![problem]))?;
        let what = match expected {
            None => "\"edge\", \"origin\" or \"control\"",
            Some(Role::Edge) => "\"edge\"",
            Some(Role::Origin) => "\"origin\"",
            Some(Role::Control) => "\"control\"",
        };
        let written = document.value("role", None, what);
        if let (Some(written), Some(expected)) = (written, expected)
            && written != expected
        {
            document.problem("role", what);
        }
        match expected.or(written) {
            Some(role) => Ok(Self { path: path.to_owned(), document, role }),
            None => {
                Err(flawed(document.finish().err().unwrap_or_default().into_iter().filter(|p| p.key == "role").collect()).into())
            }
        }
    }

    /// Reads it as a role does.
    pub(crate) fn read<C>(mut self, read: impl FnOnce(&mut Document) -> Option<C>) -> Result<(C, Effective), Flawed> {
        let config = read(&mut self.document);
        let effective = self.document.finish().map_err(|problems| Flawed { file: self.path, problems })?;
        let config = config.expect("a role refuses a configuration only with a problem");
        Ok((config, effective))
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    anyhow::ensure!(text.len() as u64 <= FILE_BYTES_MAX, "it is larger than {} KiB", FILE_BYTES_MAX >> 10);
    Ok(text)
}
