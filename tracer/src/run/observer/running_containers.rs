//! The search for containers that were running already, before `tracer: ready`.

use std::time::Duration;

use tokio::task::JoinError;
use tracing::{info, warn};

use crate::discovery::{Resolver, Runtimes, scan};

/// How long the search may delay `ready`. It takes a second for a thousand containers; what takes longer is a file system
/// that hangs.
pub(super) const SCAN_TIMEOUT: Duration = Duration::from_secs(10);

/// Searches for the containers. What hangs delays this within bounds, and continues in the background.
pub(super) async fn find(resolver: Resolver, runtimes: Runtimes) {
    let mut search = tokio::task::spawn_blocking(move || scan::find(&resolver, &runtimes));
    if let Ok(result) = tokio::time::timeout(SCAN_TIMEOUT, &mut search).await {
        report(result);
        return;
    }
    let seconds = SCAN_TIMEOUT.as_secs();
    warn!(
        "still searching for containers that were running already, after {seconds} s: until they are found, their events \
         are attributed to the host"
    );
    tokio::spawn(async move {
        report(search.await);
        info!("the search for containers that were running already is complete");
    });
}

fn report(result: Result<anyhow::Result<()>, JoinError>) {
    if let Err(error) = result.map_err(anyhow::Error::from).flatten() {
        warn!("containers that were running already are attributed to the host: {error:#}");
    }
}
