//! Warnings about a container whose pod is not known, for those who selected it.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;
use tracer_common::container::ContainerKey;
use tracing::warn;

use crate::{
    model::{Choice, Container},
    registry::{Attribution, Registry},
};

/// How long an engine may take to name the container's pod.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Logs a warning about a container, unless it turns out not to be selected, or to have a known pod all the same.
/// `container` has what is known of it by now. If all containers are selected, the warning is logged at once.
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
        let attribution = decided(key, &registry).await;
        let is_relevant = |attribution: Arc<Attribution>| {
            attribution.choice != Choice::Rejected && attribution.container.pod.is_none()
        };
        if attribution.is_none_or(is_relevant) {
            warn!("{text}");
        }
    });
}

/// The attribution of a container once that says whether it is selected, or the last one after a while.
async fn decided(key: ContainerKey, registry: &Registry) -> Option<Arc<Attribution>> {
    let is_decided = |attribution: &Arc<Attribution>| attribution.choice != Choice::Undecidable;
    let mut last = None;
    let holds = || {
        // It may be forgotten meanwhile.
        last = registry.resolved(key).or(last.take());
        last.as_ref().is_some_and(is_decided)
    };
    // After a while that does not matter any more.
    let _ = registry.wait_for(TIMEOUT, holds).await;
    last
}
