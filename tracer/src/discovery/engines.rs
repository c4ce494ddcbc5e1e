//! The engines as second witnesses: what their CRI tells completes what is known, and nothing waits for it.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet};
use tracing::{debug, warn};

use crate::{
    cri::{Client, WatchEnd},
    model::EngineContainer,
    registry::Registry,
};

/// How long after an answer that knows nothing of a pod its engine is asked again: at first, since an engine knows a
/// sandbox some 100 ms after it has had it started.
const PAUSE: Duration = Duration::from_millis(50);
/// Likewise, in the end. The engine may be one that is restarted, or one that never hears of this pod.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// After this long without an event an engine's stream of them is opened again.
const REOPEN: Duration = Duration::from_secs(10);

/// The engines of the node.
pub(crate) struct Engines {
    clients: Vec<Client>,
    registry: Arc<Registry>,
    /// Whether to listen to their events.
    listen: bool,
}

impl Engines {
    /// The engines behind these sockets.
    pub(crate) fn new(sockets: &[PathBuf], registry: Arc<Registry>, listen: bool) -> Self {
        let clients: Vec<Client> = sockets.iter().map(|path| Client::connect(path)).collect();
        registry.expect_labels(!clients.is_empty());
        Self { clients, registry, listen }
    }

    /// What the engines know of containers by now, from those that answer.
    pub(crate) async fn snapshot(&self) -> Vec<EngineContainer> {
        let mut answers: JoinSet<_> =
            self.clients.iter().cloned().map(|client| async move { client.snapshot().await }).collect();
        let mut containers = Vec::new();
        while let Some(answer) = answers.join_next().await {
            match answer {
                Ok(Ok(witnessed)) => containers.extend(witnessed),
                Ok(Err(error)) => warn!("an engine does not tell what it knows: {error}"),
                Err(error) => warn!("asking an engine: {error}"),
            }
        }
        containers
    }

    /// Fetches the labels of pods as they come up, until the run ends. Nothing is asked while no pod lacks any.
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

/// Asks an engine for the labels of a pod until somebody has told them, or nobody needs them any more. Each pod and
/// each engine is asked about by itself: one that hangs keeps no other waiting.
async fn fetch(client: Client, registry: Arc<Registry>, sandbox: String) {
    let mut pause = PAUSE;
    while registry.lacking_labels().contains(&sandbox) {
        match client.pod(&sandbox).await {
            Ok(Some(pod)) => return registry.label(&sandbox, &pod.labels),
            Ok(None) => {}
            Err(error) => debug!("{error}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause + pause / 2).min(PAUSE_MAX);
    }
}

/// Hears an engine's events, and takes them for what they are: a second witness.
async fn listen(client: Client, registry: Arc<Registry>) {
    let path = client.path().display().to_string();
    loop {
        match client.watch(|witnessed| drop(registry.witness(witnessed))).await {
            WatchEnd::Unsupported(why) => {
                debug!("{path} tells no events: {why}");
                return;
            }
            WatchEnd::Failed(error) => debug!("{error}"),
        }
        tokio::time::sleep(REOPEN).await;
    }
}

/// Tells when something has been done.
#[derive(Clone, Debug)]
pub(crate) struct Done(watch::Receiver<bool>);

impl Done {
    /// Not yet; the sender tells.
    pub(crate) fn pending() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Waits for it, within bounds.
    pub(crate) async fn within(mut self, patience: Duration) {
        let done = self.0.wait_for(|done| *done);
        // Whether it was done, or never will be, or takes too long: it goes on.
        let _ = tokio::time::timeout(patience, done).await;
    }
}
