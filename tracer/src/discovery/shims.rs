//! Processes that watch over containers and know their bundles: containerd's shim and conmon.
//!
//! They tell of containers whose runtime was given a state directory that nobody would guess.

use std::{
    collections::HashSet,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex},
};

use tracer_common::lifecycle::{TRUST_ROOT, TRUST_USER_NS, TRUSTED};
use tracing::warn;

use crate::{
    discovery::place::{Place, Running},
    sanitize::line,
    sys::{
        files,
        proc_table::{Process, Processes},
        process_handle::RuntimeProcess,
        thread::lock,
    },
};

/// The shim's comm: the first 15 bytes of `containerd-shim-runc-v2`.
const SHIM: &str = "containerd-shim";
const CONMON: &str = "conmon";
/// gVisor's shim: its child is the sandbox's kernel.
const GVISOR_SHIM: &[u8] = b"containerd-shim-runsc-v1";
/// The shim that runs a container in a virtual machine by itself, without any runtime.
const KATA_SHIM: &[u8] = b"containerd-shim-kata-v2";

/// Shims that have their containers started by a runtime, or of which it is known what else they do.
const SHIMS: [&[u8]; 5] =
    [b"containerd-shim", b"containerd-shim-runc-v1", b"containerd-shim-runc-v2", GVISOR_SHIM, KATA_SHIM];

/// Says once of each kind of shim that what it runs without a runtime is not seen to be a container's.
fn warn_of_shim(shim: &str) {
    static WARNED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    let name = shim.rsplit('/').next().unwrap_or(shim);
    if lock(&WARNED).insert(name.to_owned()) {
        let name = line(name);
        warn!(
            "{name} may run containers without a runtime: what these do before they execute a program is attributed to the host"
        );
    }
}

/// Whether a process with this comm may watch over containers.
pub(crate) fn is_watcher(comm: &str) -> bool {
    matches!(comm, SHIM | CONMON)
}

/// The container of a process whose parent watches over it.
pub(crate) fn container_of(place: &Place, parent: RuntimeProcess, comm: &str, child: u32) -> Option<Running> {
    let watcher = Watcher { place, process: parent, children: vec![child] };
    watcher.containers(comm)?.into_iter().find(|container| container.init == child)
}

/// The containers that a process watches over, whose first processes are its children. None for all others, and
/// for what is not root's in its place.
pub(crate) fn containers(place: &Place, process: &Process, processes: &Processes) -> Vec<Running> {
    if !is_watcher(&process.comm) {
        return Vec::new();
    }
    let comm = process.comm.as_str();
    let needed = if place.is_host() { TRUSTED } else { TRUST_ROOT | TRUST_USER_NS };
    let children =
        processes.iter().filter(|child| child.ppid == process.pid).map(|child| child.pid).collect();
    RuntimeProcess::open(process.pid, process.start_ticks)
        .ok()
        .filter(|process| process.trust().is_ok_and(|trust| trust & needed == needed))
        .and_then(|process| Watcher { place, process, children }.containers(comm))
        .unwrap_or_default()
}

struct Watcher<'a> {
    place: &'a Place,
    process: RuntimeProcess,
    children: Vec<u32>,
}

impl Watcher<'_> {
    /// What a watcher with this comm watches over.
    fn containers(&self, comm: &str) -> Option<Vec<Running>> {
        match comm {
            SHIM => self.shims(),
            CONMON => self.conmons(),
            _ => None,
        }
    }

    /// A shim works in the bundle of the first of its containers. The others of the pod lie beside it, and each has
    /// the number of its first process in `init.pid`.
    fn shims(&self) -> Option<Vec<Running>> {
        let bundles = self.process.cwd().parent()?;
        let ids = files::list_below(self.process.root(), bundles);
        let cmdline = self.process.cmdline().ok()?;
        let shim = cmdline.split(|byte| *byte == 0).next()?;
        if shim.ends_with(KATA_SHIM) {
            return self.kata(bundles, &cmdline);
        }
        let runtime = if shim.ends_with(GVISOR_SHIM) { "runsc" } else { "runc" };
        if !SHIMS.iter().any(|known| shim.ends_with(known)) {
            warn_of_shim(&String::from_utf8_lossy(shim));
        }
        let init = |id: &String| {
            let path = bundles.join(id).join("init.pid");
            let bytes = files::read_below(self.process.root(), &path, files::ROOT).ok()?;
            let pid = self.place.pid(String::from_utf8_lossy(&bytes).trim().parse().ok()?)?;
            self.children.contains(&pid).then_some(pid)
        };
        let container = |id: String| Some(self.running(runtime, bundles.join(&id), init(&id)?, id));
        Some(ids.into_iter().filter_map(container).collect())
    }

    /// One shim watches over one sandbox; its processes are in the machine.
    fn kata(&self, bundles: &Path, cmdline: &[u8]) -> Option<Vec<Running>> {
        let id = String::from_utf8_lossy(value(cmdline, b"-id")?).into_owned();
        Some(vec![self.running("kata", bundles.join(&id), self.process.pid(), id)])
    }

    /// `conmon -b BUNDLE -c ID …`; its child is the container's first process, or one that joined it.
    fn conmons(&self) -> Option<Vec<Running>> {
        let cmdline = self.process.cmdline().ok()?;
        let id = String::from_utf8_lossy(value(&cmdline, b"-c")?).into_owned();
        let bundle = Path::new(OsStr::from_bytes(value(&cmdline, b"-b")?));
        let container = |child: &u32| self.running("runc", bundle.to_owned(), *child, id.clone());
        Some(self.children.iter().map(container).collect())
    }

    fn running(&self, runtime: &str, bundle: PathBuf, init: u32, id: String) -> Running {
        let view = self.place.view();
        Running { state_root: None, id, bundle, runtime: runtime.to_owned(), init, view, owner: files::ROOT }
    }
}

/// The word behind `option` on a command line.
fn value<'a>(cmdline: &'a [u8], option: &[u8]) -> Option<&'a [u8]> {
    let mut words = cmdline.split(|byte| *byte == 0);
    words.find(|word| *word == option)?;
    words.next()
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
