//! Follows what container runtimes start, by its forks, from the runtime's own execution to the last exit.
//!
//! A runtime's process and its descendants *prepare* a container until one of them executes the entrypoint ([`binding`]).
//! From then on it and its descendants are the container's *members*.
//!
//! A runtime that a member executes prepares a container within the container: until the entrypoint what it does is
//! attributed to the outer one. A runtime that a hook executes has a container of its own to prepare.

use aya_ebpf::{EbpfContext, helpers::bpf_get_current_comm};
use aya_log_ebpf::warn;
use tracer_common::{
    container::{CLOSED, ContainerKey, FollowedProcess, RESTORER, RUNTIME, Slot},
    lifecycle::{
        LifecycleKind, RUNTIME_REEXECUTED, RUNTIME_ARGS_FAULT, RUNTIME_ARGS_MAX, RUNTIME_ARGS_TRUNCATED, Record, Runtime,
        TRUST_PID_NS, TRUST_ROOT, TRUST_ROOT_DIR, TRUST_USER_NS, TRUSTED,
    },
};

use crate::{
    binding,
    emit::{Scratch, is_crowded, now},
    globals,
    identity::{begin_epoch, decision_flags},
    processes::{self, Entry, known_name, leave},
    read::{self, Copied},
    slots::{self, slot, slot_of},
    state::{EXEC, FORK, Program, count},
    task::Task,
};

/// The current task has executed a program: a runtime to follow, an entrypoint to bind, or neither.
/// Returns the container that the task belongs to from now on.
#[inline(always)]
pub fn on_exec() -> ContainerKey {
    ContainerKey(follow_execution())
}

/// [`on_exec`]: a function of its own for the verifier, as in [`binding`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn follow_execution() -> u64 {
    let task = Task::current();
    let tgid = task.tgid();
    let name = known_name();
    let Some(process) = processes::find(EXEC, tgid) else {
        return on_exec_of_host(task, tgid, name).0;
    };
    if process.preparing() != ContainerKey::HOST {
        on_exec_of_preparing(task, tgid, process, name);
    }
    // The entrypoint itself may be a runtime.
    if process.preparing() == ContainerKey::HOST
        && name == RUNTIME
        && may_nest(task, process.container())
        && let Some(preparing) = take_slot(task, tgid, task.mntns(), false)
    {
        process.set_preparing(preparing);
        submit_runtime(task, process, trust(), 0);
    }
    process.container().0
}

