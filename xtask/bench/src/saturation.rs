//! Figure 5: as many opens as one core can make, told in JSON to a pipe, and not one of them missing.

use std::{io::Read as _, process::ChildStdout, thread};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::{
    cpu,
    figures::{Figure, Verdict},
    load::Load,
    subject::{Output, Setting, Summary},
};

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Saturation {
    /// Calls that the load made.
    opens: u64,
    /// Nanoseconds that they took.
    wall: u64,
    /// Lines that the pipe's reader counted.
    lines: u64,
    /// Nanoseconds of CPU that tracer had for them.
    tracer_cpu: u64,
    summary: Summary,
}

/// Lets the load open `count` times.
pub(crate) fn run(setting: &Setting, load: &mut Load, count: u64) -> Result<Saturation> {
    eprintln!("bench: {count} opens at saturation");
    let mut session = setting.start_tracer(setting.tracer("open", &load.namespace, "json"), Output::Pipe)?;
    let pipe = session.stdout.take().context("stdout is piped")?;
    let reader = thread::spawn(move || count_lines(pipe));
    let before = cpu::time_of(session.pid())?;
    let sample = load.open(count)?;
    let tracer_cpu = session.cpu_when_done()? - before;
    let summary = session.stop()?.context("tracer has no closing summary")?;
    let lines = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    ensure!(
        summary.emitted + summary.lost >= count,
        "{count} files were opened, of which {} were told and {} lost",
        summary.emitted,
        summary.lost
    );
    // Records of losses are lines, too.
    ensure!(
        lines == summary.emitted || summary.lost > 0 && lines > summary.emitted,
        "the pipe had {lines} lines, tracer says {}",
        summary.emitted
    );
    Ok(Saturation { opens: count, wall: sample.wall, lines, tracer_cpu, summary })
}

fn count_lines(mut pipe: ChildStdout) -> Result<u64> {
    const SIZE: usize = 1 << 20;
    // What a shell's pipe is not, and a log shipper's may be. Refused beyond the user's limit.
    let _ = rustix::pipe::fcntl_setpipe_size(&pipe, SIZE);
    let mut buffer = vec![0; SIZE];
    let mut lines = 0;
    loop {
        let read = pipe.read(&mut buffer).context("reading what tracer writes")?;
        if read == 0 {
            return Ok(lines);
        }
        lines += memchr::memchr_iter(b'\n', &buffer[..read]).count() as u64;
    }
}

impl Saturation {
    pub(crate) fn figure(&self) -> Figure {
        #[expect(clippy::cast_precision_loss, reason = "small enough")]
        let (rate, cpu) = (
            self.opens as f64 / (self.wall as f64 / 1e9) / 1e3,
            self.tracer_cpu as f64 / self.summary.emitted.max(1) as f64,
        );
        let lost = self.summary.lost;
        Figure {
            number: Some(5),
            title: format!("events lost of {} at saturation", self.opens),
            measured: format!(
                "{lost}, at {rate:.0} thousand a second, {cpu:.0} ns of tracer's CPU for each that it told"
            ),
            target: "0".into(),
            verdict: Verdict::met(lost == 0),
            #[expect(clippy::cast_precision_loss, reason = "small enough")]
            value: Some(lost as f64),
            rounds: None,
        }
    }
}
