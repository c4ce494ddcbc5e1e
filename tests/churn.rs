//! Containers by the hundred, as fast as they can be started: every event of every one, under its
//! own name.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use harness::need::RUNC;
use harness::scratch::unique;
use harness::{Bundle, Pod, Runtime, Suite, Tracer, wait};
use serde_json::Value;

/// How many start containers at the same time.
const WORKERS: usize = 4;
/// What each container opens, below a directory that bears its number.
const FILES: [&str; 3] = ["a", "b", "c"];

fn main() -> ExitCode {
    Suite::new()
        .test("a_thousand_containers", RUNC, || thousand(0))
        .test("a_thousand_containers_among_twenty_busy_ones", RUNC, || thousand(20))
        .test("tracer_started_in_the_middle", RUNC, middle)
        .run()
}

/// Containers that are to be run, each of a pod of its own.
struct Herd {
    mark: String,
    bundles: Vec<Bundle>,
    next: AtomicUsize,
}

impl Herd {
    fn new(count: usize) -> Self {
        let (mark, namespace) = (format!("/{}", unique("churn")), unique("t"));
        // One root file system for all.
        let first = Bundle::plain(&["/bin/true"]);
        let mut bundles: Vec<Bundle> = (0..count)
            .map(|number| {
                let pod = Pod::inside(&namespace, &format!("pod-{number}"), "app");
                let script = FILES.map(|file| format!("true < {mark}/{number}/{file}")).join("; ");
                first.sibling(&pod, &["/bin/sh", "-c", &script])
            })
            .collect();
        // Behind those that have a number; it is dropped last.
        bundles.push(first);
        Self { mark, bundles, next: AtomicUsize::new(0) }
    }

    fn count(&self) -> usize {
        self.bundles.len() - 1
    }

    /// Runs all that are left, calling `begin` with the number of each before it is started.
    fn run(&self, begin: impl Fn(usize) + Sync) {
        thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    let runtime = Runtime::runc();
                    loop {
                        let number = self.next.fetch_add(1, Ordering::SeqCst);
                        if number >= self.count() {
                            return;
                        }
                        begin(number);
                        let output = runtime.run(&self.bundles[number]);
                        let last = format!("{}/{number}/{}", self.mark, FILES[2]);
                        assert!(output.stderr.contains(&last), "container {number} did not run: {output:?}");
                    }
                });
            }
        });
    }

    /// The number of the container that opened this path; `None` when it is none of ours.
    fn number_of(&self, path: &str) -> Option<usize> {
        path.strip_prefix(&self.mark)?.strip_prefix('/')?.split('/').next()?.parse().ok()
    }

    /// Fails unless whatever is said of these containers is right: each event under the name of the container that
    /// made it, and none of others under theirs. Returns what each of them opened.
    #[track_caller]
    fn assert_right(&self, events: &[Value]) -> Vec<Vec<String>> {
        let by_id: HashMap<&str, usize> =
            self.bundles.iter().enumerate().map(|(number, bundle)| (bundle.id.as_str(), number)).collect();
        let mut opened = vec![Vec::new(); self.count()];
        let mut wrong = Vec::new();
        for event in events {
            let path = event["open"]["path"].as_str().unwrap();
            let opener = self.number_of(path);
            let named = event["container"]["id"].as_str().and_then(|id| by_id.get(id).copied());
            if opener != named || opener.is_some_and(|number| event["k8s"] != self.bundles[number].k8s()) {
                wrong.push(event);
            } else if let Some(number) = opener {
                opened[number].push(path.rsplit('/').next().unwrap().to_owned());
            }
        }
        let some: Vec<String> = wrong.iter().take(5).map(ToString::to_string).collect();
        assert!(wrong.is_empty(), "{} of {} events are wrong: {some:#?}", wrong.len(), events.len());
        opened
    }
}

/// The numbers of those that did not open all their files, each once, in order.
fn incomplete(opened: &[Vec<String>]) -> Vec<usize> {
    (0..opened.len()).filter(|number| opened[*number] != FILES).collect()
}

/// Containers that open files all the while, each for itself.
struct Busy {
    mark: String,
    /// Dropped before the bundles.
    runtime: Option<Runtime>,
    bundles: Vec<Bundle>,
}

