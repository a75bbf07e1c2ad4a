//! `larder catalog`: control's catalogue, looked into and changed over its API.

use std::{fs::File, io::Read as _, path::Path};

use anyhow::{Context as _, bail, ensure};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use wire::title::TitleId;

use super::{confirm, print_json};
use crate::{
    api::{Api, Refused, escaped},
    cli::catalog::{CatalogArgs, CatalogCommand, CatalogListArgs, CatalogPublishArgs, CatalogRemoveArgs, CatalogShowArgs},
    table::{Table, clock, facts, words},
};

/// The most titles that control gives at once.
const PAGE_MAX: u64 = 100;
/// What control takes of one title.
const TITLE_BYTES_MAX: u64 = 32 << 20;

pub(super) async fn run(args: CatalogArgs) -> anyhow::Result<()> {
    match args.command {
        CatalogCommand::List(args) => list(&args).await,
        CatalogCommand::Show(args) => show(&args).await,
        CatalogCommand::Publish(args) => publish(&args).await,
        CatalogCommand::Remove(args) => remove(&args).await,
    }
}

/// `GET /videos`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    videos: Vec<Value>,
    #[serde(default)]
    next_cursor: Option<String>,
}

async fn list(args: &CatalogListArgs) -> anyhow::Result<()> {
    let api = Api::of(&args.operator)?;
    let search = args.search.as_ref().map_or_else(String::new, |words| format!("&searchQuery={}", escaped(words)));
    let mut left = if args.all { u64::MAX } else { args.limit };
    let mut table = Table::new(["ID", "PLAYS", "KIND", "YEAR", "RATING", "CATALOGUED", "TITLE"]);
    let mut cursor: Option<String> = None;
    let there_is_more = loop {
        let after = cursor.as_ref().map_or_else(String::new, |cursor| format!("&nextCursor={}", escaped(cursor)));
        let page: Page = api.get(&format!("/videos?limit={}{search}{after}", left.min(PAGE_MAX))).await?;
        left = left.saturating_sub(page.videos.len() as u64);
        for video in &page.videos {
            if args.json { print_json(video)? } else { table.row(row(video)) }
        }
        match page.next_cursor {
            None => break false,
            Some(_) if left == 0 => break true,
            Some(next) if cursor.as_ref() == Some(&next) => bail!("control gives the same page of titles again"),
            Some(next) => cursor = Some(next),
        }
    };
    if table.is_empty() && !args.json {
        say!("{}", if args.search.is_some() { "no title is found" } else { "the catalogue is empty" });
    }
    for line in table.lines() {
        say!("{line}");
    }
    if there_is_more {
        eprintln!("There are more: --limit says how many to list, --all lists all.");
    }
    Ok(())
}

fn row(video: &Value) -> [String; 7] {
    [
        words(&video["id"]),
        clock(&video["durationMs"]),
        words(&video["kind"]),
        year(video),
        words(&video["rating"]),
        words(&video["createdAt"]),
        words(&video["title"]),
    ]
}

/// A year has no thousands.
fn year(video: &Value) -> String {
    video["year"].as_u64().map_or_else(String::new, |year| year.to_string())
}

async fn show(args: &CatalogShowArgs) -> anyhow::Result<()> {
    let video: Value = Api::of(&args.operator)?.get(&format!("/videos/{}", args.id)).await?;
    if args.json { print_json(&video) } else { print(&video) }
}

fn print(video: &Value) -> anyhow::Result<()> {
    say!("{}: {}", words(&video["id"]), words(&video["title"]));
    let lines = facts([
        ("plays", clock(&video["durationMs"])),
        ("kind", words(&video["kind"])),
        ("year", year(video)),
        ("genres", words(&video["genres"])),
        ("language", words(&video["language"])),
        ("rating", words(&video["rating"])),
        ("cast", words(&video["cast"])),
        ("about", words(&video["description"])),
        ("catalogued", words(&video["createdAt"])),
    ]);
    let mut renditions = Table::new(["RENDITION", "CODECS", "KBIT/S", "PEAK", "WHAT"]);
    for rendition in video["renditions"].as_array().into_iter().flatten() {
        let kilobits = |name: &str| rendition[name].as_u64().map_or_else(String::new, |bits| words(&json!(bits / 1000)));
        let what = match (rendition["width"].as_u64(), rendition["height"].as_u64()) {
            (Some(width), Some(height)) => format!("{width}x{height} at {} frames a second", words(&rendition["frameRate"])),
            _ => [("channels ", "channels"), ("language ", "language")]
                .iter()
                .filter(|(_, name)| !rendition[*name].is_null())
                .map(|(before, name)| format!("{before}{}", words(&rendition[*name])))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let (id, codecs) = (words(&rendition["id"]), words(&rendition["codecs"]));
        renditions.row([id, codecs, kilobits("bitsPerSecondMean"), kilobits("bitsPerSecondPeak"), what]);
    }
    for line in lines.into_iter().chain(renditions.lines().into_iter().map(|line| format!("  {line}"))) {
        say!("{line}");
    }
    Ok(())
}

/// What of a title's file is looked at here; the rest is control's to judge.
#[derive(Deserialize)]
struct Named {
    id: TitleId,
}

async fn publish(args: &CatalogPublishArgs) -> anyhow::Result<()> {
    let file = args.file.display();
    let json = read(&args.file).with_context(|| format!("cannot read the title in {file}"))?;
    let Named { id } =
        serde_json::from_slice(&json).with_context(|| format!("{file} is not a title as an origin publishes it"))?;
    let api = Api::of(&args.operator)?;
    let published = api.publish::<Value>(&format!("/videos/{id}"), json.into(), args.replace).await;
    let (video, is_new) = published.map_err(|error| match error.downcast_ref::<Refused>() {
        Some(refused) if refused.status == StatusCode::PRECONDITION_FAILED => {
            error.context(format!("{id} is catalogued already; --replace puts this one in its place"))
        }
        _ => error,
    })?;
    if args.json {
        return print_json(&video);
    }
    say!("{id} is catalogued{}: {}", if is_new { "" } else { " in place of the earlier one" }, words(&video["title"]));
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut json = Vec::new();
    File::open(file)?.take(TITLE_BYTES_MAX + 1).read_to_end(&mut json)?;
    ensure!(json.len() as u64 <= TITLE_BYTES_MAX, "it is larger than {} MiB", TITLE_BYTES_MAX >> 20);
    Ok(json)
}

async fn remove(args: &CatalogRemoveArgs) -> anyhow::Result<()> {
    let id = &args.id;
    let api = Api::of(&args.operator)?;
    confirm(args.yes, "removing a title", || format!("Nobody will find {id} any more. Remove it from the catalogue?"))?;
    api.delete(&format!("/videos/{id}")).await?;
    if args.json {
        return print_json(&json!({ "removed": id }));
    }
    say!("{id} is removed from the catalogue. Its files stay at the origin; URLs that were signed stay good until they expire.");
    Ok(())
}
