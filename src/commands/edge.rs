//! `larder edge`: the role; and with a subcommand, the edges that control knows.

use std::{
    env,
    path::{self, Path, PathBuf},
    process,
};

use anyhow::{Context as _, anyhow};
use edge::{Edge, config::Config, handover::Inheritance};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{confirm, print_json};
use crate::{
    api::{Api, escaped},
    cli::{
        edges::{EdgeArgs, EdgeCommand, EdgeListArgs, EdgeRemoveArgs, EdgeShowArgs},
        operator::OperatorArgs,
    },
    config::{ConfigFile, Role},
    service,
    table::{Table, ago, bytes, everything, facts, plain, words},
};

pub(super) async fn run(args: EdgeArgs) -> anyhow::Result<()> {
    match (args.command, args.config) {
        (Some(EdgeCommand::List(args)), _) => list(&args).await,
        (Some(EdgeCommand::Show(args)), _) => show(&args).await,
        (Some(EdgeCommand::Remove(args)), _) => remove(&args).await,
        (Some(EdgeCommand::Drain(args)), _) => set_drained(&args, true).await,
        (Some(EdgeCommand::Undrain(args)), _) => set_drained(&args, false).await,
        (None, Some(config)) => serve(&config).await,
        (None, None) => Err(anyhow!("clap asks for --config where there is no subcommand")),
    }
}

async fn serve(file: &Path) -> anyhow::Result<()> {
    // Now, since an upgrade replaces it.
    let program = program()?;
    let read = || anyhow::Ok(ConfigFile::open(file, Some(Role::Edge))?.read(Config::read)?.0);
    let edge = match Inheritance::from_environment().await? {
        None => Edge::open(read()?).await.context("the edge cannot start")?,
        Some(inheritance) => match read() {
            Ok(config) => Edge::succeed(config, inheritance).await.context("the edge cannot take over")?,
            Err(error) => {
                inheritance.refuse(&format!("{error:#}")).await;
                return Err(error);
            }
        },
    };
    let (version, generation) = (env!("CARGO_PKG_VERSION"), edge.generation());
    let plain_addr = edge.plain_addr().map(tracing::field::display);
    tracing::info!(version, generation, addr = %edge.addr(), plain_addr, admin_addr = %edge.admin_addr(), "larder edge is ready");
    let certificates = edge.tls();
    let reload = || match certificates.reload() {
        Ok(()) => tracing::info!("certificate, key and secret of tickets are read anew"),
        Err(error) => tracing::error!(%error, "the certificate stays as it was, and so do the key and the secret of tickets"),
    };
    let stop = CancellationToken::new();
    let handover = edge.handover();
    let upgrade = || {
        let mut command = process::Command::new(&program);
        command.args(env::args_os().skip(1));
        let handover = handover.clone();
        async move { Ok(handover.start(command).await?) }
    };
    service::run_upgradable(edge.run(stop.clone()), stop, reload, upgrade, generation > 0).await
}

/// The program by the name that it was started by, under which an upgrade is found: what the system calls it is the file as it was.
fn program() -> anyhow::Result<PathBuf> {
    match env::args_os().next().map(PathBuf::from) {
        Some(name) if name.components().count() > 1 => path::absolute(name).context("cannot tell where the program is"),
        // It was looked for in the folders of PATH.
        _ => env::current_exe().context("cannot tell where the program is"),
    }
}

/// `GET /fleet/edges`.
#[derive(Deserialize)]
struct Fleet {
    edges: Vec<Value>,
}

async fn fleet(operator: &OperatorArgs) -> anyhow::Result<Vec<Value>> {
    let Fleet { edges } = Api::of(operator)?.get("/fleet/edges").await?;
    Ok(edges)
}

async fn list(args: &EdgeListArgs) -> anyhow::Result<()> {
    let edges = fleet(&args.operator).await?;
    if args.json {
        return edges.iter().try_for_each(print_json);
    }
    let mut table = Table::new(["EDGE", "SITE", "HEALTH", "REPORTED", "LOAD", "CONNECTIONS", "SENT", "VERSION", "URL"]);
    for edge in &edges {
        let report = &edge["report"];
        table.row([
            words(&edge["edge"]),
            words(&edge["site"]),
            health(edge),
            ago(&edge["reportAgeMs"]),
            load(edge),
            words(&report["connections"]),
            bytes(&report["bytesSent"]),
            words(&edge["version"]),
            words(&edge["url"]),
        ]);
    }
    if table.is_empty() {
        say!("no edge is registered");
    }
    table.lines().iter().try_for_each(|line| {
        say!("{line}");
        anyhow::Ok(())
    })
}

fn health(edge: &Value) -> String {
    let drained = if edge["isDrained"] == true { ", drained" } else { "" };
    format!("{}{drained}", words(&edge["health"]))
}

fn load(edge: &Value) -> String {
    edge["loadPermille"].as_u64().map_or_else(String::new, |permille| format!("{:.1} %", permille as f64 / 10.0))
}

async fn show(args: &EdgeShowArgs) -> anyhow::Result<()> {
    let edges = fleet(&args.operator).await?;
    let edge = edges.iter().find(|edge| edge["edge"] == args.id.as_str());
    let edge = edge.ok_or_else(|| anyhow!("no edge {:?} is registered; larder edge list shows those that are", args.id))?;
    if args.json {
        return print_json(edge);
    }
    say!("{}: {}", words(&edge["edge"]), health(edge));
    let known = ["edge", "health", "isDrained", "reportAgeMs", "loadPermille", "report"];
    let others = everything(edge).into_iter().filter(|(name, _)| !known.contains(&name.split('.').next().unwrap_or(name)));
    let told = others.chain([("load".to_owned(), load(edge)), ("reported".to_owned(), ago(&edge["reportAgeMs"]))]);
    for line in facts(told) {
        say!("{line}");
    }
    match &edge["report"] {
        Value::Null => say!("it has not reported since control started"),
        report => {
            say!("what it reported last, counted since it started:");
            for line in facts(everything(report)) {
                say!("{line}");
            }
        }
    }
    Ok(())
}

async fn remove(args: &EdgeRemoveArgs) -> anyhow::Result<()> {
    let id = plain(&args.id);
    let api = Api::of(&args.operator)?;
    confirm(args.yes, "removing an edge", || format!("Nobody will be sent to {id} any more. Have control forget it?"))?;
    api.delete(&format!("/fleet/edges/{}", escaped(&args.id))).await?;
    if args.json {
        return print_json(&json!({ "removed": args.id }));
    }
    say!("{id} is forgotten. If it is alive after all, it registers again.");
    Ok(())
}

async fn set_drained(args: &EdgeShowArgs, is_drained: bool) -> anyhow::Result<()> {
    let order = if is_drained { "drain" } else { "undrain" };
    Api::of(&args.operator)?.post(&format!("/fleet/edges/{}/{order}", escaped(&args.id))).await?;
    if args.json {
        return print_json(&json!({ "edge": args.id, "isDrained": is_drained }));
    }
    match is_drained {
        true => say!("nobody is sent to {} any more; larder edge undrain takes that back", plain(&args.id)),
        false => say!("viewers are sent to {} once it reports that it is ready", plain(&args.id)),
    }
    Ok(())
}
