//! How many containers a selection matches, and what there is instead if it matches none.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::{Choice, Container, Selection, selection::Property};

/// How many names are kept at the most.
const NAMES_MAX: usize = 64;
/// How many names are shown.
const NAMES_SHOWN: usize = 8;

/// What a selection matches on one node, or on several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Matches {
    /// How many running containers are selected.
    pub(crate) containers: u64,
    /// How many containers may be selected: their pods, or those pods' labels, are not known yet.
    pub(crate) undecided: u64,
    /// How many processes have a selected process id, if any is selected.
    pub(crate) processes: Option<u64>,
    /// What comes nearest to a container that is selected.
    nearest: Option<Nearest>,
}

/// What the containers have that are selected by all but this property, and by none before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Nearest {
    property: Property,
    names: BTreeSet<String>,
}

impl Matches {
    /// Adds a running container.
    pub(crate) fn add(&mut self, container: &Container, choice: Choice, selection: &Selection) {
        match choice {
            Choice::Selected => {
                self.containers += 1;
                return;
            }
            Choice::Undecidable => {
                self.undecided += 1;
                return;
            }
            Choice::Rejected => {}
        }
        let (Some(pod), Some(property)) = (&container.pod, selection.mismatch(container)) else { return };
        let name = match property {
            Property::Namespace => Some(&pod.namespace),
            Property::Pod => Some(&pod.name),
            Property::Container => pod.container.as_ref(),
            Property::Labels => None,
        };
        self.come_nearer(Nearest { property, names: name.cloned().into_iter().collect() });
    }

    /// Adds what is matched on another node.
    #[cfg(feature = "kubectl")]
    pub(crate) fn merge(&mut self, other: &Self) {
        self.containers = self.containers.saturating_add(other.containers);
        self.undecided = self.undecided.saturating_add(other.undecided);
        if let Some(processes) = other.processes {
            self.processes = Some(self.processes.unwrap_or(0).saturating_add(processes));
        }
        if let Some(nearest) = &other.nearest {
            self.come_nearer(nearest.clone());
        }
    }

    fn come_nearer(&mut self, other: Nearest) {
        match &mut self.nearest {
            Some(own) if own.property > other.property => {}
            Some(own) if own.property == other.property => {
                for name in other.names {
                    if own.names.len() < NAMES_MAX {
                        own.names.insert(name);
                    }
                }
            }
            nearer => *nearer = Some(other),
        }
    }

    /// Describes what is matched, at the start. `options` are those that select, empty if there are none; `place` is where, such
    /// as "this node".
    pub(crate) fn text(&self, options: &str, place: &str) -> String {
        let processes = if self.processes == Some(0) { "; no process has that --pid" } else { "" };
        let matched = match (self.containers, options) {
            (0, "") => format!("no container runs on {place} yet"),
            (count, "") => number(count),
            (0, _) => format!("nothing matches {options} yet; {}", self.instead(place)),
            (1, _) => "1 container matches".to_owned(),
            (count, _) => format!("{} match", number(count)),
        };
        format!("{matched}{processes}")
    }

    /// Describes that nothing is matched, if that is so.
    pub(crate) fn nothing(&self, options: &str, place: &str) -> Option<String> {
        let is_none = self.containers == 0 && !options.is_empty();
        is_none.then(|| format!("nothing matches {options}; {}", self.instead(place)))
    }

    /// Describes the change from `before`, if something is matched now and was not, or the other way round.
    pub(crate) fn change(&self, before: &Self, options: &str) -> Option<String> {
        match (before.containers, self.containers) {
            _ if options.is_empty() => None,
            (0, 1) => Some("1 container matches now".to_owned()),
            (0, 2..) => Some(format!("{} match now", number(self.containers))),
            (1.., 0) => Some(format!("nothing matches {options} now")),
            _ => None,
        }
    }

    /// What there is instead of a container that matches.
    fn instead(&self, place: &str) -> String {
        if self.undecided > 0 {
            return format!("the pods or labels of {} are not known yet", number(self.undecided));
        }
        let Some(Nearest { property, names }) = &self.nearest else {
            return format!("no pod runs on {place}");
        };
        let what = match property {
            Property::Namespace => format!("namespaces on {place}"),
            Property::Pod => "pods there".to_owned(),
            Property::Container => "containers there".to_owned(),
            Property::Labels => return "the labels of the pods there differ".to_owned(),
        };
        let more = names.len().saturating_sub(NAMES_SHOWN);
        let names: Vec<&str> = names.iter().take(NAMES_SHOWN).map(String::as_str).collect();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{what}: {}{more}", names.join(", "))
    }

