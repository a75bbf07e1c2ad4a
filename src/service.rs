//! A role as a service: it says when it is ready, and signals end it or make it reload.

use std::{
    future::{Future, Ready},
    pin::pin,
};

use anyhow::{Context as _, bail};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Runs `work` until it ends by itself or, after SIGTERM or SIGINT has cancelled `stop`, has drained. A second such signal
/// does not wait for that. `reload` is called on SIGHUP.
pub(crate) async fn run<E>(
    work: impl Future<Output = Result<(), E>>,
    stop: CancellationToken,
    reload: impl FnMut(),
) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    notify(&[NotifyState::Ready]);
    run_until_signals(work, stop, reload, None::<(Signal, fn() -> Ready<anyhow::Result<u32>>)>).await
}

/// The same for a role whose place another process can take: on SIGUSR2 `upgrade` starts one, says its process ID once that serves, and `work` then ends by
/// itself. `is_heir`: this process has taken the place of another.
pub(crate) async fn run_upgradable<E, U>(
    work: impl Future<Output = Result<(), E>>,
    stop: CancellationToken,
    reload: impl FnMut(),
    upgrade: impl FnMut() -> U,
    is_heir: bool,
) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
    U: Future<Output = anyhow::Result<u32>>,
{
    // Before the word that it is ready: the signal would end a process that does not listen for it.
    let upgrades = signal(SignalKind::user_defined2())?;
    match is_heir {
        // The service manager would otherwise take the end of the process before for the end of the service.
        true => notify(&[NotifyState::MainPid(std::process::id()), NotifyState::Status("serving"), NotifyState::Ready]),
        false => notify(&[NotifyState::Ready]),
    }
    run_until_signals(work, stop, reload, Some((upgrades, upgrade))).await
}

async fn run_until_signals<E, U>(
    work: impl Future<Output = Result<(), E>>,
    stop: CancellationToken,
    mut reload: impl FnMut(),
    mut upgrades: Option<(Signal, impl FnMut() -> U)>,
) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
    U: Future<Output = anyhow::Result<u32>>,
{
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::pin!(work);
    let mut upgrading = pin!(None);
    let mut is_relieved = false;
    loop {
        let asked = async {
            match &mut upgrades {
                Some((signals, _)) => drop(signals.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = &mut work => return Ok(result?),
            () = asked, if upgrading.is_none() && !is_relieved => {
                tracing::info!("starting the program that will take over");
                notify_reloading();
                upgrading.set(upgrades.as_mut().map(|(_, upgrade)| upgrade()));
                continue;
            }
            upgraded = async { upgrading.as_mut().as_pin_mut().expect("it is there").await }, if upgrading.is_some() => {
                upgrading.set(None);
                match upgraded {
                    // What there is to tell the service manager it tells.
                    Ok(id) => {
                        is_relieved = true;
                        tracing::info!(id, "that process has taken over; finishing what is being sent");
                    }
                    Err(error) => {
                        tracing::error!("no upgrade, this process serves on: {error:#}");
                        notify(&[NotifyState::Status(&format!("serving; an upgrade failed: {error:#}")), NotifyState::Ready]);
                    }
                }
                continue;
            }
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hang_up.recv() => { reload(); continue }
        }
        if stop.is_cancelled() {
            bail!("ended by a second signal, before all that was being sent was sent");
        }
        tracing::info!("stopping: finishing what is being sent");
        if !is_relieved {
            notify(&[NotifyState::Stopping]);
        }
        stop.cancel();
    }
}

/// Until READY=1 comes again. The service manager wants to know when it began.
fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "there is no monotonic clock"),
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
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
