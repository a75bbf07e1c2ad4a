//! The state directory: what must outlast any one device. Which set the devices belong to, which of them were given up and why, and the
//! purges that may still cover something.
//!
//! `set.json` is replaced whole, by a synced file and a rename. `purges` is a journal of lines, each with a checksum; it begins anew at each
//! start, with what can still cover something. `lock` is held while a cache is open. A directory that is lost takes the devices' content with
//! it: without its purges nothing on them may be believed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use serde::{Deserialize, Serialize};

use super::layout::crc;
use crate::{Purge, purge::Purges};

/// The longest journal that is read, in bytes: [`crate::purge::PURGES_MAX`] lines, many times over.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;
/// A journal of so many bytes is begun anew when most of it is repetition.
const JOURNAL_BYTES_LONG: u64 = 1 << 20;
/// The first line of a journal, before the set's name.
const JOURNAL_MARK: &str = "larder purges 1";

/// A state directory.
pub(crate) struct State {
    folder: PathBuf,
    /// Locked until the directory is closed; whoever writes to the directory holds on to it meanwhile.
    lock: RwLock<Option<File>>,
    journal: Mutex<File>,
    set: Mutex<Set>,
}

/// What `set.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Set {
    /// Of this file's form.
    version: u32,
    /// 32 hexadecimal digits. Devices with another one are not this cache's.
    pub(crate) id: String,
    /// Makes the hashes of this set its own.
    pub(crate) seed: u64,
    /// Purges have had numbers up to it before the journal was begun.
    purge_number: u64,
    pub(crate) devices: Vec<KnownDevice>,
}

/// A device that this cache has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownDevice {
    pub(crate) path: PathBuf,
    /// Set until an operator takes it back.
    pub(crate) given_up: Option<GivenUp>,
}

/// Why and since when a device is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GivenUp {
    pub(crate) reason: String,
    pub(crate) since: SystemTime,
}

impl Set {
    fn new(random: [u8; 24]) -> Self {
        let (id, seed) = random.split_at(16);
        let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { version: 1, id, seed: u64::from_le_bytes(seed.try_into().expect("8 bytes")), purge_number: 0, devices: Vec::new() }
    }

    /// The bytes of [`Self::id`].
    pub(crate) fn bytes(&self) -> [u8; 16] {
        let digits = |at: usize| self.id.get(2 * at..2 * at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        std::array::from_fn(|at| digits(at).unwrap_or_default())
    }
}

impl State {
    /// Opens the directory, which is made if it is not there, and brings its purges back into `purges`.
    ///
    /// # Errors
    /// When another process has it open, it cannot be read or written, or a file in it is not what it should be.
    pub(crate) fn open(folder: &Path, purges: &Purges) -> Result<Self, String> {
        let say = |what: &str, path: &Path, error: io::Error| format!("cannot {what} {}: {error}", path.display());
        fs::create_dir_all(folder).map_err(|error| say("make the directory", folder, error))?;
        let lock = lock(&folder.join("lock"))?;
        let set_path = folder.join("set.json");
        let journal_path = folder.join("purges");
        let (set, is_new) = match fs::read(&set_path) {
            Ok(text) => {
                let set: Set = serde_json::from_slice(&text)
                    .map_err(|error| format!("{} cannot be understood: {error}; {START_OVER}", set_path.display()))?;
                (set, false)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (Set::new(random().map_err(|error| say("read", Path::new("/dev/urandom"), error))?), true)
            }
            Err(error) => return Err(say("read", &set_path, error)),
        };
        if set.version != 1 {
            return Err(format!(
                "{} is of version {}, and this program reads version 1; {START_OVER}",
                set_path.display(),
                set.version
            ));
        }
        purges.continue_after(set.purge_number);
        if !is_new {
            recall(&journal_path, &set.id, purges)?;
        }
        let journal = begin(&journal_path, &set.id, purges).map_err(|error| say("write", &journal_path, error))?;
        let lock = RwLock::new(Some(lock));
        let state = Self { folder: folder.into(), lock, journal: Mutex::new(journal), set: Mutex::new(set) };
        state.save(|set| set.purge_number = purges.now()).map_err(|error| say("write", &set_path, error))?;
        Ok(state)
    }

