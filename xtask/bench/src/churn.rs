//! Figure 8: containers that open three files and end, as fast as they can be started.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use harness::{Bundle, Pod, Runtime, scratch};
use serde::Serialize;
use serde_json::Value;

use crate::{
    cpu,
    figures::{Figure, Verdict},
    interrupt, load,
    subject::{Output, Setting, Summary},
};

/// Files that each opens.
const FILES: usize = 3;

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Churn {
    runs: usize,
    seconds: f64,
    /// Containers all of whose files were told.
    complete: usize,
    /// Events of these containers, and those of them under the right name.
    events: usize,
    right: usize,
    summary: Summary,
}

/// Runs `count` containers.
pub(crate) fn run(setting: &Setting, program: &Path, count: usize) -> Result<Churn> {
    eprintln!("bench: {count} runs of a container that opens three files");
    let namespace = scratch::unique("churn");
    let pod = |number: usize| Pod::inside(&namespace, &format!("pod-{number}"), "churn");
    // The path says which container opens it.
    let arguments = |number: usize| format!("{namespace}-{number}");
    let first = load::bundle(&pod(0), program, &["three-files", &arguments(0)]);
    let mut bundles: Vec<Bundle> = (1..count)
        .map(|number| load::sibling(&first, &pod(number), &["three-files", &arguments(number)]))
        .collect();
    // The others use its root file system: it goes last. Its number is 0.
    bundles.push(first);
    let number_of = |index: usize| (index + 1) % count;

    let command = setting.tracer("open", &namespace, "json");
    let mut session = setting.start_tracer(command, Output::File)?;
    let runtime = Runtime::runc();
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    cpu::with_all(|| {
        let workers = thread::available_parallelism().map_or(2, usize::from) * 2;
        let worker = || -> Result<()> {
            while let Some(bundle) = bundles.get(next.fetch_add(1, Ordering::Relaxed)) {
                interrupt::check()?;
                let mut run = runtime.command();
                run.args(["run", "--bundle"]).arg(bundle.path()).arg(&bundle.id);
                let output = run.stdin(Stdio::null()).output().context("starting runc")?;
                let said = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "`runc run` ended with {}: {said}", output.status);
            }
            Ok(())
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let summary = session.stop()?.context("tracer has no closing summary")?;

    let ids: HashMap<&str, usize> =
        bundles.iter().enumerate().map(|(index, bundle)| (bundle.id.as_str(), number_of(index))).collect();
    let mut tally = Tally::new(&namespace, ids, count);
    for line in BufReader::new(session.written()?).lines() {
        let line = line.context("reading what tracer wrote")?;
        tally.add(&serde_json::from_str(&line).with_context(|| format!("tracer wrote {line}"))?);
    }
    let complete = tally.opened.iter().filter(|opened| **opened == FILES).count();
    Ok(Churn { runs: count, seconds, complete, events: tally.events, right: tally.right, summary })
}

/// Whose events are whose.
struct Tally<'a> {
    namespace: &'a str,
    ids: HashMap<&'a str, usize>,
    events: usize,
    right: usize,
    /// Files told, by container.
    opened: Vec<usize>,
}

impl<'a> Tally<'a> {
    fn new(namespace: &'a str, ids: HashMap<&'a str, usize>, count: usize) -> Self {
        Self { namespace, ids, events: 0, right: 0, opened: vec![0; count] }
    }

    /// Counts an event that these containers have made, or that is said to be theirs.
    fn add(&mut self, event: &Value) {
        let Some(path) = event["open"]["path"].as_str() else { return };
        let opener = self.opener(path);
        let named = event["container"]["id"].as_str().and_then(|id| self.ids.get(id).copied());
        if opener.is_none() && named.is_none() {
            return;
        }
        self.events += 1;
        let pod = named.map(|number| format!("pod-{number}"));
        let is_pod =
            event["k8s"]["namespace"] == self.namespace && event["k8s"]["pod"].as_str() == pod.as_deref();
        // What a container opens besides (nothing, as a rule) has no name in it.
        let is_opener = opener.is_none() || opener == named;
        if named.is_some() && is_pod && is_opener {
            self.right += 1;
            if let Some(opened) = opener.and_then(|number| self.opened.get_mut(number)) {
                *opened += 1;
            }
        }
    }

    /// The number of the container that opens that path.
    fn opener(&self, path: &str) -> Option<usize> {
        let rest = path.strip_prefix('/')?.strip_prefix(self.namespace)?.strip_prefix('-')?;
        rest.split('/').next()?.parse().ok()
    }
}

impl Churn {
    pub(crate) fn figure(&self) -> Figure {
        #[expect(clippy::cast_precision_loss, reason = "small enough")]
        let right = 100.0 * self.right as f64 / self.events.max(1) as f64;
        #[expect(clippy::cast_precision_loss, reason = "small enough")]
        let rate = self.runs as f64 / self.seconds;
        Figure {
            number: Some(8),
            title: format!("{} × `runc run` of a program that opens three files", self.runs),
            measured: format!(
                "{} complete, {right:.2} % of {} events right, {} lost, {rate:.0} runs a second",
                self.complete, self.events, self.summary.lost
            ),
            target: "all complete, 100 % right".into(),
            verdict: Verdict::met(self.complete == self.runs && self.right == self.events),
            value: Some(right),
            rounds: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(path: &str, id: &str, pod: &str) -> Value {
        json!({
            "event": "open",
            "k8s": {"namespace": "churn-x-0", "pod": pod},
            "container": {"id": id},
            "open": {"path": path},
        })
    }

    #[test]
    fn event_under_a_strange_name_is_wrong() {
        let mut tally = Tally::new("churn-x-0", HashMap::from([("id-0", 0), ("id-1", 1)]), 2);
        tally.add(&event("/churn-x-0-1/a", "id-1", "pod-1"));
        tally.add(&event("/etc/passwd", "id-1", "pod-1"));
        assert_eq!((tally.events, tally.right, &tally.opened[..]), (2, 2, &[0, 1][..]));
        // Another container of ours, its pod alone, one that is not ours, none.
        tally.add(&event("/churn-x-0-1/b", "id-0", "pod-0"));
        tally.add(&event("/churn-x-0-1/b", "id-1", "pod-0"));
        tally.add(&event("/churn-x-0-1/b", "stranger", "pod-1"));
        tally.add(&json!({"container": null, "k8s": null, "open": {"path": "/churn-x-0-1/b"}}));
        assert_eq!((tally.events, tally.right, &tally.opened[..]), (6, 2, &[0, 1][..]));
    }

    #[test]
    fn events_of_others_do_not_count() {
        let mut tally = Tally::new("churn-x-0", HashMap::from([("id-0", 0)]), 1);
        tally.add(&event("/etc/passwd", "stranger", "pod-9"));
        tally.add(&json!({"event": "lost", "lost": {"count": 3}}));
        assert_eq!((tally.events, tally.right), (0, 0));
    }
}
