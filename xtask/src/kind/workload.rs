//! What runs in the cluster to be traced, and what must be told of it: on each node a pod that opens a file again and
//! again, and one that `kubectl exec` opens in it.

use std::{fmt, fs};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{image::Engine, process::succeed, setup::machine::static_busybox};

/// What the pods are made of: busybox alone, so that no registry is asked.
pub(super) const IMAGE: &str = "tracer-xtask-busybox:1";
/// Theirs alone.
pub(super) const NAMESPACE: &str = "tracer-xtask";
const CONTAINER: &str = "reader";
/// Opened in a loop.
const IN_A_LOOP: &str = "/opened-in-a-loop";
/// Opened by `kubectl exec`.
const BY_EXEC: &str = "/opened-by-exec";

/// Builds [`IMAGE`].
pub(super) fn build_image() -> Result<()> {
    let busybox = static_busybox().context("there is no static busybox")?;
    let context = tempfile::tempdir()?;
    fs::copy(busybox, context.path().join("busybox")).context("copying busybox")?;
    fs::write(context.path().join("Dockerfile"), "FROM scratch\nCOPY busybox /bin/busybox\n")?;
    let mut build = Engine::Docker.command();
    build.args(["build", "--quiet", "--tag", IMAGE]).arg(context.path());
    succeed(build.stdout(std::io::stderr()))
}

/// The pod on that node.
fn pod(node: &str) -> String {
    format!("reader-on-{node}")
}

/// A namespace, and in it a pod on each of the nodes, whatever they are tainted with.
pub(super) fn manifests(nodes: &[String]) -> String {
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n");
    let pod = |node: &String| {
        format!(
            "---
apiVersion: v1
kind: Pod
metadata:
  name: {pod}
  namespace: {NAMESPACE}
spec:
  nodeName: {node}
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  tolerations:
    - operator: Exists
  containers:
    - name: {CONTAINER}
      image: {IMAGE}
      imagePullPolicy: Never
      command: [/bin/busybox, sh, -c]
      args: ['while :; do /bin/busybox cat {IN_A_LOOP} 2>/dev/null; /bin/busybox sleep 1; done']
",
            pod = pod(node),
        )
    };
    [namespace].into_iter().chain(nodes.iter().map(pod)).collect()
}

/// What kubectl is called with to have [`BY_EXEC`] opened on a node. There is no such file, which is no failure.
pub(super) fn exec(node: &str) -> Vec<String> {
    let script = format!("/bin/busybox cat {BY_EXEC} 2>/dev/null || true");
    let pod = pod(node);
    [
        "exec",
        "--namespace",
        NAMESPACE,
        &pod,
        "--container",
        CONTAINER,
        "--",
        "/bin/busybox",
        "sh",
        "-c",
        &script,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// An open that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sighting {
    node: String,
    path: String,
    namespace: String,
    pod: String,
    container: String,
}

impl Sighting {
    /// From a line of JSON; none if it is something else, such as a loss.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (event["event"] == "open").then(|| Self {
            node: text(&event["node"]),
            path: text(&event["open"]["path"]),
            namespace: text(&event["k8s"]["namespace"]),
            pod: text(&event["k8s"]["pod"]),
            container: text(&event["k8s"]["container"]),
        })
    }
}

/// What must be told, and has not been yet.
#[derive(Debug)]
pub(super) struct Expected {
    missing: Vec<Sighting>,
    /// The first of those that have one of our paths, but other names than they should.
    wrong: Option<Sighting>,
}

impl Expected {
    pub(super) fn new(nodes: &[String]) -> Self {
        let on = |node: &String, path: &str| Sighting {
            node: node.clone(),
            path: path.to_owned(),
            namespace: NAMESPACE.to_owned(),
            pod: pod(node),
            container: CONTAINER.to_owned(),
        };
        let missing = nodes.iter().flat_map(|node| [on(node, IN_A_LOOP), on(node, BY_EXEC)]).collect();
        Self { missing, wrong: None }
    }

    /// Takes note of an event. Returns whether no more need be waited for: all was told, or something wrong.
    pub(super) fn tick(&mut self, event: &Sighting) -> bool {
        self.missing.retain(|missing| missing != event);
        let ours = [IN_A_LOOP, BY_EXEC].contains(&event.path.as_str());
        let named =
            event.namespace == NAMESPACE && event.container == CONTAINER && event.pod == pod(&event.node);
        if ours && !named && self.wrong.is_none() {
            self.wrong = Some(event.clone());
        }
        self.missing.is_empty() || self.wrong.is_some()
    }

    /// Fails unless all has been told, and nothing under a wrong name.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.missing.is_empty() && self.wrong.is_none(), "{self}");
        Ok(())
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(wrong) = &self.wrong {
            return write!(f, "told under a wrong name: {wrong:?}");
        }
        write!(f, "not told: {:?}", self.missing)
    }
}

/// Whether a closing line adds up; none if it is another line.
pub(super) fn adds_up(line: &str) -> Option<bool> {
    let counts = line.strip_prefix("tracer: seen ")?;
    let words: Vec<&str> = counts.split_whitespace().collect();
    let [seen, "emitted", emitted, "filtered", filtered, "lost", lost, ..] = words[..] else { return None };
    let number = |word: &str| word.parse::<u64>().ok();
    Some(number(seen)? == number(emitted)?.checked_add(number(filtered)?)?.checked_add(number(lost)?)?)
}

