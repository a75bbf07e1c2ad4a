//! `larder site`: where edges stand, what that costs and whom they serve, as control knows it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{confirm, print_json};
use crate::{
    api::{Api, escaped},
    cli::site::{SiteArgs, SiteCommand, SiteListArgs, SiteRemoveArgs, SiteSetArgs, SiteShowArgs},
    table::{Table, facts, plain, words},
};

pub(super) async fn run(args: SiteArgs) -> anyhow::Result<()> {
    match args.command {
        SiteCommand::List(args) => list(&args).await,
        SiteCommand::Show(args) => show(&args).await,
        SiteCommand::Set(args) => set(&args).await,
        SiteCommand::Remove(args) => remove(&args).await,
    }
}

/// `GET /sites`.
#[derive(Deserialize)]
struct Sites {
    sites: Vec<Value>,
}

fn path(name: &str) -> String {
    format!("/sites/{}", escaped(name))
}

async fn list(args: &SiteListArgs) -> anyhow::Result<()> {
    let Sites { sites } = Api::of(&args.operator)?.get("/sites").await?;
    if args.json {
        return sites.iter().try_for_each(print_json);
    }
    let mut table = Table::new(["SITE", "KNOWN FROM", "EDGES", "PREFIXES", "COST", "CAPACITY", "FOR ALL", "AT"]);
    for site in &sites {
        table.row([
            words(&site["site"]),
            words(&site["source"]),
            words(&site["edges"]),
            prefix_count(site),
            words(&site["cost"]),
            capacity(site),
            words(&site["open"]),
            place(site),
        ]);
    }
    if table.is_empty() {
        say!("no site is known");
    }
    for line in table.lines() {
        say!("{line}");
    }
    Ok(())
}

/// Those that it was told and those that its edges announce.
fn prefix_count(site: &Value) -> String {
    let told = site["prefixes"].as_array().map_or(0, Vec::len) as u64;
    words(&json!(told + site["edgePrefixes"].as_u64().unwrap_or(0)))
}

fn capacity(site: &Value) -> String {
    site["capacityBitsPerSecond"].as_u64().map_or_else(String::new, |bits| format!("{} Mbit/s", words(&json!(bits / 1_000_000))))
}

fn place(site: &Value) -> String {
    let degrees = |name: &str| site[name].as_f64();
    degrees("latitude").zip(degrees("longitude")).map_or_else(String::new, |(north, east)| format!("{north} north, {east} east"))
}

async fn show(args: &SiteShowArgs) -> anyhow::Result<()> {
    let site = Api::of(&args.operator)?.get(&path(&args.name)).await?;
    if args.json { print_json(&site) } else { print(&site) }
}

fn print(site: &Value) -> anyhow::Result<()> {
    say!("{}", words(&site["site"]));
    for line in facts([
        ("known from", words(&site["source"])),
        ("edges", words(&site["edges"])),
        ("at", place(site)),
        ("cost", words(&site["cost"])),
        ("capacity", capacity(site)),
        ("for all", words(&site["open"])),
        ("prefixes", words(&site["prefixes"])),
        ("of edges", words(&site["edgePrefixes"])),
    ]) {
        say!("{line}");
    }
    Ok(())
}

async fn set(args: &SiteSetArgs) -> anyhow::Result<()> {
    let settings = json!({
        "latitude": args.latitude, "longitude": args.longitude, "cost": args.cost, "open": !args.closed, "prefixes": args.prefix,
        "capacityBitsPerSecond": args.capacity_bits_per_second,
    });
    let (api, path) = (Api::of(&args.operator)?, path(&args.name));
    api.put(&path, &settings).await?;
    let site = api.get(&path).await?;
    if args.json { print_json(&site) } else { print(&site) }
}

async fn remove(args: &SiteRemoveArgs) -> anyhow::Result<()> {
    let name = plain(&args.name);
    let api = Api::of(&args.operator)?;
    confirm(args.yes, "removing a site", || format!("What was said of {name} will be forgotten. Remove it?"))?;
    api.delete(&path(&args.name)).await?;
    if args.json {
        return print_json(&json!({ "removed": args.name }));
    }
    say!("what was said of {name} is forgotten");
    Ok(())
}
