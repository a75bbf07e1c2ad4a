//! What operators' commands over control's API have in common.

use std::path::PathBuf;

use clap::Args;

/// Which control is meant, and what opens it.
#[derive(Debug, Args)]
pub(crate) struct OperatorArgs {
    /// Control's address
    #[arg(long, value_name = "URL", env = "LARDER_CONTROL", default_value = "http://127.0.0.1:8080")]
    pub(crate) control: String,
    /// The file with an operator's secret
    #[arg(long, value_name = "FILE", env = "LARDER_TOKEN_FILE", default_value = "/etc/larder/secrets/operator")]
    pub(crate) token_file: PathBuf,
}
