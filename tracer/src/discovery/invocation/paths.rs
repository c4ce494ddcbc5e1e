//! Paths and names that a runtime's command line leaves out or has in relative form.

use std::path::{Path, PathBuf};

use tracer_common::Comm;

use crate::{
    discovery::{runtime_name, state_roots},
    sys::{files, process_handle::RuntimeProcess},
};

/// A runtime's name in full. Of a runtime that was running already there is the comm, which has 15 bytes of it.
pub(super) fn full_name(name: String, process: Option<&RuntimeProcess>) -> String {
    /// A comm ends with a NUL byte.
    const COMM_LEN: usize = size_of::<Comm>() - 1;
    let Some(process) = process.filter(|_| name.len() == COMM_LEN) else { return name };
    let full =
        process.cmdline().map_or_else(|_| name.clone(), |block| runtime_name::full_name(&name, &block));
    let executed = || process.program().filter(|program| runtime_name::is_cut_to(program, &name));
    if full == name { executed().unwrap_or(full) } else { full }
}

/// The state directory of a runtime whose command line names none. `owner` is its user.
pub(super) fn state_root(runtime: &str, owner: u32, process: Option<&RuntimeProcess>) -> PathBuf {
    if owner == files::ROOT && !state_roots::is_crun(runtime) {
        return state_roots::state_root(runtime);
    }
    let of_session = process.and_then(|process| process.variable("XDG_RUNTIME_DIR"));
    match of_session.filter(|directory| !directory.is_empty()) {
        Some(directory) => state_roots::state_root_of_user(runtime, Path::new(&directory)),
        None if owner == files::ROOT => state_roots::state_root(runtime),
        None => state_roots::state_root_of_user(runtime, &state_roots::runtime_directory(owner)),
    }
}

/// The bundle that a runtime was given, from its root. Runtimes change into their bundle, so a relative path starts at the
/// working directory that they had before, or, once they have changed it, is the end of the present one.
pub(super) fn bundle(process: Option<&RuntimeProcess>, given: &Path) -> PathBuf {
    let path = absolute(process, given);
    if let Some(process) = process
        && given.is_relative()
        && process.cwd().ends_with(given)
        && !process.has(&path.join("config.json"))
    {
        return process.cwd().to_owned();
    }
    path
}

/// A path that the runtime was given, from its root. If the runtime has exited, a relative path stays relative.
pub(super) fn absolute(process: Option<&RuntimeProcess>, path: &Path) -> PathBuf {
    process.map_or_else(|| path.to_owned(), |process| process.absolute(path))
}
