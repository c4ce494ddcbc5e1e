//! Figures 1 to 4 and 6: the same loads under every subject, in turn, round for round.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::{
    interrupt,
    load::{Load, Work},
    subject::{Setting, Subject, Summary},
};

/// Where a load runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Place {
    /// In the container that tracer is asked for.
    Selected,
    /// In one that it is not asked for.
    Elsewhere,
}

/// One loop under one subject in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measurement {
    pub(crate) round: usize,
    pub(crate) subject: Subject,
    pub(crate) work: Work,
    pub(crate) place: Place,
    pub(crate) operations: u64,
    /// Nanoseconds per operation without the subject, right before and right after: what the machine does besides
    /// changes by the second.
    pub(crate) base: [f64; 2],
    /// Nanoseconds per operation with it: the median of slices, all in all, and of CPU.
    pub(crate) per_operation: f64,
    pub(crate) mean: f64,
    pub(crate) load_cpu: f64,
    /// Nanoseconds of CPU of the subject's process per operation.
    pub(crate) subject_cpu: f64,
}

impl Measurement {
    /// Nanoseconds per operation without the subject.
    pub(crate) fn base(&self) -> f64 {
        f64::midpoint(self.base[0], self.base[1])
    }
}

/// What came of all rounds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Rounds {
    pub(crate) measurements: Vec<Measurement>,
    /// Subjects that could not be had, and why.
    pub(crate) missing: BTreeMap<Subject, String>,
    /// What each subject said at its end, by round.
    pub(crate) summaries: Vec<(usize, Subject, Summary)>,
}

impl Rounds {
    /// Nanoseconds per operation, one a round: with the subject, and without it.
    pub(crate) fn with(&self, subject: Subject, work: Work, place: Place) -> BTreeMap<usize, f64> {
        self.find(subject, work, place).map(|found| (found.round, found.per_operation)).collect()
    }

    pub(crate) fn without(&self, subject: Subject, work: Work, place: Place) -> BTreeMap<usize, f64> {
        self.find(subject, work, place).map(|found| (found.round, found.base())).collect()
    }

    /// Nanoseconds of CPU of the subject per event, one a round.
    pub(crate) fn subject_cpu(&self, subject: Subject) -> BTreeMap<usize, f64> {
        self.find(subject, Work::Open, Place::Selected)
            .map(|found| (found.round, found.subject_cpu))
            .collect()
    }

    fn find(&self, subject: Subject, work: Work, place: Place) -> impl Iterator<Item = &Measurement> {
        self.measurements
            .iter()
            .filter(move |found| found.subject == subject && found.work == work && found.place == place)
    }
}

/// What each subject is measured with.
fn loops(subject: Subject) -> &'static [(Work, Place)] {
    use {
        Place::{Elsewhere, Selected},
        Work::{Exec, Getppid, Libraries, Open},
    };
    match subject {
        Subject::Empty => &[(Open, Selected), (Open, Elsewhere), (Getppid, Selected)],
        Subject::TracerJson => {
            &[(Open, Selected), (Open, Elsewhere), (Getppid, Selected), (Libraries, Selected)]
        }
        Subject::Floor | Subject::Tracepoints | Subject::EmptyFexit | Subject::FloorFexit => {
            &[(Open, Selected), (Getppid, Selected)]
        }
        Subject::Opensnoop | Subject::Bpftrace => &[(Open, Selected), (Libraries, Selected)],
        Subject::Filled | Subject::TracerColumns | Subject::TracerJsonNull | Subject::TracerColumnsNull => {
            &[(Open, Selected)]
        }
        Subject::TracerExec | Subject::Execsnoop => &[(Exec, Selected)],
    }
}

/// Milliseconds that a loop runs before it counts.
const WARM_UP: u64 = 20;

/// The two containers.
pub(crate) struct Loads {
    pub(crate) selected: Load,
    pub(crate) elsewhere: Load,
}

impl Loads {
    fn at(&mut self, place: Place) -> &mut Load {
        match place {
            Place::Selected => &mut self.selected,
            Place::Elsewhere => &mut self.elsewhere,
        }
    }
}

/// Runs `count` rounds over `subjects`, each loop for so many milliseconds.
pub(crate) fn run(
    setting: &Setting,
    loads: &mut Loads,
    subjects: &[Subject],
    count: usize,
    milliseconds: u64,
) -> Result<Rounds> {
    let mut rounds = Rounds::default();
    for round in 0..count {
        eprintln!("bench: round {} of {count}", round + 1);
        // Each round begins with another one, so that what the machine does meanwhile meets all alike.
        let first = round % subjects.len().max(1);
        for subject in subjects[first..].iter().chain(&subjects[..first]) {
            interrupt::check()?;
            measure(setting, loads, *subject, round, milliseconds, &mut rounds)
                .with_context(|| format!("measuring {}", subject.name()))?;
        }
    }
    Ok(rounds)
}

fn measure(
    setting: &Setting,
    loads: &mut Loads,
    subject: Subject,
    round: usize,
    milliseconds: u64,
    rounds: &mut Rounds,
) -> Result<()> {
    if rounds.missing.contains_key(&subject) {
        return Ok(());
    }
    let before = base(loads, subject, milliseconds)?;
    let mut session = match setting.start(subject, loads.selected.pid, &loads.selected.namespace)? {
        Ok(session) => session,
        Err(why) => {
            eprintln!("bench: without {}: {why}", subject.name());
            rounds.missing.insert(subject, why);
            return Ok(());
        }
    };
    let mut opens = 0;
    let mut samples = Vec::new();
    for &(work, place) in loops(subject) {
        let load = loads.at(place);
        // Whatever is done for the first time.
        let warm_up = load.repeat(work, WARM_UP)?;
        let before = session.cpu_when_done()?;
        let sample = load.repeat(work, milliseconds)?;
        let subject_cpu = per(session.cpu_when_done()? - before, sample.operations);
        if (work, place) == (Work::Open, Place::Selected) {
            opens += warm_up.operations + sample.operations;
        }
        samples.push((work, place, sample, subject_cpu));
    }
    let summary = session.stop()?;
    drop(session);
    let after = base(loads, subject, milliseconds)?;
    for ((work, place, sample, subject_cpu), base) in samples.into_iter().zip(before.into_iter().zip(after)) {
        rounds.measurements.push(Measurement {
            round,
            subject,
            work,
            place,
            operations: sample.operations,
            base: base.into(),
            per_operation: sample.per_operation,
            mean: per(sample.wall, sample.operations),
            load_cpu: per(sample.cpu, sample.operations),
            subject_cpu,
        });
    }
    let Some(summary) = summary else { return Ok(()) };
    if loops(subject).contains(&(Work::Open, Place::Selected)) && subject.writes_records() {
        ensure!(
            summary.emitted + summary.lost >= opens,
            "the load opened {opens} files, of which {} were told and {} lost",
            summary.emitted,
            summary.lost
        );
    }
    rounds.summaries.push((round, subject, summary));
    Ok(())
}

/// Nanoseconds per operation of the subject's loops while nothing is attached.
fn base(loads: &mut Loads, subject: Subject, milliseconds: u64) -> Result<Vec<f64>> {
    let mut base = Vec::new();
    for &(work, place) in loops(subject) {
        let load = loads.at(place);
        load.repeat(work, WARM_UP)?;
        // Two of them make one.
        base.push(load.repeat(work, milliseconds / 2)?.per_operation);
    }
    Ok(base)
}

#[expect(clippy::cast_precision_loss, reason = "small enough")]
fn per(nanoseconds: u64, operations: u64) -> f64 {
    nanoseconds as f64 / operations.max(1) as f64
}
