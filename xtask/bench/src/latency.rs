//! Figure 12: from a call in the kernel to its line on tracer's standard output, on an idle machine.

use std::{
    io::{BufRead as _, BufReader},
    process::ChildStdout,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{
    figures::{Figure, Verdict},
    interrupt,
    load::{FILE, Load},
    stats::percentile,
    subject::{Output, Setting},
};

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    /// Milliseconds from the event's timestamp to its line, in the order of the calls.
    milliseconds: Vec<f64>,
}

/// Lets the load open a file `count` times, with pauses between.
pub(crate) fn run(setting: &Setting, load: &mut Load, count: usize) -> Result<Latency> {
    eprintln!("bench: {count} single opens");
    let mut session = setting.start_tracer(setting.tracer("open", &load.namespace, "json"), Output::Pipe)?;
    let pipe = session.stdout.take().context("stdout is piped")?;
    let reader = thread::spawn(move || arrivals(pipe));
    let mut pauses = Pauses(0);
    for _ in 0..count {
        interrupt::check()?;
        thread::sleep(pauses.next());
        load.open(1)?;
    }
    // So that the last line comes by itself, and not because tracer ends.
    thread::sleep(Duration::from_millis(200));
    session.stop()?;
    let milliseconds = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    ensure!(milliseconds.len() == count, "{} lines for {count} opens", milliseconds.len());
    Ok(Latency { milliseconds })
}

/// Milliseconds that each line took.
fn arrivals(pipe: ChildStdout) -> Result<Vec<f64>> {
    let mut milliseconds = Vec::new();
    for line in BufReader::new(pipe).lines() {
        let line = line.context("reading what tracer writes")?;
        let now = Timestamp::now();
        let event: Value = serde_json::from_str(&line).with_context(|| format!("tracer wrote {line}"))?;
        if event["open"]["path"] != FILE {
            continue;
        }
        let timestamp: Timestamp = event["timestamp"].as_str().unwrap_or_default().parse()?;
        milliseconds.push(now.duration_since(timestamp).as_secs_f64() * 1e3);
    }
    Ok(milliseconds)
}

/// Pauses of 1 to 200 ms: some find the reader looking every few milliseconds, some asleep. The same in each run.
struct Pauses(u64);

impl Pauses {
    fn next(&mut self) -> Duration {
        // SplitMix64 <https://prng.di.unimi.it/splitmix64.c>
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_millis(1 + (z ^ (z >> 31)) % 200)
    }
}

impl Latency {
    pub(crate) fn figure(&self) -> Figure {
        let at = |part| percentile(&self.milliseconds, part).unwrap_or(f64::NAN);
        let value = at(0.99);
        Figure {
            number: Some(12),
            title: "kernel event to line on stdout, idle machine, p99".into(),
            measured: format!("{value:.1} ms (median {:.1}, most {:.1})", at(0.5), at(1.0)),
            target: "≤ 20 ms".into(),
            verdict: Verdict::met(value <= 20.0),
            value: Some(value),
            rounds: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_repeat() {
        let pauses = || {
            let mut pauses = Pauses(0);
            std::iter::repeat_with(move || pauses.next()).take(50).collect::<Vec<_>>()
        };
        assert_eq!(pauses(), pauses());
        assert!(pauses().iter().all(|pause| (1..=200).contains(&pause.as_millis())));
        assert!(pauses().iter().collect::<std::collections::BTreeSet<_>>().len() > 20);
    }

    #[test]
    fn figure_is_the_99th_of_a_hundred() {
        let figure = Latency { milliseconds: (1..=100).map(f64::from).collect() }.figure();
        assert_eq!(figure.value, Some(99.0));
        assert_eq!(figure.verdict, Verdict::Missed);
    }
}
