//! Errors that decide the exit code. All others mean failure while running.

/// This kernel, this user or this machine does not allow tracing: exit code 3.
#[derive(Debug, thiserror::Error)]
#[error("{problem}: {remedy}")]
pub struct Unsupported {
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

impl Unsupported {
    /// What is missing, and how to get it.
    pub fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

/// The command line asks for something that does not exist: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);
