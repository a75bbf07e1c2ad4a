//! `larder catalog`: control's catalogue, looked into and changed over its API.

use std::{
    fs::File,
    io::{Read, stdin},
    path::Path,
};

use anyhow::{Context as _, bail, ensure};
use http::StatusCode;
use indicatif::{HumanBytes, HumanCount};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wire::title::{TitleId, TitleKind};

use super::{confirm, print_json};
use crate::{
    api::{Api, Refused, Version, escaped},
    cli::{
        Misuse,
        catalog::{
            CatalogArgs, CatalogCommand, CatalogListArgs, CatalogPublishArgs, CatalogRemoveArgs, CatalogShowArgs,
            CatalogUpdateArgs,
        },
    },
    table::{Table, clock, facts, plain, words},
};

/// The most titles that control gives at once.
const PAGE_MAX: u64 = 100;
/// What control takes of one title.
const TITLE_BYTES_MAX: u64 = 32 << 20;
/// What control takes of one merge patch.
const PATCH_BYTES_MAX: u64 = 64 << 10;

pub(super) async fn run(args: CatalogArgs) -> anyhow::Result<()> {
    match args.command {
        CatalogCommand::List(args) if args.facets => count(&args).await,
        CatalogCommand::List(args) => list(&args).await,
        CatalogCommand::Show(args) => show(&args).await,
        CatalogCommand::Publish(args) => publish(&args).await,
        CatalogCommand::Update(args) => update(&args).await,
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
    #[serde(default = "yes")]
    complete: bool,
}

fn yes() -> bool {
    true
}

/// The titles that are meant, as they stand in a query that begins before them.
fn wanted(args: &CatalogListArgs) -> String {
    let one_of = |values: &[String]| (!values.is_empty()).then(|| values.join(","));
    let kinds: Vec<String> = args.kind.iter().map(TitleKind::to_string).collect();
    let parameters = [
        ("searchQuery", args.search.clone()),
        ("genre", one_of(&args.genre)),
        ("year", one_of(&args.year)),
        ("language", one_of(&args.language)),
        ("kind", one_of(&kinds)),
    ];
    parameters.iter().filter_map(|(name, value)| Some(format!("&{name}={}", escaped(value.as_ref()?)))).collect()
}

async fn list(args: &CatalogListArgs) -> anyhow::Result<()> {
    let api = Api::of(&args.operator)?;
    let wanted = wanted(args);
    let sort = args.sort.as_ref().map_or_else(String::new, |sort| format!("&sort={sort}"));
    let mut is_complete = true;
    let mut left = if args.all { u64::MAX } else { args.limit };
    let mut table = Table::new(["ID", "PLAYS", "KIND", "YEAR", "RATING", "CATALOGUED", "TITLE"]);
    let mut cursor: Option<String> = None;
    let there_is_more = loop {
        let after = cursor.as_ref().map_or_else(String::new, |cursor| format!("&nextCursor={}", escaped(cursor)));
        let page: Page = api.get(&format!("/videos?limit={}&facets=false{wanted}{sort}{after}", left.min(PAGE_MAX))).await?;
        left = left.saturating_sub(page.videos.len() as u64);
        is_complete &= page.complete;
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
        say!("{}", none(&wanted));
    }
    for line in table.lines() {
        say!("{line}");
    }
    if there_is_more {
        eprintln!("There are more: --limit says how many to list, --all lists all.");
    }
    if !is_complete {
        warn_of_more();
    }
    Ok(())
}

const fn none(wanted: &str) -> &'static str {
    if wanted.is_empty() { "the catalogue is empty" } else { "no title is found" }
}

fn warn_of_more() {
    eprintln!("Control's search could not look at all titles now: there may be more of them.");
}

/// `GET /videos`, as far as it is figures.
#[derive(Serialize, Deserialize)]
struct Counts {
    total: u64,
    facets: Map<String, Value>,
    #[serde(default = "yes")]
    complete: bool,
}