impl Busy {
    #[track_caller]
    fn start(count: usize) -> Self {
        let (mark, namespace) = (format!("/{}", unique("busy")), unique("t"));
        let first = Bundle::plain(&["/bin/true"]);
        let runtime = Runtime::runc();
        let mut bundles: Vec<Bundle> = (0..count)
            .map(|number| {
                let pod = Pod::inside(&namespace, &format!("busy-{number}"), "app");
                let script = format!("while :; do true < {mark}/{number}; sleep 0.05; done");
                first.sibling(&pod, &["/bin/sh", "-c", &script])
            })
            .collect();
        for bundle in &bundles {
            runtime.run_detached(bundle);
        }
        bundles.push(first);
        Self { mark, runtime: Some(runtime), bundles }
    }

    /// Ends them: what is to be checked of many events is not to compete with them for the processors.
    fn stop(&mut self) {
        self.runtime = None;
    }

    /// Fails unless all were busy, and each event is its own.
    #[track_caller]
    fn assert_right(&self, events: &[Value]) {
        let mut by_path: HashMap<&str, Vec<&Value>> = HashMap::new();
        let mut by_id: HashMap<&str, Vec<&Value>> = HashMap::new();
        for event in events {
            by_path.entry(event["open"]["path"].as_str().unwrap()).or_default().push(event);
            by_id.entry(event["container"]["id"].as_str().unwrap_or_default()).or_default().push(event);
        }
        for (number, bundle) in self.bundles[..self.bundles.len() - 1].iter().enumerate() {
            let path = format!("{}/{number}", self.mark);
            let own = by_path.get(&*path).map_or(&[][..], |own| own);
            assert!(own.len() > 10, "busy container {number} opened {} files", own.len());
            for event in own {
                bundle.assert_names(event);
            }
            let of_it = by_id.get(&*bundle.id).map_or(&[][..], |of_it| of_it);
            let strange = of_it.iter().find(|event| event["open"]["path"] != path);
            assert_eq!(strange, None, "not of busy container {number}");
        }
    }
}

fn thousand(busy: usize) {
    let herd = Herd::new(1_000);
    let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
    let mut others = Busy::start(busy);
    let begin = Instant::now();
    herd.run(|_| {});
    let took = begin.elapsed();
    let shown = |number: usize| format!("{}/{number}/{}", herd.mark, FILES[2]);
    tracer.wait_open(&shown(herd.count() - 1));
    let done = tracer.stop();
    others.stop();
    done.assert_nothing_dropped();
    let events = done.events();
    let opened = herd.assert_right(&events);
    assert_eq!(incomplete(&opened), [0; 0], "of these something is missing or double");
    for event in &events {
        if let Some(number) = herd.number_of(event["open"]["path"].as_str().unwrap()) {
            herd.bundles[number].assert_names(event);
        }
    }
    others.assert_right(&events);
    println!("{} containers in {took:.1?}, {busy} busy ones, {} events", herd.count(), events.len());
}

/// Three times in one churn: some containers run already, some are just being made, most are yet to
/// come.
fn middle() {
    const STARTS: [usize; 3] = [100, 250, 400];
    let herd = Herd::new(550);
    let ready: [AtomicBool; 3] = Default::default();
    // Which tracers were ready when each container was begun.
    let begun: Vec<[AtomicBool; 3]> = (0..herd.count()).map(|_| Default::default()).collect();
    let tracers: Vec<Tracer> = thread::scope(|scope| {
        let churn = scope.spawn(|| {
            herd.run(|number| {
                for (index, ready) in ready.iter().enumerate() {
                    begun[number][index].store(ready.load(Ordering::SeqCst), Ordering::SeqCst);
                }
            });
        });
        let tracers = STARTS
            .iter()
            .zip(&ready)
            .map(|(start, ready)| {
                wait::until(&format!("container {start}"), || {
                    (herd.next.load(Ordering::SeqCst) >= *start).then_some(())
                });
                let tracer = Tracer::start(&["trace", "open", "-o", "json"]);
                ready.store(true, Ordering::SeqCst);
                tracer
            })
            .collect();
        churn.join().expect("each has its own deadline");
        tracers
    });
    for (index, tracer) in tracers.into_iter().enumerate() {
        tracer.wait_open(&format!("{}/{}/{}", herd.mark, herd.count() - 1, FILES[2]));
        let done = tracer.stop();
        done.assert_nothing_dropped();
        let opened = herd.assert_right(&done.events());
        let promised = |number: &usize| begun[*number][index].load(Ordering::SeqCst);
        let all = (0..herd.count()).filter(promised).count();
        assert!(all > 20, "of tracer {index} only {all} containers were begun after it was ready");
        let missing: Vec<usize> = incomplete(&opened).into_iter().filter(promised).collect();
        assert!(missing.is_empty(), "of {all} containers, these are not complete: {missing:?}");
    }
}
