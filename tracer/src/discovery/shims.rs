//! Monitors of containers, which know their bundles: containerd's shim and conmon. They lead to containers whose runtime was
//! given a state directory that cannot be guessed.

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
    discovery::environment::{Environment, RunningContainer},
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

/// Shims that have their containers started by a runtime, or whose behaviour is known.
const SHIMS: [&[u8]; 5] =
    [b"containerd-shim", b"containerd-shim-runc-v1", b"containerd-shim-runc-v2", GVISOR_SHIM, KATA_SHIM];

/// Warns once of each unknown kind of shim.
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

/// Whether a process with this comm may be a monitor of containers.
pub(crate) fn is_monitor(comm: &str) -> bool {
    matches!(comm, SHIM | CONMON)
}

/// The container of a process whose parent is its monitor.
pub(crate) fn container_of(
    environment: &Environment,
    parent: RuntimeProcess,
    comm: &str,
    child: u32,
) -> Option<RunningContainer> {
    let monitor = ContainerMonitor { environment, process: parent, children: vec![child] };
    monitor.containers(comm)?.into_iter().find(|container| container.init == child)
}

/// The containers of a monitor, whose first processes are its children. Empty for any other process, and for a process
/// that is not root's in its environment.
pub(crate) fn containers(
    environment: &Environment,
    process: &Process,
    processes: &Processes,
) -> Vec<RunningContainer> {
    if !is_monitor(&process.comm) {
        return Vec::new();
    }
    let comm = process.comm.as_str();
    let needed = if environment.is_host() { TRUSTED } else { TRUST_ROOT | TRUST_USER_NS };
    let children =
        processes.iter().filter(|child| child.ppid == process.pid).map(|child| child.pid).collect();
    RuntimeProcess::open(process.pid, process.start_ticks)
        .ok()
        .filter(|process| process.trust().is_ok_and(|trust| trust & needed == needed))
        .and_then(|process| ContainerMonitor { environment, process, children }.containers(comm))
        .unwrap_or_default()
}

struct ContainerMonitor<'a> {
    environment: &'a Environment,
    process: RuntimeProcess,
    children: Vec<u32>,
}

impl ContainerMonitor<'_> {
    /// Its containers, by its comm.
    fn containers(&self, comm: &str) -> Option<Vec<RunningContainer>> {
        match comm {
            SHIM => self.shims(),
            CONMON => self.conmons(),
            _ => None,
        }
    }

    /// A shim works in the bundle of its first container. The pod's others are next to it, and each has the id of its first
    /// process in `init.pid`.
    fn shims(&self) -> Option<Vec<RunningContainer>> {
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
            let pid = self.environment.pid(String::from_utf8_lossy(&bytes).trim().parse().ok()?)?;
            self.children.contains(&pid).then_some(pid)
        };
        let container = |id: String| Some(self.running(runtime, bundles.join(&id), init(&id)?, id));
        Some(ids.into_iter().filter_map(container).collect())
    }

    /// One shim has one sandbox, whose processes are in the virtual machine.
    fn kata(&self, bundles: &Path, cmdline: &[u8]) -> Option<Vec<RunningContainer>> {
        let id = String::from_utf8_lossy(value(cmdline, b"-id")?).into_owned();
        Some(vec![self.running("kata", bundles.join(&id), self.process.pid(), id)])
    }

    /// `conmon -b BUNDLE -c ID …`; its child is the container's first process, or one that joined it.
    fn conmons(&self) -> Option<Vec<RunningContainer>> {
        let cmdline = self.process.cmdline().ok()?;
        let id = String::from_utf8_lossy(value(&cmdline, b"-c")?).into_owned();
        let bundle = Path::new(OsStr::from_bytes(value(&cmdline, b"-b")?));
        let container = |child: &u32| self.running("runc", bundle.to_owned(), *child, id.clone());
        Some(self.children.iter().map(container).collect())
    }

    fn running(&self, runtime: &str, bundle: PathBuf, init: u32, id: String) -> RunningContainer {
        let view = self.environment.view();
        RunningContainer {
            state_root: None,
            id,
            bundle,
            runtime: runtime.to_owned(),
            init,
            view,
            owner: files::ROOT,
        }
    }
}

/// The word after `option` on a command line.
fn value<'a>(cmdline: &'a [u8], option: &[u8]) -> Option<&'a [u8]> {
    let mut words = cmdline.split(|byte| *byte == 0);
    words.find(|word| *word == option)?;
    words.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_value_is_next_word() {
        let cmdline = b"conmon\0-b\0/bundle\0-c\0id\0-b\0";
        assert_eq!(value(cmdline, b"-b"), Some(&b"/bundle"[..]));
        assert_eq!(value(cmdline, b"-c"), Some(&b"id"[..]));
        assert_eq!(value(cmdline, b"-x"), None);
    }
}
