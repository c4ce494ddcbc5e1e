//! Figures 7, 10 and 11: with many containers.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use harness::{Bundle, Pod, Runtime, runtime::KnownRoot};
use serde::Serialize;

use crate::{
    cpu,
    figures::{Figure, Verdict},
    interrupt,
    load::{self, Load, Work},
    stats::Spread,
    subject::{Output, Setting},
};

/// What came of it.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Population {
    /// Figure 7: nanoseconds per open, by known containers and round.
    costs: Vec<Cost>,
    /// Figure 10: seconds to be ready, with so many containers.
    starts: Vec<f64>,
    started_with: usize,
    /// Figure 11: bytes resident, the ring's pages, and containers.
    resident: Option<Resident>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Cost {
    round: usize,
    known: usize,
    /// Without tracer, right before and right after.
    base: f64,
    with: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Resident {
    /// All of it.
    total: u64,
    /// Of that, pages of BPF maps.
    maps: u64,
    containers: usize,
}

/// How it is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Containers that there are, few and many; 1 is the load's own.
    pub(crate) few: usize,
    pub(crate) many: usize,
    pub(crate) rounds: usize,
    pub(crate) milliseconds: u64,
    pub(crate) starts: usize,
}

/// Containers that sleep, which tracer can be made to know or not. They are deleted when dropped.
struct Sleepers {
    runtime: Runtime,
    bundles: Vec<Bundle>,
}

impl Sleepers {
    /// Starts `count`, several at a time.
    fn start(program: &Path, count: usize) -> Result<Self> {
        eprintln!("bench: starting {count} containers");
        let namespace = harness::scratch::unique("sleepers");
        let pod = |number: usize| Pod::inside(&namespace, &format!("sleeper-{number}"), "sleeper");
        let first = load::bundle(&pod(0), program, &["sleep"]);
        let mut bundles: Vec<Bundle> =
            (1..count).map(|number| load::sibling(&first, &pod(number), &["sleep"])).collect();
        // The others use its root file system: it goes last.
        bundles.push(first);
        let sleepers = Self { runtime: Runtime::runc(), bundles };
        sleepers.each(|runtime, bundle| {
            runtime.run_detached(bundle);
            interrupt::check()
        })?;
        Ok(sleepers)
    }

    /// Does something with each container, several at a time.
    fn each(&self, work: impl Fn(&Runtime, &Bundle) -> Result<()> + Sync) -> Result<()> {
        let next = AtomicUsize::new(0);
        let worker = || -> Result<()> {
            while let Some(bundle) = self.bundles.get(next.fetch_add(1, Ordering::Relaxed)) {
                work(&self.runtime, bundle)?;
            }
            Ok(())
        };
        cpu::with_all(|| {
            thread::scope(|scope| {
                let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
                workers.into_iter().try_for_each(|worker| {
                    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
            })
        })
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        // Several at a time is faster than what the runtime does when it is dropped itself, one by one.
        let deleted = self.each(|runtime, bundle| {
            // One that never started is none to delete.
            drop(runtime.command().args(["delete", "--force", &bundle.id]).output());
            Ok(())
        });
        if let Err(error) = deleted {
            eprintln!("bench: deleting containers: {error:#}");
        }
    }
}

/// Measures the figures that are wanted.
pub(crate) fn run(
    setting: &Setting,
    load: &mut Load,
    program: &Path,
    plan: Plan,
    wanted: impl Fn(u8) -> bool,
) -> Result<Population> {
    let mut population = Population::default();
    // The load's own container is one of them.
    let few = Sleepers::start(program, plan.few - 1)?;
    if wanted(10) {
        let _known = KnownRoot::new(&few.runtime);
        population.started_with = plan.few;
        expect_known(setting, plan.few)?;
        for _ in 0..plan.starts {
            interrupt::check()?;
            let command = setting.tracer("open", &load.namespace, "json");
            let mut session = setting.start_tracer(command, Output::Null)?;
            population.starts.push(session.ready_after.as_secs_f64());
            session.stop()?;
        }
    }
    if !wanted(7) && !wanted(11) {
        return Ok(population);
    }
    let many = Sleepers::start(program, plan.many - plan.few)?;
    if wanted(7) {
        for round in 0..plan.rounds {
            let mut sizes = [1, plan.few, plan.many];
            sizes.rotate_left(round % 3);
            for known in sizes {
                interrupt::check()?;
                // All of them run all the time; what differs is whether tracer is told where their state is.
                let _few = (known >= plan.few).then(|| KnownRoot::new(&few.runtime));
                let _many = (known >= plan.many).then(|| KnownRoot::new(&many.runtime));
                if round == 0 {
                    expect_known(setting, known)?;
                }
                let before = load.repeat(Work::Open, plan.milliseconds / 2)?.per_operation;
                let mut session =
                    setting.start_tracer(setting.tracer("open", &load.namespace, "json"), Output::File)?;
                let with = load.repeat(Work::Open, plan.milliseconds)?.per_operation;
                session.stop()?;
                drop(session);
                let after = load.repeat(Work::Open, plan.milliseconds / 2)?.per_operation;
                population.costs.push(Cost { round, known, base: f64::midpoint(before, after), with });
            }
        }
    }
    if wanted(11) {
        let _known = (KnownRoot::new(&few.runtime), KnownRoot::new(&many.runtime));
        let mut session =
            setting.start_tracer(setting.tracer("open", &load.namespace, "json"), Output::File)?;
        load.repeat(Work::Open, plan.milliseconds)?;
        let (total, maps) = resident(session.pid())?;
        population.resident = Some(Resident { total, maps, containers: plan.many });
        session.stop()?;
    }
    Ok(population)
}

/// An error unless tracer knows that many containers, or more: others may run on the machine.
fn expect_known(setting: &Setting, count: usize) -> Result<()> {
    let mut command = std::process::Command::new(&setting.tracer);
    let output = command.args(["list-containers", "-o", "json"]).output().context("listing containers")?;
    let listed = String::from_utf8_lossy(&output.stdout).lines().count();
    ensure!(listed >= count, "tracer knows {listed} of {count} containers");
    Ok(())
}

/// Bytes that are resident of a process, and how many of them are BPF maps'.
fn resident(pid: u32) -> Result<(u64, u64)> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    };
    let status = read("status")?;
    let total = status.lines().find_map(|line| kilobytes(line, "VmRSS:")).context("no VmRSS")?;
    Ok((total * 1024, of_bpf_maps(&read("smaps")?) * 1024))
}

