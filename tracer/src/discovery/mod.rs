//! From the execution of a container runtime to the container that it starts.
//!
//! `lifecycle` reads what the programs report, `executions` has what becomes of each execution, and `resolver` reads what a
//! runtime names. `scan` finds containers that were running already, `recovery` those whose records were lost, and `engines`
//! completes what is known. `oci` reads what runtimes and engines write.

pub(crate) mod engines;
mod environment;
mod evidence;
mod executions;
mod invocation;
mod lifecycle;
mod lifecycle_record;
mod membership;
mod node_container;
pub(crate) mod oci;
mod parent_process;
mod pod_warning;
mod readers;
pub(crate) mod recovery;
mod resolver;
mod runtime_execution;
mod runtime_name;
pub(crate) mod scan;
mod shims;
mod state_roots;
mod unresolved;

use std::path::PathBuf;

pub(crate) use environment::existing_state_roots;
pub(crate) use lifecycle::Lifecycle;
#[cfg(any(test, feature = "testing"))]
pub(crate) use lifecycle_record::LifecycleRecord;
pub(crate) use readers::Readers;
pub(crate) use resolver::Resolver;
#[cfg(any(test, feature = "testing"))]
pub(crate) use runtime_execution::{RuntimeExecution, TrustLevel};

/// The runtimes to follow, and where their state is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtimes {
    /// File names of container runtimes.
    pub(crate) names: Vec<String>,
    /// State directories in addition to the default ones.
    pub(crate) state_roots: Vec<PathBuf>,
    /// Whether runtimes of users are trusted.
    pub(crate) trust_rootless: bool,
}

/// File names of container runtimes; wrappers of runc pass their command line on.
pub(crate) const RUNTIMES: &[&str] = &[
    "runc",
    "crun",
    "youki",
    "runsc",
    "kata-runtime",
    "nvidia-container-runtime",
    "crun-wasm",
    "docker-runc",
    "krun",
    "crun-krun",
    "sysbox-runc",
    "urunc",
    "buildkit-runc",
];
