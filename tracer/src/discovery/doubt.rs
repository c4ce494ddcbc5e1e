//! Warnings about a container whose pod is not known, for those who selected it.

use std::{sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    time::{Instant, timeout_at},
};
use tracer_common::container::ContainerKey;
use tracing::warn;

use crate::{
    model::{Choice, Container},
    registry::{Attribution, Registry},
};

/// How long an engine may take to say of which pod a container is.
const PATIENCE: Duration = Duration::from_secs(2);

/// Warns about a container, of which so much is known as `container` has, unless it turns out to be one that is not
/// selected, or to have its pod all the same. Where all are selected that is said at once.
pub(crate) fn warn(
    key: ContainerKey,
    container: &Container,
    text: String,
    registry: &Arc<Registry>,
    handle: &Handle,
) {
    if registry.selects_all() {
        warn!("{text}");
        return;
    }
    if registry.rejects(container) {
        return;
    }
    let registry = Arc::clone(registry);
    handle.spawn(async move {
        let known = decided(key, &registry).await;
        if known.is_none_or(|known| known.choice != Choice::Rejected && known.container.pod.is_none()) {
            warn!("{text}");
        }
    });
}

/// What is known of a container once that decides whether it is selected, or after a while.
async fn decided(key: ContainerKey, registry: &Registry) -> Option<Arc<Attribution>> {
    let (mut changes, deadline) = (registry.changes(), Instant::now() + PATIENCE);
    let mut last = None;
    loop {
        // It may be forgotten meanwhile.
        last = registry.resolved(key).or(last);
        let is_decided = |known: &Arc<Attribution>| known.choice != Choice::Undecidable;
        if last.as_ref().is_some_and(is_decided) || timeout_at(deadline, changes.changed()).await.is_err() {
            return last;
        }
    }
}
