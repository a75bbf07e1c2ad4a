//! What does one control take, over its API: HTTP/1.1 on loopback, tokens of viewers, SQLite and the journal on a real file system?
//!
//! Control and its clients share the machine's cores. Clients are light: requests are bytes that were made before, and of answers the
//! status and the length are read. Each part asserts what it was answered; figures are medians of several rounds.
//!
//! Titles are the 10,000 that were watched most, of `title-hours.csv.gz` in the directory that `LARDER_TRACES` names; without it there are only
//! as many as the selection that stands with the tests of `search`. `LARDER_BENCH_DIR` names the file system. The full size makes up a million viewers with a hundred views each (about 6 GB); what is in
//! `LARDER_BENCH_DIR/control` from an earlier run is used again. `LARDER_BENCH_USERS` asks for fewer.

mod client;
mod overload;
mod playback;
mod resume;
mod rounds;
mod search;
mod stage;

use stage::Stage;
use tokio::runtime;

use crate::{Report, Size};

/// Runs all parts against one control.
///
/// # Panics
/// If any answer is another than it should be.
pub fn run(size: Size) -> Report {
    let mut report = Report::new("What does one control take?", size);
    let stage = Stage::open(&mut report);
    let clients = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    clients.block_on(async {
        resume::measure(&mut report, &stage).await;
        playback::measure(&mut report, &stage).await;
        search::measure(&mut report, &stage).await;
        overload::measure(&mut report, &stage).await;
    });
    stage.stop();
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_run_has_every_outcome_as_expected_twice() {
        crate::small_twice(run);
    }
}
