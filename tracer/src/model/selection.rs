//! Which containers are asked for.

use std::str::FromStr;

use crate::model::{Container, LabelSelector};

/// Values that are wanted, and values that are not: names or numbers. Empty, it selects everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern<T = String> {
    wanted: Vec<T>,
    unwanted: Vec<T>,
}

impl<T> Default for Pattern<T> {
    fn default() -> Self {
        Self { wanted: Vec::new(), unwanted: Vec::new() }
    }
}

impl<T: FromStr> Pattern<T> {
    /// From the values of an option: each a list with commas, `!x` to leave x out.
    pub(crate) fn parse(values: &[String]) -> Result<Self, String> {
        let mut pattern = Self::default();
        for value in values {
            for item in value.split(',') {
                let (list, text) = match item.strip_prefix('!') {
                    Some(text) => (&mut pattern.unwanted, text),
                    None => (&mut pattern.wanted, item),
                };
                if text.is_empty() {
                    return Err(format!("{value:?} has an empty item; write X, X,Y or !X"));
                }
                list.push(
                    text.parse().map_err(|_| format!("{text:?} is not a number from 0 to 4294967295"))?,
                );
            }
        }
        Ok(pattern)
    }
}

impl<T> Pattern<T> {
    /// Whether it selects everything.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }

    /// The values that are wanted; with none, all are.
    #[must_use]
    pub(crate) fn wanted(&self) -> &[T] {
        &self.wanted
    }

    /// The values that are not wanted, even if they are.
    #[must_use]
    pub(crate) fn unwanted(&self) -> &[T] {
        &self.unwanted
    }

    /// Whether it selects this value. What has none is selected by exclusions only.
    #[must_use]
    pub(crate) fn selects<V: ?Sized>(&self, value: Option<&V>) -> bool
    where
        T: PartialEq<V>,
    {
        let is = |listed: &T| value.is_some_and(|value| listed == value);
        (self.wanted.is_empty() || self.wanted.iter().any(is)) && !self.unwanted.iter().any(is)
    }
}

/// The containers that are asked for: `-n`, `-p`, `-c`, `-A`, `-l`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Namespaces.
    pub(crate) namespaces: Pattern,
    /// Pods.
    pub(crate) pods: Pattern,
    /// Containers, by their name in the pod.
    pub(crate) containers: Pattern,
    /// Labels of the pod.
    pub(crate) labels: LabelSelector,
}

impl Selection {
    /// Whether the container is asked for. One without pod has neither namespace, nor pod, nor name; where labels are
    /// asked for it is not, whatever they are.
    #[must_use]
    pub(crate) fn judge(&self, container: &Container) -> Choice {
        let by_name = !(self.namespaces.is_empty() && self.pods.is_empty() && self.containers.is_empty());
        let by_labels = !self.labels.is_empty();
        if (by_name || by_labels) && !container.pod_known {
            return Choice::Undecidable;
        }
        let pod = container.pod.as_ref();
        let named = self.namespaces.selects(pod.map(|pod| pod.namespace.as_str()))
            && self.pods.selects(pod.map(|pod| pod.name.as_str()))
            && self.containers.selects(pod.and_then(|pod| pod.container.as_deref()));
        match pod {
            _ if !named => Choice::Rejected,
            _ if !by_labels => Choice::Selected,
            None => Choice::Rejected,
            Some(pod) => match &pod.labels {
                None => Choice::Undecidable,
                Some(labels) if self.labels.matches(labels) => Choice::Selected,
                Some(_) => Choice::Rejected,
            },
        }
    }
}

/// Whether a container is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Its events are shown.
    Selected,
    /// Its events count as filtered.
    Rejected,
    /// It takes knowing its pod, or the pod's labels, which nobody does: its events count as lost.
    Undecidable,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Pod, Source, Unknown};

    fn pattern(values: &[&str]) -> Pattern {
        Pattern::parse(&values.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn lists_repetition_and_negation() {
        assert!(pattern(&[]).selects::<str>(None));
        assert!(pattern(&["a,b", "c"]).selects(Some("c")));
        assert!(!pattern(&["a,b"]).selects(Some("c")));
        assert!(!pattern(&["a"]).selects::<str>(None));
        assert!(pattern(&["!a"]).selects(Some("b")));
        assert!(pattern(&["!a"]).selects::<str>(None));
        assert!(!pattern(&["!a,!b"]).selects(Some("b")));
        assert!(!pattern(&["a,!a"]).selects(Some("a")));
    }

    #[test]
    fn an_empty_name_is_an_error_that_shows_the_value() {
        for value in ["", "a,", "!", ",a", "a,!"] {
            let error = Pattern::<String>::parse(&[value.to_owned()]).unwrap_err();
            assert!(error.contains(&format!("{value:?}")), "{error}");
        }
    }

    #[test]
    fn numbers_are_checked_on_both_sides() {
        let parse = |value: &str| Pattern::<u32>::parse(&[value.to_owned()]);
        assert!(parse("1,!2").unwrap().selects(Some(&1)));
        assert!(!parse("!2").unwrap().selects(Some(&2)));
        assert!(parse("1,!x").unwrap_err().contains("\"x\""));
    }
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
        Container {
            source: Source::Bundle,
            why: None,
            pod: Some(pod),
            pod_known: true,
            ..Container::unknown(Unknown::Late)
        }
    }

    fn selection(namespace: &str, labels: &str) -> Selection {
        let namespaces = if namespace.is_empty() { Pattern::default() } else { pattern(&[namespace]) };
        Selection { namespaces, labels: LabelSelector::parse(labels).unwrap(), ..Selection::default() }
    }

    #[test]
    fn labels_decide_where_they_are_known() {
        let container = of_pod(Some(&[("app", "web")]));
        assert_eq!(selection("", "app=web").judge(&container), Choice::Selected);
        assert_eq!(selection("", "app!=web").judge(&container), Choice::Rejected);
        assert_eq!(selection("shop", "app").judge(&container), Choice::Selected);
        assert_eq!(selection("other", "app").judge(&container), Choice::Rejected);
        assert_eq!(selection("", "!app").judge(&of_pod(Some(&[]))), Choice::Selected);
    }

    #[test]
    fn labels_that_are_not_known_decide_nothing_but_names_may() {
        let container = of_pod(None);
        for labels in ["app=web", "!app"] {
            assert_eq!(selection("", labels).judge(&container), Choice::Undecidable);
            assert_eq!(selection("shop", labels).judge(&container), Choice::Undecidable);
            assert_eq!(selection("other", labels).judge(&container), Choice::Rejected);
        }
        assert_eq!(selection("shop", "").judge(&container), Choice::Selected);
    }

    #[test]
    fn what_is_no_pods_has_no_labels_to_ask_for() {
        let podless = Container { pod: None, ..of_pod(None) };
        for labels in ["app=web", "!app", "app!=web"] {
            assert_eq!(selection("", labels).judge(&podless), Choice::Rejected);
        }
        assert_eq!(selection("", "").judge(&podless), Choice::Selected);
        assert_eq!(selection("", "!app").judge(&Container::unknown(Unknown::Late)), Choice::Undecidable);
        assert_eq!(selection("", "").judge(&Container::unknown(Unknown::Late)), Choice::Selected);
    }
}
