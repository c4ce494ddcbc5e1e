//! The figures: each a ratio of things measured in one run, with its target.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    load::Work,
    rounds::{Place, Rounds},
    stats::{Spread, median},
    subject::Subject,
};

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// Its number, or nothing for what has no target.
    pub(crate) number: Option<u8>,
    pub(crate) title: String,
    /// What was measured, for people.
    pub(crate) measured: String,
    pub(crate) target: String,
    pub(crate) verdict: Verdict,
    /// The value, where it is one number, and its spread over the rounds.
    pub(crate) value: Option<f64>,
    pub(crate) rounds: Option<Spread>,
}

impl Figure {
    /// One that another command measures.
    pub(crate) fn elsewhere(number: u8, title: &str, target: &str, why: &str) -> Self {
        Self {
            number: Some(number),
            title: title.into(),
            measured: String::new(),
            target: target.into(),
            verdict: Verdict::NotMeasured(why.into()),
            value: None,
            rounds: None,
        }
    }
}

/// Whether the target is met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// Why not.
    NotMeasured(String),
    /// There is no target.
    Shown,
}

impl Verdict {
    pub(crate) const fn met(is_met: bool) -> Self {
        if is_met { Self::Met } else { Self::Missed }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Met => f.write_str("met"),
            Self::Missed => f.write_str("missed"),
            Self::NotMeasured(why) => write!(f, "not measured: {why}"),
            Self::Shown => Ok(()),
        }
    }
}

/// What a ratio has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    None,
}

impl Target {
    fn verdict(self, value: f64) -> Verdict {
        match self {
            Self::AtMost(limit) => Verdict::met(value <= limit),
            Self::AtLeast(limit) => Verdict::met(value >= limit),
            Self::None => Verdict::Shown,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {limit}"),
            Self::AtLeast(limit) => write!(f, "≥ {limit}"),
            Self::None => Ok(()),
        }
    }
}

/// Something measured once a round.
pub(crate) type Series = BTreeMap<usize, f64>;

/// The ratio of two series: of their medians, because a small difference in one round makes for any ratio there;
/// its spread is that of the rounds. `None` where there is nothing to divide, or to divide by.
pub(crate) fn ratio(above: &Series, below: &Series) -> Option<(f64, Spread)> {
    let pairs = paired(above, below, |a, b| (a, b));
    let (above, below): (Vec<f64>, Vec<f64>) = pairs.values().copied().unzip();
    let ratios: Vec<f64> = above.iter().zip(&below).map(|(above, below)| above / below).collect();
    let divisor = median(&below);
    if divisor <= 0.0 {
        return None;
    }
    Some((median(&above) / divisor, Spread::of(&ratios)?))
}

/// What two series make of each round that both have.
fn paired<T>(left: &Series, right: &Series, make: impl Fn(f64, f64) -> T) -> BTreeMap<usize, T> {
    left.iter().filter_map(|(round, left)| Some((*round, make(*left, *right.get(round)?)))).collect()
}

fn minus(left: &Series, right: &Series) -> Series {
    paired(left, right, |left, right| left - right)
}

/// Nanoseconds per operation that a subject adds to the base.
pub(crate) fn cost(rounds: &Rounds, subject: Subject, work: Work, place: Place) -> Series {
    minus(&rounds.with(subject, work, place), &rounds.without(subject, work, place))
}

/// A figure that is a ratio of two series.
pub(crate) fn of_ratio(
    number: Option<u8>,
    title: &str,
    target: Target,
    above: &Series,
    below: &Series,
    missing: Option<&String>,
) -> Figure {
    let figure = |measured, verdict, value, rounds| Figure {
        number,
        title: title.into(),
        measured,
        target: target.to_string(),
        verdict,
        value,
        rounds,
    };
    if let Some(why) = missing {
        return figure(String::new(), Verdict::NotMeasured(why.clone()), None, None);
    }
    let Some((value, rounds)) = ratio(above, below) else {
        let why = "what it is compared with costs nothing that can be measured".into();
        return figure(String::new(), Verdict::NotMeasured(why), None, None);
    };
    let middle = |series: &Series| median(&series.values().copied().collect::<Vec<_>>());
    let measured = format!(
        "{value:.2} ({:.2} to {:.2}); {:.0} ns / {:.0} ns",
        rounds.min,
        rounds.max,
        middle(above),
        middle(below)
    );
    figure(measured, target.verdict(value), Some(value), Some(rounds))
}

