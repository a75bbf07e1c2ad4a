//! What is shed, what dependencies do, and how a second instance compares.

use std::time::Duration;

use http::StatusCode;
use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::identity::raise;
use crate::resilience::{
    admission::{Admission, Priority},
    dependency::Dependency,
};

pub(crate) struct ResilienceMetrics {
    admission: IntCounterVec,
    pressure: Gauge,
    in_progress: IntGauge,
    calls: IntCounterVec,
    broken: IntGaugeVec,
}

impl ResilienceMetrics {
    pub(super) fn registered(registry: &Registry) -> Result<Self, prometheus::Error> {
        let admission = IntCounterVec::new(
            Opts::new("larder_control_admission_total", "Requests, by priority and whether they were let in."),
            &["priority", "verdict"],
        )?;
        let pressure =
            Gauge::new("larder_control_pressure", "How far control is behind: from 0 to 1, where all but operation is shed.")?;
        let in_progress =
            IntGauge::new("larder_control_requests_in_progress", "Requests that were let in and not yet answered.")?;
        let calls = IntCounterVec::new(
            Opts::new("larder_control_dependency_calls_total", "Calls of what requests depend on, by what came of them."),
            &["dependency", "outcome"],
        )?;
        let broken = IntGaugeVec::new(
            Opts::new("larder_control_dependency_broken", "1 while a dependency fails and is left alone."),
            &["dependency"],
        )?;
        registry.register(Box::new(admission.clone()))?;
        registry.register(Box::new(pressure.clone()))?;
        registry.register(Box::new(in_progress.clone()))?;
        registry.register(Box::new(calls.clone()))?;
        registry.register(Box::new(broken.clone()))?;
        Ok(Self { admission, pressure, in_progress, calls, broken })
    }

    /// As of now.
    pub(super) fn set(&self, admission: &Admission, dependencies: &[&Dependency]) {
        for priority in Priority::ALL {
            let (asked, shed, crowded_out) = admission.counts(priority);
            let priority = priority.to_string();
            let admitted = asked.saturating_sub(shed + crowded_out);
            for (verdict, count) in [("admitted", admitted), ("shed", shed), ("crowded_out", crowded_out)] {
                raise(&self.admission.with_label_values(&[&*priority, verdict]), count);
            }
        }
        self.pressure.set(admission.pressure().value());
        self.in_progress.set(i64::try_from(admission.in_progress()).unwrap_or(i64::MAX));
        for dependency in dependencies {
            for (outcome, count) in dependency.counts() {
                raise(&self.calls.with_label_values(&[dependency.name(), &*outcome.to_string()]), count);
            }
            self.broken.with_label_values(&[dependency.name()]).set(i64::from(dependency.is_broken()));
        }
    }
}

/// This instance, and a second one that is tried out.
pub(crate) struct ArmMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    differed: IntCounter,
}

impl ArmMetrics {
    pub(super) fn registered(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "larder_control_arm_requests_total",
                "Reads while there is a second instance: answered here (stable), by it (canary), or copied to it (mirror).",
            ),
            &["arm", "outcome"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("larder_control_arm_seconds", "Time until a read was answered, by arm.")
                .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0]),
            &["arm"],
        )?;
        let differed = IntCounter::new(
            "larder_control_mirror_differs_total",
            "Copies that were answered with another status than the request.",
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(differed.clone()))?;
        Ok(Self { requests, seconds, differed })
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, arm: &str, status: StatusCode, took: Duration) {
        let class = ["1xx", "2xx", "3xx", "4xx", "5xx"][usize::from(status.as_u16() / 100 - 1).min(4)];
        self.requests.with_label_values(&[arm, class]).inc();
        self.seconds.with_label_values(&[arm]).observe(took.as_secs_f64());
    }

    /// Counts a request without one.
    pub(crate) fn not_answered(&self, arm: &str, why: &str) {
        self.requests.with_label_values(&[arm, why]).inc();
    }

    /// Counts a copy that was answered otherwise.
    pub(crate) fn differed(&self) {
        self.differed.inc();
    }
}
