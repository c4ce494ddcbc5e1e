//! What is known of a container and decided about it.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tracer_common::container::ContainerKey;

use crate::model::{Choice, Container, Matches, Selection, Unknown};

/// What an event needs to know about its container.
#[derive(Debug)]
pub(crate) struct Attribution {
    /// The container's own key. The key of a process that joined the container resolves to the same attribution.
    pub(crate) key: ContainerKey,
    /// The container.
    pub(crate) container: Arc<Container>,
    /// Whether the container is selected.
    pub(crate) choice: Choice,
    /// The key turned out to be no container: its processes are attributed to the host.
    pub(crate) host: bool,
}

/// The answer to a look-up of a key.
#[derive(Debug)]
pub(crate) enum Lookup {
    /// The container is known, and whether it is selected.
    Known(Arc<Attribution>),
    /// The key was announced: its bundle is being read, or its pod's labels are being fetched.
    Pending,
    /// The key was not announced.
    Unknown,
}

/// The name by which a runtime's `exec` refers to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerName {
    /// The container that the runtime runs in; [`ContainerKey::HOST`] for none.
    pub(crate) outer: ContainerKey,
    /// The runtime's state directory.
    pub(crate) root: PathBuf,
    /// The container's id.
    pub(crate) id: String,
}

/// Makes attributions: applies the selection, and counts how often a known one was replaced.
pub(crate) struct Attributions {
    selection: Selection,
    /// What is decided about the host's own events.
    host: Choice,
    revision: AtomicU64,
    /// Whether an engine is being queried for labels.
    labels_expected: AtomicBool,
}

impl Attributions {
    /// With this selection; events of the host are selected if `host`.
    pub(crate) fn new(selection: Selection, host: bool) -> Self {
        let host = if host { Choice::Selected } else { Choice::Rejected };
        Self { selection, host, revision: AtomicU64::new(0), labels_expected: AtomicBool::new(false) }
    }

    /// The attribution of a container.
    pub(crate) fn of_container(&self, key: ContainerKey, container: Container) -> Attribution {
        let choice = self.selection.judge(&container);
        Attribution { key, container: Arc::new(container), choice, host: false }
    }

    /// The attribution of a key whose processes belong to the host.
    pub(crate) fn of_host(&self, key: ContainerKey) -> Attribution {
        let container = Arc::new(Container::unknown(Unknown::Missed));
        Attribution { key, container, choice: self.host, host: true }
    }

    /// Whether every container is selected.
    pub(crate) fn selects_all(&self) -> bool {
        self.selection.is_empty()
    }

    /// Adds a running container to what the selection matches.
    pub(crate) fn add_to(&self, matches: &mut Matches, attribution: &Attribution) {
        matches.add(&attribution.container, attribution.choice, &self.selection);
    }

    /// Whether a container is not selected, even if more becomes known of it.
    pub(crate) fn rejects(&self, container: &Container) -> bool {
        self.selection.judge(container) == Choice::Rejected
    }

    /// Changes whenever a known attribution was replaced.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// A known attribution was replaced.
    pub(crate) fn count_replacement(&self) {
        self.revision.fetch_add(1, Ordering::Release);
    }

    /// Sets whether labels that are missing will be fetched from an engine.
    pub(crate) fn expect_labels(&self, expected: bool) {
        self.labels_expected.store(expected, Ordering::Relaxed);
    }

    /// Whether the decision has to wait for labels that an engine will be queried for.
    pub(crate) fn awaits_labels(&self, attribution: &Attribution) -> bool {
        attribution.choice == Choice::Undecidable
            && attribution.container.lacks_labels()
            && attribution.container.outer.is_none()
            && self.labels_expected.load(Ordering::Relaxed)
    }
}
