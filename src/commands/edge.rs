//! `larder edge`.

use anyhow::Context as _;
use edge::{Edge, config::Config};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::RoleArgs,
    config::{ConfigFile, Role},
    service,
};

pub(super) async fn run(args: RoleArgs) -> anyhow::Result<()> {
    let (config, _) = ConfigFile::open(&args.config, Some(Role::Edge))?.read(Config::read)?;
    let edge = Edge::open(config).await.context("the edge cannot start")?;
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(version, addr = %edge.addr(), admin_addr = %edge.admin_addr(), "larder edge is ready");
    let certificates = edge.tls();
    let reload = || match certificates.reload() {
        Ok(()) => tracing::info!("certificate and key are read anew"),
        Err(error) => tracing::error!(%error, "the certificate stays as it was"),
    };
    let stop = CancellationToken::new();
    service::run(edge.run(stop.clone()), stop, reload).await
}
