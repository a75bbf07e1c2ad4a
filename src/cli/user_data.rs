//! `larder user-data`, as it is typed.

use clap::{Args, Subcommand, builder::NonEmptyStringValueParser};

use super::operator::OperatorArgs;

pub(super) const USER_DATA: &str = "\
Examples:
  larder user-data show alice
  larder user-data show alice/kids --json > alice-kids.json
  larder user-data remove alice/kids --yes

A user is the subject (sub) of her tokens, \"!\" and their issuer if that is not the first that is configured, and \"/\" and a
profile if there is one; characters other than letters, digits and - . _ ~ @ | : + = are escaped as in a URI (%20). Each profile
has data of its own. An admin's secret is needed. Control is at http://127.0.0.1:8080 unless --control or LARDER_CONTROL says otherwise.";

#[derive(Debug, Args)]
pub(crate) struct UserDataArgs {
    #[command(subcommand)]
    pub(crate) command: UserDataCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserDataCommand {
    /// Show all that is kept of a user: what she watched, what she thinks of it, what she hid
    #[command(after_help = SHOW)]
    Show(UserDataShowArgs),
    /// Forget all that is kept of a user
    #[command(after_help = REMOVE)]
    Remove(UserDataRemoveArgs),
}

const SHOW: &str = "\
Examples:
  larder user-data show alice
  larder user-data show alice/kids --json > alice-kids.json

The JSON is complete, to be handed to her. A user who never did anything has nothing; that is no error.";

#[derive(Debug, Args)]
pub(crate) struct UserDataShowArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The user's id
    #[arg(value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) user: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const REMOVE: &str = "\
Example:
  larder user-data remove alice/kids --yes

When it is done, nothing is left in control's files but a digest of the id, for 90 days, so that what players did before and send
late is not taken. Backups of control are not changed. It asks first, unless --yes is given.";

#[derive(Debug, Args)]
pub(crate) struct UserDataRemoveArgs {
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
    /// The user's id
    #[arg(value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) user: String,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
