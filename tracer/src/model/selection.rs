//! Selection of containers.

use std::str::FromStr;

use crate::model::{Container, LabelSelector};

/// Values to include and values to exclude: names or numbers. An empty pattern selects everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern<T = String> {
    included: Vec<T>,
    excluded: Vec<T>,
}

impl<T> Default for Pattern<T> {
    fn default() -> Self {
        Self { included: Vec::new(), excluded: Vec::new() }
    }
}

/// Why a value of an option is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    /// An item of this value is empty.
    #[error("{0:?} has an empty item; write X, X,Y or !X")]
    Empty(String),
    /// This item is not a number, where the option takes numbers.
    #[error("{0:?} is not a number from 0 to 4294967295")]
    NotNumber(String),
}
impl<T: FromStr> Pattern<T> {
    /// Parses the values of an option: each is a list separated by commas, with `!x` to exclude x.
    pub(crate) fn parse(values: &[String]) -> Result<Self, PatternError> {
        let mut pattern = Self::default();
        for value in values {
            for item in value.split(',') {
                let (list, text) = match item.strip_prefix('!') {
                    Some(text) => (&mut pattern.excluded, text),
                    None => (&mut pattern.included, item),
                };
                if text.is_empty() {
                    return Err(PatternError::Empty(value.clone()));
                }
                list.push(text.parse().map_err(|_| PatternError::NotNumber(text.to_owned()))?);
            }
        }
        Ok(pattern)
    }
}

impl<T> Pattern<T> {
    /// Whether it selects everything.
    #[must_use]
    pub(crate) const fn is_empty(&self) -> bool {
        self.included.is_empty() && self.excluded.is_empty()
    }

    /// The included values; if there are none, all values are included.
    #[must_use]
    pub(crate) fn wanted(&self) -> &[T] {
        &self.included
    }

    /// The excluded values, even if they are included too.
    #[must_use]
    pub(crate) fn unwanted(&self) -> &[T] {
        &self.excluded
    }

    /// Whether it selects this value. A missing value is selected only if no values are included.
    #[must_use]
    pub(crate) fn selects<V: ?Sized>(&self, value: Option<&V>) -> bool
    where
        T: PartialEq<V>,
    {
        let is = |listed: &T| value.is_some_and(|value| listed == value);
        (self.included.is_empty() || self.included.iter().any(is)) && !self.excluded.iter().any(is)
    }
}

/// The selected containers: `-n`, `-p`, `-c`, `-A`, `-l`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Patterns of namespaces.
    pub(crate) namespaces: Pattern,
    /// Patterns of pod names.
    pub(crate) pods: Pattern,
    /// Patterns of container names in the pod.
    pub(crate) containers: Pattern,
    /// Selector on the pod's labels.
    pub(crate) labels: LabelSelector,
}

impl Selection {
    /// Whether the container is selected. A container without a pod has no namespace, pod or name; a label selector
    /// never selects it.
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
    use crate::model::{Pod, Source, Unknown};

    fn pattern(values: &[&str]) -> Pattern {
        Pattern::parse(&values.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn pattern_combines_lists_repetitions_and_exclusions() {
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
    fn empty_item_is_an_error_that_quotes_the_value() {
        for value in ["", "a,", "!", ",a", "a,!"] {
            let error = Pattern::<String>::parse(&[value.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(&format!("{value:?}")), "{error}");
        }
    }

    #[test]
    fn included_and_excluded_numbers_are_checked() {
        let parse = |value: &str| Pattern::<u32>::parse(&[value.to_owned()]);
        assert!(parse("1,!2").unwrap().selects(Some(&1)));
        assert!(!parse("!2").unwrap().selects(Some(&2)));
        assert_eq!(parse("1,!x"), Err(PatternError::NotNumber("x".into())));
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
}
