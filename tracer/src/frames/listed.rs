//! A container as `tracer list-containers` lists it in JSON, read back.

use serde::{Deserialize, de::Error as _};

use crate::{
    kinds::Signal,
    model::{Container, ExitStatus, Pod},
    output::ContainerEvent,
};

/// A container that is listed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// What happened to it; only while containers are watched.
    pub(crate) event: Option<ContainerEvent>,
    /// What differs from what was listed before, by the names of JSON's fields.
    pub(crate) changed: Vec<String>,
    /// Itself, with its pod.
    pub(crate) container: Container,
    /// Its first process; 0 if there is none.
    pub(crate) pid: u32,
    /// When it was started, in nanoseconds since 1970.
    pub(crate) started: Option<i128>,
    /// How its first process has exited.
    pub(crate) exit: Option<ExitStatus>,
}

impl Listed {
    /// From a line of JSON.
    pub(crate) fn read(line: &[u8]) -> serde_json::Result<Self> {
        let Line { event, changed, k8s, container, pid, started_at, exit_code, exit_signal } =
            serde_json::from_slice(line)?;
        let signal = exit_signal.map(|name| {
            Signal::named(name).ok_or_else(|| serde_json::Error::custom(format!("unknown signal {name:?}")))
        });
        let exit = match (exit_code, signal.transpose()?) {
            (_, Some(signal)) => Some(ExitStatus::Signal(signal.number())),
            (code, None) => code.map(ExitStatus::Code),
        };
        let nanoseconds = |text: &str| {
            let timestamp = text.parse::<jiff::Timestamp>().map_err(serde_json::Error::custom)?;
            Ok::<_, serde_json::Error>(timestamp.as_nanosecond())
        };
        Ok(Self {
            event,
            changed,
            container: Container { pod: k8s, ..container },
            pid: pid.unwrap_or(0),
            started: started_at.map(nanoseconds).transpose()?,
            exit,
        })
    }
}

/// A container as JSON has it (`output/containers.rs`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    event: Option<ContainerEvent>,
    #[serde(default)]
    changed: Vec<String>,
    k8s: Option<Pod>,
    container: Container,
    pid: Option<u32>,
    started_at: Option<&'a str>,
    exit_code: Option<u8>,
    exit_signal: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::{ContainerType, Isolation, Nested, Source, Unknown},
        output::{ContainerRenderer, ContainerRow, ListOf, Look},
    };

    fn any_listed() -> impl Strategy<Value = Listed> {
        let labels = prop::option::of(prop::collection::btree_map(any::<String>(), any::<String>(), 0..3));
        let pod =
            (any::<String>(), any::<String>(), any::<Option<String>>(), any::<Option<String>>(), labels);
        let container = (any::<String>(), any::<String>(), any::<Option<String>>(), any::<Option<String>>());
        let event =
            prop::option::of(prop::sample::select(vec![ContainerEvent::Added, ContainerEvent::Deleted]));
        let event = (event, prop::collection::vec(any::<String>(), 0..3));
        let started = prop::option::of(0..1_900_000_000_000_000_000_i128);
        let status =
            prop_oneof![any::<u8>().prop_map(ExitStatus::Code), (1..=127_u8).prop_map(ExitStatus::Signal)];
        let exit = prop::option::of(status);
        (prop::option::of(pod), container, event, any::<u32>(), started, exit).prop_map(
            |(pod, (id, runtime, image, nested), (event, changed), pid, started, exit)| {
                let nested = nested.map(|id| Nested { id, runtime: "crun".into() });
                let pod = pod.map(|(namespace, name, pod_uid, container, labels)| Pod {
                    namespace,
                    name,
                    pod_uid,
                    container,
                    labels,
                });
                let container = Container {
                    id,
                    runtime,
                    image,
                    kind: ContainerType::Sandbox,
                    source: Source::State,
                    isolation: nested.as_ref().map(|_| Isolation::Kata),
                    inner: nested,
                    pod,
                    ..Container::unknown(Unknown::Missed)
                };
                Listed { event, changed, container, pid, started, exit }
            },
        )
    }

    proptest! {
        #[test]
        fn container_survives_json(listed in any_listed(), watch: bool) {
            let Listed { event, changed, container, pid, started, exit } = &listed;
            let changed = changed.iter().map(String::as_str).collect();
            let (event, pid, started, exit) = (*event, *pid, *started, *exit);
            let row = ContainerRow { node: "n", event, changed, container, pid, started, now: 0, exit };
            let mut renderer = ContainerRenderer::new(ListOf::Node, "json", "n", Look::plain(None), watch).unwrap();
            let mut out = Vec::new();
            renderer.begin(&[row], &mut out).unwrap();
            prop_assert_eq!(Listed::read(out.trim_ascii_end()).unwrap(), listed);
        }
    }

    #[test]
    fn missing_field_is_named() {
        let error = Listed::read(br#"{"node":"n","k8s":null,"pid":null,"startedAt":null}"#).unwrap_err();
        assert!(error.to_string().contains("`container`"), "{error}");
    }
}
