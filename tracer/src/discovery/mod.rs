//! From a container runtime's invocation to the container it is about.

mod claim;
mod doubt;
pub(crate) mod engines;
mod evidence;
mod invocation;
mod lifecycle;
mod membership;
pub(crate) mod oci;
mod place;
mod readers;
mod record;
pub(crate) mod recovery;
pub(crate) mod scan;
mod shims;
mod unannounced;

use std::path::PathBuf;

pub(crate) use claim::{Claim, Standing, Stray};
pub(crate) use lifecycle::Lifecycle;
pub(crate) use place::existing_state_roots;
pub(crate) use readers::Readers;
pub(crate) use record::Told;

/// Which runtimes are followed, and where they are looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtimes {
    /// File names of container runtimes.
    pub(crate) names: Vec<String>,
    /// State directories besides the usual ones.
    pub(crate) state_roots: Vec<PathBuf>,
    /// Whether users' runtimes are trusted.
    pub(crate) trust_rootless: bool,
}

/// File names of container runtimes; what wraps runc hands on its command line.
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
