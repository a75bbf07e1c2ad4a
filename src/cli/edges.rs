//! `larder edge`, as it is typed: the role itself, and the edges that control knows.

use std::path::PathBuf;

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};

use super::operator::OperatorArgs;

pub(super) const EDGE: &str = "\
Examples:
  larder check edge.toml && larder edge --config edge.toml
  larder edge list
  larder edge show edge-a

As a role, SIGTERM or Ctrl-C drains: what is being sent is finished, nothing new is taken, exit code 0.
SIGHUP reads certificate, key and the secret of tickets anew. A commented sample of the file is config/edge.toml.

Upgrade without an interruption, and apply a changed configuration: install the new program under the same name, then
  systemctl reload larder-edge          (or: kill -USR2 PID)
starts it, and it takes over the sockets. The old process finishes what it has, at most limits.drain_timeout. If the new one cannot
serve, the old one goes on and says why in the log. listen, listen_plain, admin_listen and workers change with a restart only.

The commands ask control about its edges; see larder edge list --help.";

#[derive(Debug, Args)]
pub(crate) struct EdgeArgs {
    #[command(subcommand)]
    pub(crate) command: Option<EdgeCommand>,
    /// The role's configuration (TOML)
    #[arg(long, value_name = "FILE", required = true)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EdgeCommand {
    /// List the edges that are registered at control, and how they stand
    #[command(after_help = LIST)]
    List(EdgeListArgs),
    /// Show an edge and what it reported last
    #[command(after_help = SHOW)]
    Show(EdgeShowArgs),
    /// Have control forget an edge that is gone for good
    #[command(after_help = REMOVE)]
    Remove(EdgeRemoveArgs),
    /// Send nobody to an edge any more; whom it has, it serves
    #[command(after_help = DRAIN)]
    Drain(EdgeShowArgs),
    /// Send viewers to an edge again that was drained
    #[command(after_help = UNDRAIN)]
    Undrain(EdgeShowArgs),
}

const LIST: &str = "\
Examples:
  larder edge list
  larder edge list --control http://10.1.2.3:8080 --token-file operator.secret
  larder edge list --json | jq -r 'select(.health == \"silent\").edge'

ready takes viewers; draining finishes what it has; silent has not reported in time, so nobody is sent there.
LARDER_CONTROL and LARDER_TOKEN_FILE may say where control is instead.";

#[derive(Debug, Args)]
pub(crate) struct EdgeListArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// Print a JSON object on a line for each edge
    #[arg(long)]
    pub(crate) json: bool,
}

const SHOW: &str = "\
Examples:
  larder edge show edge-a
  larder edge show edge-a --json | jq .report";

#[derive(Debug, Args)]
pub(crate) struct EdgeShowArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The edge's id: name in its configuration
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) id: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const DRAIN: &str = "\
Example:
  larder edge drain edge-a && larder edge show edge-a

It holds from the next ranking on, also after a restart of control or the edge, until larder edge undrain.";

const UNDRAIN: &str = "\
Example:
  larder edge undrain edge-a";

const REMOVE: &str = "\
Example:
  larder edge remove edge-a --yes

Stop the edge first: one that is alive registers again by itself. It asks first, unless --yes is given.";

#[derive(Debug, Args)]
pub(crate) struct EdgeRemoveArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The edge's id
    #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) id: String,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