    /// Lets go of the directory: another process may have it, and nothing is written to it any more.
    pub(crate) fn close(&self) {
        if let Some(lock) = self.lock.write().take()
            // A child process that has not begun its program yet may have the file open, too.
            && let Err(error) = lock.unlock()
        {
            tracing::warn!(%error, folder = %self.folder.display(), "the state directory stays locked until this process ends");
        }
    }

    /// The lock, as long as the directory is open.
    fn hold(&self) -> io::Result<RwLockReadGuard<'_, Option<File>>> {
        let lock = self.lock.read();
        if lock.is_some() { Ok(lock) } else { Err(io::Error::other("the cache was closed")) }
    }

    /// Drops the purges that can cover nothing any more, since all that devices hold was learnt at `oldest` or later.
    pub(crate) fn shorten(&self, purges: &Purges, oldest: u64) -> io::Result<()> {
        let _lock = self.hold()?;
        purges.forget_before(oldest);
        let set = self.set.lock();
        *self.journal.lock() = begin(&self.folder.join("purges"), &set.id, purges)?;
        Ok(())
    }

    /// What `set.json` says now.
    pub(crate) fn set(&self) -> Set {
        self.set.lock().clone()
    }

    /// Changes `set.json`; it is on disk when this returns.
    pub(crate) fn save(&self, change: impl FnOnce(&mut Set)) -> io::Result<()> {
        let _lock = self.hold()?;
        let mut set = self.set.lock();
        change(&mut set);
        let text = serde_json::to_vec_pretty(&*set)?;
        replace(&self.folder, "set.json", &text)
    }

    /// Writes a purge down, and, if `must_last`, waits until it would outlast a loss of power.
    pub(crate) fn note(&self, purges: &Purges, purge: &Purge, number: u64, must_last: bool) -> io::Result<()> {
        let _lock = self.hold()?;
        let line = line(purge, number);
        let mut journal = self.journal.lock();
        let length = journal.metadata()?.len();
        if length > JOURNAL_BYTES_LONG && length > 4 * purges.bytes() {
            // The same objects over and over; this purge is in the list, too.
            *journal = begin(&self.folder.join("purges"), &self.set.lock().id, purges)?;
            return Ok(());
        }
        if let Err(error) = journal.write_all(line.as_bytes()) {
            // Half a line would make the next one unreadable.
            journal.set_len(length)?;
            return Err(error);
        }
        if must_last { journal.sync_data() } else { Ok(()) }
    }
}

const START_OVER: &str = "remove the directory to start with an empty cache";

fn lock(path: &Path) -> Result<File, String> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(format!("another process has {} open", path.display())),
        Err(fs::TryLockError::Error(error)) => Err(format!("cannot lock {}: {error}", path.display())),
    }
}

pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes)
}

/// Replaces a file by a new one, so that there is always one of the two.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let staged = folder.join(format!("{name}.new"));
    let mut file = File::create(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&staged, folder.join(name))?;
    File::open(folder)?.sync_all()
}

/// Starts a journal with what `purges` has, and leaves it open for more.
fn begin(path: &Path, set: &str, purges: &Purges) -> io::Result<File> {
    let mut text = format!("{JOURNAL_MARK} {set}\n");
    text.extend(purges.list().iter().map(|(purge, number)| line(purge, *number)));
    let (folder, name) = (path.parent().expect("in a directory"), path.file_name().and_then(|name| name.to_str()));
    replace(folder, name.expect("named by us"), text.as_bytes())?;
    OpenOptions::new().append(true).open(path)
}

/// `checksum number kind text`, the text as JSON writes it, so that a line is a line whatever a key holds.
fn line(purge: &Purge, number: u64) -> String {
    let (kind, text) = match purge {
        Purge::Object(key) => ("object", key.as_str()),
        Purge::Prefix(prefix) => ("prefix", prefix.as_str()),
        Purge::Tag(tag) => ("tag", tag.as_str()),
        Purge::All => ("all", ""),
    };
    let text = serde_json::to_string(text).expect("a string is JSON");
    let rest = format!("{number} {kind} {text}");
    format!("{:08x} {rest}\n", crc(rest.as_bytes()))
}

