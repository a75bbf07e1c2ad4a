//! `/sites`: where edges stand, what that costs, and whom they serve.

use std::sync::Arc;

use axum::{Json, extract::State};
use http::{HeaderValue, StatusCode, header::CACHE_CONTROL};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::report::PREFIXES_MAX;

use super::{
    App,
    extract::{Looks, Named, Operates, Sent},
    problem::{Kind, Problem},
};
use crate::{
    fleet::is_name,
    sites::{NotChanged, SiteRecord},
    steering::geo::Coordinates,
};

const NO_CACHE: [(http::HeaderName, HeaderValue); 1] = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];

/// What is known of a site. What is left out is not known, or free, or for everybody.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SiteSettings {
    /// Degrees north. Together with `longitude`, or neither.
    #[serde(default)]
    #[schema(minimum = -90, maximum = 90)]
    latitude: Option<f64>,
    /// Degrees east.
    #[serde(default)]
    #[schema(minimum = -180, maximum = 180)]
    longitude: Option<f64>,
    /// What a gigabyte from there costs beside the others, in any unit.
    #[serde(default)]
    #[schema(required = false)]
    cost: u32,
    /// What all of its edges together may send.
    #[serde(default)]
    #[schema(minimum = 1)]
    capacity_bits_per_second: Option<u64>,
    /// Whether it serves clients in none of its prefixes too.
    #[serde(default = "open")]
    #[schema(required = false, default = true)]
    open: bool,
    /// The networks that it serves first, besides those that its edges announce.
    #[serde(default)]
    #[schema(required = false, value_type = Vec<String>, example = json!(["203.0.113.0/24"]))]
    prefixes: Vec<IpNet>,
}

fn open() -> bool {
    true
}

impl SiteSettings {
    fn record(self, name: String) -> Result<SiteRecord, Problem> {
        let flawed = |why: &str| Err(Problem::new(Kind::FlawedSite, why.to_owned()));
        let place = match (self.latitude, self.longitude) {
            (None, None) => None,
            (Some(latitude), Some(longitude)) => match Coordinates::new(latitude, longitude) {
                Some(place) => Some(place),
                None => return flawed("latitude is from -90 to 90 and longitude from -180 to 180"),
            },
            _ => return flawed("latitude and longitude belong together"),
        };
        if self.prefixes.len() > PREFIXES_MAX {
            return flawed(&format!("a site has at most {PREFIXES_MAX} prefixes; a file has room for more"));
        }
        if self.capacity_bits_per_second == Some(0) {
            return flawed("a site that can send nothing is none; drain its edges instead");
        }
        let Self { cost, capacity_bits_per_second, open, prefixes, .. } = self;
        Ok(SiteRecord { name, place, cost, capacity_bits_per_second, open, prefixes })
    }
}

impl From<&SiteRecord> for SiteSettings {
    fn from(site: &SiteRecord) -> Self {
        Self {
            latitude: site.place.map(Coordinates::latitude),
            longitude: site.place.map(Coordinates::longitude),
            cost: site.cost,
            capacity_bits_per_second: site.capacity_bits_per_second,
            open: site.open,
            prefixes: site.prefixes.clone(),
        }
    }
}

/// A site as operators see it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SiteView {
    /// Its name, by which edges name it.
    site: String,
    /// Degrees north; null where it is not known.
    #[schema(required, minimum = -90, maximum = 90)]
    latitude: Option<f64>,
    /// Degrees east; null where it is not known.
    #[schema(required, minimum = -180, maximum = 180)]
    longitude: Option<f64>,
    /// What a gigabyte from there costs beside the others, in any unit.
    cost: u32,
    /// What all of its edges together may send; null where nobody said.
    #[schema(required, minimum = 1)]
    capacity_bits_per_second: Option<u64>,
    /// Whether it serves clients in none of its prefixes too.
    open: bool,
    /// The networks that it serves first, besides those that its edges announce.
    #[schema(value_type = Vec<String>, example = json!(["203.0.113.0/24"]))]
    prefixes: Vec<IpNet>,
    /// Where it is known from.
    source: SiteSource,
    /// Edges that say that they stand there.
    edges: usize,
    /// Prefixes that these edges announce.
    edge_prefixes: usize,
}

/// Where a site is known from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SiteSource {
    /// Control's configuration, which alone may change it.
    Configuration,
    /// This API.
    Api,
    /// Edges that say that they stand there. Nothing else is known of it.
    Edges,
}

/// All sites, by name.
#[derive(Serialize, ToSchema)]
pub(super) struct SiteList {
    sites: Vec<SiteView>,
}

impl SiteView {
    fn new(app: &App, name: &str) -> Option<Self> {
        let (edges, edge_prefixes) = {
            let fleet = app.fleet.read();
            let of_site = fleet.edges().filter(|edge| edge.registration.site == name);
            of_site.fold((0, 0), |(edges, prefixes), edge| (edges + 1, prefixes + edge.registration.prefixes.len()))
        };
        let sites = app.sites.read();
        let (settings, source) = match sites.site(name) {
            Some((site, true)) => (site.into(), SiteSource::Configuration),
            Some((site, false)) => (site.into(), SiteSource::Api),
            None if edges > 0 => (unknown(), SiteSource::Edges),
            None => return None,
        };
        let SiteSettings { latitude, longitude, cost, capacity_bits_per_second, open, prefixes } = settings;
        let site = name.to_owned();
        Some(Self { site, latitude, longitude, cost, capacity_bits_per_second, open, prefixes, source, edges, edge_prefixes })
    }
}

