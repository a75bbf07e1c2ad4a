//! Structured logs on standard error.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Starts logging at `level`, or as `LARDER_LOG` says ("debug", "edge=trace,info"; see tracing-subscriber's `EnvFilter`).
pub(crate) fn start(format: LogFormat, level: Level) {
    let filter = EnvFilter::builder().with_default_directive(level.into()).with_env_var("LARDER_LOG").from_env_lossy();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