async fn count(args: &CatalogListArgs) -> anyhow::Result<()> {
    let wanted = wanted(args);
    let counts: Counts = Api::of(&args.operator)?.get(&format!("/videos?limit=1&facets=true{wanted}")).await?;
    if args.json {
        return print_json(&counts);
    }
    match counts.total {
        0 => say!("{}", none(&wanted)),
        1 => say!("1 title"),
        total => say!("{} titles", HumanCount(total)),
    }
    let mut table = Table::new(["OF", "VALUE", "TITLES"]);
    for (name, values) in &counts.facets {
        for value in values.as_array().into_iter().flatten() {
            table.row([plain(name), named(&value["value"]), words(&value["count"])]);
        }
    }
    for line in table.lines() {
        say!("{line}");
    }
    if !counts.complete {
        warn_of_more();
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

fn year(video: &Value) -> String {
    named(&video["year"])
}

/// A value in words that names something: a year has no thousands.
fn named(value: &Value) -> String {
    value.as_u64().map_or_else(|| words(value), |number| number.to_string())
}

async fn show(args: &CatalogShowArgs) -> anyhow::Result<()> {
    let video = tagged(Api::of(&args.operator)?.version(&format!("/videos/{}", args.id)).await?);
    if args.json { print_json(&video) } else { print(&video) }
}

/// A title, and its entity tag among what is said of it.
fn tagged(Version { value: mut video, etag }: Version<Map<String, Value>>) -> Value {
    video.extend(etag.map(|etag| ("etag".to_owned(), etag.into())));
    video.into()
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
        ("etag", words(&video["etag"])),
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
    let json = open(&args.file, TITLE_BYTES_MAX).with_context(|| format!("cannot read the title in {file}"))?;
    let Named { id } =
        serde_json::from_slice(&json).with_context(|| format!("{file} is not a title as an origin publishes it"))?;
    let api = Api::of(&args.operator)?;
    let query = if args.allow_duplicate { "?allowDuplicate=true" } else { "" };
    let published = api.publish(&format!("/videos/{id}{query}"), json.into(), args.replace).await;
    let (version, is_new) = published.map_err(|error| match status(&error) {
        Some(StatusCode::PRECONDITION_FAILED) => {
            error.context(format!("{id} is catalogued already; --replace puts this one in its place"))
        }
        Some(StatusCode::CONFLICT) => {
            error.context(format!("the film of {id} is catalogued under another id; --allow-duplicate catalogues it beside that"))
        }
        _ => error,
    })?;
    let video = tagged(version);
    if args.json {
        return print_json(&video);
    }
    say!("{id} is catalogued{}: {}", if is_new { "" } else { " in place of the earlier one" }, words(&video["title"]));
    Ok(())
}

/// Why control refuses, if that is what went wrong.
fn status(error: &anyhow::Error) -> Option<StatusCode> {
    error.downcast_ref::<Refused>().map(|refused| refused.status)
}

fn open(file: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    read(File::open(file)?, bytes_max)
}

fn read(from: impl Read, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let mut json = Vec::new();
    from.take(bytes_max + 1).read_to_end(&mut json)?;
    ensure!(json.len() as u64 <= bytes_max, "it is larger than {}", HumanBytes(bytes_max));
    Ok(json)
}

async fn update(args: &CatalogUpdateArgs) -> anyhow::Result<()> {
    let id = &args.id;
    let patch = match &args.patch {
        Some(file) => written(file)?,
        None => typed(args)?,
    };
    if patch.is_empty() {
        return Err(Misuse(format!(
            "there is nothing to change of {id}: say what with --title, --description, --cast, --rating, --genre, --year, --language, \
             --kind, --clear or --patch"
        ))
        .into());
    }
    let api = Api::of(&args.operator)?;
    let amended = api.amend(&format!("/videos/{id}/metadata"), &patch, args.if_match.as_ref()).await;
    let video = tagged(amended.map_err(|error| match status(&error) {
        Some(StatusCode::PRECONDITION_FAILED) => {
            error.context(format!("{id} was changed since it had this etag; larder catalog show {id} says how it is now"))
        }
        _ => error,
    })?);
    if args.json { print_json(&video) } else { print(&video) }
}

/// The merge patch of `file`, or of standard input. What may stand in it is control's to judge.
fn written(file: &Path) -> anyhow::Result<Map<String, Value>> {
    let (name, json) = match file == Path::new("-") {
        true => ("standard input".to_owned(), read(stdin(), PATCH_BYTES_MAX)),
        false => (file.display().to_string(), open(file, PATCH_BYTES_MAX)),
    };
    let json = json.with_context(|| format!("cannot read the merge patch in {name}"))?;
    serde_json::from_slice(&json)
        .with_context(|| format!("{name} is not a merge patch: one JSON object that says what to change"))
}

/// The merge patch that is typed.
fn typed(args: &CatalogUpdateArgs) -> Result<Map<String, Value>, Misuse> {
    let text = |text: &Option<String>| text.as_ref().map(|text| json!(text));
    let names = |names: &[String]| (!names.is_empty()).then(|| json!(names));
    let members = [
        ("title", text(&args.title)),
        ("description", text(&args.description)),
        ("cast", names(&args.cast)),
        ("rating", text(&args.rating)),
        ("genres", names(&args.genre)),
        ("year", args.year.map(|year| json!(year))),
        ("language", text(&args.language)),
        ("kind", args.kind.map(|kind| json!(kind))),
    ];
    let mut patch: Map<_, _> = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    for field in &args.clear {
        let name = field.member();
        if patch.insert(name.to_owned(), Value::Null).is_some_and(|value| !value.is_null()) {
            return Err(Misuse(format!("{name} cannot be said and cleared at the same time (--clear)")));
        }
    }
    Ok(patch)
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
