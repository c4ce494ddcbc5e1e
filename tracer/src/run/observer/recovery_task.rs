//! The task that recovers what was lost, each time that something was.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tracing::{debug, warn};

use crate::{
    discovery::{
        Lifecycle, Resolver, Runtimes, recovery,
        scan::{Adoption, Coverage},
    },
    registry::MissedRecords,
};

/// When a search is repeated for which no slot was free.
const RETRY: Duration = Duration::from_secs(5);
/// The pause after a recovery: as many times as long as that took, within bounds.
const PAUSE_FACTOR: u32 = 4;
/// The bounds. Events wait for their container for longer.
const PAUSE_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// Starts the task.
pub(super) fn start(resolver: Resolver, lifecycle: Arc<Mutex<Lifecycle>>, runtimes: Runtimes) {
    tokio::spawn(run(resolver, lifecycle, runtimes));
}

async fn run(resolver: Resolver, lifecycle: Arc<Mutex<Lifecycle>>, runtimes: Runtimes) {
    let mut gaps = resolver.registry.gaps();
    let (mut done, mut coverage) = (MissedRecords::default(), Coverage::Complete);
    loop {
        let now = *gaps.borrow_and_update();
        if now == done {
            tokio::select! {
                _ = gaps.changed() => continue,
                () = tokio::time::sleep(RETRY), if coverage == Coverage::SlotsExhausted => {}
            }
        }
        let began = Instant::now();
        debug!("missed so far: {now:?}");
        let adoption = if coverage == Coverage::SlotsExhausted || now.processes > done.processes {
            Adoption::Enter
        } else {
            Adoption::Skip
        };
        done = now;
        let (resolver, lifecycle, runtimes) = (resolver.clone(), Arc::clone(&lifecycle), runtimes.clone());
        let recovered = tokio::task::spawn_blocking(move || {
            recovery::recover(&resolver, &lifecycle, &runtimes, adoption)
        });
        coverage = recovered.await.map_err(anyhow::Error::from).flatten().unwrap_or_else(|error| {
            warn!("cannot recover missed containers: {error:#}");
            Coverage::Complete
        });
        let (least, most) = PAUSE_BOUNDS;
        tokio::time::sleep((began.elapsed() * PAUSE_FACTOR).clamp(least, most)).await;
    }
}
