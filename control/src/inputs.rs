//! What steering decides by, kept up to date: prefixes from the configuration, a file, the API and edges, and the file of places.
//!
//! Whoever announces something says so here and does not wait: a table is made of all of it in the background, once for many changes.
//! Files are looked at now and then, and read when they were written; one that is flawed changes nothing.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    fleet::EdgeId,
    steering::{
        Steering, geo,
        geo::{NotPlaces, Places},
        prefixes::{self, Announcement, Announcements, FlawedPrefixes, TooManyAnnouncements},
    },
};

/// The shortest time between two tables.
const TABLE_EVERY_MIN: Duration = Duration::from_millis(100);
/// How often files are looked at.
const FILES_EVERY: Duration = Duration::from_secs(10);
/// The sources of announcements, beside edges.
const OF_SITES: &str = "sites";
const OF_FILE: &str = "file";

/// Everything that is announced, and by whom.
pub(crate) struct Inputs {
    announcements: Mutex<Announcements>,
    changed: Notify,
    prefixes_file: Option<PathBuf>,
    places_file: Option<PathBuf>,
}

/// Why a file is not used: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// It is no file of prefixes.
    #[error("{}: {source}", path.display())]
    Prefixes { path: PathBuf, source: FlawedPrefixes },
    /// It has more than can be kept.
    #[error("{}: {source}", path.display())]
    TooMany { path: PathBuf, source: TooManyAnnouncements },
    /// It is no file of places.
    #[error("cannot use {}: {source}", path.display())]
    Places { path: PathBuf, source: NotPlaces },
}

type Stamp = Option<(SystemTime, u64)>;

impl Inputs {
    /// Reads the files, and gives all that is known to `steering`.
    pub(crate) fn open(
        prefixes_file: Option<PathBuf>,
        places_file: Option<PathBuf>,
        of_sites: Vec<Announcement>,
        of_edges: impl IntoIterator<Item = (EdgeId, Vec<Announcement>)>,
        steering: &Steering,
    ) -> Result<Self, InputsError> {
        let inputs = Self { announcements: Mutex::default(), changed: Notify::new(), prefixes_file, places_file };
        inputs.announce(OF_SITES, of_sites);
        for (edge, announcements) in of_edges {
            inputs.announce_edge(&edge, announcements);
        }
        inputs.read_prefixes()?;
        steering.announce(inputs.announcements.lock().table());
        inputs.read_places(steering)?;
        Ok(inputs)
    }

    /// From now on sites announce this themselves.
    pub(crate) fn announce_sites(&self, announcements: Vec<Announcement>) {
        self.announce(OF_SITES, announcements);
    }

    /// From now on an edge announces this, and nothing else.
    pub(crate) fn announce_edge(&self, edge: &EdgeId, announcements: Vec<Announcement>) {
        self.announce(&format!("edge {edge}"), announcements);
    }

    fn announce(&self, source: &str, announcements: Vec<Announcement>) {
        if let Err(error) = self.announcements.lock().replace(source, announcements) {
            tracing::error!(%error, source, "prefixes stay as they were");
        }
        self.changed.notify_one();
    }

    fn read_prefixes(&self) -> Result<(), InputsError> {
        let Some(path) = &self.prefixes_file else { return Ok(()) };
        let text = read(path, prefixes::FILE_BYTES_MAX)?;
        let text = String::from_utf8(text).map_err(|error| InputsError::File {
            path: path.clone(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })?;
        let announcements = prefixes::read(&text).map_err(|source| InputsError::Prefixes { path: path.clone(), source })?;
        let replaced = self.announcements.lock().replace(OF_FILE, announcements);
        replaced.map_err(|source| InputsError::TooMany { path: path.clone(), source })?;
        self.changed.notify_one();
        Ok(())
    }

    fn read_places(&self, steering: &Steering) -> Result<(), InputsError> {
        let Some(path) = &self.places_file else { return Ok(()) };
        let places = Places::new(read(path, geo::FILE_BYTES_MAX)?);
        steering.place(Some(places.map_err(|source| InputsError::Places { path: path.clone(), source })?));
        Ok(())
    }

    /// Keeps `steering` up to date until `stop`.
    pub(crate) async fn run(self: Arc<Self>, steering: Arc<Steering>, stop: CancellationToken) {
        let mut stamps = self.stamps();
        let mut ticks = interval(FILES_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {
                    let (inputs, steering) = (Arc::clone(&self), Arc::clone(&steering));
                    blocking("a table of prefixes", move || {
                        let table = inputs.announcements.lock().table();
                        tracing::debug!(prefixes = table.len(), "a new table of prefixes");
                        steering.announce(table);
                    })
                    .await;
                    sleep(TABLE_EVERY_MIN).await;
                }
                _ = ticks.tick() => {
                    let now = self.stamps();
                    let (inputs, steering, written) = (Arc::clone(&self), Arc::clone(&steering), (now.0 != stamps.0, now.1 != stamps.1));
                    stamps = now;
                    if written.0 || written.1 {
                        blocking("files of prefixes and places", move || inputs.read_again(&steering, written)).await;
                    }
                }
            }
        }
    }