/// Figures 1 to 4, 6, and what is shown beside them, of what was measured.
pub(crate) fn of_rounds(rounds: &Rounds, wanted: impl Fn(u8) -> bool) -> Vec<Figure> {
    use {
        Place::{Elsewhere, Selected},
        Subject::{
            Bpftrace, Empty, EmptyFexit, Execsnoop, Filled, Floor, FloorFexit, Opensnoop, Tracepoints,
            TracerColumns, TracerColumnsNull, TracerExec, TracerJson, TracerJsonNull,
        },
        Work::{Exec, Getppid, Libraries, Open},
    };
    let cost = |subject, work, place| cost(rounds, subject, work, place);
    let missing = |subject| rounds.missing.get(&subject);
    let open = |subject| cost(subject, Open, Selected);
    let mut figures = Vec::new();
    if wanted(1) {
        let title = "cost(tracer, selected, JSON to a file) / cost(floor)";
        figures.push(of_ratio(Some(1), title, Target::AtMost(1.3), &open(TracerJson), &open(Floor), None));
        let title = "the same, to one that writes the time, ids, comm and path there";
        figures.push(of_ratio(None, title, Target::None, &open(TracerJson), &open(Filled), None));
        let title = "the first with columns";
        figures.push(of_ratio(None, title, Target::None, &open(TracerColumns), &open(Floor), None));
    }
    if wanted(2) {
        for peer in [Opensnoop, Bpftrace] {
            let title = format!("cost({}) / cost(tracer)", peer.name());
            let target = Target::AtLeast(10.0);
            figures.push(of_ratio(Some(2), &title, target, &open(peer), &open(TracerJson), missing(peer)));
        }
    }
    if wanted(3) {
        let above = |place| minus(&cost(TracerJson, Open, place), &cost(Empty, Open, place));
        let title = "cost(tracer) − cost(empty): in a container that is not selected / in one that is";
        let target = Target::AtMost(0.15);
        figures.push(of_ratio(Some(3), title, target, &above(Elsewhere), &above(Selected), None));
    }
    if wanted(4) {
        let idle = |subject| cost(subject, Getppid, Selected);
        let title = "cost on getppid: tracer / empty";
        figures.push(of_ratio(Some(4), title, Target::AtMost(1.3), &idle(TracerJson), &idle(Empty), None));
        for (title, work) in [
            ("two tracepoints and a hash map / sys_exit, floor, on open", Open),
            ("two tracepoints and a hash map / sys_exit, floor, on getppid", Getppid),
        ] {
            let (above, below) = (cost(Tracepoints, work, Selected), cost(Floor, work, Selected));
            figures.push(of_ratio(None, title, Target::None, &above, &below, missing(Tracepoints)));
        }
        for (title, subject, work) in [
            ("floor on fexit / floor on sys_exit, on open", FloorFexit, Open),
            ("empty on fexit / floor on sys_exit, on getppid", EmptyFexit, Getppid),
        ] {
            let (above, below) = (cost(subject, work, Selected), cost(Floor, work, Selected));
            figures.push(of_ratio(None, title, Target::None, &above, &below, missing(subject)));
        }
    }
    if wanted(6) {
        let discard = rounds.subject_cpu(Floor);
        for (what, subject, limit) in [("columns", TracerColumnsNull, 4.0), ("JSON", TracerJsonNull, 5.0)] {
            let title = format!("CPU of the reader per event, {what} to /dev/null / discarding");
            let target = Target::AtMost(limit);
            figures.push(of_ratio(Some(6), &title, target, &rounds.subject_cpu(subject), &discard, None));
        }
        for (what, subject) in [("columns", TracerColumns), ("JSON", TracerJson)] {
            let title = format!("CPU of the reader per event, {what} to a file / discarding");
            figures.push(of_ratio(None, &title, Target::None, &rounds.subject_cpu(subject), &discard, None));
        }
    }
    if wanted(2) {
        for (what, work, subjects) in [
            ("loading 32 libraries", Libraries, &[TracerJson, Opensnoop, Bpftrace][..]),
            ("fork and exec", Exec, &[TracerExec, Execsnoop]),
        ] {
            for &subject in subjects {
                let title = format!("{what}: time with {} / without", subject.name());
                let (with, without) =
                    (rounds.with(subject, work, Selected), rounds.without(subject, work, Selected));
                figures.push(of_ratio(None, &title, Target::None, &with, &without, missing(subject)));
            }
        }
    }
    figures
}

