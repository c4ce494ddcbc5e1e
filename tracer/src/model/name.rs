//! Names to select: literal ones, and globs.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

use crate::model::pattern::Item;

/// A name, or a glob: `*` stands for any characters, `?` for one, `[ab]` for one of these.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    text: String,
    /// If it is a glob.
    glob: Option<GlobMatcher>,
}

impl Name {
    /// Whether it selects this name.
    pub(crate) fn matches(&self, name: &str) -> bool {
        match &self.glob {
            None => self.text == name,
            Some(glob) => glob.is_match(name),
        }
    }

    /// The name, unless it is a glob.
    pub(crate) fn literal(&self) -> Option<&str> {
        self.glob.is_none().then_some(&*self.text)
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Name {}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Item for Name {
    fn covers(&self, other: &Self) -> bool {
        self == other || other.glob.is_none() && self.matches(&other.text)
    }
}

/// The rule for a kind of names, by the Kubernetes API (apimachinery, `pkg/util/validation`).
struct Rule {
    /// What they are names of.
    what: &'static str,
    len_max: usize,
    /// Whether a name may be several labels, separated by dots.
    dots: bool,
}

const NAMESPACE: Rule = Rule { what: "namespace", len_max: 63, dots: false };
const POD: Rule = Rule { what: "pod", len_max: 253, dots: true };
const CONTAINER: Rule = Rule { what: "container", len_max: 63, dots: false };

/// Names to select, by what they are names of.
impl Name {
    /// Any name.
    pub(crate) fn any(text: &str) -> Result<Self, String> {
        let is_glob = text.contains(['*', '?', '[']);
        // A name has neither directories nor alternatives: commas separate those.
        let glob = is_glob.then(|| GlobBuilder::new(text).backslash_escape(false).build()).transpose();
        let glob = glob.map_err(|error| format!("is not a glob: {}", error.kind()))?;
        Ok(Self { text: text.to_owned(), glob: glob.map(|glob| glob.compile_matcher()) })
    }

    /// The name of a namespace: an RFC 1123 label.
    pub(crate) fn of_namespace(text: &str) -> Result<Self, String> {
        Self::by_rule(text, &NAMESPACE)
    }

    /// The name of a container in its pod: an RFC 1123 label.
    pub(crate) fn of_container(text: &str) -> Result<Self, String> {
        Self::by_rule(text, &CONTAINER)
    }

    /// Of a glob, only the characters are checked.
    fn by_rule(text: &str, Rule { what, len_max, dots }: &Rule) -> Result<Self, String> {
        let name = Self::any(text)?;
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_allowed = |c: char| is_plain(c) || c == '-' || *dots && c == '.';
        let is_label = |label: &str| label.starts_with(is_plain) && label.ends_with(is_plain);
        let is_valid = if name.glob.is_some() {
            text.chars().all(|c| is_allowed(c) || "*?[]!".contains(c))
        } else {
            text.len() <= *len_max && text.chars().all(is_allowed) && text.split('.').all(is_label)
        };
        let characters = if *dots { "'-' and '.'" } else { "and '-'" };
        is_valid.then_some(name).ok_or_else(|| {
            format!("is not the name of a {what}: up to {len_max} lower case letters, digits {characters}, or a glob")
        })
    }
}

/// The name of a pod, an RFC 1123 subdomain; `NAMESPACE/POD` selects that namespace too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodName {
    namespace: Option<Name>,
    name: Name,
}

impl PodName {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(Name::of_namespace(namespace)?), name),
            None => (None, text),
        };
        Ok(Self { namespace, name: Name::by_rule(name, &POD)? })
    }

    /// Whether it selects this pod.
    pub(crate) fn matches(&self, namespace: &str, name: &str) -> bool {
        self.namespace.as_ref().is_none_or(|own| own.matches(namespace)) && self.name.matches(name)
    }

    /// The name, unless it is a glob.
    #[cfg(feature = "kubectl")]
    pub(crate) fn literal(&self) -> Option<&str> {
        self.name.literal()
    }
}

impl Item for PodName {
    fn covers(&self, other: &Self) -> bool {
        let covers_namespace = match (&self.namespace, &other.namespace) {
            (None, _) => true,
            (Some(own), Some(other)) => own.covers(other),
            (Some(_), None) => false,
        };
        covers_namespace && self.name.covers(&other.name)
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        self.name.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem<T>(parsed: Result<T, String>) -> String {
        parsed.err().unwrap_or_default()
    }

    #[test]
    fn glob_selects_by_its_characters() {
        let selects = |glob: &str, name: &str| Name::any(glob).unwrap().matches(name);
        assert!(selects("crash-*", "crash-1") && !selects("crash-*", "xcrash-1"));
        assert!(selects("*", "") && selects("web-?", "web-0") && !selects("web-?", "web-10"));
        assert!(selects("web-[0-2]", "web-1") && !selects("web-[!0-2]", "web-1"));
        // Comms of kernel threads have slashes.
        assert!(selects("kworker/*", "kworker/0:1"));
        assert!(Name::any("web-[").is_err());
    }

    #[test]
    fn names_that_kubernetes_refuses_are_errors() {
        for name in ["Shop_X", "-a", "a-", "a.b", "a b", &"x".repeat(64)] {
            assert!(problem(Name::of_namespace(name)).contains("is not the name of a namespace"), "{name}");
            assert!(problem(Name::of_container(name)).contains("is not the name of a container"), "{name}");
        }
        for name in ["Web", "web..0", "a/b/c", "A/b", "/b", "a/", &"x".repeat(254)] {
            assert!(!problem(PodName::parse(name)).is_empty(), "{name}");
        }
        for name in ["kube-system", "0", "*", "team-?", "a*"] {
            assert_eq!(problem(Name::of_namespace(name)), "");
        }
        for name in ["kube-apiserver-node.example.com", "shop/web-*", "*/web-0"] {
            assert_eq!(problem(PodName::parse(name)), "");
        }
    }

    #[test]
    fn pod_of_a_namespace_is_selected_there_only() {
        let pod = PodName::parse("shop/web-*").unwrap();
        assert!(pod.matches("shop", "web-0") && !pod.matches("other", "web-0") && !pod.matches("shop", "db"));
        assert_eq!(pod.to_string(), "shop/web-*");
        assert!(PodName::parse("web-0").unwrap().matches("any", "web-0"));
    }

    #[test]
    fn names_are_covered_by_globs() {
        let covers =
            |one: &str, other: &str| PodName::parse(one).unwrap().covers(&PodName::parse(other).unwrap());
        assert!(covers("web-*", "web-0") && covers("web-*", "web-*") && covers("web-0", "shop/web-0"));
        assert!(!covers("web-*", "*") && !covers("shop/web-0", "web-0") && !covers("a/x", "b/x"));
        assert!(covers("*/x", "b/x"));
    }
}
