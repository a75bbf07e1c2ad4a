//! Structured logs on standard error.
//!
//! Everything is written as it happens, but for the access log: its lines, one a request, are gathered and written together ([`access`]).

mod access;

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::EnvFilter;

pub(crate) use access::Flush;

use crate::cli::LogFormat;

/// Starts logging at `level`, or as `LARDER_LOG` says ("debug", "edge=trace,info"; see tracing-subscriber's `EnvFilter`). What is gathered is
/// written when the result is dropped, at the latest.
pub(crate) fn start(format: LogFormat, level: Level) -> Flush {
    let filter = EnvFilter::builder().with_default_directive(level.into()).with_env_var("LARDER_LOG").from_env_lossy();
    let is_terminal = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(access::Out).with_ansi(is_terminal);
    match format {
        LogFormat::Text => log.map_event_format(|other| access::Format { line: access::text, other }).init(),
        LogFormat::Json => log.json().map_event_format(|other| access::Format { line: access::json, other }).init(),
    }
    Flush
}
