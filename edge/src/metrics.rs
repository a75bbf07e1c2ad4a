//! What an edge counts, and how Prometheus gets to see it.
//!
//! Serving touches atomics only; names and labels are put to them when somebody asks. Labels are bounded: none comes from a stranger.

mod ssd;

#[cfg(test)]
pub(crate) use ssd::tests::two_devices;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::http::StatusCode;
use cache::{Cache, Verdict};
use parking_lot::Mutex;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
    core::Collector,
    proto::{self, LabelPair, Metric, MetricFamily, MetricType},
};

use crate::{
    fill::Origin,
    http::{Cap, Counters, Flood, Protocol},
};

/// Statuses, by their first digit.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Where an answer's first bytes came from: "hit" is RAM; "none" where no bytes were read.
const VERDICTS: [&str; 6] = ["hit", "ssd", "miss", "collapsed", "revalidated", "none"];
/// The bounds of times to first byte, in seconds.
const FIRST_BYTE_S: [f64; 14] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// What serving counts.
pub(crate) struct Metrics {
    requests: [[[AtomicU64; VERDICTS.len()]; CLASSES.len()]; Protocol::ALL.len()],
    sent_bytes: [AtomicU64; Protocol::ALL.len()],
    broken: AtomicU64,
    first_byte: [Histogram; VERDICTS.len()],
    /// By reason code; only strangers are counted here, so no viewer waits for the lock.
    refused_tokens: Mutex<BTreeMap<&'static str, u64>>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let histogram = |_: usize| {
            let opts = HistogramOpts::new(
                "larder_edge_first_byte_seconds",
                "Time from a request's head to its answer's first body byte.",
            );
            Histogram::with_opts(opts.buckets(FIRST_BYTE_S.to_vec())).expect("bounds rise")
        };
        Self {
            requests: Default::default(),
            sent_bytes: Default::default(),
            broken: AtomicU64::new(0),
            first_byte: std::array::from_fn(histogram),
            refused_tokens: Mutex::default(),
        }
    }

    /// An answer's head was made.
    pub(crate) fn answered(&self, protocol: Protocol, status: StatusCode, verdict: Option<Verdict>) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1;
        self.requests[protocol as usize][class][place(verdict)].fetch_add(1, Ordering::Relaxed);
    }

    /// The first byte of an answer's body was handed to the protocol.
    pub(crate) fn first_byte(&self, verdict: Option<Verdict>, after: Duration) {
        self.first_byte[place(verdict)].observe(after.as_secs_f64());
    }

    /// Bytes of bodies were handed to the protocol.
    pub(crate) fn sent(&self, protocol: Protocol, bytes: u64) {
        self.sent_bytes[protocol as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// A body broke off for want of bytes.
    pub(crate) fn broken(&self) {
        self.broken.fetch_add(1, Ordering::Relaxed);
    }

    /// A token was refused, or there was none.
    pub(crate) fn refused_token(&self, code: &'static str) {
        *self.refused_tokens.lock().entry(code).or_default() += 1;
    }

    /// Answers since start.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.iter().flatten().flatten().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Body bytes since start.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// What the log and the metrics call a verdict.
pub(crate) fn verdict_name(verdict: Option<Verdict>) -> &'static str {
    VERDICTS[place(verdict)]
}

fn place(verdict: Option<Verdict>) -> usize {
    match verdict {
        Some(Verdict::Ram) => 0,
        Some(Verdict::Ssd) => 1,
        Some(Verdict::Filled) => 2,
        Some(Verdict::Collapsed) => 3,
        Some(Verdict::Revalidated) => 4,
        None => 5,
    }
}

/// All that an edge can tell of itself.
pub(crate) struct Gauges {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) protocols: Arc<Counters>,
    pub(crate) cache: Cache,
    pub(crate) origin: Arc<Origin>,
    /// Connections that may be open at once.
    pub(crate) connections_max: u64,
    /// Processes that this one has taken over from, in a row.
    pub(crate) generation: u64,
}

impl Gauges {
    /// The Prometheus text format, as of now.
    pub(crate) fn text(&self) -> Result<String, prometheus::Error> {
        let mut page = Page::default();
        self.serving(&mut page)?;
        self.connections(&mut page)?;
        let disk = self.cache.disk_stats();
        self.cached(&mut page, disk.as_ref().map_or(0, |disk| disk.bytes_hit))?;
        if let Some(disk) = disk {
            ssd::write(&disk, &mut page)?;
        }
        page.histograms.push(self.first_bytes());
        page.text()
    }

