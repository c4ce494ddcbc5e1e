//! Selection of containers.

use serde::{Deserialize, Serialize};

use crate::model::{
    Container, LabelSelector,
    name::{Name, PodName},
    pattern::Pattern,
};

/// The selected containers: `-n`, `-p`, `-c`, `-A`, `-l`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Patterns of namespaces.
    pub(crate) namespaces: Pattern<Name>,
    /// Patterns of pod names.
    pub(crate) pods: Pattern<PodName>,
    /// Patterns of container names in the pod.
    pub(crate) containers: Pattern<Name>,
    /// Selector on the pod's labels.
    pub(crate) labels: LabelSelector,
}

/// What a selection goes by, from the outermost to the innermost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Property {
    Namespace,
    Pod,
    Container,
    Labels,
}

impl Selection {
    /// Whether every container is selected.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
            && self.pods.is_empty()
            && self.containers.is_empty()
            && self.labels.is_empty()
    }

    /// Whether the container is selected. A container without a pod has no namespace, pod or name; a label selector
    /// never selects it.
    #[must_use]
    pub(crate) fn judge(&self, container: &Container) -> Choice {
        if !self.is_empty() && !container.pod_known {
            return Choice::Undecidable;
        }
        let lacks_labels = || container.pod.as_ref().is_some_and(|pod| pod.labels.is_none());
        match self.mismatch(container) {
            None => Choice::Selected,
            Some(Property::Labels) if lacks_labels() => Choice::Undecidable,
            Some(_) => Choice::Rejected,
        }
    }

    /// The outermost property that keeps the container from being selected.
    pub(crate) fn mismatch(&self, container: &Container) -> Option<Property> {
        let pod = container.pod.as_ref();
        let labels = || pod.and_then(|pod| pod.labels.as_ref());
        if !self.namespaces.selects(|name| pod.is_some_and(|pod| name.matches(&pod.namespace))) {
            return Some(Property::Namespace);
        }
        if !self.pods.selects(|name| pod.is_some_and(|pod| name.matches(&pod.namespace, &pod.name))) {
            return Some(Property::Pod);
        }
        let container = pod.and_then(|pod| pod.container.as_deref());
        if !self.containers.selects(|name| container.is_some_and(|container| name.matches(container))) {
            return Some(Property::Container);
        }
        let is_labelled =
            self.labels.is_empty() || labels().is_some_and(|labels| self.labels.matches(labels));
        (!is_labelled).then_some(Property::Labels)
    }
}

/// Whether a container is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Its events are shown.
    Selected,
    /// Its events count as filtered.
    Rejected,
    /// That depends on its pod or the pod's labels, which are not known: its events count as lost.
    Undecidable,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Pod, Unknown};

    /// A container of the pod `web` in `shop`, with these labels or unknown ones.
    fn of_pod(labels: Option<&[(&str, &str)]>) -> Container {
        let labels = labels
            .map(|labels| labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect());
        let pod = Pod {
            namespace: "shop".into(),
            name: "web".into(),
            pod_uid: None,
            container: Some("nginx".into()),
            labels,
        };
        Container::of_pod(pod)
    }

    fn selection(namespace: &str, labels: &str) -> Selection {
        let namespace = Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty());
        let namespaces = Pattern::parse(namespace.as_slice(), Name::of_namespace).unwrap();
        Selection { namespaces, labels: LabelSelector::parse(labels).unwrap(), ..Selection::default() }
    }

    #[test]
    fn known_labels_are_matched() {
        let container = of_pod(Some(&[("app", "web")]));
        assert_eq!(selection("", "app=web").judge(&container), Choice::Selected);
        assert_eq!(selection("", "app!=web").judge(&container), Choice::Rejected);
        assert_eq!(selection("shop", "app").judge(&container), Choice::Selected);
        assert_eq!(selection("other", "app").judge(&container), Choice::Rejected);
        assert_eq!(selection("", "!app").judge(&of_pod(Some(&[]))), Choice::Selected);
    }

    #[test]
    fn unknown_labels_are_undecidable_unless_names_reject_the_container() {
        let container = of_pod(None);
        for labels in ["app=web", "!app"] {
            assert_eq!(selection("", labels).judge(&container), Choice::Undecidable);
            assert_eq!(selection("shop", labels).judge(&container), Choice::Undecidable);
            assert_eq!(selection("other", labels).judge(&container), Choice::Rejected);
        }
        assert_eq!(selection("shop", "").judge(&container), Choice::Selected);
    }

    #[test]
    fn container_without_pod_is_rejected_by_any_label_selector() {
        let podless = Container { pod: None, ..of_pod(None) };
        for labels in ["app=web", "!app", "app!=web"] {
            assert_eq!(selection("", labels).judge(&podless), Choice::Rejected);
        }
        assert_eq!(selection("", "").judge(&podless), Choice::Selected);
        assert_eq!(selection("", "!app").judge(&Container::unknown(Unknown::Late)), Choice::Undecidable);
        assert_eq!(selection("", "").judge(&Container::unknown(Unknown::Late)), Choice::Selected);
    }

    #[test]
    fn mismatch_is_the_outermost_property() {
        let container = of_pod(Some(&[("app", "web")]));
        let mismatch = |namespace: &str, pod: &str, name: &str, labels: &str| {
            let values = |text: &str| text.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
            let selection = Selection {
                namespaces: Pattern::parse(&values(namespace), Name::of_namespace).unwrap(),
                pods: Pattern::parse(&values(pod), PodName::parse).unwrap(),
                containers: Pattern::parse(&values(name), Name::of_container).unwrap(),
                labels: LabelSelector::parse(labels).unwrap(),
            };
            selection.mismatch(&container)
        };
        assert_eq!(mismatch("sh*", "shop/w*", "nginx", "app"), None);
        assert_eq!(mismatch("other", "x", "x", "x"), Some(Property::Namespace));
        assert_eq!(mismatch("shop", "other/web", "x", "x"), Some(Property::Pod));
        assert_eq!(mismatch("shop", "!web*", "", ""), Some(Property::Pod));
        assert_eq!(mismatch("shop", "web", "x", "x"), Some(Property::Container));
        assert_eq!(mismatch("shop", "web", "nginx", "x"), Some(Property::Labels));
    }
}
