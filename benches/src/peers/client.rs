//! Clients that others wrote, and what they say of a run. What they got is looked at: statuses, protocol, and bytes.

use std::{
    fmt::Write as _,
    process::Output,
    time::{Duration, Instant},
};

use super::{
    case::{Case, Cipher, Via},
    place::{Place, write},
    process::{Failure, Program, io_failure},
};

/// The Debian whose clients are taken.
const RELEASE: &str = "forky";
/// How long wrk asks, in seconds.
const WRK_SECONDS: u32 = 3;
/// The most requests that are made for the sake of their first bytes.
pub(super) const PROBES_MAX: u32 = 400;
/// Once the client has to wait for so long, in seconds, something is wrong.
const PATIENCE_SECONDS: &str = "60";
const AES128: &str = "TLS_AES_128_GCM_SHA256";
/// What curl tells of each transfer.
const TOLD: &str = "%{http_code} %{http_version} %{size_download} %{time_pretransfer} %{time_starttransfer}\\n";

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Load<'a> {
    pub(super) place: &'a Place,
    /// What stands before an object's path.
    pub(super) base_url: String,
    pub(super) case: Case,
    /// Objects, which are asked for in turn.
    pub(super) distinct: u32,
    pub(super) requests: u64,
}

/// What came.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) requests: u64,
    /// Of bodies; wrk counts heads too.
    pub(super) bytes: u64,
    pub(super) took: Duration,
    /// From a request's last byte to its answer's first; empty where the client does not say.
    pub(super) ttfb_ms: Vec<f64>,
}

/// wrk asks on 16 connections for some seconds.
pub(super) fn wrk(load: &Load<'_>) -> Result<Sent, Failure> {
    let Load { place, base_url, case, distinct, .. } = load;
    let script = place.work.join("wrk.lua");
    let connections = format!("-c{}", case.via.parallel());
    let mut program = program(place, "wrk")
        .args(["-t1", &connections, &format!("-d{WRK_SECONDS}s"), "--timeout", "60s", "-s"])
        .args([script])
        .args([format!("{base_url}{}", case.size.path(0).trim_end_matches('0')), "--".into(), distinct.to_string()]);
    if case.cipher == Cipher::Aes128 {
        program = program.env("OPENSSL_CONF", place.work.join("aes128.cnf"));
    }
    let output = run(&program, "wrk")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let done = said.lines().find_map(|line| line.strip_prefix("done "));
    let numbers: Vec<u64> = done.into_iter().flat_map(str::split_whitespace).filter_map(|word| word.parse().ok()).collect();
    let [requests, bytes, took_us, failed] = numbers[..] else {
        return Err(Failure::Client { client: "wrk", what: format!("it said {said:?}") });
    };
    if failed > 0 || requests == 0 || bytes < requests * case.size.bytes() {
        return Err(Failure::Client { client: "wrk", what: format!("{failed} of {requests} failed, {bytes} bytes came") });
    }
    Ok(Sent { requests, bytes, took: Duration::from_micros(took_us), ttfb_ms: Vec::new() })
}

/// h2load asks on one connection.
pub(super) fn h2load(load: &Load<'_>) -> Result<Sent, Failure> {
    let Load { place, base_url, case, distinct, requests } = load;
    let urls = (0..*distinct).fold(String::new(), |mut urls, number| {
        // Writing to a String cannot fail.
        let _ = writeln!(urls, "{base_url}{}", case.size.path(number));
        urls
    });
    let file = place.work.join("urls");
    write(&file, urls.as_bytes())?;
    let mut program = program(place, "h2load")
        .args(["-t1", "-c1", "-m", &case.via.parallel().to_string(), "-n", &requests.to_string(), "-i"])
        .args([file]);
    if case.cipher == Cipher::Aes128 {
        program = program.args([format!("--tls13-ciphers={AES128}")]);
    }
    let began = Instant::now();
    let output = run(&program, "h2load")?;
    let took = began.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    // "status codes: 400 2xx, …" and "traffic: …, 800.00MB (838860800) data".
    let good = said.lines().find_map(|line| line.strip_prefix("status codes: ")?.split(' ').next()?.parse().ok());
    let bytes = said.lines().find_map(|line| {
        let (before, _) = line.strip_prefix("traffic: ")?.rsplit_once(") data")?;
        before.rsplit_once('(')?.1.parse().ok()
    });
    if good != Some(*requests) || bytes != Some(requests * case.size.bytes()) {
        return Err(Failure::Client { client: "h2load", what: format!("it said {said:?}") });
    }
    Ok(Sent { requests: *requests, bytes: requests * case.size.bytes(), took, ttfb_ms: Vec::new() })
}

