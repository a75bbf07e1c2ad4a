//! `larder demo`: origin, control and two edges of one site on loopback, with a title in them.
//!
//! Each role is opened from a configuration file of its own, as an operator would write it, and speaks to the others over its
//! sockets alone; they share nothing but this process.

mod play;
mod state;

use std::{
    fmt::Write as _,
    fs::File,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use control::Control;
use edge::Edge;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use origin::{Origin, ingest::Ingest, store::FileStore};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::{secret::Secret, title::Title};

use self::{
    play::Pass,
    state::{EdgePlan, State},
};
use super::{ingest, print_json};
use crate::{
    api::{Api, CdnUrl, Fleet, Playback},
    cli::DemoArgs,
    config::{ConfigFile, Role},
    service,
};

const CLIP_S: u32 = 60;
/// Where the demo listens unless something else does.
const CONTROL_PORT: u16 = 8080;
const EDGES: [(&str, u16); 2] = [("edge-a", 8443), ("edge-b", 8444)];
const EDGE_RAM_BYTES: u64 = 256 << 20;
/// How long edges may take to be ranked.
const RANKED_TIME_MAX: Duration = Duration::from_secs(20);
const RANKED_ASKED_EVERY: Duration = Duration::from_millis(50);
const STATUS_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let mut roles = Roles::default();
    let result = tokio::select! {
        result = demo(&args, &mut roles) => result,
        interrupted = service::interrupted() => interrupted,
    };
    tokio::select! {
        ended = roles.end() => result.and(ended),
        _ = service::interrupted() => Err(anyhow!("ended by a second signal, before all that was being sent was sent")),
    }
}

async fn demo(args: &DemoArgs, roles: &mut Roles) -> anyhow::Result<()> {
    let state = State::open(args.state.clone()).await?;
    // Before any role runs: without a title there is nothing to show, and packaging may take long.
    let title = package(&state, args.input.as_deref()).await?;
    let demo = Demo::start(state, roles).await?;
    ingest::catalogue(&demo.control, &title, false).await?;
    demo.wait_until_ranked(&title).await?;
    if args.once {
        return demo.play_twice(&title, args.json).await;
    }
    match args.json {
        true => print_json(&demo.ready(&title)?)?,
        false => demo.show(&title).await?,
    }
    demo.watch(roles, args.json).await
}

/// Packages the film, or a test clip, into the origin's store, unless that was done before.
async fn package(state: &State, input: Option<&Path>) -> anyhow::Result<Title> {
    let wanted = match input {
        Some(input) => {
            let title = input.file_stem().map_or_else(|| "A film".into(), |stem| stem.to_string_lossy().into_owned());
            Ingest { input: input.to_owned(), title, ..Ingest::default() }
        }
        None => Ingest {
            input: clip(state).await?,
            id: Some("demo".parse()?),
            title: "Demo clip".into(),
            description: "A moving test pattern, and a tone with a beep every second.".into(),
            ..Ingest::default()
        },
    };
    ingest::package(&FileStore::open(&origin_config(state)?.state_dir)?, wanted).await
}

async fn clip(state: &State) -> anyhow::Result<PathBuf> {
    let clip = state.path("clip.mp4");
    if !clip.exists() {
        eprintln!("making a test clip of {CLIP_S} s");
        origin::demo_clip(&clip, CLIP_S).await.context("cannot make the test clip")?;
    }
    Ok(clip)
}

fn origin_config(state: &State) -> anyhow::Result<origin::config::Config> {
    Ok(ConfigFile::open(&state.origin_config()?, Some(Role::Origin))?.read(origin::config::Config::read)?.0)
}

/// What runs. Edges end first: they still report to control, and may still fill from the origin.
#[derive(Default)]
struct Roles {
    edges: Group,
    others: Group,
}

impl Roles {
    /// A role that ended though nobody stopped it.
    fn ended(&mut self) -> anyhow::Result<()> {
        let ended = self.edges.running.try_join_next().or_else(|| self.others.running.try_join_next());
        ended.map_or(Ok(()), |ended| ended?.and(Err(anyhow!("a role ended by itself"))))
    }

    async fn end(self) -> anyhow::Result<()> {
        let edges = self.edges.end().await;
        edges.and(self.others.end().await)
    }
}

/// Roles that are stopped together.
#[derive(Default)]
struct Group {
    stop: CancellationToken,
    running: JoinSet<anyhow::Result<()>>,
}

impl Group {
    fn start<W, E>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> W)
    where
        W: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let work = run(self.stop.clone());
        self.running.spawn(async move { work.await.with_context(|| format!("{name} failed")) });
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let mut result = Ok(());
        while let Some(ended) = self.running.join_next().await {
            result = result.and(ended?);
        }
        result
    }
}

