//! `larder catalog`, as it is typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use wire::title::TitleId;

use super::operator::OperatorArgs;

pub(super) const CATALOG: &str = "\
Examples:
  larder catalog list --search \"great escape\"
  larder catalog show film-17
  larder catalog remove film-17 --yes

They ask control at http://127.0.0.1:8080 with the secret in /etc/larder/secrets/operator, unless --control and --token-file
or LARDER_CONTROL and LARDER_TOKEN_FILE say otherwise. Titles come into the catalogue by larder ingest.";

#[derive(Debug, Args)]
pub(crate) struct CatalogArgs {
    #[command(subcommand)]
    pub(crate) command: CatalogCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// List titles, the newest first, or those that a search finds
    #[command(after_help = LIST)]
    List(CatalogListArgs),
    /// Show a title and its renditions
    #[command(after_help = SHOW)]
    Show(CatalogShowArgs),
    /// Catalogue a title that an origin has already
    #[command(after_help = PUBLISH)]
    Publish(CatalogPublishArgs),
    /// Take a title out of the catalogue
    #[command(after_help = REMOVE)]
    Remove(CatalogRemoveArgs),
}

const LIST: &str = "\
Examples:
  larder catalog list
  larder catalog list --search \"great escape\" --limit 5
  larder catalog list --all --json | jq -r .id

With --json it prints a line for each title. When there are more titles than --limit, standard error says so.";

#[derive(Debug, Args)]
pub(crate) struct CatalogListArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// Only titles with these words, at most 200 characters
    #[arg(long, value_name = "WORDS")]
    pub(crate) search: Option<String>,
    /// How many titles
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: u64,
    /// All of them
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
    /// Print a JSON object on a line for each title
    #[arg(long)]
    pub(crate) json: bool,
}

const SHOW: &str = "\
Examples:
  larder catalog show film-17
  larder catalog show film-17 --json | jq '.renditions[].codecs'";

#[derive(Debug, Args)]
pub(crate) struct CatalogShowArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The title's id
    #[arg(value_name = "ID")]
    pub(crate) id: TitleId,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const PUBLISH: &str = "\
Examples:
  larder catalog publish /var/lib/larder/origin/titles/2c26…/.title.json
  larder catalog publish film-17.json --replace

The file is a title as the origin published it: .title.json in the title's folder. The title's id stands in it. One that is
catalogued under this id already is left as it is, unless --replace is given; then it keeps its place in lists.";

#[derive(Debug, Args)]
pub(crate) struct CatalogPublishArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The title (JSON), at most 32 MiB
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Put it in the place of the title that has this id
    #[arg(long)]
    pub(crate) replace: bool,
    /// Print one JSON object: the title as it is catalogued
    #[arg(long)]
    pub(crate) json: bool,
}

const REMOVE: &str = "\
Example:
  larder catalog remove film-17 --yes

Its files stay at the origin, and what edges hold of it stays there until it is purged (larder cache purge). URLs that were
signed stay good until they expire. It asks first, unless --yes is given.";

#[derive(Debug, Args)]
pub(crate) struct CatalogRemoveArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The title's id
    #[arg(value_name = "ID")]
    pub(crate) id: TitleId,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
