//! `larder cache`: what an edge keeps and how its devices do, and what an operator tells it to forget, to check, to take back.

use anyhow::{Context as _, anyhow, bail, ensure};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use wire::operate::{Purge, Restore, Step, Verified, What};

use super::{confirm, print_json};
use crate::{
    admin::Admin,
    cli::{AdminArgs, CacheArgs, CacheCommand, CacheDevicesArgs, CachePurgeArgs, CacheStatArgs, CacheVerifyArgs, Misuse},
    config::{ConfigFile, Role},
};

pub(super) async fn run(args: CacheArgs) -> anyhow::Result<()> {
    match args.command {
        CacheCommand::Stat(args) => stat(&args).await,
        CacheCommand::Devices(args) => devices(&args).await,
        CacheCommand::Purge(args) => purge(&args).await,
        CacheCommand::Verify(args) => verify(args).await,
    }
}

/// The edge that is meant.
async fn admin(args: &AdminArgs) -> anyhow::Result<Admin> {
    let Some(file) = &args.config else { return Admin::new(&args.admin).await.map_err(misuse) };
    let mut addr = read(file)?.admin_listen;
    ensure!(addr.port() != 0, "admin_listen in {} takes any free port; say where the edge is with --admin", file.display());
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() { std::net::Ipv4Addr::LOCALHOST.into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    Admin::new(&format!("http://{addr}")).await
}

fn misuse(error: anyhow::Error) -> anyhow::Error {
    Misuse(format!("--admin: {error:#}")).into()
}

fn read(file: &std::path::Path) -> anyhow::Result<edge::config::Config> {
    Ok(ConfigFile::open(file, Some(Role::Edge))?.read(edge::config::Config::read)?.0)
}

async fn stat(args: &CacheStatArgs) -> anyhow::Result<()> {
    let stat: Value = admin(&args.admin).await?.get("/cache/stat").await?;
    if args.json {
        return print_json(&stat);
    }
    for (title, lines) in [("RAM", ram(&stat)), ("SSD", ssd(&stat))] {
        say!("{title}");
        for (name, value) in lines {
            say!("  {name:16} {value}");
        }
    }
    Ok(())
}

/// A tier's lines: what is told, and the figure. An edge of another version may lack some.
type Figures = Vec<(&'static str, String)>;

fn number(tier: &Value, name: &str) -> u64 {
    tier[name].as_u64().unwrap_or(0)
}

fn count(tier: &Value, name: &str) -> String {
    HumanCount(number(tier, name)).to_string()
}

fn bytes(tier: &Value, name: &str) -> String {
    HumanBytes(number(tier, name)).to_string()
}

/// "75.0 %", or what there is to say where nothing happened yet.
fn share(part: u64, all: u64) -> String {
    if all == 0 { "none yet".into() } else { format!("{:.1} %", part as f64 * 100.0 / all as f64) }
}

fn ram(stat: &Value) -> Figures {
    let (ram, ssd) = (&stat["ram"], &stat["ssd"]);
    let (hits, ssd_hits, misses) = (number(ram, "hits"), number(ram, "ssd_hits"), number(ram, "misses"));
    let wanted = hits + ssd_hits + misses;
    let (ahead, used) = (number(ram, "read_ahead_started"), number(ram, "read_ahead_used"));
    let from_ram = number(ram, "bytes_ram");
    let moved = from_ram + number(ssd, "bytes_hit") + number(ram, "bytes_filled");
    vec![
        ("hits", format!("{} of {} slices ({})", HumanCount(hits), HumanCount(wanted), share(hits, wanted))),
        ("from ssd", format!("{} of them ({})", HumanCount(ssd_hits), share(ssd_hits, wanted))),
        ("bytes", format!("{} of {} from all tiers ({})", HumanBytes(from_ram), HumanBytes(moved), share(from_ram, moved))),
        ("misses", format!("{}, of which {} waited for a fill under way", HumanCount(misses), count(ram, "collapsed"))),
        ("holds", format!("{} slices; {} objects are known", count(ram, "slices"), count(ram, "objects"))),
        (
            "budget",
            format!(
                "{} of {} in use ({})",
                bytes(ram, "ram_bytes"),
                bytes(ram, "ram_bytes_max"),
                share(number(ram, "ram_bytes"), number(ram, "ram_bytes_max"))
            ),
        ),
        ("evictions", count(ram, "evictions")),
        (
            "fills",
            format!(
                "{} brought {}; {} failed, {} of them for want of memory; {} under way",
                count(ram, "fills"),
                bytes(ram, "bytes_filled"),
                count(ram, "fill_failures"),
                count(ram, "refused_busy"),
                count(ram, "flights")
            ),
        ),
        (
            "attempts",
            format!(
                "{} at the origin; {} cut because they stalled; {} fills ended as nobody waited any more",
                count(ram, "attempts"),
                count(ram, "stalls"),
                count(ram, "abandoned")
            ),
        ),
        (
            "ahead",
            format!(
                "{} slices fetched ahead of players, {} of them used ({}); {} not fetched for want of memory",
                HumanCount(ahead),
                HumanCount(used),
                share(used, ahead),
                count(ram, "refused_speculation")
            ),
        ),
        ("plans", format!("{} slices not fetched for want of memory", count(ram, "refused_plans"))),
    ]
}

fn ssd(stat: &Value) -> Figures {
    let (ram, ssd) = (&stat["ram"], &stat["ssd"]);
    if ssd.is_null() {
        return vec![("none", "cache.devices is empty".into())];
    }
    let (hits, misses, from_ssd) = (number(ssd, "hits"), number(ssd, "misses"), number(ssd, "bytes_hit"));
    let moved = number(ram, "bytes_ram") + from_ssd + number(ram, "bytes_filled");
    let (devices, none) = (ssd["devices"].as_array(), Vec::new());
    let devices = devices.unwrap_or(&none);
    let sum = |name: &str| devices.iter().map(|device| number(device, name)).sum::<u64>();
    let mut lines = vec![
        ("driver", ssd["io"].as_str().unwrap_or("unknown").to_owned()),
        ("hits", format!("{} of {} slices ({})", HumanCount(hits), HumanCount(hits + misses), share(hits, hits + misses))),
        ("bytes", format!("{} of {} from all tiers ({})", HumanBytes(from_ssd), HumanBytes(moved), share(from_ssd, moved))),
        ("busy", format!("{} found, but not read: too many reads were under way", count(ssd, "busy"))),
        ("rejected", format!("{} found, but another version, purged or unreadable", count(ssd, "rejected"))),
        ("holds", format!("{} slices; the index takes {}", count(ssd, "slices"), bytes(ssd, "index_bytes"))),
        (
            "devices",
            format!(
                "{} of {} in use ({}), {} of it planned",
                HumanBytes(sum("bytes_used")),
                HumanBytes(sum("bytes")),
                share(sum("bytes_used"), sum("bytes")),
                HumanBytes(sum("bytes_planned"))
            ),
        ),
        ("admitted", bytes(ssd, "bytes_admitted")),
        ("queue", format!("{} to be written", bytes(ssd, "bytes_queued"))),
        ("evictions", format!("{}; {} slices were written again", count(ssd, "evictions"), count(ssd, "reinsertions"))),
        (
            "amplification",
            stat["write_amplification"]
                .as_f64()
                .map_or("none yet".into(), |ratio| format!("{ratio:.2} bytes written per byte admitted")),
        ),
        ("purges", format!("{} may still cover something; {} objects are doubted", count(ssd, "purges"), count(ssd, "doubts"))),
    ];
    let refused = ssd["refused"].as_array().into_iter().flatten();
    let refused: Vec<_> =
        refused.filter_map(|pair| Some(format!("{} {}", HumanCount(pair[1].as_u64()?), pair[0].as_str()?))).collect();
    lines.push(("refused", if refused.is_empty() { "none".into() } else { refused.join(", ") }));
    lines
}

async fn devices(args: &CacheDevicesArgs) -> anyhow::Result<()> {
    let admin = admin(&args.admin).await?;
    if let Some(device) = &args.restore {
        let restored: Restore = admin.post("/cache/devices/restore", &Restore { device: device.clone() }).await?;
        if args.json {
            return print_json(&restored);
        }
        say!(
            "{} is taken back: it reads and writes again, and what is on it counts once it was asked about",
            restored.device.display()
        );
        return Ok(());
    }
    let told: Value = admin.get("/cache/devices").await?;
    if args.json {
        return print_json(&told);
    }
    let devices = told["devices"].as_array().context("the edge's answer is not understood")?;
    if devices.is_empty() {
        say!("this edge has no devices (cache.devices)");
    }
    for device in devices {
        for line in device_lines(device) {
            say!("{line}");
        }
    }
    Ok(())
}

fn device_lines(device: &Value) -> Vec<String> {
    let latency = |operations: &str, p50: &str, p99: &str| {
        let buckets = device[operations]["buckets"].as_array();
        let done: u64 = buckets.into_iter().flatten().filter_map(Value::as_u64).sum();
        let shown = |name: &str| device[name].as_u64().map_or("more than 8 s".into(), |us| format!("{us} µs"));
        let latency = format!("{} operations; half in {}, 99 of 100 in {}", HumanCount(done), shown(p50), shown(p99));
        if done == 0 { "no operations".into() } else { latency }
    };
    let state = &device["state"];
    let is_given_up = state["state"] == "given_up";
    let name = if is_given_up { "GIVEN UP" } else { state["state"].as_str().unwrap_or("unknown") };
    let mut lines = vec![
        format!("{}  {name}", device["path"].as_str().unwrap_or_default()),
        format!(
            "  size    {}, of which {} used, {} of it planned; {} segments",
            bytes(device, "bytes"),
            bytes(device, "bytes_used"),
            bytes(device, "bytes_planned"),
            count(device, "segments")
        ),
        format!("  reads   {} by {}", bytes(device, "bytes_read"), latency("reads", "read_us_p50", "read_us_p99")),
        format!("  writes  {} by {}", bytes(device, "bytes_written"), latency("writes", "write_us_p50", "write_us_p99")),
        format!("  errors  {}; {} operations under way", count(device, "errors"), count(device, "depth")),
        format!("  corrupt {} records that were not what was written", count(device, "corrupt")),
    ];
    if is_given_up {
        let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
        lines.push(format!("  why     {} ({})", text(&state["reason"]), text(&device["given_up_since"])));
        lines.push(format!("  then    once it is mended: larder cache devices --restore {}", text(&device["path"])));
    }
    lines
}

async fn purge(args: &CachePurgeArgs) -> anyhow::Result<()> {
    let what = args.object.iter().cloned().map(What::Object).chain(args.prefix.iter().cloned().map(What::Prefix));
    let mut purge: Vec<_> = what.chain(args.tag.iter().cloned().map(What::Tag)).collect();
    if args.all {
        purge.push(What::All);
        confirm(args.yes, "--all", || {
            "All that this edge holds will be fetched again from its origin. Purge everything?".into()
        })?;
    }
    let Purge { purge } = admin(&args.admin).await?.post("/cache/purge", &Purge { purge }).await?;
    if args.json {
        return print_json(&json!({ "purged": purge }));
    }
    for what in &purge {
        match what {
            What::Object(path) => say!("purged the object {path}"),
            What::Prefix(prefix) => say!("purged all objects whose paths begin with {prefix}"),
            What::Tag(tag) => say!("purged all objects with the tag {tag}"),
            What::All => say!("purged everything"),
        }
    }
    say!(
        "It holds from the next request on, also for what is being filled now, and it is written down, so it outlasts a restart."
    );
    Ok(())
}

async fn verify(args: CacheVerifyArgs) -> anyhow::Result<()> {
    let bar = progress_bar()?;
    let verified = match (&args.admin.config, args.offline) {
        (None, true) => return Err(Misuse("--offline needs --config: the devices stand there".into()).into()),
        (Some(file), true) => {
            let verifying = edge::verify_offline(&read(file)?, |bytes, bytes_max| show(&bar, bytes, bytes_max)).await;
            verifying.map_err(|error| anyhow!(error))?
        }
        (_, false) => online(&admin(&args.admin).await?, &bar).await?,
    };
    bar.finish_and_clear();
    let Verified { segments, slices, bytes, fault_count, faults } = &verified;
    if args.json {
        print_json(&verified)?;
    } else {
        faults.iter().try_for_each(|fault| {
            say!("{fault}");
            anyhow::Ok(())
        })?;
        say!("{} slices ({}) in {} segments are right", HumanCount(*slices), HumanBytes(*bytes), HumanCount(*segments));
    }
    match fault_count {
        0 => Ok(()),
        1 => bail!("one fault; it is not served to anybody"),
        many => bail!("{many} faults; none of it is served to anybody"),
    }
}

async fn online(admin: &Admin, bar: &ProgressBar) -> anyhow::Result<Verified> {
    let mut lines = admin.post_for_lines("/cache/verify", &json!({})).await?;
    while let Some(step) = lines.next().await? {
        match step {
            Step::Progress { bytes, bytes_max } => show(bar, bytes, bytes_max),
            Step::Verified(verified) => return Ok(verified),
        }
    }
    bail!("the edge ended before it had verified everything")
}

/// On standard error, and only where that is a terminal.
fn progress_bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("verifying {bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left")?;
    Ok(ProgressBar::new(0).with_style(style))
}

fn show(bar: &ProgressBar, bytes: u64, bytes_max: u64) {
    bar.set_length(bytes_max);
    bar.set_position(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(figures: Figures) -> Vec<String> {
        figures.into_iter().map(|(name, value)| format!("{name}: {value}")).collect()
    }

    #[test]
    fn both_tiers_are_told_in_figures_that_are_easy_to_read() {
        let stat = json!({
            "ram": {
                "hits": 3, "misses": 1, "collapsed": 1, "bytes_ram": 3072, "bytes_filled": 512, "slices": 1234, "objects": 7, "evictions": 2,
                "ram_bytes": 1024, "ram_bytes_max": 4096, "fills": 5, "fill_failures": 2, "refused_busy": 1, "flights": 1,
                "ssd_hits": 4, "attempts": 9, "stalls": 2, "abandoned": 1, "read_ahead_started": 8, "read_ahead_used": 6, "refused_speculation": 3,
                "refused_plans": 7,
            },
            "ssd": {
                "io": "io_uring", "hits": 1, "misses": 3, "bytes_hit": 512, "rejected": 1, "slices": 10, "index_bytes": 160, "bytes_admitted": 2048,
                "bytes_queued": 1024, "evictions": 4, "reinsertions": 5, "purges": 6, "doubts": 7, "refused": [["queue", 8], ["admission", 9]],
                "devices": [{ "bytes": 100, "bytes_used": 50, "bytes_planned": 25 }, { "bytes": 300, "bytes_used": 50, "bytes_planned": 0 }],
            },
            "write_amplification": 1.25,
        });
        let told = lines(ram(&stat));
        for line in [
            "hits: 3 of 8 slices (37.5 %)",
            "from ssd: 4 of them (50.0 %)",
            "attempts: 9 at the origin; 2 cut because they stalled; 1 fills ended as nobody waited any more",
            "ahead: 8 slices fetched ahead of players, 6 of them used (75.0 %); 3 not fetched for want of memory",
            "plans: 7 slices not fetched for want of memory",
            "bytes: 3.00 KiB of 4.00 KiB from all tiers (75.0 %)",
            "misses: 1, of which 1 waited for a fill under way",
            "holds: 1,234 slices; 7 objects are known",
            "budget: 1.00 KiB of 4.00 KiB in use (25.0 %)",
            "fills: 5 brought 512 B; 2 failed, 1 of them for want of memory; 1 under way",
        ] {
            assert!(told.iter().any(|told| told == line), "no {line:?} in {told:#?}");
        }
        let told = lines(ssd(&stat));
        for line in [
            "driver: io_uring",
            "hits: 1 of 4 slices (25.0 %)",
            "bytes: 512 B of 4.00 KiB from all tiers (12.5 %)",
            "holds: 10 slices; the index takes 160 B",
            "devices: 100 B of 400 B in use (25.0 %), 25 B of it planned",
            "queue: 1.00 KiB to be written",
            "evictions: 4; 5 slices were written again",
            "amplification: 1.25 bytes written per byte admitted",
            "purges: 6 may still cover something; 7 objects are doubted",
            "refused: 8 queue, 9 admission",
        ] {
            assert!(told.iter().any(|told| told == line), "no {line:?} in {told:#?}");
        }
        assert_eq!(share(0, 0), "none yet");
    }

    #[test]
    fn a_device_that_was_given_up_says_why_and_what_to_do() {
        let device = json!({
            "path": "/dev/nvme1n1", "state": { "state": "given_up", "reason": "a read failed: EIO" }, "bytes": 4096, "bytes_used": 2048,
            "bytes_planned": 1024, "segments": 4, "bytes_read": 10, "bytes_written": 0,
            "reads": { "buckets": [0, 0, 3, 1], "sum_us": 9 }, "writes": { "buckets": [0, 0], "sum_us": 0 }, "errors": 3, "corrupt": 2, "depth": 0, "read_us_p50": 128,
            "read_us_p99": null, "given_up_since": "Thu, 01 Jan 1970 00:00:00 GMT",
        });
        let expected = [
            "/dev/nvme1n1  GIVEN UP",
            "  size    4.00 KiB, of which 2.00 KiB used, 1.00 KiB of it planned; 4 segments",
            "  reads   10 B by 4 operations; half in 128 µs, 99 of 100 in more than 8 s",
            "  writes  0 B by no operations",
            "  errors  3; 0 operations under way",
            "  corrupt 2 records that were not what was written",
            "  why     a read failed: EIO (Thu, 01 Jan 1970 00:00:00 GMT)",
            "  then    once it is mended: larder cache devices --restore /dev/nvme1n1",
        ];
        assert_eq!(device_lines(&device), expected);
    }
}
