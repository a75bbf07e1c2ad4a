//! The subcommands, a file each.

/// Prints a line on standard output; an error, not a panic, when nobody reads there any more.
macro_rules! say {
    ($($words:tt)*) => {
        std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($words)*)))?
    };
}

mod cache;
mod catalog;
mod check;
mod control;
mod demo;
mod edge;
mod fetch;
mod ingest;
mod origin;
mod replay;
mod sign;
mod site;
mod steer;
mod user_data;

use std::io::{IsTerminal as _, Write as _, stderr, stdin};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::cli::{Command, Misuse};

/// Threads for what waits on sockets and files besides the edge's workers, which are threads of their own.
const THREADS: usize = 2;

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(THREADS).enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        match command {
            Command::Edge(args) => edge::run(args).await,
            Command::Origin(args) => origin::run(args).await,
            Command::Control(args) => control::run(args).await,
            Command::Check(args) => check::run(&args),
            Command::Demo(args) => demo::run(args).await,
            Command::Ingest(args) => ingest::run(args).await,
            Command::Replay(args) => replay::run(&args),
            Command::Sign(args) => sign::run(&args),
            Command::Fetch(args) => fetch::run(args).await,
            Command::Cache(args) => cache::run(args).await,
            Command::Catalog(args) => catalog::run(args).await,
            Command::UserData(args) => user_data::run(args).await,
            Command::Steer(args) => steer::run(args).await,
            Command::Site(args) => site::run(args).await,
        }
    })
}

/// Prints one line of JSON on standard output.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    say!("{}", serde_json::to_string(value)?);
    Ok(())
}

/// Goes on only where `yes` was said: before, as --yes, or now, to `question`. `what` is done.
fn confirm(yes: bool, what: &str, question: impl FnOnce() -> String) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !stdin().is_terminal() {
        return Err(Misuse(format!("{what} needs --yes where nobody can be asked")).into());
    }
    eprint!("{} Type yes: ", question());
    stderr().flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    ensure!(answer.trim() == "yes", "nothing is changed");
    Ok(())
}
