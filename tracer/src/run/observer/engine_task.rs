//! The task that queries container engines.

use std::{path::PathBuf, time::Duration};

use tracing::warn;

use crate::{
    discovery::{
        Resolver,
        engines::{Completion, Engines},
        scan,
    },
    run::observer::running_containers::SCAN_TIMEOUT,
};

/// How long engines wait for bundles before they complete containers.
const BUNDLES_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts the task, which continues until the run ends. `scanned` is the search for containers that were running already; the
/// result is complete when the engines' answers were applied.
pub(super) fn start(
    sockets: &[PathBuf],
    listen: bool,
    resolver: Resolver,
    scanned: Completion,
) -> Completion {
    let (done, answered) = Completion::pending();
    let engines = Engines::new(sockets, resolver.registry.clone(), listen);
    tokio::spawn(async move {
        let containers = engines.snapshot().await;
        scanned.within(SCAN_TIMEOUT).await;
        // Containers whose bundles cannot be read are completed by engines.
        let _ = resolver.registry.settled(BUNDLES_TIMEOUT).await;
        let unknown = resolver.registry.complete(containers);
        let adopted = tokio::task::spawn_blocking(move || scan::adopt(&unknown, &resolver)).await;
        if let Err(error) = adopted.map_err(anyhow::Error::from).flatten() {
            warn!("containers known only to the engine are attributed to the host: {error:#}");
        }
        done.send_replace(true);
        engines.complete().await;
    });
    answered
}
