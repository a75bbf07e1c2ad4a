//! Searches, and the index that answers them.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::identity::raise;
use crate::finder::{NotFound, State};

pub(crate) struct SearchMetrics {
    searches: IntCounterVec,
    seconds: Histogram,
    titles: IntGauge,
    segments: IntGauge,
    bytes: IntGauge,
    is_whole: IntGauge,
    noted: IntGauge,
    applied: IntCounter,
    replaced: IntCounter,
}

impl SearchMetrics {
    pub(super) fn registered(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let searches = IntCounterVec::new(
            Opts::new(
                "larder_control_searches_total",
                "Searches, by what came of them: whole, cut (out of time, or the index is being made), refused, busy, failed.",
            ),
            &["outcome"],
        )?;
        registry.register(Box::new(searches.clone()))?;
        let seconds = Histogram::with_opts(
            HistogramOpts::new(
                "larder_control_search_seconds",
                "Time from a question to the search index to its answer, waiting included.",
            )
            .buckets(vec![0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0]),
        )?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            searches,
            seconds,
            titles: gauge("larder_control_search_titles", "Titles in the search index.")?,
            segments: gauge("larder_control_search_segments", "Segments of the search index; a search looks at each.")?,
            bytes: gauge(
                "larder_control_search_bytes",
                "Memory that the search index's files take, and as much in its directory.",
            )?,
            is_whole: gauge(
                "larder_control_search_whole",
                "1 when the search index had the whole catalogue since the start, or else 0.",
            )?,
            noted: gauge("larder_control_search_noted", "Titles that changed and are not in the search index yet.")?,
            applied: counter("larder_control_search_applied_total", "Titles that were brought to the search index.")?,
            replaced: counter("larder_control_search_replaced_total", "Search indexes that failed and were made anew.")?,
        })
    }

    /// Counts one search.
    pub(crate) fn searched(&self, outcome: &Result<search::Answer, NotFound>, took: Duration) {
        let outcome = match outcome {
            Ok(answer) if answer.whole => "whole",
            Ok(_) => "cut",
            Err(NotFound::Busy) => "busy",
            Err(NotFound::Refused(_)) => "refused",
            Err(NotFound::Failing(_)) => "failed",
        };
        self.searches.with_label_values(&[outcome]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// The index as of now.
    pub(super) fn state(&self, state: &State) {
        let set = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.titles, state.titles);
        set(&self.segments, state.segments);
        set(&self.bytes, state.bytes);
        set(&self.is_whole, state.is_whole.into());
        set(&self.noted, state.noted);
        raise(&self.applied, state.applied);
        raise(&self.replaced, state.replaced);
    }
}