/// Adds up the resident kilobytes of the mappings of BPF maps.
fn of_bpf_maps(smaps: &str) -> u64 {
    let mut sum = 0;
    let mut is_map = false;
    for line in smaps.lines() {
        if let Some(rss) = kilobytes(line, "Rss:") {
            sum += if is_map { rss } else { 0 };
        } else if line.split_whitespace().next().is_some_and(|range| range.contains('-')) {
            is_map = line.contains("anon_inode:bpf-map");
        }
    }
    sum
}

fn kilobytes(line: &str, name: &str) -> Option<u64> {
    line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok()
}

impl Population {
    /// The figures of what was measured.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        [self.flatness(), self.start(), self.resident.map(memory)].into_iter().flatten().collect()
    }

    fn flatness(&self) -> Option<Figure> {
        let mut known: Vec<usize> = self.costs.iter().map(|cost| cost.known).collect();
        known.sort_unstable();
        known.dedup();
        let mut medians = Vec::new();
        for known in known {
            let costs: Vec<f64> = self
                .costs
                .iter()
                .filter(|cost| cost.known == known)
                .map(|cost| cost.with - cost.base)
                .collect();
            medians.push((known, Spread::of(&costs)?));
        }
        if medians.is_empty() {
            return None;
        }
        let values = || medians.iter().map(|(_, spread)| spread.median);
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        let value = high / low - 1.0;
        let each: Vec<String> =
            medians.iter().map(|(known, spread)| format!("{known}: {:.0} ns", spread.median)).collect();
        Some(Figure {
            number: Some(7),
            title: "cost per open by known containers".into(),
            measured: format!("{} ({:.0} % apart)", each.join(", "), value * 100.0),
            target: "within 10 %".into(),
            verdict: Verdict::met((0.0..=0.1).contains(&value)),
            value: Some(value),
            rounds: None,
        })
    }

    fn start(&self) -> Option<Figure> {
        let spread = Spread::of(&self.starts)?;
        Some(Figure {
            number: Some(10),
            title: format!("start to `tracer: ready` with {} running containers", self.started_with),
            measured: format!("{:.2} s ({:.2} to {:.2})", spread.median, spread.min, spread.max),
            target: "≤ 0.3 s".into(),
            verdict: Verdict::met(spread.median <= 0.3),
            value: Some(spread.median),
            rounds: Some(spread),
        })
    }
}

fn memory(resident: Resident) -> Figure {
    const LIMIT: f64 = 15.0;
    #[expect(clippy::cast_precision_loss, reason = "small enough")]
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (total, maps) = (mebibytes(resident.total), mebibytes(resident.maps));
    Figure {
        number: Some(11),
        title: format!("resident without the ring, {} containers, under load", resident.containers),
        measured: format!("{:.1} MiB ({total:.1} with the ring's {maps:.1})", total - maps),
        target: "≤ 15 MiB".into(),
        verdict: Verdict::met(total - maps <= LIMIT),
        value: Some(total - maps),
        rounds: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_maps_are_told_from_others() {
        let smaps = "\
7f0000000000-7f0000001000 rw-s 00000000 00:0e 1062 anon_inode:bpf-map
Size:                  4 kB
Rss:                   4 kB
Pss:                   4 kB
7f0000001000-7f0001001000 r--s 00001000 00:0e 1062                       anon_inode:bpf-map
Rss:                16384 kB
7f0001001000-7f0001002000 rw-p 00000000 00:00 0                          [heap]
Rss:                 100 kB
VmFlags: rd wr mr mw me ac
";
        assert_eq!(of_bpf_maps(smaps), 16_388);
        assert_eq!(kilobytes("VmRSS:\t   21012 kB", "VmRSS:"), Some(21_012));
    }

    #[test]
    fn flat_is_within_a_tenth() {
        let cost = |known, with| Cost { round: 0, known, base: 2000.0, with };
        let population = |last| Population {
            costs: vec![cost(1, 2500.0), cost(100, 2520.0), cost(1000, last)],
            ..Population::default()
        };
        assert_eq!(population(2540.0).figures()[0].verdict, Verdict::Met);
        assert_eq!(population(2560.0).figures()[0].verdict, Verdict::Missed);
        assert!(Population::default().figures().is_empty());
    }

    #[test]
    fn ring_does_not_count_as_memory() {
        let figure = memory(Resident { total: 30 << 20, maps: 16 << 20, containers: 1000 });
        assert_eq!(figure.verdict, Verdict::Met);
        assert_eq!(figure.measured, "14.0 MiB (30.0 with the ring's 16.0)");
    }
}
