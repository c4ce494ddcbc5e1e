//! Errors that determine the exit code. All others are failures while running, with exit code 1.

/// Exit code: failure while running.
pub(crate) const FAILURE: u8 = 1;
/// Exit code: wrong usage; clap uses the same.
pub(crate) const USAGE: u8 = 2;
/// Exit code: not permitted, or the kernel lacks a required feature.
pub(crate) const UNSUPPORTED: u8 = 3;

/// This kernel, user or machine does not permit tracing: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{problem}: {remedy}")]
pub(crate) struct Unsupported {
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

impl Unsupported {
    /// `problem` is what is missing, `remedy` how to fix it.
    pub(crate) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

/// The command line requests something that does not exist: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The message of an error with its causes. A cause that the text contains already is left out.
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
    fn cause_that_an_error_quotes_is_not_repeated() {
        let missing = || io::Error::from_raw_os_error(2);
        let error = anyhow::Error::new(Repeats(missing())).context("starting");
        assert_eq!(chain(error.as_ref()), format!("starting: cannot read x: {}", missing()));
        let error = anyhow::Error::new(missing()).context("starting");
        assert_eq!(chain(error.as_ref()), format!("starting: {}", missing()));
    }
}
