//! The list of tests of one binary, and its `main`.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

use crate::need::Need;
use crate::{containerd, docker, leftovers, scratch};

/// The tests of one binary. cargo-nextest runs each in a process of its own; run by hand, the binary
/// runs them in parallel threads, as the built-in harness would.
///
/// A test whose [`Need`]s are not met prints `SKIPPED NAME: REASON` on stderr and counts as ignored,
/// or fails where `TRACER_REQUIRE_ALL=1` says that this machine must be able to run all. cargo-nextest
/// takes an ignored test for one that passed: `cargo xtask test` counts these lines.
#[derive(Default)]
pub struct Suite {
    trials: Vec<Trial>,
}

impl Suite {
    /// No tests yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a test that fails by panicking.
    #[must_use]
    pub fn test(mut self, name: &str, needs: &[Need], body: impl FnOnce() + Send + 'static) -> Self {
        let needs = needs.to_vec();
        let label = name.to_owned();
        self.trials.push(Trial::ignorable_test(name, move || {
            if let Some((need, reason)) = needs.iter().find_map(|need| Some((need, need.missing()?))) {
                let all = std::env::var_os("TRACER_REQUIRE_ALL").is_some_and(|value| value == "1");
                if all && need.can_be_installed() {
                    return Err(format!("cannot run here: {reason}").into());
                }
                eprintln!("SKIPPED {label}: {reason}");
                return Ok(Completion::ignored_with(reason));
            }
            body();
            Ok(Completion::Completed)
        }));
        self
    }

    /// Runs what the command line selects, then looks for what the tests left behind: that fails
    /// the run as a test does.
    pub fn run(self) -> ExitCode {
        let arguments = Arguments::from_args();
        let list = arguments.list;
        let conclusion = libtest_mimic::run(&arguments, self.trials);
        if list {
            return ExitCode::SUCCESS;
        }
        containerd::stop_shared();
        docker::stop_shared();
        scratch::remove(scratch::root());
        let left = leftovers::find();
        for thing in &left {
            eprintln!("LEFT BEHIND: {thing}");
        }
        if left.is_empty() { conclusion.exit_code() } else { ExitCode::FAILURE }
    }
}
