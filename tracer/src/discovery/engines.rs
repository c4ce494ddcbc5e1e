//! Container engines: what their CRI reports completes what is known, and nothing waits for it.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};
use tracing::{debug, warn};

use crate::{
    cri::{Client, WatchEnd},
    model::EngineContainer,
    registry::Registry,
};

/// The first delay before an engine that does not know a pod is queried again: an engine knows a sandbox some 100 ms after the
/// sandbox was started.
const RETRY: Duration = Duration::from_millis(50);
/// The last one. The engine may be restarting, or it is not this pod's.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// The delay before an engine's stream of events that ended is opened again.
const REOPEN: Duration = Duration::from_secs(10);

/// The engines of the node.
pub(crate) struct Engines {
    clients: Vec<Client>,
    registry: Arc<Registry>,
    /// Whether to subscribe to their events.
    listen: bool,
}

impl Engines {
    /// The engines behind these sockets.
    pub(crate) fn new(sockets: &[PathBuf], registry: Arc<Registry>, listen: bool) -> Self {
        let clients: Vec<Client> = sockets.iter().map(|path| Client::connect(path)).collect();
        registry.expect_labels(!clients.is_empty());
        Self { clients, registry, listen }
    }

    /// The containers that the engines know, from those engines that answer.
    pub(crate) async fn snapshot(&self) -> Vec<EngineContainer> {
        let mut answers: JoinSet<_> =
            self.clients.iter().cloned().map(|client| async move { client.snapshot().await }).collect();
        let mut containers = Vec::new();
        while let Some(answer) = answers.join_next().await {
            match answer {
                Ok(Ok(known)) => containers.extend(known),
                Ok(Err(error)) => warn!("cannot query the container engine: {error}"),
                Err(error) => warn!("cannot query the container engine: {error}"),
            }
        }
        containers
    }

    /// Fetches the labels of pods as they come up, until the run ends. No engine is queried while no pod lacks labels.
    pub(crate) async fn complete(self) {
        for client in self.clients.iter().filter(|_| self.listen).cloned() {
            tokio::spawn(listen(client, Arc::clone(&self.registry)));
        }
        let mut changes = self.registry.changes();
        let mut asked: HashSet<String> = HashSet::new();
        loop {
            let lacking = self.registry.lacking_labels();
            for sandbox in lacking.difference(&asked) {
                for client in self.clients.iter().cloned() {
                    tokio::spawn(fetch(client, Arc::clone(&self.registry), sandbox.clone()));
                }
            }
            asked = lacking;
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Asks an engine for the labels of a pod until they are known or no longer needed. There is a task for each pod and each
/// engine: one that hangs delays no other.
async fn fetch(client: Client, registry: Arc<Registry>, sandbox: String) {
    let mut delay = RETRY;
    while registry.lacking_labels().contains(&sandbox) {
        match client.pod(&sandbox).await {
            Ok(Some(pod)) => return registry.label(&sandbox, &pod.labels),
            Ok(None) => {}
            Err(error) => debug!("{error}"),
        }
        tokio::time::sleep(delay).await;
        delay = (delay + delay / 2).min(RETRY_MAX);
    }
}

/// Completes containers with an engine's events.
async fn listen(client: Client, registry: Arc<Registry>) {
    let path = client.path().display().to_string();
    loop {
        match client.watch(|containers| drop(registry.complete(containers))).await {
            WatchEnd::Unsupported(why) => {
                debug!("{path} serves no events: {why}");
                return;
            }
            WatchEnd::Failed(error) => debug!("{error}"),
        }
        tokio::time::sleep(REOPEN).await;
    }
}

/// Something that will have been done.
#[derive(Clone, Debug)]
pub(crate) struct Completion(watch::Receiver<bool>);

impl Completion {
    /// Not done yet; the sender says when it is.
    pub(crate) fn pending() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Waits for it, within bounds.
    pub(crate) async fn within(mut self, limit: Duration) {
        let done = self.0.wait_for(|done| *done);
        // The caller continues in any case: it is done, it never will be, or it takes too long.
        let _ = tokio::time::timeout(limit, done).await;
    }
}
