//! `[activity]` and `[lake]`: how what viewers do is kept.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use http::Uri;
use wire::config::{Bytes, Document, Seconds};

use super::duration;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// The bounds of `activity.sync_interval`.
const SYNC_INTERVAL: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(1));
/// The bounds of `activity.ack_timeout`: shorter than a request may take in all.
const ACK_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(20));
/// The bounds of `activity.queue`. A batch takes less than its body, which is half a mebibyte at most.
const QUEUE: (u64, u64) = (1 << 20, 1 << 30);
/// The bounds of `activity.segment`.
const SEGMENT: (u64, u64) = (1 << 20, 1 << 30);
/// The bounds of `activity.segment_age`.
const SEGMENT_AGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));
/// The bounds of `activity.checkpoint_interval`.
const CHECKPOINT: (Duration, Duration) = (Duration::from_secs(1), HOUR);
/// The bounds of `activity.log_max`.
const LOG: (u64, u64) = (64 << 20, 1 << 50);
const EVENTS: (u32, u32) = (1, 5000);
const KNOWN_EVENTS: (u32, u32) = (10_000, 100_000_000);
const USERS: (u32, u32) = (1000, 10_000_000);

/// Reads both tables. What is not said to be elsewhere is below `state_dir`.
pub(super) fn read(doc: &mut Document, state_dir: Option<&str>) -> Option<(activity::Config, Option<BucketConfig>)> {
    let folder = Path::new(state_dir.unwrap_or_default()).join("activity");
    let lake = doc.optional::<String>("lake.folder", "the path of a directory");
    let lake = lake.map_or_else(|| folder.join("lake"), Into::into);
    let is = activity::Config::new(folder, lake);
    let batch_events_max = number(doc, "activity.batch_events", is.batch_events_max as u32, EVENTS);
    let event_age_max = duration(doc, "activity.event_age", is.event_age_max, (Duration::from_secs(60), 7 * DAY));
    let known_events = number(doc, "activity.known_events", is.known_events as u32, KNOWN_EVENTS);
    let sync_interval = duration(doc, "activity.sync_interval", is.sync_interval, SYNC_INTERVAL);
    let ack_timeout = duration(doc, "activity.ack_timeout", is.ack_timeout, ACK_TIMEOUT);
    let queue_bytes = bytes(doc, "activity.queue", is.queue_bytes as u64, QUEUE);
    let segment_bytes = bytes(doc, "activity.segment", is.segment_bytes, SEGMENT);
    let segment_age = duration(doc, "activity.segment_age", is.segment_age, SEGMENT_AGE);
    let log_retention = duration(doc, "activity.log_retention", is.log_retention, (HOUR, YEAR));
    let log_bytes_max = bytes(doc, "activity.log_max", is.log_bytes_max, LOG);
    let checkpoint_interval = duration(doc, "activity.checkpoint_interval", is.checkpoint_interval, CHECKPOINT);
    let users_max = number(doc, "activity.users", is.users_max as u32, USERS);
    let bucket = bucket(doc);
    let lake_retention = match bucket {
        Some(None) => duration(doc, "lake.retention", is.lake_retention.unwrap_or_default(), (Duration::ZERO, 100 * YEAR)),
        _ => {
            // The default says nothing that anybody chose.
            let chosen = doc.optional::<Seconds>("lake.retention", "a duration such as 90d, or 0s for ever");
            if chosen.is_some_and(|Seconds(chosen)| Some(chosen) != is.lake_retention) {
                doc.problem(
                    "lake.retention",
                    "nothing beside lake.bucket_url: the bucket's own lifecycle rules say how long files stay",
                );
            }
            Some(Duration::ZERO)
        }
    };
    let config = activity::Config {
        batch_events_max: batch_events_max? as usize,
        event_age_max: event_age_max?,
        known_events: known_events? as usize,
        sync_interval: sync_interval?,
        ack_timeout: ack_timeout?,
        queue_bytes: queue_bytes? as usize,
        segment_bytes: segment_bytes?,
        segment_age: segment_age?,
        log_retention: log_retention?,
        log_bytes_max: log_bytes_max?,
        checkpoint_interval: checkpoint_interval?,
        users_max: users_max? as usize,
        lake_retention: lake_retention.map(|retention| (!retention.is_zero()).then_some(retention))?,
        ..is
    };
    Some((config, bucket?))
}

/// `None` after a problem.
fn bucket(doc: &mut Document) -> Option<Option<BucketConfig>> {
    const TEXT: &str = "a text without spaces";
    const FILE: &str = "the path of a file";
    let url = doc.optional::<BucketUrl>("lake.bucket_url", BucketUrl::EXPECTED);
    let region = doc.value::<Word>("lake.region", Some(Word("us-east-1".into())), TEXT);
    let key = doc.optional::<Word>("lake.access_key_id", TEXT);
    let secret_file = doc.optional::<String>("lake.secret_key_file", FILE);
    let ca_file = doc.optional::<String>("lake.ca_file", FILE);
    let Some(url) = url else {
        for (key, is_given) in [("lake.access_key_id", key.is_some()), ("lake.secret_key_file", secret_file.is_some())] {
            if is_given {
                doc.problem(key, "nothing without lake.bucket_url");
                return None;
            }
        }
        return Some(None);
    };
    let (Some(Word(access_key_id)), Some(secret_key_file)) = (key, secret_file) else {
        doc.problem("lake.bucket_url", "lake.access_key_id and lake.secret_key_file beside it");
        return None;
    };
    let (secret_key_file, ca_file) = (secret_key_file.into(), ca_file.map(Into::into));
    Some(Some(BucketConfig { url, region: region?.0, access_key_id, secret_key_file, ca_file }))
}

