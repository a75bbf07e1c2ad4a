//! Closed hours: files that are written once and never change.
//!
//! A fold keeps open hours in its checkpoint. When one is over, its file is written first and the checkpoint without it later, so that a
//! crash between the two makes the same file again. `<hours since 1970>.<fold>`: mark, version of the fold, CRC-32C of the rest, the rest.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::Fold;
use crate::{
    files,
    log::crc,
    pack::{Damaged, Unpack},
    time::HOUR_MS,
};

/// How long after its end an hour still takes events.
pub(crate) const LATENESS_MS: u64 = HOUR_MS;
/// How many closed hours are kept: five weeks.
pub(crate) const HOURS_MAX: u64 = 35 * 24;
const MARK: &[u8; 8] = b"LARDERHR";

/// Whether `hour` still takes events when the log says that it is `written_ms`.
pub(crate) const fn is_open(hour: u64, written_ms: u64) -> bool {
    (hour + 1) * HOUR_MS + LATENESS_MS > written_ms
}

/// A fold by hours.
pub(crate) trait Hourly: Fold {
    /// What is known of an hour.
    type Hour;

    /// The oldest hour that is over and was not forgotten yet.
    fn closing(&self) -> Option<u64>;

    fn save_hour(&self, hour: u64, out: &mut Vec<u8>);

    fn forget_hour(&mut self, hour: u64);

    fn load_hour(unpack: &mut Unpack<'_>) -> Result<Self::Hour, Damaged>;

    /// What is known of an hour that is not closed.
    fn hour(&self, hour: u64) -> Option<Self::Hour>;
}

fn path<F: Fold>(folder: &Path, hour: u64) -> PathBuf {
    folder.join(format!("{hour}.{}", F::NAME))
}

/// Writes the file of a closed hour, and removes those that are too old by then.
pub(crate) fn write<F: Hourly>(folder: &Path, hour: u64, fold: &F) -> io::Result<()> {
    let mut rest = Vec::new();
    fold.save_hour(hour, &mut rest);
    fs::create_dir_all(folder)?;
    files::replace(&path::<F>(folder, hour), &mut OpenOptions::new(), |file| {
        file.write_all(MARK)?;
        file.write_all(&F::VERSION.to_le_bytes())?;
        file.write_all(&crc(&rest).to_le_bytes())?;
        file.write_all(&rest)
    })?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let (number, of) = name.to_str().and_then(|name| name.split_once('.')).unwrap_or_default();
        if of == F::NAME && number.parse::<u64>().is_ok_and(|old| old + HOURS_MAX <= hour) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Reads the file of a closed hour; `None` when there is none.
pub(crate) fn read<F: Hourly>(folder: &Path, hour: u64) -> io::Result<Option<F::Hour>> {
    let bytes = match fs::read(path::<F>(folder, hour)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = |error: Damaged| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut unpack = Unpack::new(&bytes, "the file of an hour");
    let head = (unpack.array().map_err(damaged)?, unpack.array().map_err(damaged)?, unpack.array().map_err(damaged)?);
    let (mark, version, sum): ([u8; 8], [u8; 4], [u8; 4]) = head;
    if &mark != MARK || version != F::VERSION.to_le_bytes() || sum != crc(&bytes[16..]).to_le_bytes() {
        return Err(damaged(unpack.damaged()));
    }
    F::load_hour(&mut unpack).map(Some).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Event, Kind},
        fold::popularity::Popularity,
    };

    #[test]
    fn an_hour_is_read_as_it_was_written_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("hours");
        assert!(read::<Popularity>(&folder, 100).unwrap().is_none());
        let mut fold = Popularity::default();
        for hour in [100, 101, 100 + HOURS_MAX] {
            let at_ms = hour * HOUR_MS;
            fold.fold(&Event { title: "a", ..Event::of(Kind::Play, at_ms) }, at_ms);
            write(&folder, hour, &fold).unwrap();
            assert_eq!(read::<Popularity>(&folder, hour).unwrap(), fold.hour(hour));
        }
        let left = |hour| read::<Popularity>(&folder, hour).unwrap().is_some();
        assert_eq!([100, 101, 100 + HOURS_MAX].map(left), [false, true, true]);
        let path = path::<Popularity>(&folder, 101);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(read::<Popularity>(&folder, 101).err().unwrap().to_string(), "the file of an hour is damaged");
    }
}
