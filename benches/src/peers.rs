//! What does one core of an edge cost for a gigabyte and for a request, beside the servers that others would take?
//!
//! Every server has the same objects as warm hits, filled from one origin that is stopped before anything is measured. Server and client have a core
//! each, in a network of their own whose loopback has an MTU of 1500: with the 65536 that it has else, QUIC's packets would be larger than any
//! link's, for servers that search so far. Larder and a peer take turns, and who is first changes with each round. What is told is the CPU time of
//! all processes of the server by the kernel's accounts, and the ratio of rounds side by side.
//!
//! Clients are other people's: wrk for HTTP/1.1, h2load for HTTP/2, curl for HTTP/3 and for the time to each first byte. The peers' configurations
//! are in `benches/peers/`, each with its reasons.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use crate::{Report, Size};

mod caddy;
mod case;
mod client;
mod content;
mod h2o;
mod haproxy;
mod larder;
mod nginx;
mod place;
mod process;
mod server;
mod table;
mod trafficserver;
mod varnish;

use case::{Case, Cipher, ObjectSize, Via};
use client::Load;
use place::Place;
use process::Failure;
use server::{Origin, Server};
use table::{Row, Table};

/// How often each pair is measured.
const ROUNDS: u32 = 5;
/// The cores of server and client.
const CORES: [usize; 2] = [0, 1];
/// What the command line may say.
const USAGE: &str =
    "serve_hot [--small] [--json] [--out FILE] [--rounds N] [--only larder,nginx,…] [--paths h1,h1-tls,h2,h3-16,h3-1] [--sizes 4k,64k,2m,16m]
          [--ciphers own,aes128] [--cores SERVER,CLIENT] [--larder FILE]

--small asserts and does not measure: an edge and this machine's curl. All else needs root, and what `make bench-peers` installs.
--out writes what --json prints to a file too, for benches/serve_hot.py. --only names what is measured beside larder: nginx, varnish, trafficserver, caddy, haproxy, h2o.";

/// What is to be done.
#[derive(Debug, Clone)]
struct Options {
    size: Size,
    as_json: bool,
    out: Option<PathBuf>,
    rounds: u32,
    only: Option<Vec<String>>,
    vias: Vec<Via>,
    sizes: Vec<ObjectSize>,
    ciphers: Vec<Cipher>,
    cores: [usize; 2],
    larder: PathBuf,
    is_inside: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--small" => options.size = Size::Small,
                "--json" => options.as_json = true,
                "--out" => options.out = Some(value()?.into()),
                "--rounds" => options.rounds = number(value()?)?,
                "--only" => options.only = Some(value()?.split(',').map(str::to_owned).collect()),
                "--paths" => options.vias = list(value()?, &Via::ALL, Via::name)?,
                "--sizes" => options.sizes = list(value()?, &ObjectSize::ALL, ObjectSize::name)?,
                "--ciphers" => options.ciphers = list(value()?, &Cipher::ALL, Cipher::name)?,
                "--cores" => {
                    let (server, client) = value()?.split_once(',').ok_or("--cores needs two numbers, such as 0,1")?;
                    options.cores = [core(server)?, core(client)?];
                }
                "--larder" => options.larder = value()?.into(),
                "--inside" => options.is_inside = true,
                other => return Err(format!("{other:?} is not known")),
            }
        }
        let known = |name: &String| name == "larder" || server::PEERS.iter().any(|peer| peer.name == name.as_str());
        if let Some(stranger) = options.only.iter().flatten().find(|name| !known(name)) {
            return Err(format!("no server is called {stranger:?}"));
        }
        Ok(options)
    }
}

