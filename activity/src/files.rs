//! Files that are replaced whole: what is read is the old content or the new one, whenever the power goes.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

/// Writes `path` anew: into a file beside it that is synced, renamed, and the folder synced.
pub(crate) fn replace(path: &Path, options: &mut OpenOptions, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let beside = beside(path);
    let mut file = options.write(true).create(true).truncate(true).open(&beside)?;
    write(&mut file)?;
    file.sync_all()?;
    drop(file);
    rename(&beside, path)
}

/// Where a new content of `path` is written: a name that begins with a dot, which engines that read a folder pass over.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}

/// Puts a synced file in its place for good.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder(to.parent().unwrap_or(Path::new(".")))
}

/// Makes what was made, renamed or removed in a folder outlast a loss of power.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
