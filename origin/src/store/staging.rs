//! Titles in the making. A staged folder is either published by a rename or goes away: with its value, or, when its process
//! was killed, with the next sweep.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
};

use wire::{
    object::{Digest, Hasher, ObjectPath},
    title::TitleObject,
};

use super::{StoreError, blocking, content_digest, content_type, io_error, object::PIECE_BYTES};

/// A title in the making: a folder that vanishes with this value unless it is published.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: PathBuf,
    /// Shared: as long as it is held, nobody sweeps.
    _lock: File,
}

/// A folder whose files are synced and digested.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(super) staging: Staging,
    pub(crate) objects: Vec<TitleObject>,
    pub(crate) digest: Digest,
}

impl Staging {
    pub(super) fn new(staging: &Path) -> Result<Self, StoreError> {
        let lock = lock_file(staging).and_then(|lock| lock.lock_shared().map(|()| lock)).map_err(io_error(staging))?;
        let mut name = [0; 16];
        aws_lc_rs::rand::fill(&mut name).map_err(|_| StoreError::Io {
            path: staging.to_owned(),
            reason: io::Error::other("the system has no random numbers"),
        })?;
        let folder = staging.join(format!("{:032x}", u128::from_be_bytes(name)));
        fs::create_dir(&folder).map_err(io_error(&folder))?;
        Ok(Self { folder, _lock: lock })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Syncs and digests every file.
    pub(crate) async fn seal(self) -> Result<Sealed, StoreError> {
        blocking(move || {
            let mut objects = Vec::new();
            seal_folder(&self.folder, "", &mut objects)?;
            objects.sort_unstable_by(|a, b| a.path.cmp(&b.path));
            Ok(Sealed { digest: content_digest(&objects), objects, staging: self })
        })
        .await
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.folder.display(), %error, "left for the next start to remove");
            }
            _ => {}
        }
    }
}

/// Removes what is in `staging`, unless somebody works there now.
pub(super) fn sweep(staging: &Path) -> io::Result<()> {
    let lock = lock_file(staging)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    for entry in fs::read_dir(staging)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn lock_file(staging: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(false).open(staging.join(".lock"))
}

fn seal_folder(folder: &Path, prefix: &str, objects: &mut Vec<TitleObject>) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(io_error(folder))? {
        let entry = entry.map_err(io_error(folder))?;
        let file = entry.path();
        let unfit = |reason: &str| StoreError::Damaged { path: file.clone(), reason: reason.into() };
        let name = entry.file_name().into_string().map_err(|_| unfit("its name is not text"))?;
        let path = format!("{prefix}{name}");
        if entry.file_type().map_err(io_error(&file))?.is_dir() {
            seal_folder(&file, &format!("{path}/"), objects)?;
            continue;
        }
        ObjectPath::new(format!("/{path}")).map_err(|error| unfit(&error.to_string()))?;
        let open = File::open(&file).map_err(io_error(&file))?;
        let (digest, bytes) = digest_of(&open).map_err(io_error(&file))?;
        open.sync_all().map_err(io_error(&file))?;
        objects.push(TitleObject { content_type: object_type(&path).to_owned(), path, bytes, digest });
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error(folder))
}

/// An initialisation or media segment of sound is told from one of pictures by its folder ("a1").
fn object_type(path: &str) -> &'static str {
    match content_type(path) {
        "video/mp4" if path.starts_with('a') => "audio/mp4",
        other => other,
    }
}

pub(super) fn digest_of(file: &File) -> io::Result<(Digest, u64)> {
    let (mut hasher, mut piece, mut bytes) = (Hasher::new(), Vec::with_capacity(PIECE_BYTES as usize), 0);
    loop {
        piece.clear();
        match file.take(PIECE_BYTES).read_to_end(&mut piece)? {
            0 => return Ok((hasher.finish(), bytes)),
            read => bytes += read as u64,
        }
        hasher.update(&piece);
    }
}
