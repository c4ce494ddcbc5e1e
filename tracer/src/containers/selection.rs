//! Which containers are asked for.

use std::str::FromStr;

use super::Container;

/// Values that are wanted, and values that are not: names or numbers. Empty, it selects everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern<T = String> {
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
    pub fn parse(values: &[String]) -> Result<Self, String> {
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
    pub const fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }

    /// Whether it selects this value. What has none is selected by exclusions only.
    #[must_use]
    pub fn selects<V: ?Sized>(&self, value: Option<&V>) -> bool
    where
        T: PartialEq<V>,
    {
        let is = |listed: &T| value.is_some_and(|value| listed == value);
        (self.wanted.is_empty() || self.wanted.iter().any(is)) && !self.unwanted.iter().any(is)
    }
}

/// The containers that are asked for: `-n`, `-p`, `-c`, `-A`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Namespaces.
    pub namespaces: Pattern,
    /// Pods.
    pub pods: Pattern,
    /// Containers, by their name in the pod.
    pub containers: Pattern,
}

impl Selection {
    /// Whether the container is asked for. One without pod has neither namespace, nor pod, nor name.
    #[must_use]
    pub fn judge(&self, container: &Container) -> Choice {
        let needs_pod = !(self.namespaces.is_empty() && self.pods.is_empty() && self.containers.is_empty());
        if needs_pod && !container.pod_known {
            return Choice::Undecidable;
        }
        let pod = container.pod.as_ref();
        let selected = self.namespaces.selects(pod.map(|pod| pod.namespace.as_str()))
            && self.pods.selects(pod.map(|pod| pod.name.as_str()))
            && self.containers.selects(pod.and_then(|pod| pod.container.as_deref()));
        if selected { Choice::Selected } else { Choice::Rejected }
    }
}

/// Whether a container is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Its events are shown.
    Selected,
    /// Its events count as filtered.
    Rejected,
    /// It takes knowing its pod, which nobody does: its events count as lost.
    Undecidable,
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
