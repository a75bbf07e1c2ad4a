//! What Prometheus may ask of control. Labels are bounded: routes and methods are the router's, not the stranger's.

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

/// The label of a request that no route took.
const NO_ROUTE: &str = "none";

pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    titles: IntGauge,
    edges: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self::registered().expect("names are well formed and registered once")
    }

    fn registered() -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("larder_control_requests_total", "Requests answered, by route, method and status."),
            &["route", "method", "status"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("larder_control_request_seconds", "Time from a request's head to its answer's head, by route.")
                .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0]),
            &["route"],
        )?;
        let titles = IntGauge::new("larder_control_titles", "Titles in the catalogue.")?;
        let edges = IntGaugeVec::new(Opts::new("larder_control_edges", "Registered edges, by how they stand."), &["standing"])?;
        let registry = Registry::new();
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(titles.clone()))?;
        registry.register(Box::new(edges.clone()))?;
        Ok(Self { registry, requests, seconds, titles, edges })
    }

    /// Counts one answered request.
    pub(crate) fn answered(&self, route: Option<&str>, method: &Method, status: StatusCode, took: Duration) {
        let route = route.unwrap_or(NO_ROUTE);
        let method = match *method {
            Method::GET | Method::HEAD | Method::PUT | Method::POST | Method::DELETE | Method::OPTIONS => method.as_str(),
            _ => "other",
        };
        self.requests.with_label_values(&[route, method, status.as_str()]).inc();
        self.seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// The Prometheus text format, with `titles` and the `edges` of each standing as of now.
    pub(crate) fn text(&self, titles: u64, edges: &[(&str, usize)]) -> Result<String, prometheus::Error> {
        self.titles.set(i64::try_from(titles).unwrap_or(i64::MAX));
        for (standing, count) in edges {
            self.edges.with_label_values(&[*standing]).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
