//! `cargo xtask kind`: the whole way on a real cluster. Two nodes, made by kind of containers, get the image and the
//! agent as users deploy it; pods on both open files, by themselves and by `kubectl exec`; `kubectl tracer` must tell
//! each under its right names; then all of it must be gone. The cluster is deleted however that ends.

mod cluster;
mod found;
mod workload;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::{
    build,
    dist::Target,
    image::{self, Engine},
    process::{name, quietly, succeed, target_dir},
    setup::{self, Scope},
};
use cluster::Cluster;
use found::Found;
use workload::{Expected, Sighting};

/// The exit code where the machine lacks what a cluster takes. tracer has the same for what a kernel lacks.
const CANNOT_HERE: u8 = 3;
/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// From its start until tracer has said that every node is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// From then on until all that was expected has been told.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
/// From its interruption until `kubectl tracer` has ended.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// From the end of `kubectl tracer undeploy` until the last of it is gone: a pod's grace period.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Builds, deploys, traces, looks, and removes all of it.
pub(crate) fn run() -> Result<ExitCode> {
    let missing = Found::look().missing();
    if !missing.is_empty() {
        eprintln!("cannot try a cluster here:\n  {}", missing.join("\n  "));
        return Ok(ExitCode::from(CANNOT_HERE));
    }
    setup::ensure(Scope::Kind)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("handling signals")?;
    }
    let result = perform(&interrupted);
    if interrupted.load(Ordering::Relaxed) {
        eprintln!("xtask: interrupted; the cluster is deleted");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn perform(interrupted: &AtomicBool) -> Result<()> {
    tell("building the image and kubectl-tracer");
    let target = Target::here()?;
    // No node asks a registry for it, and `deploy` takes no image that none could be asked for.
    let tag = format!("localhost/{}", image::tag());
    image::build(Engine::Docker, target, &tag)?;
    let client = build::kubectl_tracer(true)?;
    workload::build_image()?;

    let scratch = tempfile::tempdir()?;
    tell("making a cluster of two nodes");
    let cluster = Cluster::create(scratch.path(), &client)?;
    let result = try_out(&cluster, &tag, interrupted);
    if result.is_err() {
        let logs = target_dir().join("kind");
        eprintln!("xtask: the nodes' logs are in {}", logs.display());
        drop(quietly(&mut cluster.export_logs(&logs)));
    }
    result
}

fn try_out(cluster: &Cluster, tag: &str, interrupted: &AtomicBool) -> Result<()> {
    for image in [tag, workload::IMAGE] {
        succeed(&mut cluster.load(image))?;
    }
    let nodes = cluster.nodes()?;
    ensure!(nodes.len() == 2, "the cluster has not two nodes but {nodes:?}");

    tell("deploying tracer");
    succeed(&mut cluster.kubectl(&["tracer", "deploy", "--image", tag]))?;

    tell("starting a pod on each node");
    let manifests = cluster.path("pods.yaml");
    fs::write(&manifests, workload::manifests(&nodes)).context("writing the pods' manifests")?;
    let manifests = manifests.to_str().context("the temporary directory's name is not UTF-8")?;
    succeed(&mut cluster.kubectl(&["apply", "--filename", manifests]))?;
    let wait = ["wait", "--namespace", workload::NAMESPACE, "--for=condition=Ready", "pods", "--all"];
    succeed(cluster.kubectl(&wait).arg("--timeout=180s"))?;

    tell("tracing");
    trace(cluster, &nodes, interrupted)?;

    tell("removing tracer");
    succeed(&mut cluster.kubectl(&["tracer", "undeploy"]))?;
    let end = Instant::now() + GONE_WITHIN;
    loop {
        let left = left_behind(cluster, tag, &nodes)?;
        if left.is_empty() {
            break;
        }
        ensure!(Instant::now() < end, "left behind: {}", left.join(", "));
        ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
        thread::sleep(PAUSE);
    }
    tell("every event under its names, from both nodes; nothing is left");
    Ok(())
}

/// Starts `kubectl tracer`, has files opened in the pods, and waits until it has told each of them.
fn trace(cluster: &Cluster, nodes: &[String], interrupted: &AtomicBool) -> Result<()> {
    let mut command =
        cluster.kubectl(&["tracer", "trace", "open", "--namespace", workload::NAMESPACE, "--output", "json"]);
    let mut tracer = Tracer::start(&mut command)?;
    tracer.wait(
        "every node to be ready",
        READY_WITHIN,
        interrupted,
        |line| matches!(line, Line::Log(line) if line.starts_with("tracer: ready")),
    )?;
    let mut expected = Expected::new(nodes);
    for node in nodes {
        succeed(&mut cluster.kubectl(&workload::exec(node)))?;
    }
    let told = tracer.wait("all opens to be told", TOLD_WITHIN, interrupted, |line| match line {
        Line::Event(line) => Sighting::parse(line).is_some_and(|sighting| expected.tick(&sighting)),
        Line::Log(_) => false,
    });
    told.with_context(|| expected.to_string())?;
    expected.check()?;
    tracer.stop(interrupted)
}

/// What there should not be any more: pods of the agent, and its processes on the nodes.
fn left_behind(cluster: &Cluster, tag: &str, nodes: &[String]) -> Result<Vec<String>> {
    let pods =
        quietly(&mut cluster.kubectl(&["get", "pods,daemonsets", "--all-namespaces", "--output", "json"]))?;
    let mut left = workload::of_image(&pods, tag)?;
    for node in nodes {
        let comms = quietly(&mut cluster::comms(node))?;
        left.extend(comms.lines().filter(|comm| *comm == "tracer").map(|_| format!("a process on {node}")));
    }
    Ok(left)
}

/// A `kubectl tracer` that runs. Killed if it is not stopped.
struct Tracer {
    child: Child,
    lines: Receiver<Line>,
    log: Vec<String>,
}

/// What it has said.
enum Line {
    Event(String),
    Log(String),
}

impl Tracer {
    fn start(command: &mut Command) -> Result<Self> {
        let shown = name(command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {shown}"))?;
        let (to, lines) = mpsc::channel();
        let stdout = child.stdout.take().context("its standard output is not a pipe")?;
        let stderr = child.stderr.take().context("its standard error is not a pipe")?;
        let events = to.clone();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).all(|l| events.send(Line::Event(l)).is_ok())
        });
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).all(|l| to.send(Line::Log(l)).is_ok())
        });
        Ok(Self { child, lines, log: Vec::new() })
    }

    /// Reads on until `done` says that a line was the last that was waited for.
    fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        interrupted: &AtomicBool,
        mut done: impl FnMut(&Line) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
            match self.lines.recv_timeout(PAUSE) {
                Ok(line) => {
                    if let Line::Log(line) = &line {
                        eprintln!("{line}");
                        self.log.push(line.clone());
                    }
                    if done(&line) {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("waiting for {what}, but it has ended"),
            }
            ensure!(Instant::now() < end, "waited {} s for {what}", limit.as_secs());
        }
    }

    /// As Ctrl-C does. It must end well, and its closing line must add up.
    fn stop(mut self, interrupted: &AtomicBool) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)
            .context("stopping kubectl tracer")?;
        let mut closing = None;
        self.wait("the closing line", ENDS_WITHIN, interrupted, |line| {
            if let Line::Log(line) = line {
                closing = workload::adds_up(line);
            }
            closing.is_some()
        })?;
        ensure!(closing == Some(true), "the closing line does not add up: {}", self.log.join("\n"));
        let status = self.child.wait()?;
        ensure!(status.success(), "kubectl tracer ended with {status}");
        Ok(())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn tell(what: &str) {
    eprintln!("xtask: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A shell that is ready, and says something when it is interrupted.
    fn tracer(closing: &str) -> Tracer {
        let script = format!(
            "trap 'echo {closing} >&2; exit 0' INT; echo 'tracer: ready: 2 nodes' >&2; while :; do sleep 0.01; done"
        );
        let mut tracer = Tracer::start(Command::new("sh").args(["-c", &script])).unwrap();
        let ready = |line: &Line| matches!(line, Line::Log(line) if line.starts_with("tracer: ready"));
        tracer.wait("it to be ready", LIMIT, &AtomicBool::new(false), ready).unwrap();
        tracer
    }

    #[test]
    fn its_closing_line_must_add_up() {
        let stop = |closing| tracer(closing).stop(&AtomicBool::new(false)).map_err(|error| error.to_string());
        stop("tracer: seen 3 emitted 1 filtered 2 lost 0").unwrap();
        let error = stop("tracer: seen 3 emitted 1 filtered 1 lost 0").unwrap_err();
        assert!(error.contains("does not add up") && error.contains("seen 3"), "{error}");
        assert!(stop("well").unwrap_err().contains("it has ended"));
    }

    #[test]
    fn nobody_waits_for_what_cannot_come() {
        let wait = |interrupted: bool, limit| {
            let mut tracer = tracer("well");
            let waited = tracer.wait("news", limit, &AtomicBool::new(interrupted), |_| false);
            waited.unwrap_err().to_string()
        };
        assert_eq!(wait(false, Duration::ZERO), "waited 0 s for news");
        assert_eq!(wait(true, LIMIT), "interrupted");
        let mut ended = Tracer::start(&mut Command::new("true")).unwrap();
        let waited = ended.wait("news", LIMIT, &AtomicBool::new(false), |_| false);
        assert_eq!(waited.unwrap_err().to_string(), "waiting for news, but it has ended");
    }
}