/// A site of which nothing is known.
fn unknown() -> SiteSettings {
    SiteSettings { latitude: None, longitude: None, cost: 0, capacity_bits_per_second: None, open: true, prefixes: Vec::new() }
}

/// Every site: those of the configuration, those of this API, and those that only edges name.
#[utoipa::path(
    get, path = "/sites", tag = "fleet", operation_id = "listSites", security(("operator" = [])),
    responses(
        (status = 200, description = "The sites.", body = SiteList),
        (status = 401, description = "Not an operator."),
    )
)]
pub(super) async fn list(State(app): State<Arc<App>>, Looks(operator): Looks) -> impl axum::response::IntoResponse + use<> {
    tracing::debug!(%operator, "sites looked at");
    let mut names: Vec<_> = app.sites.read().all().map(|(site, _)| site.name.clone()).collect();
    names.extend(app.fleet.read().edges().map(|edge| edge.registration.site.clone()));
    names.sort();
    names.dedup();
    (NO_CACHE, Json(SiteList { sites: names.iter().filter_map(|name| SiteView::new(&app, name)).collect() }))
}

/// One site.
#[utoipa::path(
    get, path = "/sites/{site}", tag = "fleet", operation_id = "lookUpSite", security(("operator" = [])),
    params(("site" = String, Path, description = "The site's name.")),
    responses(
        (status = 200, description = "The site.", body = SiteView),
        (status = 401, description = "Not an operator."),
        (status = 404, description = "Nobody knows it."),
    )
)]
pub(super) async fn look_up(
    State(app): State<Arc<App>>,
    Looks(operator): Looks,
    Named(SiteName(name)): Named<SiteName>,
) -> Result<impl axum::response::IntoResponse + use<>, Problem> {
    tracing::debug!(%operator, site = name, "site looked at");
    let site = SiteView::new(&app, &name).ok_or_else(|| no_such_site(&name))?;
    Ok((NO_CACHE, Json(site)))
}

/// Says what is known of a site, in place of what was.
#[utoipa::path(
    put, path = "/sites/{site}", tag = "fleet", operation_id = "putSite", security(("operator" = [])),
    params(("site" = String, Path, description = "The site's name: 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.")),
    request_body(content = SiteSettings, description = "What is known of it."),
    responses(
        (status = 201, description = "It was not known before."),
        (status = 204, description = "It was known before; what is said now holds."),
        (status = 401, description = "Not an operator."),
        (status = 403, description = "The operator's role is viewer."),
        (status = 409, description = "It stands in control's configuration, or there are 4096 sites, which is the most."),
        (status = 422, description = "What is said of it is not possible."),
    )
)]
pub(super) async fn put(
    State(app): State<Arc<App>>,
    Operates(operator): Operates,
    Named(SiteName(name)): Named<SiteName>,
    Sent(settings): Sent<SiteSettings>,
) -> Result<StatusCode, Problem> {
    let record = settings.record(name)?;
    app.sites.read().may_change(&record.name).map_err(|error| not_changed(error, &record.name))?;
    app.db.put_site(record.clone()).await?;
    tracing::info!(%operator, site = record.name, "site changed");
    let is_new = app.sites.write().put(record);
    app.sites_changed();
    Ok(if is_new { StatusCode::CREATED } else { StatusCode::NO_CONTENT })
}

/// Forgets what this API was told of a site. Edges that stand there stay.
#[utoipa::path(
    delete, path = "/sites/{site}", tag = "fleet", operation_id = "removeSite", security(("operator" = [])),
    params(("site" = String, Path, description = "The site's name.")),
    responses(
        (status = 204, description = "Forgotten."),
        (status = 401, description = "Not an operator."),
        (status = 403, description = "The operator's role is viewer."),
        (status = 404, description = "This API was not told of it."),
        (status = 409, description = "It stands in control's configuration."),
    )
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Operates(operator): Operates,
    Named(SiteName(name)): Named<SiteName>,
) -> Result<StatusCode, Problem> {
    match app.sites.read().site(&name) {
        Some((_, true)) => return Err(not_changed(NotChanged::Configured, &name)),
        Some((_, false)) => {}
        None => return Err(no_such_site(&name)),
    }
    app.db.remove_site(name.clone()).await?;
    tracing::info!(%operator, site = name, "site removed");
    app.sites.write().remove(&name);
    app.sites_changed();
    Ok(StatusCode::NO_CONTENT)
}

/// A site's name in an address.
pub(super) struct SiteName(pub(super) String);

impl std::str::FromStr for SiteName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(NotAName) }
    }
}

/// Not the name of a site.
#[derive(Debug, thiserror::Error)]
#[error("a site's name is 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', and begins with a letter or digit")]
pub(super) struct NotAName;

fn no_such_site(name: &str) -> Problem {
    Problem::new(Kind::NoSuchSite, format!("nobody knows a site {name:?}"))
}

fn not_changed(error: NotChanged, name: &str) -> Problem {
    Problem::new(Kind::SiteFixed, format!("{name}: {error}"))
}