/// A demo whose roles run.
struct Demo {
    state: State,
    /// Control's URL and its API as an operator may use it.
    control_url: String,
    control: Api,
    /// Where players reach the edges: host and port.
    edges: Vec<String>,
}

impl Demo {
    async fn start(state: State, roles: &mut Roles) -> anyhow::Result<Self> {
        let origin = Origin::open(origin_config(&state)?).await.context("the origin cannot start")?;
        let origin_url = format!("http://{}", origin.addr());
        roles.others.start("the origin", |stop| origin.run(stop));

        let config = state.control_config(free_port(CONTROL_PORT)?)?;
        let (config, _) = ConfigFile::open(&config, Some(Role::Control))?.read(control::config::Config::read)?;
        let control = Control::open(config).await.context("control cannot start")?;
        let control_url = format!("http://{}", control.addr());
        roles.others.start("control", |stop| control.run(stop));

        let mut edges = Vec::new();
        for (name, port) in EDGES {
            let (origin, control) = (&origin_url, &control_url);
            let plan = EdgePlan { name, port: free_port(port)?, ram_bytes: EDGE_RAM_BYTES, origin, control };
            let (config, _) = ConfigFile::open(&state.edge_config(&plan)?, Some(Role::Edge))?.read(edge::config::Config::read)?;
            let edge = Edge::open(config).await.with_context(|| format!("{name} cannot start"))?;
            edges.push(edge.addr().to_string());
            roles.edges.start(name, |stop| edge.run(stop));
        }
        let operator = state.path("operator.secret");
        let secret = Secret::read(&operator, "operator_token_file", File::open(&operator))?;
        let control = Api::new(&control_url, &secret)?;
        Ok(Self { state, control_url, control, edges })
    }

    async fn playback(&self, title: &Title) -> anyhow::Result<Playback> {
        self.control.get(&format!("/videos/{}/playback", title.id)).await
    }

    async fn wait_until_ranked(&self, title: &Title) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let ranked = self.playback(title).await.map(|playback| playback.edges.len());
            match ranked {
                Ok(ranked) if ranked == self.edges.len() => return Ok(()),
                _ if start.elapsed() < RANKED_TIME_MAX => tokio::time::sleep(RANKED_ASKED_EVERY).await,
                ranked => {
                    let ranked = ranked.context("control ranks no edge")?;
                    return Err(anyhow!("control ranks {ranked} of {} edges; LARDER_LOG=info says more", self.edges.len()));
                }
            }
        }
    }

    /// What a program needs to know to use the demo.
    fn ready(&self, title: &Title) -> anyhow::Result<serde_json::Value> {
        let edges: Vec<_> = self.edges.iter().map(|edge| format!("https://{edge}")).collect();
        Ok(json!({
            "control": self.control_url, "title": title.id, "state": self.state.dir, "ca": self.state.path("ca.pem"),
            "spki": self.state.spki()?, "edges": edges,
        }))
    }

    async fn show(&self, title: &Title) -> anyhow::Result<()> {
        let playback = self.playback(title).await?;
        let segment: CdnUrl = self.control.get(&format!("/videos/{}/cdn-url?segment=1", title.id)).await?;
        let (hls, segment) = (&playback.edges[0].hls, segment.urls.first().context("control names no URL of a segment")?);
        let (seconds, renditions) = (title.duration_ms as f64 / 1e3, title.renditions.len());
        let (url, ca, spki) = (&self.control_url, self.state.path("ca.pem"), self.state.spki()?);
        let (ca, profile, edges) = (ca.display(), self.state.path("chromium"), self.edges.join(","));
        let larder = std::env::current_exe().map_or_else(|_| "larder".into(), |path| path.display().to_string());
        say!(
            "\n{:?}, {seconds:.0} s in {renditions} renditions, from {}, by the order of {url}\n",
            title.title,
            self.edges.join(" and ")
        );
        say!("The player is at {url}/ for a browser that trusts {ca}; or, with HTTP/3 from the first byte on:\n");
        say!(
            "  chromium --user-data-dir='{}' --ignore-certificate-errors-spki-list={spki} --origin-to-force-quic-on={edges} {url}/\n",
            profile.display()
        );
        say!("By hand:\n");
        say!("  curl {url}/videos/{}/playback", title.id);
        say!("  curl --cacert '{ca}' '{hls}'");
        say!("  curl --cacert '{ca}' -o /dev/null -D - '{segment}'");
        say!("  {larder} fetch --http 3 --ca '{ca}' --repeat 3 '{segment}'\n");
        say!("What is made is kept in {}. Ctrl-C ends the demo.", self.state.dir.display());
        Ok(())
    }

    /// Shows what the edges report, on a terminal, until a role ends or this future is dropped.
    async fn watch(&self, roles: &mut Roles, is_quiet: bool) -> anyhow::Result<()> {
        let line = if is_quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        line.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
        loop {
            roles.ended()?;
            if !line.is_hidden() {
                let fleet: Fleet = self.control.get("/fleet/edges").await?;
                line.set_message(status(&fleet));
                line.tick();
            }
            tokio::time::sleep(STATUS_EVERY).await;
        }
    }

    async fn play_twice(&self, title: &Title, as_json: bool) -> anyhow::Result<()> {
        let playback = self.playback(title).await?;
        let edge = playback.edges.first().context("control ranks no edge")?;
        let ca = self.state.path("ca.pem");
        let passes = [play::play(title, edge, &ca).await?, play::play(title, edge, &ca).await?];
        let verdict = judge(&passes);
        if as_json {
            print_json(&summary(&edge.edge, &passes, verdict.is_ok()))?;
        } else {
            print_table(&edge.edge, title, &passes)?;
        }
        verdict
    }
}

