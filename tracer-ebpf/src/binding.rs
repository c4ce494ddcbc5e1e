//! When a process that prepares a container becomes the container's.
//!
//! The functions that look at kernel memory at length are functions of their own for the verifier, too: it looks at each once,
//! and not for every state of its callers. So they take and return numbers only.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_pid_tgid};
use tracer_common::{
    container::{ContainerKey, IN_PROCESS},
    lifecycle::{Bound, CGROUP_NAME_MAX, LifecycleKind, Record},
};

use crate::{
    emit::now,
    identity::{begin_epoch, decision_flags},
    maps::{BINDING, LIFECYCLE},
    processes::{Entry, is_still_runtime, leave},
    read,
    slots::{SlotEntry, slot_of},
    state::count,
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
pub fn is_entrypoint(preparing: ContainerKey, container_pid: u32) -> bool {
    executes_as_container(preparing.0, container_pid) != 0
}

/// [`is_entrypoint`] of the current task.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn executes_as_container(preparing: u64, container_pid: u32) -> u32 {
    let Some(slot) = slot_of(ContainerKey(preparing)) else { return 0 };
    let task = Task::current();
    let mntns = task.mntns();
    let is_entrypoint = mntns != slot.runtime_mntns()
        && task.real_parent().mntns() != mntns
        && task.root_dentry() != runtime_root(task, slot)
        && is_where_bound(task, slot, mntns, container_pid);
    u32::from(is_entrypoint)
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
fn is_restored(task: Task, slot: SlotEntry, executed: u32) -> bool {
    let restorer = slot.restorer();
    if restorer == 0 || executed != 0 {
        return false;
    }
    let executable = task.executable().0;
    executable != 0 && executable != restorer
}

/// Makes the current process, which prepares a container, a member if it has become one without executing the entrypoint.
#[inline(always)]
pub fn settle(program: impl Into<u32>, process: Entry) {
    if may_settle(process.preparing().0, process.executed()) != 0 {
        bind(program);
    }
}

/// Whether that is so, of a process that prepares this container.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn may_settle(preparing: u64, executed: u32) -> u32 {
    let preparing = ContainerKey(preparing);
    let Some(slot) = slot_of(preparing) else { return 0 };
    let task = Task::current();
    let mntns = task.mntns();
    if mntns == slot.runtime_mntns() {
        return 0;
    }
    let runs_in_process =
        || decision_flags(preparing) & IN_PROCESS != 0 && task.root_dentry() != runtime_root(task, slot);
    u32::from(is_restored(task, slot, executed) || is_inside(task, slot, mntns) || runs_in_process())
}

/// Makes the current process a member of the container that it was preparing. Of several of its threads one does it.
#[inline(always)]
pub fn bind(program: impl Into<u32>) {
    bind_current(program.into());
}

/// [`bind`], by the number of the program. Returns 1 if this thread has done it, else 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn bind_current(program: u32) -> u32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if BINDING.insert(&tgid, &0, u64::from(BPF_NOEXIST)).is_err() {
        return 0;
    }
    let mut is_bound = 0;
    if let Some(process) = Entry::of(tgid)
        && process.preparing() != ContainerKey::HOST
    {
        let (container, outer) = (process.preparing(), process.container());
        process.set_container(container);
        process.set_preparing(ContainerKey::HOST);
        let task = Task::current();
        if let Some(slot) = slot_of(container)
            && (slot.bound_mntns() == 0 || process.container_pid() == 1)
        {
            slot.set_bound(task, process.container_pid());
        }
        begin_epoch();
        leave(program, outer, process.pid(), 1);
        report(program, LifecycleKind::Bound, task, process);
        is_bound = 1;
    }
    // Nobody else removes it.
    let _ = BINDING.remove(&tgid);
    is_bound
}

/// A [`Bound`] with room for the longest name, its NUL and one byte more, which the helper may write.
#[repr(C)]
struct Report {
    bound: Bound,
    cgroup: [u8; CGROUP_NAME_MAX + 2],
}

/// Reports that the current process has become a container's, with the name of its cgroup.
#[inline(always)]
pub fn report(program: impl Into<u32>, kind: LifecycleKind, task: Task, process: Entry) {
    let Some(mut entry) = LIFECYCLE.reserve::<Report>(0) else {
        count(program, |stats| &mut stats.lost_lifecycle);
        return;
    };
    let report = entry.as_mut_ptr();
    // SAFETY: the destination has two bytes more than the longest name.
    let name = unsafe {
        read::kernel_str((&raw mut (*report).cgroup).cast(), CGROUP_NAME_MAX as u32, task.cgroup_name())
    };
    let (container, pid) = (process.container(), process.pid());
    // SAFETY: room in the ring, which is this program's until it is submitted.
    unsafe {
        (&raw mut (*report).bound).write(Bound {
            record: Record { timestamp: now(), container, kind: kind as u32, pid },
            cgroup_len: name.len,
            container_pid: process.container_pid(),
            ppid: task.real_parent().process_ids().tracer,
            reserved: 0,
        });
    }
    entry.submit(0);
}

/// The root directory of the runtime that a task descends from. That of one which ran before the programs did is not
/// known: most likely the host's.
#[inline(always)]
fn runtime_root(task: Task, slot: SlotEntry) -> Option<u64> {
    let root = slot.runtime_root();
    if root == 0 { task.host_init().root_dentry() } else { Some(root) }
}
