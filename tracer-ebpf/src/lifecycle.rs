//! Follows container runtimes by the process tree, from the exec of the runtime to the last exit.
//!
//! A runtime's process and its descendants *prepare* a container until one of them executes the entrypoint
//! ([`binding`]). From then on that process and its descendants are *members* of the container.
//!
//! A runtime that a member executes prepares a container within the container: until the entrypoint is executed, its
//! events are attributed to the outer container. A runtime that a hook executes prepares a container of its own.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::warn;
use tracer_common::{
    container::{CLOSED, ContainerKey, FollowedProcess, RESTORER, RUNTIME, Slot},
    lifecycle::{
        LifecycleKind, RUNTIME_ARGS_FAULT, RUNTIME_ARGS_MAX, RUNTIME_ARGS_TRUNCATED, RUNTIME_REEXECUTED,
        Record, Runtime, TRUST_PID_NS, TRUST_ROOT, TRUST_ROOT_DIR, TRUST_USER_NS, TRUSTED,
    },
};

use crate::{
    binding,
    current::current_comm,
    emit::{Scratch, is_crowded, now},
    globals,
    identity::{begin_epoch, decision_flags},
    processes::{self, ProcessEntry, leave, runtime_role},
    read::{self, Copied},
    slots::{self, slot, slot_of},
    state::{EXEC, FORK, Program, count},
    task::Task,
};

/// Handles an exec of the current task: follows a runtime, binds an entrypoint, or does neither. Returns the
/// container that the task belongs to from now on.
#[inline(always)]
pub fn on_exec() -> ContainerKey {
    ContainerKey(follow_execution())
}

/// [`on_exec`] as a separate function for the verifier, as in [`binding`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn follow_execution() -> u64 {
    let task = Task::current();
    let tgid = task.tgid();
    let role = runtime_role();
    let Some(process) = processes::find(EXEC, tgid) else {
        return on_exec_of_host(task, tgid, role).0;
    };
    if process.preparing() != ContainerKey::HOST {
        on_exec_of_preparing(task, tgid, process, role);
    }
    // The entrypoint itself may be a runtime.
    if process.preparing() == ContainerKey::HOST
        && role == RUNTIME
        && may_nest(task, process.container())
        && let Some(preparing) = take_slot(task, tgid, task.mntns(), false)
    {
        process.set_preparing(preparing);
        submit_runtime(task, process, trust(), 0);
    }
    process.container().0
}

/// Handles an exec of a task that is not followed yet. Any runtime is followed, trusted or not, wherever it runs.
#[inline(always)]
fn on_exec_of_host(task: Task, tgid: u32, role: u8) -> ContainerKey {
    if role == RUNTIME {
        if task.is_visible() {
            follow_runtime(task, tgid);
        }
    } else if is_unannounced()
        && let Some(process) = follow_unannounced(task, tgid)
    {
        return process.container();
    }
    ContainerKey::HOST
}

/// Handles an exec of a task that prepares a container.
#[inline(always)]
fn on_exec_of_preparing(task: Task, tgid: u32, process: ProcessEntry, role: u8) {
    if binding::is_entrypoint(process.preparing(), process.container_pid()) {
        binding::bind(EXEC);
        return;
    }
    process.set_executed(u32::from(role != RESTORER));
    binding::settle(EXEC, process);
    let preparing = process.preparing();
    let Some(slot) = slot_of(preparing) else { return };
    if preparing == ContainerKey::HOST {
        return;
    }
    if role == RESTORER {
        slot.set_restorer(task.executable().0);
    } else if role == RUNTIME {
        if slot.runtime_tgid() == tgid {
            // A wrapper has executed the runtime proper, possibly after it has changed the bundle.
            submit_runtime(task, process, trust(), RUNTIME_REEXECUTED);
        } else if !is_init(task) {
            // A hook starts a container of its own, or a wrapper runs the runtime as its child.
            let trust = trust();
            let own = take_slot(task, tgid, task.mntns(), trust == TRUSTED);
            if let Some(own) = own {
                process.set_preparing(own);
                leave(EXEC, preparing, process.pid(), 1);
                submit_runtime(task, process, trust, 0);
            }
        }
    }
}

/// Handles a fork: the child belongs to the same containers as its parent.
#[inline(always)]
pub fn on_fork(ctx: &impl EbpfContext, parent: Task, child: Task) {
    let Some(process) = processes::find(FORK, parent.tgid()) else { return };
    if !child.is_leader() {
        return;
    }
    let (container, preparing) = (process.container(), process.preparing());
    let child_process =
        FollowedProcess { executed: process.executed(), ..processes::new(child, container, preparing) };
    if processes::insert_child(child.tgid(), &child_process).is_none() {
        count(FORK, |stats| &mut stats.lost_processes_full);
        warn!(ctx, "map full: process {} will be attributed to the host", child_process.pid);
    }
}