    fn read_again(&self, steering: &Steering, (prefixes, places): (bool, bool)) {
        if prefixes && let Err(error) = self.read_prefixes() {
            tracing::warn!(%error, "prefixes stay as they were");
        }
        if places && let Err(error) = self.read_places(steering) {
            tracing::warn!(%error, "places stay as they were");
        }
    }

    fn stamps(&self) -> (Stamp, Stamp) {
        (self.prefixes_file.as_deref().and_then(stamp), self.places_file.as_deref().and_then(stamp))
    }
}

async fn blocking(what: &'static str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = spawn_blocking(work).await {
        tracing::error!(%error, "{what} broke off");
    }
}

/// When a file was written, and its size: another one when it is written again.
fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, InputsError> {
    let unreadable = |source| InputsError::File { path: path.to_owned(), source };
    if fs::metadata(path).map_err(unreadable)?.len() > bytes_max {
        let why = format!("it is larger than {bytes_max} bytes");
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, why)));
    }
    fs::read(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steering::decide::Rules;

    fn said(prefix: &str, site: &str) -> Announcement {
        Announcement::new(prefix.parse().unwrap(), site)
    }

    fn sites(inputs: &Inputs, address: &str) -> Vec<String> {
        let table = inputs.announcements.lock().table();
        table.announced(address.parse().unwrap()).iter().map(|announced| announced.site.to_owned()).collect()
    }

    #[test]
    fn sites_edges_and_a_file_announce_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("prefixes");
        fs::write(&file, "192.0.2.0/24 paris\n").unwrap();
        let steering = Steering::new(Rules::default());
        let edge: EdgeId = "e1".parse().unwrap();
        let of_edges = [(edge.clone(), vec![said("192.0.2.0/25", "berlin")])];
        let inputs = Inputs::open(Some(file.clone()), None, vec![said("192.0.0.0/16", "rome")], of_edges, &steering).unwrap();
        assert_eq!(sites(&inputs, "192.0.2.1"), ["berlin", "paris", "rome"]);
        inputs.announce_edge(&edge, Vec::new());
        inputs.announce_sites(vec![said("192.0.2.1/32", "rome")]);
        assert_eq!(sites(&inputs, "192.0.2.1"), ["rome", "paris"]);
        fs::write(&file, "192.0.2.0/24 paris\nnonsense\n").unwrap();
        inputs.read_again(&steering, (true, true));
        assert_eq!(sites(&inputs, "192.0.2.1"), ["rome", "paris"], "a flawed file changes nothing");
        fs::write(&file, "192.0.2.0/24 oslo\n").unwrap();
        inputs.read_again(&steering, (true, false));
        assert_eq!(sites(&inputs, "192.0.2.1"), ["rome", "oslo"]);
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (steering, missing) = (Steering::new(Rules::default()), dir.path().join("missing"));
        let open = |prefixes: Option<PathBuf>, places: Option<PathBuf>| {
            Inputs::open(prefixes, places, Vec::new(), [], &steering).err().map(|error| error.to_string())
        };
        let error = open(Some(missing.clone()), None).unwrap();
        assert!(error.starts_with(&format!("cannot read {}: ", missing.display())), "{error}");
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = open(Some(file.clone()), None).unwrap();
        assert!(error.starts_with(&format!("{}: line 1: expected a network", file.display())), "{error}");
        let error = open(None, Some(file.clone())).unwrap();
        assert!(error.starts_with(&format!("cannot use {}: it is not in MaxMind's format", file.display())), "{error}");
    }

    #[tokio::test]
    async fn what_is_announced_later_reaches_decisions() {
        let steering = Arc::new(Steering::new(Rules::default()));
        let inputs = Arc::new(Inputs::open(None, None, Vec::new(), [], &steering).unwrap());
        let stop = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&inputs).run(Arc::clone(&steering), stop.clone()));
        inputs.announce_sites(vec![said("192.0.2.0/24", "berlin")]);
        tokio::time::timeout(Duration::from_secs(20), async {
            while steering.prefixes() == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        stop.cancel();
        running.await.unwrap();
    }
}
