//! The log lines of a node: held back until its run is ready, since one of them may be the reason why it never is.

use std::{collections::VecDeque, sync::Arc};

use crate::{kubectl::text, sys::stderr::status};

/// How many lines are held back.
const HELD_MAX: usize = 16;
/// What a status line of `tracer` begins with.
const STATUS: &str = "tracer: ";
/// What the first line of a usage error begins with.
const USAGE_ERROR: &str = "error: ";

/// The log of one run on a node.
#[derive(Debug)]
pub(super) struct NodeLog {
    node: Arc<str>,
    held: VecDeque<String>,
    /// Whether lines are shown at once.
    is_released: bool,
}

impl NodeLog {
    pub(super) const fn new(node: Arc<str>) -> Self {
        Self { node, held: VecDeque::new(), is_released: false }
    }

    /// Adds a line.
    pub(super) fn push(&mut self, line: String) {
        self.held.push_back(line);
        if self.is_released || self.held.len() > HELD_MAX {
            self.show();
        }
    }

    /// Shows what was held back, and further lines at once.
    pub(super) fn release(&mut self) {
        self.is_released = true;
        self.show();
    }

    fn show(&mut self) {
        for line in self.held.drain(..) {
            node_status(&self.node, line.strip_prefix(STATUS).unwrap_or(&line).trim_start());
        }
    }

    /// Takes the line with the reason of a failure: the last status line, or the first of the argument parser.
    pub(super) fn take_cause(&mut self) -> Option<String> {
        let status = self.held.iter().rposition(|line| line.starts_with(STATUS));
        let index = status.or_else(|| self.held.iter().position(|line| line.starts_with(USAGE_ERROR)));
        let line = self.held.remove(index?)?;
        Some(line.strip_prefix(STATUS).unwrap_or(&line).to_owned())
    }
}

/// Writes a status line about a node.
pub(in crate::kubectl) fn node_status(node: &str, text: &str) {
    status(&format!("node {}: {}", text::line(node), text::line(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_failure_is_the_last_status_line_or_the_usage_error() {
        let log = |lines: &[&str]| {
            let mut log = NodeLog::new("n".into());
            for line in lines {
                log.push((*line).to_owned());
            }
            log
        };
        let mut failed = log(&["WARN one", "tracer: first", "tracer: BTF is missing: get it"]);
        assert_eq!(failed.take_cause().as_deref(), Some("BTF is missing: get it"));
        assert_eq!(failed.held, ["WARN one", "tracer: first"]);
        let mut usage = log(&["error: unexpected argument '--lease' found", "Usage: x"]);
        assert!(usage.take_cause().unwrap().contains("--lease"));
        assert_eq!(log(&[]).take_cause(), None);
    }
}
