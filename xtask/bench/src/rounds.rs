//! Figures 1 to 4 and 6: the same loads under every subject, in turn, round for round.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::{
    interrupt,
    load::{Load, Sample, Work},
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
    /// Nanoseconds per operation: the median of slices, all in all, and of CPU.
    pub(crate) per_operation: f64,
    pub(crate) mean: f64,
    pub(crate) load_cpu: f64,
    /// Nanoseconds of CPU of the subject's process per operation.
    pub(crate) subject_cpu: Option<f64>,
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
    /// Nanoseconds per operation, one a round.
    pub(crate) fn per_operation(&self, subject: Subject, work: Work, place: Place) -> BTreeMap<usize, f64> {
        self.find(subject, work, place).map(|found| (found.round, found.per_operation)).collect()
    }

    /// Nanoseconds of CPU of the subject per event, one a round.
    pub(crate) fn subject_cpu(&self, subject: Subject) -> BTreeMap<usize, f64> {
        self.find(subject, Work::Open, Place::Selected)
            .filter_map(|found| Some((found.round, found.subject_cpu?)))
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
        Subject::Base => &[
            (Open, Selected),
            (Open, Elsewhere),
            (Getppid, Selected),
            (Libraries, Selected),
            (Exec, Selected),
        ],
        Subject::Empty => &[(Open, Selected), (Open, Elsewhere), (Getppid, Selected)],
        Subject::TracerJson => {
            &[(Open, Selected), (Open, Elsewhere), (Getppid, Selected), (Libraries, Selected)]
        }
        Subject::Floor | Subject::Tracepoints | Subject::EmptyFexit | Subject::FloorFexit => {
            &[(Open, Selected), (Getppid, Selected)]
        }
        Subject::Opensnoop | Subject::Bpftrace => &[(Open, Selected), (Libraries, Selected)],
        Subject::TracerColumns | Subject::TracerJsonNull | Subject::TracerColumnsNull => &[(Open, Selected)],
        Subject::TracerExec | Subject::Execsnoop => &[(Exec, Selected)],
    }
}

/// The two containers.
pub(crate) struct Loads {
    pub(crate) selected: Load,
    pub(crate) elsewhere: Load,
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
    let mut session = None;
    if subject != Subject::Base {
        match setting.start(subject, loads.selected.pid, &loads.selected.namespace)? {
            Ok(started) => session = Some(started),
            Err(why) => {
                eprintln!("bench: without {}: {why}", subject.name());
                rounds.missing.insert(subject, why);
                return Ok(());
            }
        }
    }
    let mut selected_opens = 0;
    for &(work, place) in loops(subject) {
        let load = match place {
            Place::Selected => &mut loads.selected,
            Place::Elsewhere => &mut loads.elsewhere,
        };
        // Whatever is done for the first time.
        selected_opens += warm_up(load, work, place)?;
        let before = session.as_ref().map(|session| session.cpu_when_done()).transpose()?;
        let sample = load.repeat(work, milliseconds)?;
        let after = session.as_ref().map(|session| session.cpu_when_done()).transpose()?;
        if (work, place) == (Work::Open, Place::Selected) {
            selected_opens += sample.operations;
        }
        let subject_cpu = before.zip(after).map(|(before, after)| per(after - before, sample.operations));
        rounds.measurements.push(measurement(round, subject, work, place, &sample, subject_cpu));
    }
    let Some(mut session) = session else { return Ok(()) };
    if let Some(summary) = session.stop()? {
        let traces_opens = subject.is_tracer() || matches!(subject, Subject::Floor | Subject::Tracepoints);
        if traces_opens {
            ensure!(
                summary.emitted + summary.lost >= selected_opens,
                "the load opened {selected_opens} files, of which {} were told and {} lost",
                summary.emitted,
                summary.lost
            );
        }
        rounds.summaries.push((round, subject, summary));
    }
    Ok(())
}

/// Returns how many events it made.
fn warm_up(load: &mut Load, work: Work, place: Place) -> Result<u64> {
    const MILLISECONDS: u64 = 20;
    let operations = load.repeat(work, MILLISECONDS)?.operations;
    Ok(if (work, place) == (Work::Open, Place::Selected) { operations } else { 0 })
}

fn measurement(
    round: usize,
    subject: Subject,
    work: Work,
    place: Place,
    sample: &Sample,
    subject_cpu: Option<f64>,
) -> Measurement {
    Measurement {
        round,
        subject,
        work,
        place,
        operations: sample.operations,
        per_operation: sample.per_operation,
        mean: per(sample.wall, sample.operations),
        load_cpu: per(sample.cpu, sample.operations),
        subject_cpu,
    }
}

#[expect(clippy::cast_precision_loss, reason = "small enough")]
fn per(nanoseconds: u64, operations: u64) -> f64 {
    nanoseconds as f64 / operations.max(1) as f64
}