impl Default for Options {
    fn default() -> Self {
        // The binary stands beside this program, or above it if this is a test.
        let here = std::env::current_exe().unwrap_or_default();
        let beside = here.ancestors().skip(1).take(2).map(|folder| folder.join("larder"));
        let larder = beside.into_iter().find(|file| file.is_file()).unwrap_or_else(|| "larder".into());
        Self {
            size: Size::Full,
            as_json: false,
            out: None,
            rounds: ROUNDS,
            only: None,
            vias: Via::ALL.to_vec(),
            sizes: ObjectSize::ALL.to_vec(),
            ciphers: Cipher::ALL.to_vec(),
            cores: CORES,
            larder,
            is_inside: false,
        }
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number that fits here"))
}

fn core(text: &str) -> Result<usize, String> {
    // What sched_setaffinity(2) takes.
    const CORES_MAX: usize = libc::CPU_SETSIZE as usize;
    number(text).and_then(|core| if core < CORES_MAX { Ok(core) } else { Err(format!("there is no core {core}")) })
}

fn list<T: Copy>(text: &str, all: &[T], name: fn(T) -> &'static str) -> Result<Vec<T>, String> {
    let find = |word: &str| all.iter().copied().find(|one| name(*one) == word).ok_or_else(|| format!("{word:?} is not known"));
    text.split(',').map(find).collect()
}

/// Runs as the command line says.
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options = match Options::parse(&args) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("{what}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if options.size == Size::Full && !options.is_inside {
        // Namespaces of its own: whatever happens, nothing that runs in them outlives the run.
        return place::run_inside(&args).unwrap_or_else(|failure| fail(&failure));
    }
    let done =
        if options.size == Size::Small { run_small(&options).map(|report| report.print(options.as_json)) } else { run(&options) };
    match done {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("serve_hot: {failure}");
    ExitCode::FAILURE
}

/// An edge alone, over HTTP/1.1 with TLS, by this machine's curl, each object once. Asserts statuses and bytes, measures nothing.
///
/// # Panics
/// If an answer is not what was stored.
fn run_small(options: &Options) -> Result<Report, Failure> {
    let mut report = Report::new("serve_hot", Size::Small);
    let place = Place::small()?;
    let (size, count) = (ObjectSize::K64, 16);
    content::write_all(&place, &[(size, count)])?;
    let origin = larder::origin(&place, &options.larder)?;
    let server = larder::start(&place, &options.larder, origin.port)?;
    let case = Case { via: Via::H1Tls, size, cipher: Cipher::Own };
    check(&mut report, &place, &server, case, count)?;
    let load = Load { place: &place, base_url: server.url(Via::H1Tls), case, distinct: count, requests: u64::from(count) };
    let got = client::curl(&load)?;
    report.expect("larder, h1-tls, curl: answers of 64 KiB", got.requests, u64::from(count));
    report.expect("larder, h1-tls, curl: bytes", got.bytes, u64::from(count) * size.bytes());
    report.expect("larder, h1-tls, curl: first bytes", got.ttfb_ms.len(), count as usize);
    Ok(report)
}

/// Compares what is asked for, and comes back with what is to be printed.
fn run(options: &Options) -> Result<String, Failure> {
    let mut report = Report::new("serve_hot", Size::Full);
    let place = Place::inside(options.cores)?;
    let cases: Vec<Case> = case::all()
        .filter(|case| {
            options.vias.contains(&case.via) && options.sizes.contains(&case.size) && options.ciphers.contains(&case.cipher)
        })
        .collect();
    let mut sizes: Vec<_> = cases.iter().map(|case| (case.size, case.size.distinct())).collect();
    sizes.sort_unstable();
    sizes.dedup();
    say(&format!("writing {} objects", sizes.iter().map(|(_, count)| count).sum::<u32>()));
    content::write_all(&place, &sizes)?;
    let mut table = Table::new(options.rounds);
    let is_wanted = |name: &str| options.only.as_ref().is_none_or(|only| only.iter().any(|one| one == name));
    let mut larder = {
        let origin = Origin::start(&place)?;
        let mut larder = larder::start(&place, &options.larder, origin.port)?;
        warm(&mut report, &place, &mut larder, &cases)?;
        larder
    };
    let peers: Vec<_> = server::PEERS.iter().filter(|peer| is_wanted(peer.name)).collect();
    for peer in &peers {
        let started = Origin::start(&place).and_then(|origin| {
            let mut server = (peer.start)(&place, origin.port)?;
            warm(&mut report, &place, &mut server, &cases)?;
            Ok(server)
        });
        let mut server = match started {
            Ok(server) => server,
            Err(failure) => {
                table.leave_out(peer.name, &failure);
                continue;
            }
        };
        for case in cases.iter().copied() {
            match compare(&place, case, &mut larder, Some(&mut server), options.rounds) {
                Ok(rows) => table.add(case, rows),
                Err(failure) => table.leave_out(&format!("{} ({case})", peer.name), &failure),
            }
        }
        table.version(&place, peer);
    }
    if peers.is_empty() {
        for case in cases.iter().copied() {
            table.add(case, compare(&place, case, &mut larder, None, options.rounds)?);
        }
    }
    let (outcomes, digest) = report.finish();
    let json = table.json(outcomes, &digest);
    if let Some(file) = &options.out {
        place::write(file, json.as_bytes())?;
    }
    let text = || format!("{}{outcomes} outcomes as expected, digest {digest}\n", table.text());
    Ok(if options.as_json { json } else { text() })
}

/// Has a server answer everything once on each path, so that it has it, and looks whether it has the right bytes.
fn warm(report: &mut Report, place: &Place, server: &mut Server, cases: &[Case]) -> Result<(), Failure> {
    let began = Instant::now();
    let plain = cases.iter().map(|case| Case { cipher: Cipher::Own, ..*case });
    let each: BTreeSet<Case> = plain.filter(|case| server.takes(*case)).collect();
    for case in each {
        let distinct = case.size.distinct();
        let url = server.url(case.via);
        client::curl(&Load { place, base_url: url, case, distinct, requests: u64::from(distinct) })?;
        check(report, place, server, case, distinct)?;
    }
    for case in cases {
        if server.takes(*case) {
            let cipher = client::cipher(place, &server.url(case.via), *case)?;
            server.ciphers.push((case.via, case.cipher, cipher));
        }
    }
    say(&format!("{} is warm after {:.0} s", server.name, began.elapsed().as_secs_f64()));
    Ok(())
}

/// The last object, compared with what was stored.
fn check(report: &mut Report, place: &Place, server: &Server, case: Case, distinct: u32) -> Result<(), Failure> {
    let name = case.size.path(distinct - 1);
    let got = client::fetch(place, &server.url(case.via), case, &name)?;
    let is_stored = got == content::read(place, &name)?;
    report.expect(&format!("{}, {}: {name} as stored", server.name, case.via.name()), is_stored, true);
    Ok(())
}

/// Measures a peer and Larder in turns, or Larder alone. No rows where the case is not for the peer; none of Larder's where it is not for Larder.
fn compare(place: &Place, case: Case, larder: &mut Server, peer: Option<&mut Server>, rounds: u32) -> Result<Vec<Row>, Failure> {
    if peer.as_ref().is_some_and(|peer| !peer.takes(case)) {
        return Ok(Vec::new());
    }
    let mut servers: Vec<_> = [Some(larder), peer].into_iter().flatten().filter(|server| server.takes(case)).collect();
    let mut rows: Vec<Row> = servers.iter().map(|server| Row::new(server, case)).collect();
    if rows.is_empty() {
        return Ok(rows);
    }
    for round in 0..rounds {
        // Who is first has the caches of the one before: by turns.
        let order: &[usize] = match (servers.len(), round % 2) {
            (1, _) => &[0],
            (_, 0) => &[0, 1],
            _ => &[1, 0],
        };
        for at in order.iter().copied() {
            rows[at].push(measure(place, servers[at], case)?);
        }
    }
    for (row, server) in rows.iter_mut().zip(&servers) {
        row.memory_bytes = server.resident_bytes_max();
    }
    let told: Vec<String> = rows.iter().map(Row::summary).collect();
    say(&format!("{case}: {}", told.join(", ")));
    Ok(rows)
}

/// One round of one server.
#[derive(Debug, Clone, Default)]
struct Round {
    requests: u64,
    bytes: u64,
    took: Duration,
    /// Of the server, and of the kernel's thread that does network work on its core.
    cpu: Duration,
    /// The kernel's thread's part of it.
    softirq: Duration,
    ttfb_ms: Vec<f64>,
}

fn measure(place: &Place, server: &mut Server, case: Case) -> Result<Round, Failure> {
    let load = Load { place, base_url: server.url(case.via), case, distinct: case.size.distinct(), requests: case.requests() };
    server.trim_logs();
    let (before, softirq) = (server.cpu_time()?, place.softirq_time());
    let sent = match case.via {
        Via::H1 | Via::H1Tls => client::wrk(&load)?,
        Via::H2 => client::h2load(&load)?,
        Via::H3Sixteen | Via::H3One => client::curl(&load)?,
    };
    let softirq = place.softirq_time().saturating_sub(softirq);
    let cpu = server.cpu_time()?.since(&before) + softirq;
    let ttfb_ms = if sent.ttfb_ms.is_empty() {
        client::curl(&Load { requests: u64::from(case.size.distinct().min(client::PROBES_MAX)), ..load })?.ttfb_ms
    } else {
        sent.ttfb_ms
    };
    Ok(Round { requests: sent.requests, bytes: sent.bytes, took: sent.took, cpu, softirq, ttfb_ms })
}

/// Progress, for whoever waits.
fn say(what: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "serve_hot: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_size_holds() {
        let options = Options::default();
        assert!(options.larder.is_file(), "no {}: `cargo build --bin larder` makes it", options.larder.display());
        run_small(&options).unwrap_or_else(|failure| panic!("{failure}"));
    }
}
