//! What Prometheus may ask of control. Labels are bounded: routes and methods are the router's, not the stranger's.

mod activity;
mod identity;
mod resilience;
mod search;
mod steering;
pub(crate) mod viewers;

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

pub(crate) use self::{activity::ActivityMetrics, identity::IdentityMetrics, search::SearchMetrics, steering::SteeringMetrics};

use self::{
    identity::raise,
    resilience::{ArmMetrics, ResilienceMetrics},
};
use crate::{
    finder::State,
    resilience::{admission::Admission, dependency::Dependency},
};

/// The label of a request that no route took.
const NO_ROUTE: &str = "none";

pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    titles: IntGauge,
    edges: IntGaugeVec,
    hot: IntCounterVec,
    pub(crate) identity: IdentityMetrics,
    pub(crate) steering: SteeringMetrics,
    pub(crate) viewers: viewers::Counters,
    pub(crate) arms: ArmMetrics,
    resilience: ResilienceMetrics,
    pub(crate) search: SearchMetrics,
    pub(crate) activity: ActivityMetrics,
}

/// What is counted elsewhere, as of now.
pub(crate) struct Now<'a> {
    pub(crate) titles: u64,
    /// Of each standing.
    pub(crate) edges: &'a [(&'a str, usize)],
    /// Each hot cache's hits and misses.
    pub(crate) hot: &'a [(&'a str, (u64, u64))],
    /// Tokens of viewers that were verified before, and that were not.
    pub(crate) tokens: (u64, u64),
    pub(crate) admission: &'a Admission,
    /// What requests depend on.
    pub(crate) dependencies: &'a [&'a Dependency],
    pub(crate) search: State,
    /// What viewers do.
    pub(crate) activity: ::activity::Stats,
    /// How many viewers are known to have watched what, and how many titles rows can fall back to.
    pub(crate) known: (usize, usize),
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
        let hot = IntCounterVec::new(
            Opts::new("larder_control_hot_total", "Look-ups in the caches in front of the database, by cache and outcome."),
            &["cache", "outcome"],
        )?;
        let registry = Registry::new();
        registry.register(Box::new(hot.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(titles.clone()))?;
        registry.register(Box::new(edges.clone()))?;
        let identity = IdentityMetrics::registered(&registry)?;
        let viewers = viewers::Counters::register(&registry)?;
        let steering = SteeringMetrics::registered(&registry)?;
        let (arms, resilience) = (ArmMetrics::registered(&registry)?, ResilienceMetrics::registered(&registry)?);
        let search = SearchMetrics::registered(&registry)?;
        let activity = ActivityMetrics::registered(&registry)?;
        Ok(Self {
            registry,
            requests,
            seconds,
            titles,
            edges,
            hot,
            identity,
            steering,
            viewers,
            arms,
            resilience,
            search,
            activity,
        })
    }

    /// Counts one answered request.
    pub(crate) fn answered(&self, route: Option<&str>, method: &Method, status: StatusCode, took: Duration) {
        let route = route.unwrap_or(NO_ROUTE);
        let method = match *method {
            Method::GET | Method::HEAD | Method::PUT | Method::POST | Method::PATCH | Method::DELETE | Method::OPTIONS => {
                method.as_str()
            }
            _ => "other",
        };
        self.requests.with_label_values(&[route, method, status.as_str()]).inc();
        self.seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// The Prometheus text format.
    pub(crate) fn text(&self, now: &Now<'_>) -> Result<String, prometheus::Error> {
        self.titles.set(i64::try_from(now.titles).unwrap_or(i64::MAX));
        for (standing, count) in now.edges {
            self.edges.with_label_values(&[*standing]).set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        for (cache, (hits, misses)) in now.hot {
            raise(&self.hot.with_label_values(&[cache, "hit"]), *hits);
            raise(&self.hot.with_label_values(&[cache, "miss"]), *misses);
        }
        self.identity.tokens(now.tokens);
        self.resilience.set(now.admission, now.dependencies);
        self.search.state(&now.search);
        self.activity.set(&now.activity, now.known);
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}