/// Handles the exit of a task. The process is removed with the last thread of its group, and the container with its
/// last process: not with its init, because the init's siblings may go on for a while.
#[inline(always)]
pub fn on_exit(task: Task) {
    // True from the exit of the last thread on.
    if task.is_group_dead() {
        processes::remove(task, task.tgid());
    }
}

/// Handles the return from a signal handler. criu starts restored processes that way, so no entrypoint is executed.
#[inline(always)]
pub fn on_sigreturn(program: Program, tgid: u32) {
    if let Some(process) = processes::find(program, tgid)
        && process.preparing() != ContainerKey::HOST
    {
        binding::settle(program, process);
    }
}

/// The container that a failed exec of the current task is attributed to. A failed exec of the entrypoint is
/// attributed to the container although no process was bound: containers that cannot start are what people trace for.
#[inline(always)]
pub fn container_of_failed_exec(program: Program, tgid: u32) -> ContainerKey {
    let Some(process) = processes::find(program, tgid) else { return ContainerKey::HOST };
    let preparing = process.preparing();
    if preparing != ContainerKey::HOST && binding::is_entrypoint(preparing, process.container_pid()) {
        preparing
    } else {
        process.container()
    }
}

/// Whether a program that a container executes may be followed as a runtime. Most containers cannot create
/// containers, and must not be able to use up slots with programs of a runtime's name. In a user namespace of its
/// own, any process has all capabilities.
#[inline(always)]
fn may_nest(task: Task, outer: ContainerKey) -> bool {
    task.is_sys_admin()
        && task.user_ns_level() == Some(0)
        && decision_flags(outer) & CLOSED == 0
        && !is_crowded()
}

/// Whether a task that is not followed has become a container's entrypoint: its mount namespace and root directory
/// are neither the host's nor its parent's, and the parent is trusted. The entrypoint of a container looks like this
/// if its runtime has an unknown name or is built into the engine.
#[inline(always)]
fn is_unannounced() -> bool {
    is_unannounced_container() != 0
}

/// [`is_unannounced`] for the current task: 1 or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_unannounced_container() -> u32 {
    let task = Task::current();
    let Some(mntns) = task.mntns_of_its_own() else { return 0 };
    let parent = task.real_parent();
    let is_unannounced = task.is_visible()
        && parent.mntns() != mntns
        && task.root_dentry() != task.host_init().root_dentry()
        && trust_of(parent) == TRUSTED;
    u32::from(is_unannounced)
}

/// Follows a container without a known runtime, from the exec of its entrypoint on.
#[inline(always)]
fn follow_unannounced(task: Task, tgid: u32) -> Option<ProcessEntry> {
    // Any user can create a namespace that looks like a container's and have its process reparented to the host's
    // init.
    let is_trusted = task.user_ns_level() == Some(0);
    if !is_trusted && is_crowded() {
        count(EXEC, |stats| &mut stats.lost_crowded);
        return None;
    }
    let container = take_slot(task, 0, task.real_parent().mntns(), is_trusted)?;
    let process = processes::new(task, container, ContainerKey::HOST);
    let entry = enter(tgid, container, &process)?;
    if let Some(slot) = slot_of(container) {
        slot.set_bound(task, process.container_pid);
    }
    // Until now its events were attributed to the host.
    begin_epoch();
    binding::report(EXEC, LifecycleKind::Unannounced, task, entry);
    Some(entry)
}

/// Follows a runtime on the host.
#[inline(always)]
fn follow_runtime(task: Task, tgid: u32) {
    let trust = trust();
    let is_trusted = trust == TRUSTED;
    if !is_trusted && !is_followed_untrusted(task) {
        return;
    }
    let Some(preparing) = take_slot(task, tgid, task.mntns(), is_trusted) else { return };
    let process = processes::new(task, ContainerKey::HOST, preparing);
    if let Some(entry) = enter(tgid, preparing, &process) {
        submit_runtime(task, entry, trust, 0);
    }
}