/// A bucket of an object store that speaks S3.
#[derive(Debug, Clone)]
pub struct BucketConfig {
    /// The bucket, and below it a prefix.
    pub url: BucketUrl,
    /// What the store calls its region; many call it anything.
    pub region: String,
    /// Who puts.
    pub access_key_id: String,
    /// The file with his secret.
    pub secret_key_file: PathBuf,
    /// The store's certificate comes from an authority in here, or from one of the public web's.
    pub ca_file: Option<PathBuf>,
}

/// `https://store.example/bucket` with a prefix after it or none, or `http` on a network that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl(Uri);

impl BucketUrl {
    const EXPECTED: &str = "a URL such as https://s3.example/bucket/prefix of letters, digits and -._~ between slashes";

    pub(crate) fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for BucketUrl {
    type Err = NotABucketUrl;

    fn from_str(text: &str) -> Result<Self, NotABucketUrl> {
        let uri: Uri = text.parse().map_err(|_| NotABucketUrl)?;
        let is_web = matches!(uri.scheme_str(), Some("https" | "http"));
        let has_host =
            uri.host().is_some_and(|host| !host.is_empty()) && !uri.authority().is_some_and(|at| at.as_str().contains('@'));
        let is_plain = |part: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain)
        };
        let path = uri.path().strip_prefix('/').unwrap_or_default();
        let has_bucket = path.strip_suffix('/').unwrap_or(path).split('/').all(is_plain);
        if is_web && has_host && has_bucket && uri.query().is_none() { Ok(Self(uri)) } else { Err(NotABucketUrl) }
    }
}

/// Not such a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {}", BucketUrl::EXPECTED)]
pub struct NotABucketUrl;

/// What stands in a signature's scope.
struct Word(String);

impl FromStr for Word {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/,".contains(&byte));
        if is_word { Ok(Self(text.into())) } else { Err(()) }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn number(doc: &mut Document, key: &str, default: u32, (min, max): (u32, u32)) -> Option<u32> {
    let number = doc.value(key, Some(default), "a whole number")?;
    if number < min || number > max {
        doc.problem(key, format!("a number from {min} to {max}"));
        return None;
    }
    Some(number)
}

fn bytes(doc: &mut Document, key: &str, default: u64, (min, max): (u64, u64)) -> Option<u64> {
    let Bytes(bytes) = doc.value(key, Some(Bytes(default)), "a size such as 64MiB")?;
    if bytes < min || bytes > max {
        doc.problem(key, format!("a size from {} to {}", Bytes(min), Bytes(max)));
        return None;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_crate_and_bounds_are_told() {
        let mut doc = Document::parse("").unwrap();
        let (config, bucket) = read(&mut doc, Some("/state")).unwrap();
        doc.finish().unwrap();
        let default = activity::Config::new("/state/activity".into(), "/state/activity/lake".into());
        assert_eq!((format!("{config:?}"), bucket.is_none()), (format!("{default:?}"), true));

        let text =
            "[activity]\nqueue = \"1KiB\"\nusers = 5\nsync_interval = \"2s\"\n[lake]\nfolder = \"/lake\"\nretention = \"0s\"\n";
        let mut doc = Document::parse(text).unwrap();
        assert!(read(&mut doc, Some("/state")).is_none());
        let problems: Vec<_> = doc.finish().unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                "2: activity.queue: expected a size from 1MiB to 1GiB, found \"1KiB\"",
                "3: activity.users: expected a number from 1000 to 10000000, found 5",
                "4: activity.sync_interval: expected a duration from 0s to 1s, found \"2s\"",
            ]
        );
        let mut doc = Document::parse("lake.retention = \"0s\"\nlake.folder = \"/lake\"").unwrap();
        let (config, bucket) = read(&mut doc, Some("/state")).unwrap();
        assert_eq!((config.lake.as_path(), config.lake_retention), (Path::new("/lake"), None), "for ever");
        assert!(bucket.is_none());
    }

    #[test]
    fn a_bucket_is_whole_or_none() {
        let of = |text: &str| {
            let mut doc = Document::parse(&format!("[lake]\n{text}")).unwrap();
            let read = read(&mut doc, Some("/state"));
            let problems = doc.finish().err().unwrap_or_default();
            (read, problems.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let whole = "bucket_url = \"http://[::1]:9000/viewing/larder\"\naccess_key_id = \"AKIA\"\nsecret_key_file = \"/s\"\n";
        let (Some((config, Some(bucket))), _) = of(whole) else { panic!("{:?}", of(whole).1) };
        assert_eq!((bucket.url.to_string().as_str(), bucket.region.as_str()), ("http://[::1]:9000/viewing/larder", "us-east-1"));
        assert_eq!(config.lake_retention, None, "it is the bucket's");
        for (text, problem) in [
            (
                "bucket_url = \"https://s3.example/viewing\"",
                "2: lake.bucket_url: expected lake.access_key_id and lake.secret_key_file beside it",
            ),
            ("access_key_id = \"AKIA\"", "2: lake.access_key_id: expected nothing without lake.bucket_url"),
            (&format!("{whole}retention = \"7d\""), "5: lake.retention: expected nothing beside lake.bucket_url"),
        ] {
            let (read, problems) = of(text);
            assert!(read.is_none() || !problems.is_empty());
            assert!(problems.len() == 1 && problems[0].starts_with(problem), "{problems:?}");
        }
        for bad in [
            "https://s3.example",
            "https://s3.example/",
            "https://s3.example/a//b",
            "https://s3.example/a/..",
            "https://s3.example/a%20b",
            "ftp://s3.example/a",
            "https://a@s3.example/b",
            "https://s3.example/a?b",
        ] {
            assert_eq!(bad.parse::<BucketUrl>(), Err(NotABucketUrl), "{bad}");
        }
    }
}
