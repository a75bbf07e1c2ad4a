//! The journal: purges that may still cover something, and doubts, as lines of a file, each with a checksum.
//!
//! It begins anew at each start, and when most of it is repetition, with what can still matter; always as a whole file that takes the place of the
//! one before. What always holds: what was noted without an error is in it. What cannot be read of it may have been any purge.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::{
    layout::crc,
    state::{START_OVER, replace},
};
use crate::{
    Purge,
    purge::{Note, Purges},
};

/// The longest journal that is read, in bytes: [`crate::purge::PURGES_MAX`] lines, many times over.
const BYTES_MAX: u64 = 256 << 20;
/// A journal of so many bytes is begun anew when most of it is repetition.
const BYTES_LONG: u64 = 1 << 20;
/// More purges than can be unknown because of lines that cannot be read: numbers jump so far then.
const LOST_MAX: u64 = 1 << 32;
/// The first line, before the set's name.
const MARK: &str = "larder purges 1";

/// An open journal.
pub(super) struct Journal {
    path: PathBuf,
    set: String,
    /// `None` after an error: what the file holds since then is not known.
    file: Option<File>,
}

impl Journal {
    /// Starts one with what `purges` has, in the place of the one before.
    pub(super) fn begin(path: &Path, set: &str, purges: &Purges) -> io::Result<Self> {
        let mut journal = Self { path: path.into(), set: set.to_owned(), file: None };
        journal.begin_anew(purges)?;
        Ok(journal)
    }

    /// The same for the set that it is of.
    pub(super) fn begin_anew(&mut self, purges: &Purges) -> io::Result<()> {
        let mut text = format!("{MARK} {}\n", self.set);
        text.extend(purges.list().iter().map(|(note, number)| line(note, *number)));
        let (folder, name) = (self.path.parent().expect("in a directory"), self.path.file_name().and_then(|name| name.to_str()));
        self.file = None;
        let begun = replace(folder, name.expect("named by us"), text.as_bytes())
            .and_then(|()| OpenOptions::new().append(true).open(&self.path));
        self.file = Some(begun.map_err(|error| self.say(&error))?);
        Ok(())
    }

