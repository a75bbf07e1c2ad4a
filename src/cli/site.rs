//! `larder site`, as it is typed.

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};
use ipnet::IpNet;

use super::{operator::OperatorArgs, prefix};

pub(super) const SITE: &str = "\
Examples:
  larder site list
  larder site set berlin --latitude 52.5 --longitude 13.4 --prefix 203.0.113.0/24
  larder site remove berlin --yes

A site is edges that stand together. Control is at http://127.0.0.1:8080 and an operator's secret in /etc/larder/secrets/operator
unless --control and --token-file or LARDER_CONTROL and LARDER_TOKEN_FILE say otherwise.";

#[derive(Debug, Args)]
pub(crate) struct SiteArgs {
    #[command(subcommand)]
    pub(crate) command: SiteCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SiteCommand {
    /// List the sites that control knows
    #[command(after_help = LIST)]
    List(SiteListArgs),
    /// Show a site and the prefixes that it serves first
    #[command(after_help = SHOW)]
    Show(SiteShowArgs),
    /// Say what is known of a site, in place of what was said before
    #[command(after_help = SET)]
    Set(SiteSetArgs),
    /// Forget what was said of a site
    #[command(after_help = REMOVE)]
    Remove(SiteRemoveArgs),
}

const LIST: &str = "\
Examples:
  larder site list
  larder site list --json | jq -r 'select(.edges == 0).site'";

#[derive(Debug, Args)]
pub(crate) struct SiteListArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// Print a JSON object on a line for each site
    #[arg(long)]
    pub(crate) json: bool,
}

const SHOW: &str = "\
Examples:
  larder site show berlin
  larder site show berlin --json | jq -r '.prefixes[]'";

#[derive(Debug, Args)]
pub(crate) struct SiteShowArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The site's name: site in its edges' configuration
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const SET: &str = "\
Examples:
  larder site set berlin --latitude 52.5 --longitude 13.4 --cost 3 --capacity-bits-per-second 40000000000
  larder site set office --closed --prefix 203.0.113.0/24 --prefix 2001:db8::/32

What is left out is not known any more, or free, or for everybody. A site of control's configuration is changed there.";

#[derive(Debug, Args)]
pub(crate) struct SiteSetArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The site's name: site in its edges' configuration
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: String,
    /// Degrees north
    #[arg(long, value_name = "DEGREES", requires = "longitude", allow_hyphen_values = true)]
    pub(crate) latitude: Option<f64>,
    /// Degrees east
    #[arg(long, value_name = "DEGREES", requires = "latitude", allow_hyphen_values = true)]
    pub(crate) longitude: Option<f64>,
    /// What a gigabyte from there costs beside the others, in any unit
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) cost: u32,
    /// What all of its edges together may send
    #[arg(long, value_name = "N")]
    pub(crate) capacity_bits_per_second: Option<u64>,
    /// Serve only clients in its prefixes
    #[arg(long)]
    pub(crate) closed: bool,
    /// A network that it serves first, besides those that its edges announce; may be given again
    #[arg(long, value_name = "CIDR", value_parser = prefix)]
    pub(crate) prefix: Vec<IpNet>,
    /// Print one JSON object: the site as it is now
    #[arg(long)]
    pub(crate) json: bool,
}

const REMOVE: &str = "\
Example:
  larder site remove berlin --yes

Edges that stand there stay, and so does the site while there are any. It asks first, unless --yes is given.";

#[derive(Debug, Args)]
pub(crate) struct SiteRemoveArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The site's name
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: String,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
