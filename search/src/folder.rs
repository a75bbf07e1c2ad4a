//! Where the index's files are: in memory, to be read, and in a directory, to be there after a restart.
//!
//! Searches never touch the disk, so a disk that is slow or fails takes no search (nor, by a page that cannot be read, the
//! process) with it. Nothing is synced: after a power cut the checksums tell whether the files are whole, and what is not whole
//! is made anew from the catalogue.

use std::{
    fmt, fs,
    fs::{File, TryLockError},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use tantivy::directory::{
    AntiCallToken, Directory, DirectoryLock, FileHandle, FileSlice, Lock, RamDirectory, TerminatingWrite, WatchCallback,
    WatchHandle, WritePtr,
    error::{DeleteError, LockError, OpenReadError, OpenWriteError},
};

/// Who has it locked writes the directory.
const LOCK_FILE: &str = ".lock";
/// Files are written here and renamed.
const HALF_WRITTEN: &str = ".half-written";

/// Files in memory, and the same ones in a directory if there is one. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Folder {
    ram: RamDirectory,
    disk: Option<Arc<Path>>,
}

/// Held as long as a directory is in use; nobody else can open it.
#[derive(Debug)]
pub(crate) struct Held {
    _lock: File,
}

impl Folder {
    /// In memory only.
    pub(crate) fn in_memory() -> Self {
        Self { ram: RamDirectory::create(), disk: None }
    }

    /// All that the directory holds, which is made when missing; another process must not have it open.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Held)> {
        fs::create_dir_all(path)?;
        let lock = File::create(path.join(LOCK_FILE))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(io::ErrorKind::ResourceBusy, "another process has it open"),
            TryLockError::Error(error) => error,
        })?;
        let ram = RamDirectory::create();
        for file in files(path)? {
            let name = Path::new(file.file_name().expect("a file of a directory has a name"));
            ram.atomic_write(name, &fs::read(&file)?)?;
        }
        Ok((Self { ram, disk: Some(path.into()) }, Held { _lock: lock }))
    }

    /// Whether there is a directory.
    pub(crate) const fn is_kept(&self) -> bool {
        self.disk.is_some()
    }

    /// Whether there is no file.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// The same directory without its files.
    pub(crate) fn emptied(self) -> io::Result<Self> {
        if let Some(disk) = &self.disk {
            for file in files(disk)? {
                fs::remove_file(file)?;
            }
        }
        Ok(Self { ram: RamDirectory::create(), disk: self.disk })
    }

    /// What the files take in memory, and as much in the directory.
    pub(crate) fn bytes(&self) -> usize {
        self.ram.total_mem_usage()
    }
}

/// The files of the index in `path`.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_file() && name != LOCK_FILE && name != HALF_WRITTEN {
            files.push(entry.path());
        }
    }
    Ok(files)
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Folder").field(&self.disk).finish()
    }
}

impl Directory for Folder {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.ram.get_file_handle(path)
    }

    fn open_read(&self, path: &Path) -> Result<FileSlice, OpenReadError> {
        self.ram.open_read(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        if let Some(disk) = &self.disk
            && let Err(error) = fs::remove_file(disk.join(path))
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(DeleteError::IoError { io_error: Arc::new(error), filepath: path.to_owned() });
        }
        self.ram.delete(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.ram.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let failed = |error: io::Error| OpenWriteError::IoError { io_error: Arc::new(error), filepath: path.to_owned() };
        let ram = self.ram.open_write(path)?.into_inner().map_err(|error| failed(error.into_error()))?;
        let disk = self.disk.as_ref().map(|disk| File::create(disk.join(path))).transpose().map_err(failed)?;
        Ok(BufWriter::new(Box::new(Both { ram, disk })))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        self.ram.atomic_read(path)
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        if let Some(disk) = &self.disk {
            let half_written = disk.join(HALF_WRITTEN);
            fs::write(&half_written, data)?;
            fs::rename(half_written, disk.join(path))?;
        }
        self.ram.atomic_write(path, data)
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    /// Inside of this process; the directory's own lock keeps others out.
    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        self.ram.acquire_lock(lock)
    }

    fn watch(&self, callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        self.ram.watch(callback)
    }
}

/// A file that is written in both places.
struct Both {
    ram: Box<dyn TerminatingWrite + Send + Sync>,
    disk: Option<File>,
}

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(disk) = &mut self.disk {
            disk.write_all(bytes)?;
        }
        self.ram.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.ram.flush()
    }
}

impl TerminatingWrite for Both {
    fn terminate_ref(&mut self, token: AntiCallToken) -> io::Result<()> {
        self.ram.terminate_ref(token)
    }
}
