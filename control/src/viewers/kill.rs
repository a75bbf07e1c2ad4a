//! `kill -9` at random instants, under load, again and again on the same files: nothing that was acknowledged is lost, no position moves
//! back, and who was forgotten stays forgotten.

use std::{collections::BTreeMap, path::Path};

use victim::{Victim, say};

use super::{pack::PERIOD_MS, record::tests::user, view::tests::title, *};

const USERS: usize = 16;
const TITLES: [&str; 3] = ["a", "b", "c"];
/// Who is forgotten all the time.
const GONE: &str = "gone";
/// Event times begin here and rise by a minute from write to write; a view's gap is less than what lies between two of one user and title.
const START_MS: u64 = 660 * PERIOD_MS;
const STEP_MS: u64 = 60_000;

fn config() -> HistoryConfig {
    HistoryConfig {
        commit_every: Duration::from_millis(1),
        flush_every: Duration::from_millis(15),
        view_gap: Duration::from_secs(1),
        live_for: Duration::from_secs(86_400),
        ..HistoryConfig::default()
    }
}

/// Days go by quickly, so that views become old and are packed.
fn now_ms(written: u64) -> u64 {
    START_MS + PERIOD_MS + written * STEP_MS * 50
}

async fn open(folder: &Path) -> Arc<Ledger> {
    let db = Db::open(&folder.join("control.db")).expect("a database");
    let mut ledger = Ledger::open(db, folder, config(), Counters::unseen()).await.expect("opens");
    ledger.pace = Pace { pause: Duration::from_millis(5), every: Duration::from_millis(20) };
    Arc::new(ledger)
}

/// What was acknowledged: events by user and title, and until when someone was forgotten.
#[derive(Default)]
struct Acknowledged {
    watched: BTreeMap<(String, String), Vec<(u64, u64)>>,
    forgotten_ms: u64,
    lines: u64,
}

impl Acknowledged {
    /// Lines that were cut off are not heard.
    fn hear(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["watched", user, title, at_ms, position_ms, "."] => {
                let number = |text: &str| text.parse().expect("a number");
                self.watched.entry((user.into(), title.into())).or_default().push((number(at_ms), number(position_ms)));
            }
            ["forgot", at_ms, "."] => self.forgotten_ms = at_ms.parse().expect("a number"),
            _ => return,
        }
        self.lines += 1;
    }
}

#[tokio::test]
async fn kill_9_at_any_instant_costs_nothing_that_was_acknowledged() {
    let (rounds, mut random) = victim::rounds(5);
    let folder = tempfile::tempdir().expect("a directory");
    let mut acknowledged = Acknowledged::default();
    let mut stopped_before: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    let (mut first, mut replayed) = (0, 0);
    for round in 0..rounds {
        let writer = Victim::start("viewers::kill::keeps_until_it_is_killed", folder.path(), first);
        writer.kill("watched", &mut random, |line| acknowledged.hear(line));
        let ledger = open(folder.path()).await;
        replayed += u64::from(ledger.memory.is_touched());
        for ((who, what), events) in &acknowledged.watched {
            let key = (who.clone(), what.clone());
            let stopped = ledger.stopped(user(who), title(what)).await.expect("answers");
            if who != GONE {
                let stopped = stopped.as_ref().map(View::last).expect("it was acknowledged");
                let newest = events.iter().max().expect("at least one");
                assert!(stopped >= *newest, "round {round}: {who} was at {newest:?} in {what} and is at {stopped:?}");
                let before = stopped_before.insert(key, stopped);
                assert!(before <= Some(stopped), "round {round}: {who} moved back in {what} from {before:?} to {stopped:?}");
                first = first.max((stopped.0 - START_MS) / STEP_MS + 1);
            }
        }
        for n in 0..USERS {
            let who = format!("user-{n}");
            let everything = ledger.everything(user(&who)).await.expect("answers");
            let have: BTreeMap<(u64, &str), u64> =
                everything.views.iter().map(|view| ((view.begun_ms, view.title.as_str()), view.position_ms)).collect();
            for ((_, what), events) in acknowledged.watched.iter().filter(|((whose, _), _)| *whose == who) {
                for (at_ms, position_ms) in events {
                    assert_eq!(
                        have.get(&(*at_ms, what.as_str())),
                        Some(position_ms),
                        "round {round}: {who} in {what} at {at_ms}"
                    );
                }
            }
        }
        let left = ledger.everything(user(GONE)).await.expect("answers").views;
        let forgotten_ms = acknowledged.forgotten_ms;
        assert!(left.iter().all(|view| view.begun_ms > forgotten_ms), "round {round}: {left:?} after {forgotten_ms}");
    }
    println!("{rounds} rounds, {} writes acknowledged, journal replayed in {replayed}", acknowledged.lines);
    assert!(acknowledged.lines > 0);
}

/// The process that is killed: run by the test above.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other half of kill_9_at_any_instant"]
async fn keeps_until_it_is_killed() {
    let (folder, first) = victim::orders();
    let ledger = open(&folder).await;
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    WRITTEN.store(first, Ordering::SeqCst);
    let now = || now_ms(WRITTEN.load(Ordering::Relaxed));
    tokio::spawn(Arc::clone(&ledger).run(now, CancellationToken::new()));
    for n in 0..USERS {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            loop {
                let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
                let (at_ms, what) = (START_MS + number * STEP_MS, TITLES[number as usize % TITLES.len()]);
                let kept = ledger.watched(user(&format!("user-{n}")), title(what), at_ms, number, None).await;
                kept.expect("it is not full");
                say(format_args!("watched user-{n} {what} {at_ms} {number} ."));
            }
        });
    }
    loop {
        let number = WRITTEN.fetch_add(2, Ordering::Relaxed);
        let at_ms = START_MS + number * STEP_MS;
        ledger.watched(user(GONE), title("a"), at_ms, number, None).await.expect("it is not full");
        ledger.forget(user(GONE), at_ms + 1).await.expect("it is not full");
        say(format_args!("forgot {} .", at_ms + 1));
    }
}
