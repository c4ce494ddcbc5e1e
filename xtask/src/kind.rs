//! `cargo xtask kind`: tracer on a real cluster, as users deploy it.
//!
//! kind makes two nodes of containers. They get the image and the agent; pods on both open files, by themselves and by
//! `kubectl exec`; `kubectl tracer` must show each open under the right names; after `undeploy` nothing may be left. The
//! cluster is deleted in any case.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use xshell::{Cmd, Shell, cmd};

use crate::{
    cargo,
    dist::Target,
    image,
    pins::{KIND, KIND_NODE},
    process::{quietly, target_dir},
    setup::{self, Scope},
};

/// Exit code where the machine lacks something that a cluster takes. tracer has the same for what a kernel lacks.
const NOT_POSSIBLE: u8 = 3;
/// How long to wait for each of the things that happen by themselves.
const LIMIT: Duration = Duration::from_secs(60);

const CONFIG: &str = "\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
  - role: worker
";

const NAMESPACE: &str = "tracer-xtask";
const CONTAINER: &str = "reader";
/// Image of the pods: busybox alone, so that no registry is asked.
const BUSYBOX: &str = "tracer-xtask-busybox:1";
/// The pods open the first file in a loop, `kubectl exec` opens the second. Neither exists.
const PATHS: [&str; 2] = ["/opened-in-a-loop", "/opened-by-exec"];

