//! The one binary: parses the command line, runs a subcommand, and turns what came of it into an exit code.
//!
//! 0: done. 1: it failed. 2: it was asked in a wrong way (arguments, configuration).

mod admin;
mod api;
mod cli;
mod client;
mod commands;
mod config;
mod log;
mod service;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let _log = log::start(cli.log_format, cli.command.log_level());
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder: {error:#}");
            ExitCode::from(if error.is::<config::Flawed>() || error.is::<cli::Misuse>() { 2 } else { 1 })
        }
    }
}
