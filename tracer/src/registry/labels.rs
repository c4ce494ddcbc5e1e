//! The labels of pods, by sandbox: one container of a pod has them, and the others get them from here.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::model::Container;

/// The labels of pods that have containers in the registry.
#[derive(Debug, Default)]
pub(crate) struct Labels(HashMap<Sandbox, BTreeMap<String, String>>);

impl Labels {
    /// Stores the labels of a sandbox.
    pub(crate) fn insert(&mut self, sandbox: Sandbox, labels: BTreeMap<String, String>) {
        self.0.insert(sandbox, labels);
    }

    /// Removes those of a sandbox.
    pub(crate) fn remove(&mut self, sandbox: &Sandbox) {
        self.0.remove(sandbox);
    }

    /// Keeps the labels of these sandboxes only.
    pub(crate) fn retain(&mut self, sandboxes: &HashSet<Sandbox>) {
        self.0.retain(|sandbox, _| sandboxes.contains(sandbox));
    }

    /// Completes a container with its pod's labels if they are stored; stores them if the container has them.
    pub(crate) fn exchange(&mut self, mut container: Container) -> Container {
        let sandbox = Sandbox::of(&container);
        if let (Some(pod), Some(sandbox)) = (&mut container.pod, sandbox) {
            match &pod.labels {
                Some(labels) => drop(self.0.insert(sandbox, labels.clone())),
                None => pod.labels = self.0.get(&sandbox).cloned(),
            }
        }
        container
    }
}

/// A pod's sandbox. Ids are unique in one place only: the host, or a container with an engine of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sandbox {
    /// The id of the container that it is in; none for the host.
    outer: Option<String>,
    /// The sandbox's own.
    id: String,
}

impl Sandbox {
    pub(crate) fn of_host(id: &str) -> Self {
        Self { outer: None, id: id.to_owned() }
    }

    pub(crate) fn of(container: &Container) -> Option<Self> {
        let outer = container.outer.as_ref().map(|outer| outer.id.clone());
        Some(Self { outer, id: container.sandbox_id.clone()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Pod, Unknown};

    fn container(labels: Option<&str>, outer: Option<&str>) -> Container {
        let labels = labels.map(|value| BTreeMap::from([("app".to_owned(), value.to_owned())]));
        let pod = Pod { namespace: "n".into(), name: "p".into(), pod_uid: None, container: None, labels };
        let outer = outer.map(|id| crate::model::Nested { id: id.to_owned(), runtime: String::new() });
        Container { pod: Some(pod), sandbox_id: Some("s".into()), outer, ..Container::unknown(Unknown::Late) }
    }

    #[test]
    fn container_without_labels_gets_those_of_its_sandbox() {
        let mut labels = Labels::default();
        assert!(labels.exchange(container(None, None)).lacks_labels());
        let _ = labels.exchange(container(Some("web"), None));
        let completed = labels.exchange(container(None, None)).pod.unwrap().labels.unwrap();
        assert_eq!(completed["app"], "web");
    }

    #[test]
    fn sandbox_in_node_container_does_not_get_labels_of_hosts_sandbox() {
        let mut labels = Labels::default();
        let _ = labels.exchange(container(Some("web"), None));
        assert!(labels.exchange(container(None, Some("node"))).lacks_labels());
    }
}