/// curl asks as the case says, and tells of each first byte.
pub(super) fn curl(load: &Load<'_>) -> Result<Sent, Failure> {
    let Load { place, base_url, case, distinct, requests } = load;
    let mut config = String::new();
    let mut left = *requests;
    while left > 0 {
        let count = left.min(u64::from(*distinct));
        let path = case.size.path(0);
        // Writing to a String cannot fail.
        let _ = writeln!(config, "url = \"{base_url}{}[0-{}]\"\noutput = \"/dev/null\"", path.trim_end_matches('0'), count - 1);
        left -= count;
    }
    let file = place.work.join("urls");
    write(&file, config.as_bytes())?;
    let mut program = curl_for(place, *case).args(["--write-out", TOLD]);
    if case.via.parallel() > 1 {
        program = program.args(["--parallel", "--parallel-max", &case.via.parallel().to_string()]);
    }
    let began = Instant::now();
    let output = run(&program.args(["--config"]).args([file]), "curl")?;
    let took = began.elapsed();
    let mut sent = Sent { took, ..Sent::default() };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let wrong = || Failure::Client { client: "curl", what: format!("{case}: it said {line:?}") };
        let [status, version, bytes, asked, began] = line.split(' ').collect::<Vec<_>>()[..] else { return Err(wrong()) };
        let seconds = |text: &str| text.parse::<f64>().map_err(|_| wrong());
        if status != "200" || version != http_version(case.via) || bytes != case.size.bytes().to_string() {
            return Err(wrong());
        }
        sent.ttfb_ms.push((seconds(began)? - seconds(asked)?) * 1e3);
        sent.requests += 1;
        sent.bytes += case.size.bytes();
    }
    if sent.requests != *requests {
        return Err(Failure::Client { client: "curl", what: format!("{} of {requests} answers", sent.requests) });
    }
    Ok(sent)
}

/// The bytes of one object.
pub(super) fn fetch(place: &Place, base_url: &str, case: Case, path: &str) -> Result<Vec<u8>, Failure> {
    Ok(run(&curl_for(place, case).args([format!("{base_url}{path}")]), "curl")?.stdout)
}

/// The cipher suite that server and client agree on.
pub(super) fn cipher(place: &Place, base_url: &str, case: Case) -> Result<String, Failure> {
    if case.via == Via::H1 {
        return Ok("none".into());
    }
    let program = curl_for(place, case).args(["--verbose", "--output", "/dev/null"]);
    let output = run(&program.args([format!("{base_url}{}", case.size.path(0))]), "curl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let suite = said.split_whitespace().find(|word| word.starts_with("TLS_"));
    let what = || format!("{case}: it does not say which cipher it uses: {said:?}");
    suite.map(str::to_owned).ok_or_else(|| Failure::Client { client: "curl", what: what() })
}

fn curl_for(place: &Place, case: Case) -> Program {
    let version: &[&str] = match case.via {
        Via::H1 => &["--http1.1"],
        Via::H1Tls => &["--http1.1", "--tlsv1.3"],
        Via::H2 => &["--http2", "--tlsv1.3"],
        Via::H3Sixteen | Via::H3One => &["--http3-only"],
    };
    // No proxy, no configuration of the user's; servers have certificates that nobody vouches for.
    let always = ["--disable", "--silent", "--show-error", "--insecure", "--noproxy", "*", "--max-time", PATIENCE_SECONDS];
    let program = program(place, "curl").args(always).args(version);
    if case.cipher == Cipher::Aes128 { program.args(["--tls13-ciphers", AES128]) } else { program }
}

/// As curl writes it.
const fn http_version(via: Via) -> &'static str {
    match via {
        Via::H1 | Via::H1Tls => "1.1",
        Via::H2 => "2",
        Via::H3Sixteen | Via::H3One => "3",
    }
}

fn program(place: &Place, name: &str) -> Program {
    Program::new(name).root(place.root(RELEASE)).core(place.client_core())
}

fn run(program: &Program, client: &'static str) -> Result<Output, Failure> {
    let output = program.command().output().map_err(io_failure(format!("run {client}")))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::Client { client, what: format!("{}: {}", output.status, said.trim_end()) })
}
