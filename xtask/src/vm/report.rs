//! What a guest prints: steps, each with its output and exit status, between lines that begin with a mark.
//!
//! The mark is random, so that no program in the guest prints such a line by chance.

use std::time::{Duration, Instant};

/// One step of a guest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) name: String,
    /// Exit status, or `absent` where the kernel lacks what the step is about; `None` where the guest ended before it.
    pub(crate) status: Option<String>,
    pub(crate) output: Vec<String>,
    /// By the clock of this machine, not of the guest.
    pub(crate) time: Duration,
}

/// What has been printed so far.
#[derive(Debug)]
pub(crate) struct Report {
    mark: String,
    pub(crate) steps: Vec<Step>,
    /// Whether the guest has run all steps.
    pub(crate) done: bool,
    /// Start of the step that runs.
    began: Option<Instant>,
    /// Lines outside of steps.
    pub(crate) stray: Vec<String>,
}

impl Report {
    pub(crate) fn new(mark: &str) -> Self {
        Self { mark: mark.to_owned(), steps: Vec::new(), done: false, began: None, stray: Vec::new() }
    }

    /// Takes the next line.
    pub(crate) fn add(&mut self, line: &str) {
        // A program need not end its last line.
        let (output, marked) = match line.split_once(self.mark.as_str()) {
            Some((output, marked)) => (output, marked.trim()),
            None => (line, ""),
        };
        if marked.is_empty() || !output.is_empty() {
            match self.steps.last_mut() {
                Some(step) if self.began.is_some() => step.output.push(output.to_owned()),
                _ => self.stray.push(output.to_owned()),
            }
        }
        match marked.split(' ').collect::<Vec<_>>()[..] {
            ["begin", name] => {
                self.began = Some(Instant::now());
                let (name, output, time) = (name.to_owned(), Vec::new(), Duration::ZERO);
                self.steps.push(Step { name, status: None, output, time });
            }
            ["end", name, status] => {
                if let (Some(step), Some(began)) = (self.steps.last_mut(), self.began.take()) {
                    step.time = began.elapsed();
                    step.status = (step.name == name).then(|| status.to_owned());
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
    fn steps_have_their_output_and_status() {
        let report = report(
            "early\n@@1a2b begin doctor\nok kernel\n\n@@1a2b end doctor 0\n@@1a2b begin open\nno newline@@1a2b end open \
             101\n@@1a2b begin fexit\n@@1a2b end fexit absent\n@@1a2b done\n",
        );
        assert!(report.done);
        assert_eq!((report.running(), &report.stray[..]), (None, &["early".to_owned()][..]));
        let steps = report
            .steps
            .iter()
            .map(|step| (step.name.as_str(), step.status.as_deref(), step.output.join("|")));
        let expected = [
            ("doctor", Some("0"), "ok kernel|".to_owned()),
            ("open", Some("101"), "no newline".to_owned()),
            ("fexit", Some("absent"), String::new()),
        ];
        assert_eq!(steps.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_step_that_does_not_end_has_no_status() {
        let report = report("@@1a2b begin open\n@@ffff end open 0\ntest every_call_exactly ... ");
        assert!(!report.done);
        assert_eq!((report.running(), &report.steps[0].status), (Some("open"), &None));
        assert_eq!(report.steps[0].output, ["@@ffff end open 0", "test every_call_exactly ... "]);
    }
}
