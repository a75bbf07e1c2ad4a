//! What several rounds of a load come to: medians are told.

use std::time::Duration;

use super::client::Outcome;
use crate::Report;

/// Figures, one of each round.
#[derive(Default)]
pub(super) struct Rounds {
    per_second: Vec<f64>,
    middle_us: Vec<f64>,
    slowest_us: Vec<f64>,
    cpu_us: Vec<f64>,
}

impl Rounds {
    /// A round, and the processor time that all of its requests took.
    pub(super) fn add(&mut self, outcome: &Outcome, cpu: Duration) {
        self.per_second.push(outcome.per_second());
        self.middle_us.push(outcome.percentile_ms(50.0) * 1e3);
        self.slowest_us.push(outcome.percentile_ms(99.0) * 1e3);
        self.cpu_us.push(cpu.as_secs_f64() * 1e6 / outcome.requests() as f64);
    }

    /// Tells how many a second, the median and the slowest of a hundred from due to answered, and the processor time of one, by these names.
    pub(super) fn tell(self, report: &mut Report, [per_second, middle, slowest, cpu]: [String; 4]) {
        report.figure(per_second, median(self.per_second), "/s");
        report.figure(middle, median(self.middle_us), "µs");
        report.figure(slowest, median(self.slowest_us), "µs");
        report.figure(cpu, median(self.cpu_us), "µs");
    }
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
