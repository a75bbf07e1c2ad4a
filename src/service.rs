//! A role as a service: it says when it is ready, and signals end it or make it reload.

use std::future::Future;

use anyhow::{Context as _, bail};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs `work` until it ends by itself or, after SIGTERM or SIGINT has cancelled `stop`, has drained. A second such signal
/// does not wait for that. `reload` is called on SIGHUP.
pub(crate) async fn run<E>(
    work: impl Future<Output = Result<(), E>>,
    stop: CancellationToken,
    mut reload: impl FnMut(),
) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::pin!(work);
    notify(NotifyState::Ready);
    loop {
        tokio::select! {
            result = &mut work => return Ok(result?),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => { reload(); continue }
        }
        if stop.is_cancelled() {
            bail!("ended by a second signal, before all that was being sent was sent");
        }
        tracing::info!("stopping: finishing what is being sent");
        notify(NotifyState::Stopping);
        stop.cancel();
    }
}

/// Ends when SIGTERM or SIGINT comes.
pub(crate) async fn interrupted() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Tells systemd, where it listens (`NOTIFY_SOCKET`).
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