/// Whether an untrusted runtime on the host is followed; if not, it is counted as lost. A user may create any number
/// of processes in user namespaces, so runtimes in them are not followed unless rootless runtimes are trusted.
#[inline(always)]
fn is_followed_untrusted(task: Task) -> bool {
    if globals::TRUST_ROOTLESS.load() == 0 && task.user_ns_level() != Some(0) {
        count(EXEC, |stats| &mut stats.lost_user_namespace);
        return false;
    }
    if is_crowded() {
        count(EXEC, |stats| &mut stats.lost_crowded);
        return false;
    }
    true
}

/// Inserts the first process of a container key. If the map is full, the key ends at once.
#[inline(always)]
fn enter(tgid: u32, key: ContainerKey, process: &FollowedProcess) -> Option<ProcessEntry> {
    let entry = processes::insert(tgid, process);
    if entry.is_none() {
        count(EXEC, |stats| &mut stats.lost_processes_full);
        leave(EXEC, key, process.pid, 1);
    }
    entry
}

/// Takes a slot for a runtime, or for an entrypoint without a known runtime, with that process as its first one.
#[inline(always)]
fn take_slot(task: Task, runtime_tgid: u32, runtime_mntns: u32, is_trusted: bool) -> Option<ContainerKey> {
    let Some(index) = slots::take_free(is_trusted) else {
        count(EXEC, |stats| &mut stats.lost_slots_full);
        return None;
    };
    let generation = slot(index)?.begin(Slot {
        generation: 0,
        runtime_mntns,
        processes: 1,
        runtime_root: task.root_dentry().unwrap_or(0),
        restorer: 0,
        runtime_tgid,
        bound_mntns: 0,
        bound_pidns: 0,
        bound_container_pid: 0,
        bound_root: 0,
        exit_status: 0,
        reserved: 0,
    });
    Some(ContainerKey::new(index, generation))
}

/// Whether the current task is the runtime's own re-exec on the way to the entrypoint: its first argument is `init`.
#[inline(always)]
fn is_init(task: Task) -> bool {
    /// Longest name (`argv[0]`) that is skipped, in bytes.
    const NAME_MAX: u32 = 1024;
    let (Some((start, _)), Some(scratch)) = (task.arguments(), Scratch::take(EXEC)) else { return false };
    // SAFETY: the scratch buffer has more than `NAME_MAX` + 2 bytes.
    let name = unsafe { read::user_str(scratch.at(0), NAME_MAX, start) };
    read::user::<[u8; 5]>(start + u64::from(name.len) + 1) == Some(*b"init\0")
}

/// Submits a [`Runtime`] record for the current task, with its command line.
#[inline(always)]
fn submit_runtime(task: Task, process: ProcessEntry, trust: u32, flags: u16) {
    const FIXED: u32 = size_of::<Runtime>() as u32;
    let Some(mut scratch) = Scratch::take(EXEC) else { return };
    let args = match task.arguments() {
        // SAFETY: the scratch buffer has capacity for the fixed part and `RUNTIME_ARGS_MAX` bytes together.
        Some((start, len)) => unsafe {
            read::user_block(scratch.at(FIXED), RUNTIME_ARGS_MAX as u32, start, len)
        },
        None => Copied::FAULT,
    };
    let truncated = if args.truncated { RUNTIME_ARGS_TRUNCATED } else { 0 };
    let fault = if args.fault { RUNTIME_ARGS_FAULT } else { 0 };
    scratch.write(Runtime {
        record: Record {
            timestamp: now(),
            container: process.preparing(),
            kind: LifecycleKind::Runtime as u32,
            pid: process.pid(),
        },
        start_time: process.start_time(),
        outer: process.container(),
        trust,
        args_len: args.len as u16,
        flags: flags | truncated | fault,
        comm: current_comm(),
        ppid: task.real_parent().process_ids().tracer,
        reserved: 0,
    });
    scratch.submit_lifecycle(FIXED + args.len);
}

/// `TRUST_*` bits of the current task, as a separate function for the verifier, as in [`binding`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn trust() -> u32 {
    trust_of(Task::current())
}

/// `TRUST_*` bits of a task. A process in a container may share its user namespace, its pid namespace and its uid
/// with the host, and may create any mount namespace; it cannot have the host's root directory unless it was given
/// access to it.
#[inline(always)]
fn trust_of(task: Task) -> u32 {
    let mut trust = 0;
    if task.is_root() {
        trust |= TRUST_ROOT;
    }
    if task.user_ns_level() == Some(0) {
        trust |= TRUST_USER_NS;
    }
    if task.is_in_tracer_pid_ns() {
        trust |= TRUST_PID_NS;
    }
    let root = task.root_dentry();
    if root.is_some() && root == task.host_init().root_dentry() {
        trust |= TRUST_ROOT_DIR;
    }
    trust
}