/// Builds, deploys, traces, and removes everything.
pub(crate) fn run(sh: &Shell) -> Result<ExitCode> {
    let missing = missing(sh);
    if !missing.is_empty() {
        eprintln!("cannot make a cluster here:\n  {}", missing.join("\n  "));
        return Ok(ExitCode::from(NOT_POSSIBLE));
    }
    setup::ensure(sh, Scope::Kind)?;
    // Ctrl-C ends the commands that run; this process stays to delete the cluster.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }

    tell("building the image and kubectl-tracer");
    // With `localhost`, nodes do not ask a registry for it.
    let tag = format!("localhost/{}", image::tag());
    image::build(sh, "docker", Target::here()?, &tag)?;
    build_busybox(sh)?;
    let client = cargo::tracer_and_client(sh)?;

    let scratch = tempfile::tempdir()?;
    tell("making a cluster of two nodes");
    let cluster = Cluster::create(sh, scratch.path(), client.parent().context("it is in a directory")?)?;
    let result = cluster.try_out(&tag, &interrupted);
    if result.is_err() {
        let logs = target_dir().join("kind");
        drop(quietly(cluster.kind(&["export", "logs"]).arg(&logs)));
        eprintln!("xtask: the nodes' logs are in {}", logs.display());
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// What is missing to make a cluster, a line each. Downloads the image of nodes.
fn missing(sh: &Shell) -> Vec<String> {
    let mut missing = Vec::new();
    let version = quietly(cmd!(sh, "kind version --quiet")).unwrap_or_else(|_| "none".to_owned());
    if version.trim().trim_start_matches('v') != KIND {
        let install = format!("go install sigs.k8s.io/kind@v{KIND}");
        missing.push(format!("kind {KIND} (found {}): `{install}`, or its release", version.trim()));
    }
    if which::which("kubectl").is_err() {
        missing.push("kubectl: from your distribution, or a release of Kubernetes".to_owned());
    }
    if !image::works(sh, "docker") {
        missing.push("docker, with its daemon running and answering this user".to_owned());
    } else if missing.is_empty() {
        let has_image = quietly(cmd!(sh, "docker image inspect {KIND_NODE}")).is_ok();
        if !has_image && cmd!(sh, "docker pull {KIND_NODE}").run().is_err() {
            missing.push(format!("the image of nodes, {KIND_NODE}: it cannot be downloaded"));
        }
    }
    missing
}

fn build_busybox(sh: &Shell) -> Result<()> {
    let busybox = setup::static_busybox().context("there is no static busybox")?;
    let context = tempfile::tempdir()?;
    fs::copy(busybox, context.path().join("busybox"))?;
    fs::write(context.path().join("Dockerfile"), "FROM scratch\nCOPY busybox /bin/busybox\n")?;
    let context = context.path();
    quietly(cmd!(sh, "docker build --quiet --tag {BUSYBOX} {context}")).map(drop)
}

/// A cluster, deleted when dropped. The user's own configuration of kubectl is not touched.
struct Cluster<'a> {
    sh: &'a Shell,
    name: String,
    scratch: PathBuf,
    /// `PATH` on which kubectl finds its plugin.
    path: OsString,
}

impl<'a> Cluster<'a> {
    fn create(sh: &'a Shell, scratch: &Path, plugins: &Path) -> Result<Self> {
        let mut path = plugins.as_os_str().to_owned();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let name = format!("tracer-xtask-{}", std::process::id());
        let cluster = Self { sh, name, scratch: scratch.to_owned(), path };
        // From here on it is deleted, even if only half of it was made.
        let create = ["create", "cluster", "--image", KIND_NODE, "--config", "-", "--wait", "180s"];
        cluster.kind(&create).stdin(CONFIG).run()?;
        Ok(cluster)
    }

    fn kind(&self, arguments: &[&str]) -> Cmd<'a> {
        let name = &self.name;
        let command = cmd!(self.sh, "kind {arguments...} --name {name}");
        command.env("KUBECONFIG", self.scratch.join("kubeconfig"))
    }

    fn kubectl(&self, arguments: &[&str]) -> Cmd<'a> {
        let command = cmd!(self.sh, "kubectl {arguments...}").env("PATH", &self.path);
        command.env("KUBECONFIG", self.scratch.join("kubeconfig"))
    }

    fn try_out(&self, tag: &str, interrupted: &AtomicBool) -> Result<()> {
        for image in [tag, BUSYBOX] {
            self.kind(&["load", "docker-image", image]).run()?;
        }
        let nodes = quietly(self.kind(&["get", "nodes"]))?;
        let nodes: Vec<&str> = nodes.lines().collect();
        ensure!(nodes.len() == 2, "the cluster has these nodes, not two: {nodes:?}");

        self.kubectl(&["tracer", "deploy", "--image", tag]).run()?;
        let manifests: String = nodes.iter().map(|node| manifest(node)).collect();
        self.kubectl(&["create", "namespace", NAMESPACE]).run()?;
        self.kubectl(&["apply", "--filename", "-"]).stdin(manifests).run()?;
        let wait = ["wait", "--namespace", NAMESPACE, "--for=condition=Ready", "pods", "--all"];
        self.kubectl(&wait).arg("--timeout=180s").run()?;

        self.trace(&nodes, interrupted)?;

        self.kubectl(&["tracer", "undeploy"]).run()?;
        let mut left = Vec::new();
        let gone = poll(interrupted, "nothing to be left", || {
            left = self.left_behind(tag, &nodes)?;
            Ok(left.is_empty())
        });
        gone.with_context(|| format!("left behind: {}", left.join(", ")))?;
        tell("every event under its names, from both nodes; nothing is left");
        Ok(())
    }

    /// Starts `kubectl tracer`, has files opened in the pods, and waits until it has shown each of these opens.
    fn trace(&self, nodes: &[&str], interrupted: &AtomicBool) -> Result<()> {
        tell("tracing");
        let (events, log) = (self.scratch.join("events"), self.scratch.join("log"));
        let trace = self.kubectl(&["tracer", "trace", "open", "--namespace", NAMESPACE, "--output", "json"]);
        let mut command = Command::from(trace);
        command.stdin(Stdio::null()).stdout(File::create(&events)?).stderr(File::create(&log)?);
        let mut tracer = Killed(command.spawn().context("cannot start kubectl")?);
        let read_log = || fs::read_to_string(&log).unwrap_or_default();
        let mut is_ready = || {
            ensure!(tracer.0.try_wait()?.is_none(), "kubectl tracer ended: {}", read_log());
            Ok(read_log().lines().any(|line| line.starts_with("tracer: ready")))
        };
        poll(interrupted, "every node to be ready", &mut is_ready)?;

        for node in nodes {
            let (pod, script) = (pod(node), format!("/bin/busybox cat {} 2>/dev/null || true", PATHS[1]));
            let exec = ["exec", "--namespace", NAMESPACE, &pod, "--container", CONTAINER];
            self.kubectl(&exec).args(["--", "/bin/busybox", "sh", "-c", &script]).run()?;
        }
        let mut missing = expected(nodes);
        let complete = poll(interrupted, "all opens to be shown", || {
            missing = compare(&expected(nodes), &fs::read_to_string(&events)?)?;
            Ok(missing.is_empty())
        });
        complete.with_context(|| format!("not shown: {missing:?}"))?;

        kill_process(Pid::from_child(&tracer.0), Signal::INT)?;
        poll(interrupted, "kubectl tracer to end", || Ok(tracer.0.try_wait()?.is_some()))?;
        let status = tracer.0.wait()?;
        ensure!(status.success(), "kubectl tracer failed ({status}): {}", read_log());
        let log = read_log();
        let closing = log.lines().find_map(adds_up).context("kubectl tracer printed no closing line")?;
        ensure!(closing, "the closing line does not add up: {log}");
        Ok(())
    }

    /// What should be gone: objects with the agent's image, and its processes on the nodes.
    fn left_behind(&self, tag: &str, nodes: &[&str]) -> Result<Vec<String>> {
        let list = self.kubectl(&["get", "pods,daemonsets", "--all-namespaces", "--output", "json"]);
        let list: Value = serde_json::from_str(&quietly(list)?)?;
        let items = list["items"].as_array().context("kubectl printed no list")?;
        ensure!(!items.is_empty(), "kubectl lists no pod at all, not even those of Kubernetes itself");
        let with_image = items.iter().filter(|item| item["spec"].to_string().contains(tag));
        let mut left: Vec<String> =
            with_image.map(|item| format!("{} {}", item["kind"], item["metadata"]["name"])).collect();
        for node in nodes {
            // A process may end meanwhile.
            let script = "cat /proc/[0-9]*/comm 2>/dev/null; true";
            let comms = quietly(cmd!(self.sh, "docker exec {node} sh -c {script}"))?;
            left.extend(
                comms.lines().filter(|comm| *comm == "tracer").map(|_| format!("a process on {node}")),
            );
        }
        Ok(left)
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.kind(&["delete", "cluster"]).run() {
            eprintln!("error: {error:#}\n`kind delete cluster --name {}` deletes the cluster", self.name);
        }
    }
}

