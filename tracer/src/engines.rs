//! The engines as second witnesses: what their CRI tells completes what is known, and nothing waits for it.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinSet};
use tracing::{debug, warn};

use crate::{
    containers::Registry,
    cri::{Client, Ended, Witnessed},
};

/// How long it is asked for the labels of a pod. An engine knows a sandbox some 100 ms after it has had it started.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long after one question the next is asked.
const PAUSE: Duration = Duration::from_millis(50);
/// After this long without an event an engine's stream of them is opened again.
const REOPEN: Duration = Duration::from_secs(10);

/// The engines of the node.
pub struct Engines {
    clients: Vec<Client>,
    registry: Arc<Registry>,
    /// Whether to listen to their events.
    listen: bool,
}

impl Engines {
    /// The engines behind these sockets.
    pub fn new(sockets: &[PathBuf], registry: Arc<Registry>, listen: bool) -> Self {
        let clients: Vec<Client> = sockets.iter().map(|path| Client::connect(path)).collect();
        registry.expect_labels(!clients.is_empty());
        Self { clients, registry, listen }
    }

    /// What the engines know of containers by now, from those that answer.
    pub async fn snapshot(&self) -> Vec<Witnessed> {
        let mut answers: JoinSet<_> = self
            .clients
            .iter()
            .cloned()
            .map(|client| async move { (client.snapshot().await, client) })
            .collect();
        let mut containers = Vec::new();
        while let Some(answer) = answers.join_next().await {
            match answer {
                Ok((Ok(witnessed), _)) => containers.extend(witnessed),
                Ok((Err(error), client)) => {
                    warn!("{} does not tell what it knows: {error}", client.path().display());
                }
                Err(error) => warn!("asking an engine: {error}"),
            }
        }
        containers
    }

    /// Fetches the labels of pods as they come up, until the run ends. Nothing is asked while no pod lacks any.
    pub async fn complete(self) {
        for client in self.clients.iter().filter(|_| self.listen).cloned() {
            tokio::spawn(listen(client, Arc::clone(&self.registry)));
        }
        let mut changes = self.registry.changes();
        let mut asked: HashMap<String, Instant> = HashMap::new();
        loop {
            let lacking = self.registry.lacking_labels();
            asked.retain(|sandbox, _| lacking.contains(sandbox));
            let now = Instant::now();
            let due = |sandbox: &&String| {
                asked.get(*sandbox).is_none_or(|first| now.duration_since(*first) < PATIENCE)
            };
            let due: Vec<String> = lacking.iter().filter(due).cloned().collect();
            if due.is_empty() {
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            }
            for sandbox in due {
                self.ask_for(&sandbox).await;
                asked.entry(sandbox).or_insert(now);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask_for(&self, sandbox: &str) {
        for client in &self.clients {
            match client.pod(sandbox).await {
                Ok(Some(pod)) => return self.registry.label(sandbox, &pod.labels),
                Ok(None) => {}
                Err(error) => debug!("{}: {error}", client.path().display()),
            }
        }
    }
}

/// Hears an engine's events, and takes them for what they are: a second witness.
async fn listen(client: Client, registry: Arc<Registry>) {
    let path = client.path().display().to_string();
    loop {
        match client.watch(|witnessed| drop(registry.witness(witnessed))).await {
            Ended::Unserved(why) => {
                debug!("{path} tells no events: {why}");
                return;
            }
            Ended::Failed(error) => debug!("{path}: {error}"),
        }
        tokio::time::sleep(REOPEN).await;
    }
}

/// Tells when something has been done.
#[derive(Clone, Debug)]
pub struct Done(watch::Receiver<bool>);

impl Done {
    /// Not yet; the sender tells.
    pub fn pending() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Waits for it, within bounds.
    pub async fn within(mut self, patience: Duration) {
        let done = self.0.wait_for(|done| *done);
        // Whether it was done, or never will be, or takes too long: it goes on.
        let _ = tokio::time::timeout(patience, done).await;
    }
}