    /// Writes down what `purges` has noted already, and, if it `must_last`, waits until it would outlast a loss of power.
    ///
    /// After an error the note may be in the file or not. The next one begins the journal anew, so that it is.
    pub(super) fn note(&mut self, purges: &Purges, note: &Note, number: u64, must_last: bool) -> io::Result<()> {
        let Some(file) = &mut self.file else { return self.begin_anew(purges) };
        let appended = append(file, purges, &line(note, number), must_last);
        match appended {
            Ok(true) => Ok(()),
            Ok(false) => self.begin_anew(purges),
            Err(error) => {
                self.file = None;
                Err(self.say(&error))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn break_off(&mut self) {
        self.file = None;
    }

    fn say(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", self.path.display()))
    }
}

/// `false`, and nothing written, if the file says the same things over and over.
fn append(file: &mut File, purges: &Purges, line: &str, must_last: bool) -> io::Result<bool> {
    let length = file.metadata()?.len();
    if length > BYTES_LONG && length > 4 * purges.bytes() {
        return Ok(false);
    }
    file.write_all(line.as_bytes())?;
    if must_last {
        file.sync_data()?;
    }
    Ok(true)
}

/// `checksum number kind text`, the text as JSON writes it, so that a line is a line whatever a key holds.
fn line(note: &Note, number: u64) -> String {
    let (kind, text) = match note {
        Note::Purge(Purge::Object(key)) => ("object", key.as_str()),
        Note::Purge(Purge::Prefix(prefix)) => ("prefix", prefix.as_str()),
        Note::Purge(Purge::Tag(tag)) => ("tag", tag.as_str()),
        Note::Purge(Purge::All) => ("all", ""),
        Note::Doubt(Some(key)) => ("doubt", key.as_str()),
        Note::Doubt(None) => ("doubt-all", ""),
    };
    let text = serde_json::to_string(text).expect("a string is JSON");
    let rest = format!("{number} {kind} {text}");
    format!("{:08x} {rest}\n", crc(rest.as_bytes()))
}

fn parse(line: &str) -> Option<(Note, u64)> {
    let (sum, rest) = line.split_once(' ')?;
    if u32::from_str_radix(sum, 16).ok()? != crc(rest.as_bytes()) {
        return None;
    }
    let mut words = rest.splitn(3, ' ');
    let number = words.next()?.parse().ok()?;
    let (kind, text) = (words.next()?, serde_json::from_str(words.next()?).ok()?);
    let note = match kind {
        "object" => Note::Purge(Purge::Object(text)),
        "prefix" => Note::Purge(Purge::Prefix(text)),
        "tag" => Note::Purge(Purge::Tag(text)),
        "all" => Note::Purge(Purge::All),
        "doubt" => Note::Doubt(Some(text)),
        "doubt-all" => Note::Doubt(None),
        _ => return None,
    };
    Some((note, number))
}

/// Reads a journal. Its last line may be torn: then it was never acknowledged. Any other line that cannot be read may have been any purge of any number,
/// so everything is taken for purged.
pub(super) fn recall(path: &Path, set: &str, purges: &Purges) -> Result<(), String> {
    let say = |error: &dyn fmt::Display| format!("cannot read {}: {error}; {START_OVER}", path.display());
    if fs::metadata(path).map_err(|error| say(&error))?.len() > BYTES_MAX {
        return Err(say(&"it is too large"));
    }
    let bytes = fs::read(path).map_err(|error| say(&error))?;
    let text = String::from_utf8_lossy(&bytes);
    let first = format!("{MARK} {set}\n");
    let Some(rest) = text.strip_prefix(&first) else {
        // A journal takes its place whole, so this is no torn one.
        return if first.starts_with(&*text) { take_all(path, &text, purges) } else { Err(say(&"it is not this set's journal")) };
    };
    let whole = rest.rfind('\n').map_or("", |end| &rest[..=end]);
    let mut unreadable = None;
    for line in whole.lines() {
        match parse(line) {
            Some((note, number)) => purges.recall(note, number),
            None => unreadable = Some(line),
        }
    }
    unreadable.map_or(Ok(()), |line| take_all(path, line, purges))
}

fn take_all(path: &Path, line: &str, purges: &Purges) -> Result<(), String> {
    tracing::error!(file = %path.display(), line, "what was purged cannot be read; everything is taken for purged");
    purges.continue_after(purges.now() + LOST_MAX);
    purges.add(Purge::All);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    const SET: &str = "0123";

    fn journal(folder: &Path, purges: &Purges) -> Journal {
        Journal::begin(&folder.join("purges"), SET, purges).expect("begins")
    }

    fn recalled(folder: &Path) -> Purges {
        let purges = Purges::default();
        recall(&folder.join("purges"), SET, &purges).expect("understood");
        purges
    }

    fn purge(purges: &Purges, journal: &mut Journal, purge: Purge) -> io::Result<()> {
        let number = purges.add(purge.clone());
        journal.note(purges, &Note::Purge(purge), number, true)
    }

    #[test]
    fn cut_at_any_byte_it_holds_all_whole_lines_or_everything() {
        let folder = tempfile::tempdir().expect("a directory");
        let purges = Purges::default();
        let mut journal = journal(folder.path(), &purges);
        let path = folder.path().join("purges");
        let mut ends = vec![fs::read(&path).expect("bytes").len()];
        let noted = [Purge::Object("/a\n\u{e9}".into()), Purge::Prefix("/b/".into()), Purge::Tag("t \"".into()), Purge::All];
        for note in noted.clone() {
            purge(&purges, &mut journal, note).expect("written");
            ends.push(fs::read(&path).expect("bytes").len());
        }
        let whole = fs::read(&path).expect("bytes");
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).expect("cut");
            let again = recalled(folder.path());
            if length < ends[0] {
                assert!(again.covers("/any", &[], 0), "of {length} bytes not even the name is left");
                continue;
            }
            let lines = ends.iter().filter(|end| **end <= length).count() - 1;
            let expected: Vec<_> = noted[..lines].iter().cloned().map(Note::Purge).zip(1..).collect();
            let mut held = again.list();
            held.sort_by_key(|(_, number)| *number);
            assert_eq!((held, again.now()), (expected, lines as u64), "{length} bytes");
        }
        fs::write(&path, "larder purges 1 4567\n").expect("written");
        assert!(recall(&path, SET, &Purges::default()).is_err_and(|error| error.contains("not this set's")));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_taken_for_a_purge_of_everything() {
        let folder = tempfile::tempdir().expect("a directory");
        let purges = Purges::default();
        let mut journal = journal(folder.path(), &purges);
        for key in ["/a", "/b", "/c"] {
            purge(&purges, &mut journal, Purge::Object(key.into())).expect("written");
        }
        let path = folder.path().join("purges");
        let whole = fs::read(&path).expect("bytes");
        let body = whole.iter().position(|byte| *byte == b'\n').expect("lines") + 1;
        for at in body..whole.len() - 1 {
            let mut rotten = whole.clone();
            rotten[at] ^= 1;
            fs::write(&path, &rotten).expect("written");
            let again = recalled(folder.path());
            // Its number may have been any, so not even what was learnt after all of them is believed.
            assert!(again.covers("/any", &[], 3) && again.now() > 3, "byte {at}");
        }
    }

    #[test]
    fn an_unwritable_file_is_told_and_what_was_refused_comes_with_the_next_note() {
        let folder = tempfile::tempdir().expect("a directory");
        let purges = Purges::default();
        let mut journal = journal(folder.path(), &purges);
        purge(&purges, &mut journal, Purge::Object("/before".into())).expect("written");

        // A full disk.
        journal.file = Some(OpenOptions::new().append(true).open("/dev/full").expect("it is always there"));
        let error = purge(&purges, &mut journal, Purge::Object("/full".into())).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().contains(&folder.path().join("purges").display().to_string()), "{error}");
        assert!(purges.covers("/full", &[], 0), "it holds all the same");
        assert!(!recalled(folder.path()).covers("/full", &[], 0), "as was said, only until this process ends");
        purge(&purges, &mut journal, Purge::Object("/after".into())).expect("begun anew");
        let again = recalled(folder.path());
        assert!(["/before", "/full", "/after"].iter().all(|key| again.covers(key, &[], 0)));

        // What cannot be synced: a pipe.
        let (_reader, writer) = io::pipe().expect("a pipe");
        journal.file = Some(File::from(OwnedFd::from(writer)));
        purge(&purges, &mut journal, Purge::Object("/unsynced".into())).expect_err("not on the medium");
        // And no other file can take its place, either.
        let blocked = folder.path().join("purges.new");
        fs::create_dir(&blocked).expect("a directory");
        purge(&purges, &mut journal, Purge::Object("/blocked".into())).expect_err("a directory is in the way");
        assert!(recalled(folder.path()).covers("/after", &[], 0), "what was acknowledged stays");
        fs::remove_dir(&blocked).expect("removed");
        purge(&purges, &mut journal, Purge::Object("/last".into())).expect("begun anew");
        let again = recalled(folder.path());
        assert!(["/before", "/full", "/after", "/unsynced", "/blocked", "/last"].iter().all(|key| again.covers(key, &[], 0)));
        assert!(!again.covers("/never", &[], 0));
    }

    #[test]
    fn a_long_one_is_begun_anew_and_keeps_all_that_matters() {
        let folder = tempfile::tempdir().expect("a directory");
        let purges = Purges::default();
        let mut journal = journal(folder.path(), &purges);
        purge(&purges, &mut journal, Purge::Prefix("/first/".into())).expect("written");
        let number = purges.doubt("/doubted");
        journal.note(&purges, &Note::Doubt(Some("/doubted".into())), number, false).expect("written");
        let long = "x".repeat(20_000);
        let (mut length, mut has_shrunk) = (0, false);
        for round in 0..100 {
            let again = Purge::Object(format!("/{}/{long}", round % 3));
            let number = purges.add(again.clone());
            journal.note(&purges, &Note::Purge(again), number, false).expect("written");
            let now = fs::metadata(folder.path().join("purges")).expect("there").len();
            has_shrunk |= now < length;
            length = now;
        }
        assert!(has_shrunk && length < 2 * BYTES_LONG, "{length}");
        let again = recalled(folder.path());
        let held = |purges: &Purges| {
            let mut list = purges.list();
            list.sort_by_key(|(_, number)| *number);
            list
        };
        assert_eq!((held(&again), again.now()), (held(&purges), purges.now()));
        assert_eq!(again.len(), 4);
        assert!(again.doubts("/doubted", number - 1) && !again.doubts("/doubted", number));
    }
}
