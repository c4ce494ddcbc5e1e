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
}

impl Report {
    pub(crate) fn new(mark: &str) -> Self {
        Self { mark: mark.to_owned(), steps: Vec::new(), done: false, began: None }
    }

    /// Takes the next line.
    pub(crate) fn add(&mut self, line: &str) {
        // A program need not end its last line.
        let (output, marked) = match line.split_once(self.mark.as_str()) {
            Some((output, marked)) => (output, marked.trim()),
            None => (line, ""),
        };
        if marked.is_empty() || !output.is_empty() {
            if let Some(step) = self.steps.last_mut().filter(|_| self.began.is_some()) {
                step.output.push(output.to_owned());
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

#[test]
fn steps_have_their_output_and_status() {
    let mut report = Report::new("@@1a2b");
    let text = "early\n@@1a2b begin doctor\nok kernel\n\n@@1a2b end doctor 0\n@@1a2b begin open\nno newline@@1a2b end \
                open 101\n@@1a2b begin fexit\n@@1a2b end fexit absent\n@@1a2b done\n@@1a2b begin exec\n@@ffff end exec 0";
    text.lines().for_each(|line| report.add(line));
    let steps = report.steps.iter().map(|step| {
        let output = step.output.join("|");
        (step.name.as_str(), step.status.as_deref(), output)
    });
    let expected = [
        ("doctor", Some("0"), "ok kernel|".to_owned()),
        ("open", Some("101"), "no newline".to_owned()),
        ("fexit", Some("absent"), String::new()),
        // The mark is another one: the guest has ended before this step did.
        ("exec", None, "@@ffff end exec 0".to_owned()),
    ];
    assert_eq!(steps.collect::<Vec<_>>(), expected);
    assert!(report.done && report.running() == Some("exec"));
}
