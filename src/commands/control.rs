//! `larder control`, and `larder control backup`.

use anyhow::{Context as _, anyhow};
use control::{BackupStep, Control, config::Config};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::print_json;
use crate::{
    cli::{ControlArgs, ControlBackupArgs, ControlCommand},
    config::{ConfigFile, Role},
    service,
};

pub(super) async fn run(args: ControlArgs) -> anyhow::Result<()> {
    match (args.command, args.config) {
        (Some(ControlCommand::Backup(args)), _) => backup(args).await,
        (None, Some(config)) => serve(&config).await,
        (None, None) => Err(anyhow!("clap asks for --config where there is no subcommand")),
    }
}

fn read(file: &std::path::Path) -> anyhow::Result<Config> {
    Ok(ConfigFile::open(file, Some(Role::Control))?.read(Config::read)?.0)
}

async fn serve(file: &std::path::Path) -> anyhow::Result<()> {
    let control = Control::open(read(file)?).await.context("control cannot start")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), addr = %control.addr(), "larder control is ready");
    let stop = CancellationToken::new();
    service::run(control.run(stop.clone()), stop, || tracing::info!("there is nothing to reload")).await
}

/// Copies with a progress bar on standard error, where that is a terminal.
async fn backup(args: ControlBackupArgs) -> anyhow::Result<()> {
    let state_dir = read(&args.config)?.state_dir;
    let out = args.out.clone();
    let bar =
        ProgressBar::new(0).with_style(ProgressStyle::with_template("{msg:>9} {bar:40} {percent:>3} %  {elapsed}, {eta} left")?);
    let shown = bar.clone();
    let copying = tokio::task::spawn_blocking(move || {
        control::back_up(&state_dir, &out, |step| match step {
            BackupStep::Copying { pages, all } => {
                shown.set_message("copying");
                shown.set_length(all);
                shown.set_position(pages);
            }
            BackupStep::Checking => shown.set_message("checking"),
        })
    });
    let made = copying.await.context("the backup ended before its end")?;
    bar.finish_and_clear();
    let made = made?;
    if args.json {
        return print_json(&json!({
            "file": args.out, "bytes": made.bytes, "schemaVersion": made.schema_version, "titles": made.titles,
            "tookMs": u64::try_from(made.took.as_millis()).unwrap_or(u64::MAX), "integrity": "ok",
        }));
    }
    say!(
        "{}: {}, schema version {}, {} titles, checked, in {:.1} s",
        args.out.display(),
        HumanBytes(made.bytes),
        made.schema_version,
        HumanCount(made.titles),
        made.took.as_secs_f64()
    );
    Ok(())
}