/// Nobody follows the task yet. A runtime is followed as one wherever it is, and trusted or not.
#[inline(always)]
fn on_exec_of_host(task: Task, tgid: u32, name: u8) -> ContainerKey {
    if name == RUNTIME {
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

/// The task prepares a container.
#[inline(always)]
fn on_exec_of_preparing(task: Task, tgid: u32, process: Entry, name: u8) {
    if binding::is_entrypoint(process.preparing(), process.container_pid()) {
        binding::bind(EXEC);
        return;
    }
    process.set_executed(name != RESTORER);
    binding::settle(EXEC, process);
    let preparing = process.preparing();
    let Some(slot) = slot_of(preparing) else { return };
    if preparing == ContainerKey::HOST {
        return;
    }
    if name == RESTORER {
        slot.set_restorer(task.executable().0);
    } else if name == RUNTIME {
        if slot.runtime_tgid() == tgid {
            // A wrapper has executed the runtime that it is for, perhaps after it has changed the bundle.
            submit_runtime(task, process, trust(), RUNTIME_REEXECUTED);
        } else if !is_init(task) {
            // A hook starts a container of its own, or a wrapper has the runtime run as its child.
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

/// A process was forked: it belongs where its parent does.
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
        warn!(ctx, "no room for process {}: its events will be attributed to the host", child_process.pid);
    }
}

/// A task exits. With the last one of its group the process is forgotten, with the last process the container:
/// not with its init, whose siblings still open files for a while.
#[inline(always)]
pub fn on_exit(task: Task) {
    // True from the last thread's exit on.
    if task.is_group_dead() {
        processes::remove(task, task.tgid());
    }
}

/// A signal's handler has returned. criu starts what it has restored in that way: there is no entrypoint that
/// executes.
#[inline(always)]
pub fn on_sigreturn(program: Program, tgid: u32) {
    if let Some(process) = processes::find(program, tgid)
        && process.preparing() != ContainerKey::HOST
    {
        binding::settle(program, process);
    }
}

/// The container that a failed execution of the current task belongs to. The entrypoint's counts as the container's although
/// nothing was bound: a container that cannot start is the one people trace for.
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

/// Whether what a container executes may be a runtime of its own. Most containers may not make any, and must not
/// be able to use slots up by calling something so. In a user namespace of its own anybody may do anything.
#[inline(always)]
fn may_nest(task: Task, outer: ContainerKey) -> bool {
    task.is_sys_admin() && task.user_ns_level() == Some(0) && decision_flags(outer) & CLOSED == 0 && !is_crowded()
}

/// Whether a task that nobody follows has become a container's: it is in a mount namespace and a root directory that are
/// neither the host's nor its parent's, and the parent is the host's root. That is what the entrypoint of a container looks
/// like whose runtime has a name that nobody knows, or is a part of the engine.
#[inline(always)]
fn is_unannounced() -> bool {
    is_unannounced_container() != 0
}

/// [`is_unannounced`] of the current task.
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

/// Follows a container that no runtime was seen to start, from the execution of its entrypoint on.
#[inline(always)]
fn follow_unannounced(task: Task, tgid: u32) -> Option<Entry> {
    // A user may make a namespace like a container's, and have it adopted by the host's init.
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
    // Before it was the host's.
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

/// Whether a runtime on the host is followed that is not trusted; counted if not. Whoever makes a user namespace may have as
/// many processes in it as a user may, so none of those is, unless users' runtimes are trusted.
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

/// Enters the first process of a key; without room the key ends at once.
#[inline(always)]
fn enter(tgid: u32, key: ContainerKey, process: &FollowedProcess) -> Option<Entry> {
    let entry = processes::insert(tgid, process);
    if entry.is_none() {
        count(EXEC, |stats| &mut stats.lost_processes_full);
        leave(EXEC, key, process.pid, 1);
    }
    entry
}

/// A key for what a runtime, or a process that no runtime was seen to start, brings about, with that as its first process.
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
    });
    Some(ContainerKey::new(index, generation))
}

/// Whether the runtime was executed by itself, on the way to the container's program: its first argument is `init`.
#[inline(always)]
fn is_init(task: Task) -> bool {
    /// Bytes of the name that a runtime is called by.
    const NAME_MAX: u32 = 1024;
    let (Some((start, _)), Some(scratch)) = (task.arguments(), Scratch::take(EXEC)) else { return false };
    // SAFETY: the buffer is longer.
    let name = unsafe { read::user_str(scratch.at(0), NAME_MAX, start) };
    read::user::<[u8; 5]>(start + u64::from(name.len) + 1) == Some(*b"init\0")
}

#[inline(always)]
fn submit_runtime(task: Task, process: Entry, trust: u32, flags: u16) {
    const FIXED: u32 = size_of::<Runtime>() as u32;
    let Some(mut scratch) = Scratch::take(EXEC) else { return };
    let args = match task.arguments() {
        // SAFETY: the buffer is longer than both together.
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
        comm: bpf_get_current_comm().unwrap_or_default(),
        ppid: task.real_parent().process_ids().tracer,
        reserved: 0,
    });
    scratch.submit_lifecycle(FIXED + args.len);
}

/// What speaks for the current task as a runtime: a function of its own for the verifier, as in [`binding`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn trust() -> u32 {
    trust_of(Task::current())
}

/// What speaks for a runtime. A container's process may have its user and pid namespaces and its uid in common
/// with the host, and may make itself any mount namespace; the host's root directory it cannot have, unless it
/// was given it.
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
