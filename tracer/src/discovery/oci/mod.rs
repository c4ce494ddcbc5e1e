//! Readers of what OCI runtimes and engines write: command lines, bundles, state files.

pub(crate) mod bundle;
pub(crate) mod cmdline;
mod config_json;
mod names;
pub(crate) mod origin;
pub(crate) mod state;
