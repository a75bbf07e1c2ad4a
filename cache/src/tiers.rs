//! The cache as an operator sees it: starting and closing it with its SSD tier, purges that last, verification, devices.

use std::{io, path::Path, sync::Arc};

use crate::{
    Cache, Config, DiskConfig, DiskError, DiskStats, Shared, Verified,
    disk::Disk,
    purge::{Note, Purges},
    slab::Budget,
    ssd::Ssd,
};

impl Cache {
    /// A cache with the SSD tier that `config.disk` says, if it says one, with what that holds. Devices that were used before and cannot be now
    /// are given up; the others serve.
    ///
    /// # Errors
    /// When the configuration or the state directory cannot be used, or a device that was never used before.
    pub async fn start(config: Config) -> Result<Self, DiskError> {
        let (budget, purges) = (Arc::new(config.slices_budget()), Arc::<Purges>::default());
        let ssd = match &config.disk {
            None => None,
            Some(disk) => {
                let (slice_bytes, budget_bytes) = (config.slice_bytes, config.slices_bytes());
                Some(Ssd::Engine(Disk::open(disk.clone(), slice_bytes, &budget, budget_bytes, purges.clone()).await?))
            }
        };
        Ok(Self::assemble(config, budget, purges, ssd))
    }

    /// Waits until all that was filled is on its device, writes down what open segments hold, and lets go of devices and state directory: another cache
    /// may have them. Without it, what the latest segments hold is looked for record by record at the next start.
    pub async fn close(&self) {
        if let Some(disk) = self.0.disk() {
            disk.close().await;
        }
    }

    /// The SSD tier, if there is one.
    pub fn disk_stats(&self) -> Option<DiskStats> {
        self.0.disk().map(|disk| disk.stats())
    }

    /// Reads all that is on devices and checks every byte, at the pace of whoever polls. `progress` gets the bytes read so far and the bytes in all.
    /// What is wrong is forgotten, so that it is filled anew.
    pub async fn verify(&self, progress: impl FnMut(u64, u64) + Send) -> Verified {
        match self.0.disk() {
            Some(disk) => disk.verify(progress).await,
            None => Verified::default(),
        }
    }

    /// Takes a device back that was given up. What is on it counts again.
    ///
    /// # Errors
    /// In words for the operator: there is no such device, or it still fails.
    pub async fn restore_device(&self, path: &Path) -> Result<(), String> {
        match self.0.disk() {
            Some(disk) => disk.restore(path).await,
            None => Err("this cache has no devices".into()),
        }
    }
}

impl Shared {
    pub(crate) fn disk(&self) -> Option<&Arc<Disk>> {
        match &self.ssd {
            Some(Ssd::Engine(disk)) => Some(disk),
            #[cfg(test)]
            Some(Ssd::Double(_)) => None,
            None => None,
        }
    }

    /// Makes a purge or a doubt outlast a restart, and a loss of power if it `must_last`.
    pub(crate) async fn write_down(&self, note: Note, number: u64, must_last: bool) -> io::Result<()> {
        // RAM alone has nothing that could come back.
        let Some(disk) = self.disk().cloned() else { return Ok(()) };
        let written = tokio::task::spawn_blocking(move || disk.note(&note, number, must_last)).await;
        written.map_err(io::Error::other)?
    }
}

/// Reads all that is on the devices of a cache that does not run and checks every byte. `progress` gets the bytes read so far and the bytes in all.
///
/// # Errors
/// In words for the operator: which device cannot be read, and why; also where the cache does run.
pub async fn verify_offline(
    config: &DiskConfig,
    slice_bytes: usize,
    progress: impl FnMut(u64, u64) + Send,
) -> Result<Verified, String> {
    let budget = Arc::new(Budget::new(0, slice_bytes));
    let disk = Disk::open(config.clone(), slice_bytes, &budget, 0, Arc::default()).await.map_err(|error| error.to_string())?;
    let verified = disk.verify(progress).await;
    disk.close().await;
    Ok(verified)
}