/// A process, killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn pod(node: &str) -> String {
    format!("reader-on-{node}")
}

/// The pod on that node, whatever the node is tainted with.
fn manifest(node: &str) -> String {
    let (pod, path) = (pod(node), PATHS[0]);
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
      image: {BUSYBOX}
      imagePullPolicy: Never
      command: [/bin/busybox, sh, -c]
      args: ['while :; do /bin/busybox cat {path} 2>/dev/null; /bin/busybox sleep 1; done']
"
    )
}

/// Node, namespace, pod, container and path of an open.
type Open = [String; 5];

fn expected(nodes: &[&str]) -> BTreeSet<Open> {
    let on = |node: &str, path: &str| [node, NAMESPACE, &pod(node), CONTAINER, path].map(str::to_owned);
    nodes.iter().flat_map(|node| PATHS.map(|path| on(node, path))).collect()
}

/// The expected opens that are not among these events. One of our paths under other names is an error.
fn compare(expected: &BTreeSet<Open>, events: &str) -> Result<BTreeSet<Open>> {
    let mut missing = expected.clone();
    // The last line may be incomplete.
    for event in events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let k8s = &event["k8s"];
        let open =
            [&event["node"], &k8s["namespace"], &k8s["pod"], &k8s["container"], &event["open"]["path"]]
                .map(|value| value.as_str().unwrap_or_default().to_owned());
        ensure!(
            expected.contains(&open) || !PATHS.contains(&open[4].as_str()),
            "shown under a wrong name: {open:?}"
        );
        missing.remove(&open);
    }
    Ok(missing)
}

/// Whether a closing line adds up; `None` if it is another line.
fn adds_up(line: &str) -> Option<bool> {
    let words: Vec<&str> = line.strip_prefix("tracer: seen ")?.split_whitespace().collect();
    let [seen, "emitted", emitted, "filtered", filtered, "lost", lost, ..] = words[..] else { return None };
    let [emitted, filtered, lost] = [emitted, filtered, lost].map(|word| word.parse::<u64>().ok());
    Some(seen.parse::<u64>().ok()? == emitted?.checked_add(filtered?)?.checked_add(lost?)?)
}

/// Waits until `done`.
fn poll(interrupted: &AtomicBool, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !done()? {
        ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
        ensure!(Instant::now() < end, "waited {} s for {what}", LIMIT.as_secs());
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn tell(what: &str) {
    eprintln!("xtask: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_open_must_be_shown_under_its_names() {
        let nodes = ["c1-control-plane", "c1-worker"];
        let event = |[node, namespace, pod, container, path]: [&str; 5]| {
            format!(
                r#"{{"event":"open","node":"{node}","k8s":{{"namespace":"{namespace}","pod":"{pod}","container":"{container}"}},"open":{{"path":"{path}"}}}}"#
            ) + "\n"
        };
        let expected = expected(&nodes);
        assert_eq!(expected.len(), 4);
        let all: String = expected.iter().map(|open| event(open.each_ref().map(String::as_str))).collect();
        let noise = event(["c1-worker", "other", "p", "c", "/etc/hosts"]) + "{\"event\":\"lo";
        assert!(compare(&expected, &(all.clone() + &noise)).unwrap().is_empty());
        assert_eq!(compare(&expected, &noise).unwrap().len(), 4);
        let wrong = event(["c1-worker", NAMESPACE, "reader-on-c1-control-plane", CONTAINER, PATHS[0]]);
        assert!(compare(&expected, &(all + &wrong)).is_err());
    }

    #[test]
    fn closing_lines_are_added_up() {
        assert_eq!(adds_up("tracer: seen 10 emitted 4 filtered 5 lost 1"), Some(true));
        assert_eq!(adds_up("tracer: seen 10 emitted 4 filtered 5 lost 0"), Some(false));
        assert_eq!(adds_up("tracer: ready"), None);
    }
}
