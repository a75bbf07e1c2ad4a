//! The state directory: what must outlast any one device. Which set the devices belong to, which of them were given up and why, and the
//! purges that may still cover something.
//!
//! `set.json` is replaced whole, by a synced file and a rename. `purges` is a [`Journal`]. `lock` is held while a cache is open. A directory
//! that is lost takes the devices' content with it: without its purges nothing on them may be believed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use serde::{Deserialize, Serialize};

use super::journal::{Journal, recall};
use crate::purge::{Note, Purges};

/// A state directory.
pub(crate) struct State {
    folder: PathBuf,
    /// Locked until the directory is closed; whoever writes to the directory holds on to it meanwhile.
    lock: RwLock<Option<File>>,
    journal: Mutex<Journal>,
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
    /// Numbers up to it were given to purges before this was written.
    pub(crate) purge_number: u64,
    pub(crate) devices: Vec<KnownDevice>,
}

/// A device that this cache has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownDevice {
    pub(crate) path: PathBuf,
    /// Set until an operator takes it back.
    pub(crate) given_up: Option<GivenUp>,
    /// What was learnt before this purge number stood on it while it was away, and may have been replaced by a newer version meanwhile.
    #[serde(default)]
    pub(crate) doubted: u64,
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
        let (set, is_new) = match Self::peek(folder)? {
            Some(set) => (set, false),
            None => (Set::new(random().map_err(|error| say("read", Path::new("/dev/urandom"), error))?), true),
        };
        purges.continue_after(set.purge_number);
        if !is_new {
            recall(&journal_path, &set.id, purges)?;
        }
        let journal = Journal::begin(&journal_path, &set.id, purges).map_err(|error| error.to_string())?;
        let lock = RwLock::new(Some(lock));
        let state = Self { folder: folder.into(), lock, journal: Mutex::new(journal), set: Mutex::new(set) };
        state.save(|set| set.purge_number = purges.now()).map_err(|error| say("write", &set_path, error))?;
        Ok(state)
    }

    /// What `set.json` says, which is always whole, also where another process has the directory open. `None` where there is none.
    pub(crate) fn peek(folder: &Path) -> Result<Option<Set>, String> {
        let path = folder.join("set.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        let set: Set = serde_json::from_slice(&text)
            .map_err(|error| format!("{} cannot be understood: {error}; {START_OVER}", path.display()))?;
        if set.version != 1 {
            return Err(format!(
                "{} is of version {}, and this program reads version 1; {START_OVER}",
                path.display(),
                set.version
            ));
        }
        Ok(Some(set))
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

    /// As after an error of its file.
    #[cfg(test)]
    pub(crate) fn break_journal(&self) {
        self.journal.lock().break_off();
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
        self.journal.lock().begin_anew(purges)
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

    /// Writes down all that `purges` has.
    pub(crate) fn note_all(&self, purges: &Purges) -> io::Result<()> {
        let _lock = self.hold()?;
        self.journal.lock().begin_anew(purges)
    }

    /// Writes down what `purges` has noted already, and, if it `must_last`, waits until it would outlast a loss of power.
    ///
    /// # Errors
    /// When it cannot be written: then it holds until this process ends, or until a later note comes to be written.
    pub(crate) fn note(&self, purges: &Purges, note: &Note, number: u64, must_last: bool) -> io::Result<()> {
        let _lock = self.hold()?;
        self.journal.lock().note(purges, note, number, must_last)
    }
}

pub(super) const START_OVER: &str = "remove the directory to start with an empty cache";

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
pub(super) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let staged = folder.join(format!("{name}.new"));
    let mut file = File::create(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&staged, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Purge;

    fn purged(folder: &Path) -> (Purges, State) {
        let purges = Purges::default();
        let state = State::open(folder, &purges).expect("opens");
        (purges, state)
    }

    fn purge(purges: &Purges, state: &State, purge: Purge) {
        let number = purges.add(purge.clone());
        state.note(purges, &Note::Purge(purge), number, true).expect("written");
    }

    #[test]
    fn what_was_noted_is_there_after_a_restart_and_a_torn_line_is_not() {
        let folder = tempfile::tempdir().expect("a directory");
        let (purges, state) = purged(folder.path());
        purge(&purges, &state, Purge::Prefix("/a b\n\"/".into()));
        purge(&purges, &state, Purge::Tag("é".into()));
        let given_up = Some(GivenUp { reason: "it hangs".into(), since: SystemTime::UNIX_EPOCH });
        let known = KnownDevice { path: "/dev/x".into(), given_up, doubted: 7 };
        state.save(|set| set.devices.push(known.clone())).expect("written");
        let set = state.set();
        assert!(State::open(folder.path(), &Purges::default()).is_err_and(|error| error.contains("another process")));
        state.close();
        let late = state.note(&purges, &Note::Purge(Purge::All), 3, true).expect_err("another process may have it open by now");
        assert!(late.to_string().contains("closed") && state.save(|_| ()).is_err());
        let mut file = OpenOptions::new().append(true).open(folder.path().join("purges")).expect("opens");
        file.write_all(b"00000000 99 al").expect("torn");
        let (again, state) = purged(folder.path());
        assert_eq!((state.set().bytes(), state.set().devices, again.len(), again.now()), (set.bytes(), set.devices, 2, 2));
        assert!(again.covers("/a b\n\"/1", &[], 0) && again.covers("/", &["é".into()], 1) && !again.covers("/", &[], 0));
    }

    #[test]
    fn what_is_not_ours_is_refused_in_words() {
        let folder = tempfile::tempdir().expect("a directory");
        fs::write(folder.path().join("set.json"), "{").expect("written");
        let error = State::open(folder.path(), &Purges::default()).err().expect("refused");
        assert!(error.contains("set.json cannot be understood") && error.contains("remove the directory"), "{error}");
    }
}