    fn serving(&self, page: &mut Page) -> Result<(), prometheus::Error> {
        let metrics = &self.metrics;
        let requests = metrics.requests.iter().zip(Protocol::ALL).flat_map(|(classes, protocol)| {
            classes.iter().zip(CLASSES).flat_map(move |(verdicts, class)| {
                let counts = verdicts.iter().zip(VERDICTS);
                counts.map(move |(count, verdict)| ([protocol.alpn(), class, verdict], count.load(Ordering::Relaxed)))
            })
        });
        page.counters(
            "larder_edge_requests_total",
            "Answers, by protocol, class of status, and where their first bytes came from.",
            ["protocol", "status", "verdict"],
            requests.filter(|(_, count)| *count > 0),
        )?;
        let sent = metrics.sent_bytes.iter().zip(Protocol::ALL);
        page.counters(
            "larder_edge_sent_bytes_total",
            "Bytes of bodies sent to players.",
            ["protocol"],
            sent.map(|(count, protocol)| ([protocol.alpn()], count.load(Ordering::Relaxed))),
        )?;
        page.counters(
            "larder_edge_refused_tokens_total",
            "Requests refused for their token or for want of one, by reason.",
            ["reason"],
            metrics.refused_tokens.lock().iter().map(|(code, count)| ([*code], *count)),
        )?;
        page.counter(
            "larder_edge_broken_answers_total",
            "Answers that broke off because their bytes did not come.",
            metrics.broken.load(Ordering::Relaxed),
        )
    }

    fn connections(&self, page: &mut Page) -> Result<(), prometheus::Error> {
        let protocols = &self.protocols;
        let of = |value: fn(&crate::http::ProtocolCounters) -> u64| {
            Protocol::ALL.map(|protocol| ([protocol.alpn()], value(protocols.of(protocol))))
        };
        page.counters(
            "larder_edge_connections_total",
            "Connections taken, by protocol.",
            ["protocol"],
            of(|counters| counters.connections.value()).into_iter(),
        )?;
        page.gauge("larder_edge_connections", "Connections open now.", protocols.open())?;
        page.gauge("larder_edge_generation", "Upgrades since the first process of this edge was started.", self.generation)?;
        page.counter(
            "larder_edge_upgrade_forwarded_datagrams_total",
            "Datagrams handed to processes before this one, which still have their connections.",
            protocols.passed.value(),
        )?;
        page.counter(
            "larder_edge_upgrade_dropped_datagrams_total",
            "The same, lost because the process before had no room for them.",
            protocols.passed_dropped.value(),
        )?;
        let failures = [
            ("handshake", &protocols.handshakes_failed),
            ("connections_max", &protocols.refused_connections),
            ("timeout", &protocols.timed_out),
            ("stalled", &protocols.stalled),
            ("header_bytes_max", &protocols.heads_too_large),
            ("address_retry", &protocols.retries),
            ("flood", &protocols.floods),
            ("malformed", &protocols.malformed),
            ("content", &protocols.contents),
            ("http2_violation", &protocols.http2_violations),
            ("accept", &protocols.accepts_failed),
        ];
        page.counters(
            "larder_edge_client_failures_total",
            "Connections and requests that ended for what clients did or a limit says.",
            ["reason"],
            failures.into_iter().map(|(reason, count)| ([reason], count.value())),
        )?;
        page.counters(
            "larder_edge_paced_bytes_total",
            "Bytes that had to wait for a cap of [pacing], by cap; \"connection\": over HTTP/3, as the kernel does not count those of TCP.",
            ["cap"],
            Cap::ALL.into_iter().map(|cap| ([cap.name()], protocols.paced(cap).value())),
        )?;
        page.counters(
            "larder_edge_floods_total",
            "Connections closed for a flood, by its kind (docs/hostile-clients.md).",
            ["kind"],
            Flood::ALL.into_iter().map(|flood| ([flood.name()], protocols.floods_of(flood))),
        )?;
        page.counters(
            "larder_edge_quic_violations_total",
            "Connections of HTTP/3 that ended because the client broke QUIC's rules, by the code that it was told (RFC 9000, 20.1).",
            ["code"],
            protocols.quic_violations().filter(|(_, count)| *count > 0).map(|(code, count)| ([code], count)),
        )?;
        let udp = [
            ("send", &protocols.sends_failed),
            ("receive", &protocols.receives_failed),
            ("segmentation", &protocols.segmentation_refused),
        ];
        page.counters(
            "larder_edge_udp_failures_total",
            "Calls for datagrams of HTTP/3 that the system failed; \"segmentation\": workers that send datagrams one by one from then on.",
            ["call"],
            udp.into_iter().map(|(call, count)| ([call], count.value())),
        )
    }