fn parse(line: &str) -> Option<(Purge, u64)> {
    let (sum, rest) = line.split_once(' ')?;
    if u32::from_str_radix(sum, 16).ok()? != crc(rest.as_bytes()) {
        return None;
    }
    let mut words = rest.splitn(3, ' ');
    let number = words.next()?.parse().ok()?;
    let (kind, text) = (words.next()?, serde_json::from_str(words.next()?).ok()?);
    let purge = match kind {
        "object" => Purge::Object(text),
        "prefix" => Purge::Prefix(text),
        "tag" => Purge::Tag(text),
        "all" => Purge::All,
        _ => return None,
    };
    Some((purge, number))
}

/// Reads a journal. Its last line may be torn: then it was never acknowledged. Any other line that cannot be read may have been any
/// purge, so it is taken for a purge of all that was learnt before the line after it.
fn recall(path: &Path, set: &str, purges: &Purges) -> Result<(), String> {
    let say = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}; {START_OVER}", path.display());
    if fs::metadata(path).map_err(|error| say(&error))?.len() > JOURNAL_BYTES_MAX {
        return Err(say(&"it is too large"));
    }
    let bytes = fs::read(path).map_err(|error| say(&error))?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut lines = whole.split('\n');
    if lines.next() != Some(&format!("{JOURNAL_MARK} {set}")) {
        return Err(say(&"it is not this set's journal"));
    }
    let mut is_one_missing = false;
    for line in lines {
        match parse(line) {
            Some((purge, number)) => {
                if is_one_missing {
                    purges.recall(Purge::All, number);
                    is_one_missing = false;
                }
                purges.recall(purge, number);
            }
            None => {
                tracing::error!(file = %path.display(), line, "a purge cannot be read; everything older is taken for purged");
                is_one_missing = true;
            }
        }
    }
    if is_one_missing {
        purges.add(Purge::All);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purged(folder: &Path) -> (Purges, State) {
        let purges = Purges::default();
        let state = State::open(folder, &purges).expect("opens");
        (purges, state)
    }

    fn purge(purges: &Purges, state: &State, purge: Purge) {
        let number = purges.add(purge.clone());
        state.note(purges, &purge, number, true).expect("written");
    }

    #[test]
    fn what_was_noted_is_there_after_a_restart_and_a_torn_line_is_not() {
        let folder = tempfile::tempdir().expect("a directory");
        let (purges, state) = purged(folder.path());
        purge(&purges, &state, Purge::Prefix("/a b\n\"/".into()));
        purge(&purges, &state, Purge::Tag("é".into()));
        let given_up = Some(GivenUp { reason: "it hangs".into(), since: SystemTime::UNIX_EPOCH });
        let known = KnownDevice { path: "/dev/x".into(), given_up };
        state.save(|set| set.devices.push(known.clone())).expect("written");
        let set = state.set();
        assert!(State::open(folder.path(), &Purges::default()).is_err_and(|error| error.contains("another process")));
        state.close();
        let late = state.note(&purges, &Purge::All, 3, true).expect_err("another process may have it open by now");
        assert!(late.to_string().contains("closed") && state.save(|_| ()).is_err());
        let mut file = OpenOptions::new().append(true).open(folder.path().join("purges")).expect("opens");
        file.write_all(&line(&Purge::All, 99).as_bytes()[..15]).expect("torn");
        let (again, state) = purged(folder.path());
        assert_eq!((state.set().bytes(), state.set().devices, again.len(), again.now()), (set.bytes(), set.devices, 2, 2));
        assert!(again.covers("/a b\n\"/1", &[], 0) && again.covers("/", &["é".into()], 1) && !again.covers("/", &[], 0));
    }

    #[test]
    fn a_line_that_cannot_be_read_purges_all_that_is_older() {
        let folder = tempfile::tempdir().expect("a directory");
        let (purges, state) = purged(folder.path());
        purge(&purges, &state, Purge::Object("/a".into()));
        purge(&purges, &state, Purge::Object("/b".into()));
        drop(state);
        let path = folder.path().join("purges");
        let text = fs::read_to_string(&path).expect("text");
        fs::write(&path, text.replace("/a", "/c")).expect("written");
        let (again, _state) = purged(folder.path());
        assert!(again.covers("/anything", &[], 0) && again.now() >= 2);
    }

    #[test]
    fn what_is_not_ours_is_refused_in_words() {
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join("set.json"), "{").expect("written");
        let error = State::open(folder.path(), &Purges::default()).err().expect("refused");
        assert!(error.contains("set.json cannot be understood") && error.contains("remove the directory"), "{error}");
    }
}
