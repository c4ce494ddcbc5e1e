//! From a container runtime's invocation to the container it is about.

pub mod bundle;
mod cgroup;
mod claim;
pub mod cmdline;
mod files;
pub(crate) mod helper;
mod invocation;
mod lifecycle;
mod place;
mod process;
pub mod processes;
mod readers;
pub mod recovery;
mod reexecuted;
pub mod running;
mod state;
mod told;
mod watcher;

pub use claim::{Claim, Standing, Stray};
pub use lifecycle::Lifecycle;
pub use process::{INITIAL_PID_NS, Root};
pub use readers::Readers;
pub use told::Told;

/// File names of container runtimes; what wraps runc hands on its command line.
pub const RUNTIMES: &[&str] = &[
    "runc",
    "crun",
    "youki",
    "runsc",
    "kata-runtime",
    "nvidia-container-runtime",
    "crun-wasm",
    "docker-runc",
];
