//! Decides when a process that prepares a container becomes a member of it.
//!
//! Functions that read a lot of kernel memory are separate functions for the verifier too (global functions): it
//! verifies each of them once instead of once for every state of its callers. Their arguments and results are
//! therefore plain numbers.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_pid_tgid};
use tracer_common::{
    container::{ContainerKey, IN_PROCESS},
    lifecycle::{Bound, CGROUP_NAME_MAX, LifecycleKind, Record},
};

use crate::{
    emit::now,
    identity::{begin_epoch, decision_flags},
    maps::{BINDING, LIFECYCLE},
    processes::{ProcessEntry, is_still_runtime, leave},
    read,
    slots::{SlotEntry, slot_of},
    state::count,
    task::Task,
};

/// Whether the program that a process executes is the entrypoint of the container that it prepares.
///
/// The process is in another mount namespace than the runtime, and its parent is not in that namespace: hooks that
/// the runtime runs within the container are children of the container's init. Its root directory is not the
/// runtime's: a hook that has left the runtime's namespace for one of its own keeps the runtime's root. The process
/// need not be the first one that qualifies, because a hook that enters the container's namespace looks the same and
/// must not prevent the entrypoint from being bound. Once a process is bound, later ones must be in the same
/// namespace, so that what a hook leaves behind is not taken for the container.
#[inline(always)]
pub fn is_entrypoint(preparing: ContainerKey, container_pid: u32) -> bool {
    executes_as_container(preparing.0, container_pid) != 0
}

/// [`is_entrypoint`] for the current task: 1 if it is, else 0.
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

/// Whether a process is where a bound process of its container is. True before any is bound.
#[inline(always)]
fn is_where_bound(task: Task, slot: SlotEntry, mntns: u32, container_pid: u32) -> bool {
    let (bound_mntns, bound_pidns) = (slot.bound_mntns(), slot.bound_pidns());
    bound_mntns == 0
        || mntns == bound_mntns
        || bound_pidns != 0 && task.own_pid_ns() == bound_pidns
        // The init of a pid namespace, when the process bound before is not one.
        || container_pid == 1 && slot.bound_container_pid() != 1
}

/// Whether a process is in the mount namespace and root directory of the bound processes of its container and no
/// longer executes the runtime's program: a process that a hook leaves behind in the container, or one that a
/// debugger injected.
#[inline(always)]
fn is_inside(task: Task, slot: SlotEntry, mntns: u32) -> bool {
    slot.bound_root() != 0
        && mntns == slot.bound_mntns()
        && task.root_dentry() == Some(slot.bound_root())
        && !is_still_runtime()
}

/// Whether criu has restored a process. Each restored process is a member from then on; before, it was criu's. It
/// shows in the executable, which criu changes to the restored one as its last step, without an exec.
#[inline(always)]
fn is_restored(task: Task, slot: SlotEntry, executed: u32) -> bool {
    let restorer = slot.restorer();
    if restorer == 0 || executed != 0 {
        return false;
    }
    let executable = task.executable().0;
    executable != 0 && executable != restorer
}

/// Makes the current process, which prepares a container, a member of it if it has become one without executing the
/// entrypoint.
#[inline(always)]
pub fn settle(program: impl Into<u32>, process: ProcessEntry) {
    if may_settle(process.preparing().0, process.executed()) != 0 {
        bind(program);
    }
}

/// Whether [`settle`] makes the current process, which prepares this container, a member: 1 or 0.
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

/// Makes the current process a member of the container that it prepares. If several of its threads do this at once,
/// one of them has an effect.
#[inline(always)]
pub fn bind(program: impl Into<u32>) {
    bind_current(program.into());
}

/// [`bind`], by the program's number. Returns 1 if this thread has bound the process, else 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn bind_current(program: u32) -> u32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if BINDING.insert(&tgid, &0, u64::from(BPF_NOEXIST)).is_err() {
        return 0;
    }
    let mut is_bound = 0;
    if let Some(process) = ProcessEntry::of(tgid)
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
    // Only the thread that inserted the key removes it.
    let _ = BINDING.remove(&tgid);
    is_bound
}

/// A [`Bound`] with capacity for the longest name, its NUL, and one byte more, which the helper may write.
#[repr(C)]
struct BoundRecord {
    bound: Bound,
    cgroup: [u8; CGROUP_NAME_MAX + 2],
}

/// Reports that the current process has become a member of a container, with the name of its cgroup.
#[inline(always)]
pub fn report(program: impl Into<u32>, kind: LifecycleKind, task: Task, process: ProcessEntry) {
    let Some(mut entry) = LIFECYCLE.reserve::<BoundRecord>(0) else {
        count(program, |stats| &mut stats.lost_lifecycle);
        return;
    };
    let report = entry.as_mut_ptr();
    // SAFETY: the destination is reserved in the ring buffer and has two bytes more than the longest name, which is
    // what the function requires.
    let name = unsafe {
        read::kernel_str((&raw mut (*report).cgroup).cast(), CGROUP_NAME_MAX as u32, task.cgroup_name())
    };
    let (container, pid) = (process.container(), process.pid());
    // SAFETY: the record is reserved in the ring buffer, aligned to eight bytes, and belongs to this program until it
    // is submitted.
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

/// The root directory of the runtime that a task descends from. For a runtime that started before the programs were
/// attached it is not known; the host's root is the best guess.
#[inline(always)]
fn runtime_root(task: Task, slot: SlotEntry) -> Option<u64> {
    let root = slot.runtime_root();
    if root == 0 { task.host_init().root_dentry() } else { Some(root) }
}