/// Of a list of `kubectl get -o json`, what runs that image.
pub(super) fn of_image(list: &str, image: &str) -> Result<Vec<String>> {
    let list: Value = serde_json::from_str(list).context("kubectl did not answer in JSON")?;
    let items = list["items"].as_array().context("kubectl did not answer with a list")?;
    let spec = |item: &Value| match item["kind"].as_str() {
        Some("Pod") => item["spec"].clone(),
        _ => item["spec"]["template"]["spec"].clone(),
    };
    let runs = |item: &Value| {
        let containers = spec(item)["containers"].as_array().cloned().unwrap_or_default();
        containers.iter().any(|container| container["image"] == image)
    };
    let shown = |item: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let (kind, metadata) = (text(&item["kind"]), &item["metadata"]);
        format!("{kind} {}/{}", text(&metadata["namespace"]), text(&metadata["name"]))
    };
    ensure!(!items.is_empty(), "kubectl lists no pod at all, not even Kubernetes' own");
    Ok(items.iter().filter(|item| runs(item)).map(shown).collect())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;

    use super::*;

    fn nodes() -> [String; 2] {
        ["c1-control-plane".to_owned(), "c1-worker".to_owned()]
    }

    fn event(node: &str, pod: &str, path: &str) -> Sighting {
        let line = format!(
            r#"{{"event":"open","node":"{node}","k8s":{{"namespace":"{NAMESPACE}","pod":"{pod}","container":"{CONTAINER}"}},"open":{{"path":"{path}"}}}}"#
        );
        Sighting::parse(&line).unwrap()
    }

    #[test]
    fn each_node_has_a_pod_and_needs_no_registry() {
        let manifests = manifests(&nodes());
        let documents = serde_yaml_ng::Deserializer::from_str(&manifests);
        let documents: Vec<_> =
            documents.map(|one| serde_yaml_ng::Value::deserialize(one).unwrap()).collect();
        assert_eq!(documents.len(), 3);
        for (document, node) in documents[1..].iter().zip(nodes()) {
            assert_eq!(document["spec"]["nodeName"], node.as_str());
            assert_eq!(document["metadata"]["name"], pod(&node).as_str());
            assert_eq!(document["spec"]["containers"][0]["imagePullPolicy"], "Never");
            let script = document["spec"]["containers"][0]["args"][0].as_str().unwrap();
            assert!(script.contains(IN_A_LOOP), "{script}");
            let exec = exec(&node);
            assert!(exec.contains(&pod(&node)) && exec.last().unwrap().contains(BY_EXEC), "{exec:?}");
        }
    }

    #[test]
    fn everything_must_be_told_from_both_nodes() {
        let mut expected = Expected::new(&nodes());
        for node in nodes() {
            for path in [IN_A_LOOP, BY_EXEC] {
                assert!(expected.check().is_err());
                assert!(!expected.tick(&event(&node, &pod(&node), "/etc/hosts")));
                expected.tick(&event(&node, &pod(&node), path));
            }
        }
        assert!(expected.tick(&event("any", "other", "/etc/hosts")));
        expected.check().unwrap();
    }

    #[test]
    fn a_wrong_name_is_no_success() {
        let [one, other] = nodes();
        let mut expected = Expected::new(&nodes());
        for (node, pod_of) in [(&one, &one), (&other, &other), (&one, &other)] {
            for path in [IN_A_LOOP, BY_EXEC] {
                expected.tick(&event(node, &pod(pod_of), path));
            }
        }
        let error = expected.check().unwrap_err().to_string();
        assert!(error.starts_with("told under a wrong name") && error.contains(&pod(&other)), "{error}");
    }

    #[test]
    fn losses_are_no_opens() {
        assert_eq!(Sighting::parse(r#"{"event":"lost","lost":{"count":3}}"#), None);
        assert_eq!(Sighting::parse("tracer: ready"), None);
    }

    #[test]
    fn closing_lines_are_added_up() {
        assert_eq!(adds_up("tracer: seen 10 emitted 4 filtered 5 lost 1"), Some(true));
        assert_eq!(adds_up("tracer: seen 10 emitted 4 filtered 5 lost 0"), Some(false));
        for line in ["tracer: ready", "tracer: seen much", ""] {
            assert_eq!(adds_up(line), None, "{line}");
        }
    }

    #[test]
    fn pods_and_daemonsets_of_the_image_are_found() {
        let list = r#"{"items":[
            {"kind":"Pod","metadata":{"namespace":"a","name":"p"},"spec":{"containers":[{"image":"tracer:1"}]}},
            {"kind":"Pod","metadata":{"namespace":"a","name":"q"},"spec":{"containers":[{"image":"tracer:2"}]}},
            {"kind":"DaemonSet","metadata":{"namespace":"b","name":"d"},
             "spec":{"template":{"spec":{"containers":[{"image":"tracer:1"}]}}}}]}"#;
        assert_eq!(of_image(list, "tracer:1").unwrap(), ["Pod a/p", "DaemonSet b/d"]);
        assert!(of_image(r#"{"items":[]}"#, "tracer:1").is_err());
    }
}
