//! `larder ingest`: packages a film into the origin's store and has control catalogue it.

use std::fs::File;

use anyhow::{Context as _, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use origin::{
    config::Config,
    ingest::{Ingest, Progress},
    store::FileStore,
};
use wire::{
    secret::Secret,
    title::{Media, Title},
};

use super::print_json;
use crate::{
    api::Api,
    cli::IngestArgs,
    config::{ConfigFile, Role},
    service,
};

pub(super) async fn run(args: IngestArgs) -> anyhow::Result<()> {
    let (config, _) = ConfigFile::open(&args.config, Some(Role::Origin))?.read(Config::read)?;
    let control = config.control.as_ref().ok_or_else(|| {
        anyhow!("{} names no control.url and control.token_file, so the title cannot be catalogued", args.config.display())
    })?;
    let secret = Secret::read(&control.token_file, "control.token_file", File::open(&control.token_file))?;
    let control = Api::new(&control.url, &secret)?;
    let store = FileStore::open(&config.state_dir)?;
    let IngestArgs { file: input, id, title, description, cast, rating, genre: genres, year, language, kind, .. } = args;
    let wanted = Ingest { input, id, title, description, cast, rating, genres, year, language, kind };
    let title = tokio::select! {
        title = package(&store, wanted) => title?,
        interrupted = service::interrupted() => { interrupted?; return Err(anyhow!("interrupted; nothing was published")) }
    };
    catalogue(&control, &title, args.allow_duplicate).await?;
    if args.json { print_json(&summary(&title)) } else { print(&title) }
}

/// Packages with a progress bar on standard error, or a line a step where that is no terminal.
pub(super) async fn package(store: &FileStore, wanted: Ingest) -> anyhow::Result<Title> {
    let unmeasured = ProgressStyle::with_template("{msg:>14} {spinner} {elapsed}")?;
    let measured = ProgressStyle::with_template("{msg:>14} {bar:40} {percent:>3} %  {elapsed}, {eta} left")?;
    let bar = ProgressBar::new(1000);
    let mut step = None;
    let mut report = |Progress { step: now, done }| {
        if step.replace(now) != Some(now) {
            bar.set_style(unmeasured.clone());
            bar.set_message(now.to_string());
            bar.reset();
            if bar.is_hidden() {
                eprintln!("{now} …");
            }
        }
        if let Some(done) = done {
            bar.set_style(measured.clone());
            bar.set_position((done.clamp(0.0, 1.0) * 1000.0) as u64);
        }
        bar.tick();
    };
    let title = origin::ingest::ingest(store, wanted, &mut report).await;
    bar.finish_and_clear();
    Ok(title?)
}

/// Has control catalogue a published title, also beside another one of the same source if that is allowed; repeating it is harmless.
pub(super) async fn catalogue(control: &Api, title: &Title, allow_duplicate: bool) -> anyhow::Result<()> {
    let query = if allow_duplicate { "?allowDuplicate=true" } else { "" };
    let answer = control.put(&format!("/videos/{}{query}", title.id), title).await;
    answer.with_context(|| format!("the title is published as {}, but control does not catalogue it", title.root))
}

fn summary(title: &Title) -> serde_json::Value {
    let renditions: Vec<_> = title.renditions.iter().map(|r| serde_json::json!({ "id": r.id, "codecs": r.codecs })).collect();
    serde_json::json!({
        "id": title.id, "title": title.title, "root": title.root, "durationMs": title.duration_ms,
        "fingerprint": title.fingerprint, "renditions": renditions,
        "objects": title.objects.len(), "bytes": bytes(title),
    })
}

fn print(title: &Title) -> anyhow::Result<()> {
    say!("{}: {:?}, {:.1} s, in {}", title.id, title.title, title.duration_ms as f64 / 1e3, title.root);
    for rendition in &title.renditions {
        let what = match &rendition.media {
            Media::Video { width, height, frame_rate } => format!("{width}x{height} at {frame_rate:.2} frames a second"),
            Media::Audio { channels, language, .. } => format!("{channels} channels, language {language}"),
        };
        say!("  {:6} {:16} {:>6} kbit/s  {what}", rendition.id, rendition.codecs, rendition.bits_per_second_mean / 1000);
    }
    say!("  {} objects, {} bytes", title.objects.len(), bytes(title));
    Ok(())
}

fn bytes(title: &Title) -> u64 {
    title.objects.iter().map(|object| object.bytes).sum()
}