    /// Cuts what another `tracer` has sent to what this one may send.
    #[cfg(feature = "kubectl")]
    pub(crate) fn bounded(mut self) -> Self {
        /// The longest name of a pod.
        const NAME_MAX: usize = 253;
        if let Some(nearest) = &mut self.nearest {
            let names = std::mem::take(&mut nearest.names);
            nearest.names = names.into_iter().filter(|name| name.len() <= NAME_MAX).take(NAMES_MAX).collect();
        }
        self
    }
}

/// A number of containers.
fn number(count: u64) -> String {
    if count == 1 { "1 container".to_owned() } else { format!("{count} containers") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        LabelSelector, Pod,
        name::{Name, PodName},
        pattern::Pattern,
    };

    fn container(namespace: &str, pod: &str, name: &str) -> Container {
        let pod = Pod {
            namespace: namespace.into(),
            name: pod.into(),
            pod_uid: None,
            container: Some(name.into()),
            labels: Some([("app".to_owned(), "web".to_owned())].into()),
        };
        Container::of_pod(pod)
    }

    fn matches(selection: &Selection, containers: &[Container]) -> Matches {
        let mut matches = Matches::default();
        for container in containers {
            matches.add(container, selection.judge(container), selection);
        }
        matches
    }

    #[test]
    fn nothing_matched_names_what_there_is_instead() {
        let all =
            [container("shop", "web-0", "app"), container("shop", "db-0", "db"), container("ops", "x", "y")];
        let text = |options: &[(&str, &str)]| {
            let values = |option: &str| {
                options
                    .iter()
                    .filter(|(name, _)| *name == option)
                    .map(|(_, v)| (*v).to_owned())
                    .collect::<Vec<_>>()
            };
            let selection = Selection {
                namespaces: Pattern::parse(&values("-n"), Name::of_namespace).unwrap(),
                pods: Pattern::parse(&values("-p"), PodName::parse).unwrap(),
                containers: Pattern::parse(&values("-c"), Name::of_container).unwrap(),
                labels: LabelSelector::parse_all(&values("-l")).unwrap(),
            };
            let shown: Vec<String> = options.iter().map(|(name, value)| format!("{name} {value}")).collect();
            matches(&selection, &all).text(&shown.join(" "), "this node")
        };
        assert_eq!(text(&[]), "3 containers");
        assert_eq!(text(&[("-n", "shop")]), "2 containers match");
        assert_eq!(text(&[("-n", "ops")]), "1 container matches");
        assert_eq!(
            text(&[("-n", "nosuch")]),
            "nothing matches -n nosuch yet; namespaces on this node: ops, shop"
        );
        assert_eq!(
            text(&[("-n", "shop"), ("-p", "web")]),
            "nothing matches -n shop -p web yet; pods there: db-0, web-0"
        );
        assert_eq!(
            text(&[("-p", "web-*"), ("-c", "x")]),
            "nothing matches -p web-* -c x yet; containers there: app"
        );
        assert_eq!(
            text(&[("-n", "shop"), ("-l", "app=db")]),
            "nothing matches -n shop -l app=db yet; the labels of the pods there differ"
        );
        assert_eq!(Matches::default().text("", "this node"), "no container runs on this node yet");
        assert_eq!(
            Matches::default().text("-n x", "this node"),
            "nothing matches -n x yet; no pod runs on this node"
        );
    }

    #[test]
    fn change_is_described_between_nothing_and_something() {
        let of = |containers| Matches { containers, ..Matches::default() };
        assert_eq!(of(1).change(&of(0), "-n x").unwrap(), "1 container matches now");
        assert_eq!(of(2).change(&of(0), "-n x").unwrap(), "2 containers match now");
        assert_eq!(of(0).change(&of(2), "-n x").unwrap(), "nothing matches -n x now");
        assert_eq!(of(2).change(&of(1), "-n x"), None);
        assert_eq!(of(1).change(&of(0), ""), None);
    }

    #[test]
    fn unknown_labels_and_absent_processes_are_named() {
        let matches = Matches { undecided: 2, processes: Some(0), ..Matches::default() };
        assert_eq!(
            matches.text("-l a", "this node"),
            "nothing matches -l a yet; the pods or labels of 2 containers are not known yet; no process has that --pid"
        );
    }

    #[test]
    fn names_are_bounded() {
        let selection = Selection {
            namespaces: Pattern::parse(&["nosuch".to_owned()], Name::of_namespace).unwrap(),
            ..Selection::default()
        };
        let all: Vec<Container> = (0..100).map(|n| container(&format!("n{n:02}"), "p", "c")).collect();
        let text = matches(&selection, &all).text("-n nosuch", "this node");
        assert!(text.ends_with(": n00, n01, n02, n03, n04, n05, n06, n07 and 56 more"), "{text}");
    }
}
