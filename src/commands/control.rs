//! `larder control`.

use anyhow::Context as _;
use control::{Control, config::Config};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::RoleArgs,
    config::{ConfigFile, Role},
    service,
};

pub(super) async fn run(args: RoleArgs) -> anyhow::Result<()> {
    let (config, _) = ConfigFile::open(&args.config, Some(Role::Control))?.read(Config::read)?;
    let control = Control::open(config).await.context("control cannot start")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), addr = %control.addr(), "larder control is ready");
    let stop = CancellationToken::new();
    service::run(control.run(stop.clone()), stop, || tracing::info!("there is nothing to reload")).await
}
