//! What a guest says: steps, each with its output and exit status, between lines that begin with a mark.
//!
//! The mark is random, so that no program in the guest writes such a line by chance.

use std::time::{Duration, Instant};

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Exit(i32),
    /// The kernel does not have what it is about.
    Absent,
}

/// One step of a guest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) name: String,
    /// None where the guest ended within it.
    pub(crate) status: Option<Status>,
    pub(crate) output: Vec<String>,
    /// By the clock of this machine, not of the guest.
    pub(crate) time: Duration,
}

/// What has come so far.
#[derive(Debug)]
pub(crate) struct Report {
    mark: String,
    pub(crate) steps: Vec<Step>,
    /// Whether the guest came to its end.
    pub(crate) done: bool,
    began: Option<Instant>,
    /// What came outside of steps.
    pub(crate) stray: Vec<String>,
}

impl Report {
    /// Nothing yet.
    pub(crate) fn new(mark: &str) -> Self {
        Self { mark: mark.to_owned(), steps: Vec::new(), done: false, began: None, stray: Vec::new() }
    }

    /// Takes the next line.
    pub(crate) fn add(&mut self, line: &str) {
        // A program need not end its last line.
        let (output, said) = match line.split_once(self.mark.as_str()) {
            Some((output, said)) => (output, Some(said.trim())),
            None => (line, None),
        };
        if said.is_none() || !output.is_empty() {
            match self.steps.last_mut() {
                Some(step) if self.began.is_some() => step.output.push(output.to_owned()),
                _ => self.stray.push(output.to_owned()),
            }
        }
        let words: Vec<&str> = said.unwrap_or_default().split(' ').collect();
        match words[..] {
            ["begin", name] => {
                self.began = Some(Instant::now());
                let name = name.to_owned();
                self.steps.push(Step { name, status: None, output: Vec::new(), time: Duration::ZERO });
            }
            ["end", name, status] => {
                if let (Some(step), Some(began)) = (self.steps.last_mut(), self.began.take()) {
                    step.time = began.elapsed();
                    let status = match status {
                        "absent" => Some(Status::Absent),
                        number => number.parse().ok().map(Status::Exit),
                    };
                    step.status = status.filter(|_| step.name == name);
                }
            }
            ["done"] => self.done = true,
            _ => {}
        }
    }

    /// The step that runs.
    pub(crate) fn running(&self) -> Option<&str> {
        self.began.and(self.steps.last()).map(|step| step.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Report {
        let mut report = Report::new("@@1a2b");
        text.lines().for_each(|line| report.add(line));
        report
    }

    #[test]
    fn steps_with_their_output_and_status() {
        let report = report(
            "early\n@@1a2b begin doctor\nok kernel\n\n@@1a2b end doctor 0\n@@1a2b begin open\nno newline@@1a2b end open \
             101\n@@1a2b done\n",
        );
        assert!(report.done);
        assert_eq!(report.stray, ["early"]);
        assert_eq!(report.running(), None);
        let [doctor, open] = &report.steps[..] else { panic!("{report:?}") };
        assert_eq!((doctor.name.as_str(), doctor.status), ("doctor", Some(Status::Exit(0))));
        assert_eq!(doctor.output, ["ok kernel", ""]);
        assert_eq!((open.name.as_str(), open.status), ("open", Some(Status::Exit(101))));
        assert_eq!(open.output, ["no newline"]);
    }

    #[test]
    fn what_is_absent_is_no_exit_status() {
        let report = report("@@1a2b begin open:fexit\nno such hook\n@@1a2b end open:fexit absent\n");
        assert_eq!(report.steps[0].status, Some(Status::Absent));
        assert_eq!(report.steps[0].output, ["no such hook"]);
    }

    #[test]
    fn guest_that_ends_early_leaves_a_step_without_status() {
        let report = report("@@1a2b begin open\ntest every_call_exactly ... ");
        assert!(!report.done);
        assert_eq!(report.running(), Some("open"));
        assert_eq!(report.steps[0].status, None);
        assert_eq!(report.steps[0].output, ["test every_call_exactly ... "]);
    }

    #[test]
    fn what_is_no_mark_of_ours_is_output() {
        let report = report("@@1a2b begin open\n@@ffff end open 0\n@@1a2b end exec 0\n");
        assert_eq!(report.steps[0].output, ["@@ffff end open 0"]);
        assert_eq!(report.steps[0].status, None, "that was the end of another");
    }
}
