//! When a process that prepares a container becomes the container's.

use aya_ebpf::bindings::BPF_NOEXIST;
use tracer_common::{
    container::{ContainerKey, IN_PROCESS},
    lifecycle::{Bound, CGROUP_NAME_MAX, Kind, Record},
    stats::Program,
};

use crate::{
    emit::{Scratch, now},
    identity::{begin_epoch, verdict},
    maps::BINDING,
    processes::{Entry, is_still_runtime, leave},
    read,
    slots::{SlotEntry, slot_of},
    task::Task,
};

/// Whether a process that executes a program does so as the container which it prepares.
///
/// It is in a mount namespace that is not the runtime's, while its parent is outside of that namespace: hooks that the runtime
/// runs within the container are children of the container's init. It has a root directory that is not the runtime's: hooks
/// that have left the runtime's namespace for one of their own still have that. It need not be the first such process, since
/// a hook that enters the container's namespace looks the same and must not keep the entrypoint from being one. But once one
/// is bound the others have to be where that one is, so that what a hook leaves behind cannot pass for the container later.
#[inline(always)]
pub fn is_entrypoint(task: Task, preparing: ContainerKey, container_pid: u32) -> bool {
    let Some(slot) = slot_of(preparing) else { return false };
    let mntns = task.mntns();
    mntns != slot.runtime_mntns()
        && task.real_parent().mntns() != mntns
        && task.root_dentry() != runtime_root(task, slot)
        && is_where_bound(task, slot, mntns, container_pid)
}

#[inline(always)]
fn is_where_bound(task: Task, slot: SlotEntry, mntns: u32, container_pid: u32) -> bool {
    let (bound_mntns, bound_pidns) = (slot.bound_mntns(), slot.bound_pidns());
    bound_mntns == 0
        || mntns == bound_mntns
        || bound_pidns != 0 && task.own_pid_ns() == bound_pidns
        // The init of a pid namespace, where what was bound before is none.
        || container_pid == 1 && slot.bound_container_pid() != 1
}

/// Whether a process is where the bound processes of its container are, and does not run the runtime's program any more:
/// what a hook within the container leaves behind, or what a tracer has injected.
#[inline(always)]
fn is_inside(task: Task, slot: SlotEntry, mntns: u32) -> bool {
    slot.bound_root() != 0
        && mntns == slot.bound_mntns()
        && task.root_dentry() == Some(slot.bound_root())
        && !is_still_runtime()
}

/// Whether criu has restored a process: each restored process is the container's from then on; what it did before criu did.
/// That shows by its executable, which criu changes to the restored one last, without executing it.
#[inline(always)]
fn is_restored(task: Task, slot: SlotEntry, process: Entry) -> bool {
    let restorer = slot.restorer();
    if restorer == 0 || process.executed() != 0 {
        return false;
    }
    let executable = task.executable().0;
    executable != 0 && executable != restorer
}

/// Makes the current process, which prepares a container, a member if it has become one without executing the entrypoint.
#[inline(always)]
pub fn settle(program: Program, tgid: u32, process: Entry) {
    let preparing = process.preparing();
    let Some(slot) = slot_of(preparing) else { return };
    let task = Task::current();
    let mntns = task.mntns();
    if mntns == slot.runtime_mntns() {
        return;
    }
    let runs_in_process =
        || verdict(preparing) & IN_PROCESS != 0 && task.root_dentry() != runtime_root(task, slot);
    if is_restored(task, slot, process) || is_inside(task, slot, mntns) || runs_in_process() {
        bind(program, task, tgid, process);
    }
}

/// Makes a process a member of the container that it was preparing. Of several of its threads one does it.
#[inline(always)]
pub fn bind(program: Program, task: Task, tgid: u32, process: Entry) {
    if BINDING.insert(&tgid, &0, u64::from(BPF_NOEXIST)).is_err() {
        return;
    }
    let container = process.preparing();
    if container != ContainerKey::HOST {
        let outer = process.container();
        process.set_container(container);
        process.set_preparing(ContainerKey::HOST);
        if let Some(slot) = slot_of(container)
            && (slot.bound_mntns() == 0 || process.container_pid() == 1)
        {
            slot.set_bound(task, process.container_pid());
        }
        begin_epoch();
        leave(program, outer, process.pid(), 1);
        submit(program, Kind::Bound, task, process);
    }
    // Nobody else removes it.
    let _ = BINDING.remove(&tgid);
}

/// Reports a process that has become a container's, with the name of its cgroup.
#[inline(always)]
pub fn submit(program: Program, kind: Kind, task: Task, process: Entry) {
    const FIXED: u32 = size_of::<Bound>() as u32;
    let Some(mut scratch) = Scratch::take(program) else { return };
    // SAFETY: the buffer is longer than both together.
    let name = unsafe { read::kernel_str(scratch.at(FIXED), CGROUP_NAME_MAX as u32, task.cgroup_name()) };
    let (container, pid) = (process.container(), process.pid());
    scratch.write(Bound {
        record: Record { timestamp: now(), container, kind: kind as u32, pid },
        cgroup_len: name.len,
        container_pid: process.container_pid(),
        ppid: task.real_parent().process_ids().tracer,
        reserved: 0,
    });
    scratch.submit_lifecycle(FIXED + name.len);
}

/// The root directory of the runtime that a task descends from. That of one which ran before the programs did is not
/// known: most likely the host's.
#[inline(always)]
fn runtime_root(task: Task, slot: SlotEntry) -> Option<u64> {
    let root = slot.runtime_root();
    if root == 0 { task.host_init().root_dentry() } else { Some(root) }
}