/// `preferred`, unless something has it, and then any that is free, by TCP and by UDP.
fn free_port(preferred: u16) -> anyhow::Result<u16> {
    const TRIES: usize = 16;
    let free = |port| -> std::io::Result<u16> {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let port = tcp.local_addr()?.port();
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port))?;
        Ok(port)
    };
    let mut found = free(preferred);
    for _ in 0..TRIES {
        if found.is_ok() {
            break;
        }
        found = free(0);
    }
    found.context("no port is free on 127.0.0.1")
}

fn status(fleet: &Fleet) -> String {
    let mut line = String::new();
    for edge in &fleet.edges {
        let Some(report) = &edge.report else { continue };
        let hits = (report.bytes_ram * 100).checked_div(report.bytes_sent).unwrap_or(0).min(100);
        let (requests, sent) = (HumanCount(report.requests), HumanBytes(report.bytes_sent));
        let _ = write!(line, "{}: {requests} requests, {sent} sent, {hits} % from RAM   ", edge.edge);
    }
    line
}

/// All that must hold when a title was played twice.
fn judge([first, second]: &[Pass; 2]) -> anyhow::Result<()> {
    for pass in [first, second] {
        ensure!(pass.mismatches == 0, "wrong bytes came:\n{}", pass.complaints.join("\n"));
    }
    // What is larger than a share of the memory need not have stayed in it.
    if first.bytes <= EDGE_RAM_BYTES / 2 {
        let Pass { from, requests, .. } = second;
        ensure!(
            from.ram == *requests,
            "{} of {requests} objects came from elsewhere than RAM the second time",
            requests - from.ram
        );
    }
    Ok(())
}

fn summary(edge: &str, passes: &[Pass; 2], ok: bool) -> serde_json::Value {
    let [first, second] = passes;
    let mut ttfbs: Vec<_> = passes.iter().flat_map(|pass| &pass.ttfbs).copied().collect();
    ttfbs.sort_unstable();
    json!({
        "ok": ok, "protocol": edge::http::Protocol::Http3.alpn(), "edge": edge, "segments": first.segments, "bytes": first.bytes,
        "mismatches": first.mismatches + second.mismatches, "first_pass": first, "second_pass": second,
        "ttfb_ms_p50": super::fetch::percentile(&ttfbs, 50).map(super::fetch::millis),
    })
}

fn print_table(edge: &str, title: &Title, passes: &[Pass; 2]) -> anyhow::Result<()> {
    say!("{:?} from {edge} over HTTP/3, every byte held against what the origin published:\n", title.title);
    say!("        objects        bytes   RAM   SSD  peer origin  wrong  median TTFB       time");
    for (name, pass) in ["first", "second"].iter().zip(passes) {
        let Pass { from, requests, bytes, mismatches, ttfb_ms_p50, total_ms, .. } = pass;
        say!(
            "{name:7} {requests:>7} {bytes:>12} {:>5} {:>5} {:>5} {:>6} {mismatches:>6} {ttfb_ms_p50:>9.1} ms {total_ms:>7.0} ms",
            from.ram,
            from.ssd,
            from.peer,
            from.origin
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_something_has_is_not_taken() {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for taken in [tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port()] {
            let port = free_port(taken).unwrap();
            assert_ne!(port, taken);
        }
    }
}
