//! `kill -9` at random instants, under load, again and again on the same log: all that a sender was told is kept is there, once, and what is
//! known is what a recount of the log comes to.

use std::collections::HashSet;

use rand::rngs::StdRng;
use victim::Victim;

use super::*;

const SENDERS: u64 = 8;
const BATCH: u64 = 20;

fn config_of(folder: &Path) -> Config {
    Config {
        sync_interval: Duration::from_millis(1),
        // Checkpoints are written all the time, so that many are cut short.
        checkpoint_interval: Duration::from_millis(3),
        log_retention: Duration::from_secs(86_400),
        ..config(folder)
    }
}

#[test]
fn kill_9_at_any_instant_loses_nothing_that_was_acknowledged_and_counts_nothing_twice() {
    let (rounds, mut random) = victim::rounds(5);
    let folder = tempfile::tempdir().expect("a directory");
    let config = config_of(folder.path());
    let (mut acknowledged, mut first) = (HashSet::new(), 0);
    for round in 0..rounds {
        first = kill_one(folder.path(), first, &mut random, &mut acknowledged);
        let kept = ids(&config);
        let once: HashSet<&str> = kept.iter().map(String::as_str).collect();
        assert_eq!(once.len(), kept.len(), "round {round}: an event is in the log twice");
        let lost: Vec<_> = acknowledged.iter().filter(|id: &&String| !once.contains(id.as_str())).take(5).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and not in the log: {lost:?}");
        assert!(known(&config) == recount(&config), "round {round}: what is known is not what the log comes to");
    }
    println!("{rounds} rounds, {} events acknowledged, {} in the log", acknowledged.len(), ids(&config).len());
    assert!(!acknowledged.is_empty());
}

/// Runs senders and kills them with what they send to. Notes what was acknowledged, and says with which batch to go on.
fn kill_one(folder: &Path, first: u64, random: &mut StdRng, acknowledged: &mut HashSet<String>) -> u64 {
    let mut next = first;
    Victim::start("tests::kill::sends_until_it_is_killed", folder, first).kill("kept", random, |line| {
        if let Some(batch) = line.strip_prefix("kept ").and_then(|batch| batch.parse::<u64>().ok()) {
            acknowledged.extend((0..BATCH).map(|n| format!("{batch}:{n}")));
            next = next.max(batch + 1);
        }
    });
    // Some batches may have been kept without anybody knowing; they are sent again, and are known.
    next.saturating_sub(SENDERS)
}

/// The process that is killed: run by the test above.
#[tokio::test]
#[ignore = "the other half of kill_9_at_any_instant"]
async fn sends_until_it_is_killed() {
    let (folder, first) = victim::orders();
    let rig = Arc::new(Rig::start(&config_of(&folder)));
    let senders: Vec<_> = (0..SENDERS).map(|sender| tokio::spawn(send(Arc::clone(&rig), first + sender))).collect();
    for sender in senders {
        sender.await.expect("it goes on for ever");
    }
}

async fn send(rig: Arc<Rig>, first: u64) {
    for number in (first..u64::MAX).step_by(SENDERS as usize) {
        let events = (0..BATCH).map(|n| {
            let (id, who, title) = (format!("{number}:{n}"), number % 50, format!("t{}", (number * 7 + n) % 30));
            let more = format!(r#", "user": "u{who}", "region": "r{}", "rendition": "v{}""#, n % 3, n % 2);
            let event = match n % 4 {
                0 => event("play", &id, &more),
                1 => event("like", &id, &format!(r#", "user": "u{who}""#)),
                2 => event("stop", &id, &format!(r#"{more}, "playedMs": 130000"#)),
                _ => event(
                    "quality",
                    &id,
                    &format!(r#"{more}, "playedMs": 10000, "cmcd": {{"br": {}, "bsd": {n}}}"#, 1000 + number % 5000),
                ),
            };
            event.replace("dark-days", &title)
        });
        let receipt = rig.activity.submit(batch(events).as_bytes(), RELAY).await.expect("it is kept");
        assert_eq!(receipt.accepted + receipt.duplicates, BATCH);
        victim::say(format_args!("kept {number}"));
    }
}