    fn cached(&self, page: &mut Page, bytes_ssd: u64) -> Result<(), prometheus::Error> {
        let stats = self.cache.stats();
        page.counters(
            "larder_edge_bytes_total",
            "Bytes of slices, by the tier they came from: read from RAM or SSD, or brought from the origin.",
            ["tier"],
            [(["ram"], stats.bytes_ram), (["ssd"], bytes_ssd), (["origin"], stats.bytes_filled)].into_iter(),
        )?;
        page.counters(
            "larder_edge_fills_total",
            "Fills that ended, by how.",
            ["end"],
            self.origin.counters().ends().map(|(end, count)| ([end], count)),
        )?;
        for (name, help, count) in [
            ("larder_edge_cache_hits_total", "Slices that were in RAM when they were wanted.", stats.hits),
            ("larder_edge_cache_ssd_hits_total", "Slices that were on SSD when they were wanted, and were read.", stats.ssd_hits),
            ("larder_edge_cache_misses_total", "Slices that were in neither when they were wanted.", stats.misses),
            ("larder_edge_cache_collapsed_total", "Misses that waited for a fill already under way.", stats.collapsed),
            ("larder_edge_cache_fills_total", "Fills started.", stats.fills),
            ("larder_edge_cache_fill_failures_total", "Fills that failed.", stats.fill_failures),
            ("larder_edge_cache_attempts_total", "Times that the origin was asked for a fill.", stats.attempts),
            (
                "larder_edge_cache_stalls_total",
                "Attempts that were cut because too little came of them while a player waited.",
                stats.stalls,
            ),
            ("larder_edge_cache_abandoned_total", "Fills that ended early because no player waited any more.", stats.abandoned),
            ("larder_edge_cache_busy_total", "Fills refused because no memory came free in time.", stats.refused_busy),
            ("larder_edge_cache_plans_refused_total", "Slices of plans not fetched for want of memory.", stats.refused_plans),
            (
                "larder_edge_cache_read_ahead_refused_total",
                "Slices not fetched ahead for want of memory.",
                stats.refused_speculation,
            ),
            ("larder_edge_cache_read_ahead_total", "Slices that were fetched ahead of a player.", stats.read_ahead_started),
            (
                "larder_edge_cache_read_ahead_used_total",
                "Of the slices fetched ahead, those that the same player came to.",
                stats.read_ahead_used,
            ),
            ("larder_edge_cache_evictions_total", "Slices that RAM gave up for others.", stats.evictions),
        ] {
            page.counter(name, help, count)?;
        }
        for (name, help, value) in [
            ("larder_edge_ram_bytes", "RAM in use for slices: cached, read, being filled.", stats.ram_bytes),
            ("larder_edge_ram_bytes_max", "RAM that slices may use (cache.ram).", stats.ram_bytes_max),
            ("larder_edge_cached_slices", "Slices in RAM now.", stats.slices),
            ("larder_edge_known_objects", "Objects whose current version is known now.", stats.objects),
            ("larder_edge_fills", "Fills under way now.", stats.flights),
        ] {
            page.gauge(name, help, value)?;
        }
        Ok(())
    }

    /// One histogram a verdict, which become one family by a label.
    fn first_bytes(&self) -> MetricFamily {
        let mut family = MetricFamily::default();
        for (histogram, verdict) in self.metrics.first_byte.iter().zip(VERDICTS) {
            for mut collected in histogram.collect() {
                let mut label = LabelPair::default();
                label.set_name("verdict".into());
                label.set_value(verdict.into());
                let mut metrics = collected.take_metric();
                metrics.iter_mut().for_each(|metric| metric.set_label(vec![label.clone()]));
                let mut all = family.take_metric();
                all.extend(metrics);
                family = collected;
                family.set_metric(all);
            }
        }
        family
    }
}

/// Metrics being written down.
#[derive(Default)]
struct Page {
    registry: Registry,
    /// What the registry would have to count by itself.
    histograms: Vec<MetricFamily>,
}

impl Page {
    fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        counts: impl Iterator<Item = ([&'a str; N], u64)>,
    ) -> Result<(), prometheus::Error> {
        let family = IntCounterVec::new(Opts::new(name, help), &labels)?;
        for (values, count) in counts {
            family.with_label_values(&values).inc_by(count);
        }
        self.registry.register(Box::new(family))
    }

    fn counter(&mut self, name: &str, help: &str, count: u64) -> Result<(), prometheus::Error> {
        self.counters(name, help, [], [([], count)].into_iter())
    }

    fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl Iterator<Item = ([&'a str; N], f64)>,
    ) -> Result<(), prometheus::Error> {
        let family = GaugeVec::new(Opts::new(name, help), &labels)?;
        for (labels, value) in values {
            family.with_label_values(&labels).set(value);
        }
        self.registry.register(Box::new(family))
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), prometheus::Error> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.registry.register(Box::new(gauge))
    }

    fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        histograms: impl Iterator<Item = (&'a str, proto::Histogram)>,
    ) {
        let metrics: Vec<_> = histograms
            .map(|(value, histogram)| {
                let mut pair = LabelPair::default();
                pair.set_name(label.into());
                pair.set_value(value.into());
                let mut metric = Metric::from_label(vec![pair]);
                metric.set_histogram(histogram);
                metric
            })
            .collect();
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(metrics);
        self.histograms.push(family);
    }

    fn text(&self) -> Result<String, prometheus::Error> {
        let mut families = self.registry.gather();
        families.extend(self.histograms.iter().filter(|family| !family.get_metric().is_empty()).cloned());
        TextEncoder::new().encode_to_string(&families)
    }
}
