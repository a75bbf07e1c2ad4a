//! What viewers do: kept, left out, folded, and in the lake. Labels are kinds and reasons, which the code names.

use activity::Stats;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::identity::raise;

pub(crate) struct ActivityMetrics {
    events: IntCounterVec,
    refused: IntCounterVec,
    counters: Vec<(IntCounter, Of)>,
    gauges: Vec<(IntGauge, Of)>,
    users: IntGauge,
    titles: IntGauge,
    fallbacks: IntCounterVec,
}

/// Where a metric's value is.
type Of = fn(&Stats) -> u64;
/// A metric's name, its help, and where its value is.
type Figure = (&'static str, &'static str, Of);

const COUNTERS: [Figure; 13] = [
    ("larder_control_activity_batches_total", "Batches of events that were read.", |stats| stats.batches),
    ("larder_control_activity_duplicates_total", "Events that came again.", |stats| stats.duplicates),
    ("larder_control_activity_groups_total", "Groups of events that were written and synced.", |stats| stats.groups),
    ("larder_control_activity_failed_groups_total", "Groups of events that could not be kept.", |stats| stats.failed_groups),
    ("larder_control_activity_cut_bytes_total", "Bytes cut off the log's end at start.", |stats| stats.cut_bytes),
    ("larder_control_activity_folded_total", "Events that were folded.", |stats| stats.folded),
    ("larder_control_activity_late_total", "Events that came too late for their hour.", |stats| stats.late),
    ("larder_control_activity_lost_total", "Events in damaged parts of the log.", |stats| stats.lost),
    ("larder_control_activity_checkpoints_total", "Checkpoints of the folds.", |stats| stats.checkpoints),
    ("larder_control_lake_rows_total", "Events written to the lake.", |stats| stats.lake_rows),
    ("larder_control_lake_files_total", "Files written to the lake.", |stats| stats.lake_files),
    ("larder_control_lake_bytes_total", "Bytes written to the lake.", |stats| stats.lake_bytes),
    ("larder_control_lake_failures_total", "Segments that could not be written to the lake, each time.", |stats| {
        stats.lake_failures
    }),
];

const GAUGES: [Figure; 6] = [
    ("larder_control_activity_queued_bytes", "Bytes of events that wait to be written.", |stats| stats.queued_bytes),
    ("larder_control_activity_log_bytes", "Bytes of the log.", |stats| stats.log_bytes),
    ("larder_control_activity_log_segments", "Segments of the log.", |stats| stats.log_segments),
    ("larder_control_activity_checkpoint_bytes", "Bytes of the latest checkpoint of all folds.", |stats| stats.checkpoint_bytes),
    ("larder_control_activity_fold_lag_events", "Events in the log that are not folded yet.", |stats| {
        stats.log_newest.saturating_sub(stats.fold_place)
    }),
    ("larder_control_lake_lag_events", "Events in the log that are not in the lake yet.", |stats| {
        stats.log_newest.saturating_sub(stats.lake_place)
    }),
];

impl ActivityMetrics {
    pub(super) fn registered(registry: &Registry) -> Result<Self, prometheus::Error> {
        let vec = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            Ok::<_, prometheus::Error>(vec)
        };
        let counters = COUNTERS.iter().map(|(name, help, of)| {
            let counter = IntCounter::new(*name, *help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok((counter, *of))
        });
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gauges = GAUGES.iter().map(|(name, help, of)| Ok((gauge(name, help)?, *of)));
        Ok(Self {
            events: vec(
                "larder_control_activity_events_total",
                "Good events, by kind and by what became of them.",
                &["kind", "outcome"],
            )?,
            refused: vec(
                "larder_control_activity_refused_total",
                "Events that are not as they should be, by reason.",
                &["reason"],
            )?,
            counters: counters.collect::<Result<_, prometheus::Error>>()?,
            gauges: gauges.collect::<Result<_, prometheus::Error>>()?,
            users: gauge("larder_control_activity_users", "Users whose latest titles are known.")?,
            titles: gauge("larder_control_overview_titles", "Titles that rows fall back to when the catalogue does not answer.")?,
            fallbacks: vec(
                "larder_control_row_fallbacks_total",
                "Rows of recommendations that were given a default, because what they are made of failed or was too slow.",
                &["row"],
            )?,
        })
    }

    /// A row was given its default.
    pub(crate) fn fell_back(&self, row: &str) {
        self.fallbacks.with_label_values(&[row]).inc();
    }

    /// As of now.
    pub(super) fn set(&self, stats: &Stats, (users, titles): (usize, usize)) {
        for (outcome, counts) in [("accepted", &stats.accepted), ("sampled", &stats.sampled), ("dropped", &stats.dropped)] {
            for (kind, count) in counts {
                raise(&self.events.with_label_values(&[kind, outcome]), *count);
            }
        }
        for (reason, count) in &stats.refused {
            raise(&self.refused.with_label_values(&[*reason]), *count);
        }
        self.counters.iter().for_each(|(counter, of)| raise(counter, of(stats)));
        for (gauge, of) in &self.gauges {
            gauge.set(i64::try_from(of(stats)).unwrap_or(i64::MAX));
        }
        self.users.set(i64::try_from(users).unwrap_or(i64::MAX));
        self.titles.set(i64::try_from(titles).unwrap_or(i64::MAX));
    }
}
