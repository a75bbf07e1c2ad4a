//! `larder origin`.

use anyhow::Context as _;
use origin::{Origin, config::Config};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::RoleArgs,
    config::{ConfigFile, Role},
    service,
};

pub(super) async fn run(args: RoleArgs) -> anyhow::Result<()> {
    let (config, _) = ConfigFile::open(&args.config, Some(Role::Origin))?.read(Config::read)?;
    let origin = Origin::open(config).await.context("origin cannot start")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), addr = %origin.addr(), "larder origin is ready");
    let stop = CancellationToken::new();
    service::run(origin.run(stop.clone()), stop, || tracing::info!("there is nothing to reload")).await
}