/// The subjects that the figures need.
pub(crate) fn subjects(wanted: impl Fn(u8) -> bool) -> Vec<Subject> {
    use Subject::{
        Bpftrace, Empty, EmptyFexit, Execsnoop, Filled, Floor, FloorFexit, Opensnoop, Tracepoints,
        TracerColumns, TracerColumnsNull, TracerExec, TracerJson, TracerJsonNull,
    };
    let needs: [(u8, &[Subject]); 5] = [
        (1, &[Floor, Filled, TracerJson, TracerColumns]),
        (2, &[TracerJson, Opensnoop, Bpftrace, TracerExec, Execsnoop]),
        (3, &[Empty, TracerJson]),
        (4, &[Empty, Floor, TracerJson, Tracepoints, EmptyFexit, FloorFexit]),
        (6, &[Floor, TracerJson, TracerColumns, TracerJsonNull, TracerColumnsNull]),
    ];
    let mut subjects: Vec<Subject> =
        needs.iter().filter(|(number, _)| wanted(*number)).flat_map(|(_, needed)| *needed).copied().collect();
    subjects.sort_unstable();
    subjects.dedup();
    subjects
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Measurement;

    fn series(values: &[f64]) -> Series {
        values.iter().copied().enumerate().collect()
    }

    fn rounds(values: &[(Subject, Work, Place, f64)]) -> Rounds {
        let measurement =
            |&(subject, work, place, per_operation): &(Subject, Work, Place, f64)| Measurement {
                round: 0,
                subject,
                work,
                place,
                operations: 1000,
                base: [1990.0, 2010.0],
                per_operation,
                mean: per_operation,
                load_cpu: per_operation,
                subject_cpu: per_operation / 10.0,
            };
        Rounds { measurements: values.iter().map(measurement).collect(), ..Rounds::default() }
    }

    #[test]
    fn ratio_is_of_medians_and_pairs_rounds() {
        let above = series(&[20.0, 30.0, 40.0]);
        let below = BTreeMap::from([(0, 10.0), (2, 10.0), (5, 99.0)]);
        let (value, spread) = ratio(&above, &below).unwrap();
        assert!((value - 3.0).abs() < 1e-9);
        assert_eq!((spread.min, spread.max, spread.count), (2.0, 4.0, 2));
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        assert_eq!(ratio(&series(&[1.0]), &series(&[0.0])), None);
        assert_eq!(ratio(&series(&[1.0]), &series(&[-3.0])), None);
        assert_eq!(ratio(&series(&[]), &series(&[1.0])), None);
    }

    #[test]
    fn figures_compare_costs_not_times() {
        use {Place::Selected, Work::Open};
        let rounds = rounds(&[
            (Subject::Floor, Open, Selected, 2500.0),
            (Subject::TracerJson, Open, Selected, 2600.0),
            (Subject::TracerColumns, Open, Selected, 3000.0),
        ]);
        let figures = of_rounds(&rounds, |number| number == 1);
        assert_eq!(figures[0].number, Some(1));
        assert!((figures[0].value.unwrap() - 1.2).abs() < 1e-9);
        assert_eq!((&figures[0].verdict, figures[0].target.as_str()), (&Verdict::Met, "≤ 1.3"));
        assert_eq!((figures[2].number, &figures[2].verdict), (None, &Verdict::Shown));
    }

    #[test]
    fn unselected_containers_are_compared_beyond_the_empty_program() {
        use {
            Place::{Elsewhere, Selected},
            Work::Open,
        };
        let rounds = rounds(&[
            (Subject::Empty, Open, Selected, 2100.0),
            (Subject::Empty, Open, Elsewhere, 2100.0),
            (Subject::TracerJson, Open, Selected, 2600.0),
            (Subject::TracerJson, Open, Elsewhere, 2200.0),
        ]);
        let figures = of_rounds(&rounds, |number| number == 3);
        assert!((figures[0].value.unwrap() - 0.2).abs() < 1e-9);
        assert_eq!(figures[0].verdict, Verdict::Missed);
    }

    #[test]
    fn missing_peer_is_not_measured() {
        let mut rounds = rounds(&[]);
        rounds.missing.insert(Subject::Opensnoop, "opensnoop is missing".into());
        let figures = of_rounds(&rounds, |number| number == 2);
        assert_eq!(figures[0].verdict, Verdict::NotMeasured("opensnoop is missing".into()));
    }

    #[test]
    fn each_figure_has_its_subjects_once() {
        use Subject::{Empty, Filled, Floor, TracerColumns, TracerJson};
        let subjects = subjects(|number| number == 1 || number == 3);
        assert_eq!(subjects, [Empty, Floor, Filled, TracerJson, TracerColumns]);
    }
}
