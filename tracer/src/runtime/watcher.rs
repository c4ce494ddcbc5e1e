//! Processes that watch over containers and know their bundles: containerd's shim and conmon.
//!
//! They tell of containers whose runtime was given a state directory that nobody would guess.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use tracer_common::lifecycle::TRUSTED;

use super::{
    files,
    process::RuntimeProcess,
    processes::{Process, Processes},
    running::Running,
};

/// The shim's comm: the first 15 bytes of `containerd-shim-runc-v2`.
const SHIM: &str = "containerd-shim";
const CONMON: &str = "conmon";

/// The containers that a process watches over, whose first processes are its children. None for all others, and
/// for what is not the host's own.
pub fn containers(process: &Process, processes: &Processes) -> Vec<Running> {
    let of: fn(&RuntimeProcess, &[&Process]) -> Option<Vec<Running>> = match process.comm.as_str() {
        SHIM => of_shim,
        CONMON => of_conmon,
        _ => return Vec::new(),
    };
    let children: Vec<&Process> = processes.iter().filter(|child| child.ppid == process.pid).collect();
    RuntimeProcess::open(process.pid, process.start_ticks)
        .ok()
        .filter(|watcher| watcher.trust().is_ok_and(|trust| trust == TRUSTED))
        .and_then(|watcher| of(&watcher, &children))
        .unwrap_or_default()
}

/// A shim works in the bundle of the first of its containers. The others of the pod lie beside it, and each has
/// the number of its first process in `init.pid`.
fn of_shim(watcher: &RuntimeProcess, children: &[&Process]) -> Option<Vec<Running>> {
    let bundles = watcher.cwd().parent()?;
    let init = |id: &String| {
        let bytes = files::read_below(watcher.root(), &bundles.join(id).join("init.pid")).ok()?;
        let pid: u32 = String::from_utf8_lossy(&bytes).trim().parse().ok()?;
        Some(children.iter().find(|child| child.pid == pid)?.pid)
    };
    let ids = files::list_below(watcher.root(), bundles);
    Some(ids.into_iter().filter_map(|id| Some(running(bundles.join(&id), init(&id)?, id))).collect())
}

/// `conmon -b BUNDLE -c ID …`; its child is the container's first process, or one that joined it.
fn of_conmon(watcher: &RuntimeProcess, children: &[&Process]) -> Option<Vec<Running>> {
    let cmdline = watcher.cmdline().ok()?;
    let id = String::from_utf8_lossy(value(&cmdline, b"-c")?).into_owned();
    let bundle = Path::new(OsStr::from_bytes(value(&cmdline, b"-b")?));
    Some(children.iter().map(|child| running(bundle.to_owned(), child.pid, id.clone())).collect())
}

/// The word behind `option` on a command line.
fn value<'a>(cmdline: &'a [u8], option: &[u8]) -> Option<&'a [u8]> {
    let mut words = cmdline.split(|byte| *byte == 0);
    words.find(|word| *word == option)?;
    words.next()
}

fn running(bundle: PathBuf, init: u32, id: String) -> Running {
    Running { state_root: None, id, bundle, runtime: "runc".to_owned(), init }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_options_value_is_the_word_behind_it() {
        let cmdline = b"conmon\0-b\0/bundle\0-c\0id\0-b\0";
        assert_eq!(value(cmdline, b"-b"), Some(&b"/bundle"[..]));
        assert_eq!(value(cmdline, b"-c"), Some(&b"id"[..]));
        assert_eq!(value(cmdline, b"-x"), None);
    }
}
