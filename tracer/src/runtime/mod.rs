//! From a container runtime's invocation to the container it is about.

pub mod bundle;
mod cgroup;
mod claim;
pub mod cmdline;
mod config_json;
mod doubt;
mod evidence;
mod files;
pub(crate) mod helper;
mod invocation;
mod lifecycle;
mod membership;
mod names;
mod origin;
mod place;
mod process;
pub mod processes;
mod readers;
pub mod recovery;
mod reexecuted;
pub mod running;
mod state;
mod told;
mod unannounced;
mod watcher;

use std::path::PathBuf;

pub use claim::{Claim, Standing, Stray};
pub use lifecycle::Lifecycle;
pub use place::existing_state_roots;
pub use process::{INITIAL_PID_NS, Root};
pub use readers::Readers;
pub use told::Told;

/// Which runtimes are followed, and where they are looked for.
#[derive(Clone, Debug, Default)]
pub struct Runtimes {
    /// File names of container runtimes.
    pub names: Vec<String>,
    /// State directories besides the usual ones.
    pub state_roots: Vec<PathBuf>,
    /// Whether users' runtimes are trusted.
    pub trust_rootless: bool,
}

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
    "krun",
    "crun-krun",
    "sysbox-runc",
    "urunc",
    "buildkit-runc",
];
