//! Search over the API: how soon is a query with one typing error answered, at a pace and flat out?

use std::cell::Cell;

use super::{
    client::{Load, drive},
    rounds::Rounds,
    stage::Stage,
};
use crate::{Report, Size, process_cpu_time};

/// What is asked for in the open loop.
const PER_SECOND: u64 = 500;
const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;

pub(super) async fn measure(report: &mut Report, stage: &Stage) {
    let full = report.size() == Size::Full;
    let request = |n: u64, bytes: &mut Vec<u8>| write(stage, n, bytes);
    let whole = Cell::new(0_u64);
    let look = |_, body: &[u8]| whole.set(whole.get() + u64::from(!is_cut(body)));
    let (requests, mut asked) = (report.size().of(20, PER_SECOND * 5), 0);
    for (name, per_second) in [("", None), (" at 500/s", Some(PER_SECOND))] {
        let mut rounds = Rounds::default();
        for _ in 0..report.size().of(1, ROUNDS as u64) {
            let cpu = process_cpu_time();
            let load = Load { connections: CONNECTIONS, requests, per_second: per_second.filter(|_| full) };
            let outcome = drive(stage.addr, load, request, look).await;
            assert_eq!(outcome.statuses, [200], "every search is answered");
            asked += requests;
            rounds.add(&outcome, process_cpu_time() - cpu);
        }
        if full {
            let names = [
                format!("search{name}, one typing error each, {CONNECTIONS} connections"),
                format!("search{name}, from due to answered, median"),
                format!("search{name}, 99 %"),
                format!("search{name}, CPU of control and client"),
            ];
            rounds.tell(report, names);
        }
    }
    report.expect("searches that were not cut short", whole.get(), asked);
}

/// The request of a viewer who looks for a title and makes a mistake.
pub(super) fn write(stage: &Stage, n: u64, bytes: &mut Vec<u8>) {
    use std::io::Write as _;
    let query = &stage.queries[(n * 7919 % stage.queries.len() as u64) as usize];
    let token = &stage.viewer(n).token;
    write!(bytes, "GET /videos?searchQuery={query} HTTP/1.1\r\nHost: control.example\r\nAuthorization: Bearer {token}\r\n\r\n")
        .expect("a Vec takes all");
}

/// Whether an answer says that there may be more titles than it has.
pub(super) fn is_cut(body: &[u8]) -> bool {
    const CUT: &[u8] = b"\"complete\":false";
    body.windows(CUT.len()).any(|window| window == CUT)
}
