//! The cache as an operator sees it: starting and closing it with its SSD tier, purges that last, verification, devices.

use std::{io, path::Path, sync::Arc};

use crate::{
    Cache, Config, DiskConfig, DiskError, DiskStats, Shared, Verified,
    disk::Disk,
    purge::{Note, Purges},
    slab::Budget,
    ssd::Ssd,
};

/// Numbers of purges that the cache before may still give, so that those of a cache which waits for its devices come after all of them.
const PURGES_MEANWHILE: u64 = 1 << 32;

/// Which SSD tier a cache is put together with.
pub(crate) enum Tier {
    None,
    Open(Ssd),
    /// One that another cache still has, of which the seed is known.
    Later {
        seed: u64,
    },
}

/// Whether a cache is without its SSD tier because another one still has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    Not,
    ForDevices,
    /// They could not be opened.
    InVain,
}

impl Cache {
    /// A cache with the SSD tier that `config.disk` says, if it says one, with what that holds. Devices that were used before and cannot be now
    /// are given up; the others serve.
    ///
    /// # Errors
    /// When the configuration or the state directory cannot be used, or a device that was never used before.
    pub async fn start(config: Config) -> Result<Self, DiskError> {
        let (budget, purges) = (Arc::new(config.slices_budget()), Arc::<Purges>::default());
        let tier = match &config.disk {
            None => Tier::None,
            Some(disk) => {
                let (slice_bytes, budget_bytes) = (config.slice_bytes, config.slices_bytes());
                Tier::Open(Ssd::Engine(Disk::open(disk.clone(), slice_bytes, &budget, budget_bytes, purges.clone()).await?))
            }
        };
        Ok(Self::assemble(config, budget, purges, tier))
    }

    /// The same while another cache, which is about to close, still has the devices: begins with RAM alone, until [`Self::adopt`]. A purge holds at once,
    /// and is confirmed once the devices are there, since only then it can be written down. Of what is learnt until then the devices may hold an older
    /// version, so that is doubted.
    ///
    /// # Errors
    /// When the configuration cannot be used. Where the state directory was never used, nobody has the devices, and they are opened at once.
    pub async fn start_before_devices(config: Config) -> Result<Self, DiskError> {
        let Some(disk) = &config.disk else { return Self::start(config).await };
        let Some(known) = Disk::known(disk, config.slice_bytes)? else { return Self::start(config).await };
        let (budget, purges) = (Arc::new(config.slices_budget()), Arc::<Purges>::default());
        purges.continue_after(known.purge_number.saturating_add(PURGES_MEANWHILE));
        Ok(Self::assemble(config, budget, purges, Tier::Later { seed: known.seed }))
    }

    /// Opens the devices that [`Self::start_before_devices`] left to another cache, which has closed by now.
    ///
    /// # Errors
    /// As of [`Self::start`]. Then it goes on with RAM alone.
    pub async fn adopt(&self) -> Result<(), DiskError> {
        let shared = &self.0;
        let Some(config) = shared.config.disk.clone().filter(|_| shared.waits_for_devices()) else { return Ok(()) };
        let (slice_bytes, budget_bytes) = (shared.config.slice_bytes, shared.config.slices_bytes());
        let opened = Disk::open(config, slice_bytes, &shared.budget, budget_bytes, shared.purges.clone()).await;
        let disk = opened.inspect_err(|_| _ = shared.waits.send_replace(Waits::InVain))?;
        // Nobody else sets it.
        let _ = shared.ssd.set(Ssd::Engine(disk.clone()));
        // What was noted while the journal was opened.
        if let Err(error) = disk.note_all().await {
            tracing::error!(%error, "purges of the last moments are not written down");
        }
        shared.waits.send_replace(Waits::Not);
        Ok(())
    }

    /// Forgets all slices in RAM and gives their memory back, but for what is being read. For one that another takes over from, which needs memory, too.
    pub fn forget_slices(&self) {
        self.0.memory.clear();
        self.0.budget.give_up_spare();
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
        match self.ssd.get() {
            Some(Ssd::Engine(disk)) => Some(disk),
            #[cfg(test)]
            Some(Ssd::Double(_)) => None,
            None => None,
        }
    }

    /// Makes a purge or a doubt outlast a restart, and a loss of power if it `must_last`.
    pub(crate) async fn write_down(&self, note: Note, number: u64, must_last: bool) -> io::Result<()> {
        if *self.waits.borrow() != Waits::Not {
            if !must_last {
                return Ok(());
            }
            self.settled().await?;
        }
        // RAM alone has nothing that could come back.
        let Some(disk) = self.disk().cloned() else { return Ok(()) };
        let written = tokio::task::spawn_blocking(move || disk.note(&note, number, must_last)).await;
        written.map_err(io::Error::other)?
    }

    pub(crate) fn waits_for_devices(&self) -> bool {
        *self.waits.borrow() == Waits::ForDevices
    }

    /// Waits for the devices, where they are waited for.
    async fn settled(&self) -> io::Result<()> {
        // The sender is here.
        let waits = self.waits.subscribe().wait_for(|waits| *waits != Waits::ForDevices).await.map(|waits| *waits);
        match waits {
            Ok(Waits::InVain) => Err(io::Error::other("the devices could not be opened; what they hold comes back with them")),
            _ => Ok(()),
        }
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
