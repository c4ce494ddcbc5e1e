//! Errors that decide the exit code. All others mean failure while running.

/// Exit code: failure while running.
pub(crate) const FAILURE: u8 = 1;
/// Exit code: wrong usage, as clap has it too.
pub(crate) const USAGE: u8 = 2;
/// Exit code: not permitted, or the kernel lacks something.
pub(crate) const UNSUPPORTED: u8 = 3;

/// This kernel, this user or this machine does not allow tracing: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{problem}: {remedy}")]
pub(crate) struct Unsupported {
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

impl Unsupported {
    /// What is missing, and how to get it.
    pub(crate) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

/// The command line asks for something that does not exist: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// An error with its causes. What repeats a cause, or a part of one, is said once.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let further = error.to_string();
        if !text.contains(&further) {
            text = format!("{text}: {further}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read x: {0}")]
    struct Repeats(#[source] io::Error);

    #[test]
    fn what_an_error_repeats_of_its_cause_is_said_once() {
        let missing = || io::Error::from_raw_os_error(2);
        let error = anyhow::Error::new(Repeats(missing())).context("starting");
        assert_eq!(chain(error.as_ref()), format!("starting: cannot read x: {}", missing()));
        let error = anyhow::Error::new(missing()).context("starting");
        assert_eq!(chain(error.as_ref()), format!("starting: {}", missing()));
    }
}
