//! What is counted of edges' streams, of steered players, and of decisions.

use prometheus::{Counter, CounterVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::raise;
use crate::{
    manifest::steering::Dialect,
    misses::{KINDS, Sums},
};

pub(crate) struct SteeringMetrics {
    streams: IntGauge,
    streams_opened: IntCounter,
    steered: IntCounterVec,
    played_seconds: Counter,
    missed_seconds: CounterVec,
    missed_bytes: IntCounterVec,
    recorded: IntCounterVec,
}

impl SteeringMetrics {
    pub(super) fn registered(registry: &Registry) -> Result<Self, prometheus::Error> {
        let streams = IntGauge::new("larder_control_edge_streams", "Streams that edges have open.")?;
        let streams_opened = IntCounter::new("larder_control_edge_streams_opened_total", "Streams that edges opened.")?;
        let steered = IntCounterVec::new(
            Opts::new("larder_control_steering_manifests_total", "Steering manifests given to players, by dialect."),
            &["dialect"],
        )?;
        let played_seconds = Counter::new("larder_control_played_seconds_total", "Time that steered players told of.")?;
        let missed_seconds = CounterVec::new(
            Opts::new("larder_control_missed_seconds_total", "Of this, time that was not served by the nearest site, by why."),
            &["reason"],
        )?;
        let missed_bytes = IntCounterVec::new(
            Opts::new(
                "larder_control_missed_bytes_total",
                "Bytes that were not served by the nearest site, an estimate, by why.",
            ),
            &["reason"],
        )?;
        let recorded = IntCounterVec::new(
            Opts::new(
                "larder_control_record_lines_total",
                "Lines of the record of decisions, by whether there was time to write them.",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(streams.clone()))?;
        registry.register(Box::new(streams_opened.clone()))?;
        registry.register(Box::new(steered.clone()))?;
        registry.register(Box::new(played_seconds.clone()))?;
        registry.register(Box::new(missed_seconds.clone()))?;
        registry.register(Box::new(missed_bytes.clone()))?;
        registry.register(Box::new(recorded.clone()))?;
        Ok(Self { streams, streams_opened, steered, played_seconds, missed_seconds, missed_bytes, recorded })
    }

    /// An edge opened a stream.
    pub(crate) fn stream_opened(&self) {
        self.streams_opened.inc();
    }

    /// A player was given a steering manifest.
    pub(crate) fn steered(&self, dialect: Dialect) {
        let dialect = match dialect {
            Dialect::Hls => "hls",
            Dialect::Dash => "dash",
        };
        self.steered.with_label_values(&[dialect]).inc();
    }

    /// What is counted elsewhere, as of now.
    pub(crate) fn set(&self, streams: usize, misses: &Sums, recorded: Option<(u64, u64)>) {
        self.streams.set(i64::try_from(streams).unwrap_or(i64::MAX));
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let raise_to = |counter: &Counter, value: f64| counter.inc_by((value - counter.get()).max(0.0));
        raise_to(&self.played_seconds, seconds(misses.served.ms));
        for ((_, name), missed) in KINDS.iter().zip(&misses.missed) {
            raise_to(&self.missed_seconds.with_label_values(&[*name]), seconds(missed.ms));
            raise(&self.missed_bytes.with_label_values(&[*name]), missed.bytes);
        }
        if let Some((written, lost)) = recorded {
            raise(&self.recorded.with_label_values(&["written"]), written);
            raise(&self.recorded.with_label_values(&["lost"]), lost);
        }
    }
}
