//! Follows what container runtimes start, by its forks, from the runtime's own execution to the last exit.
//!
//! A runtime's process and its descendants *prepare* a container until one of them executes in a mount
//! namespace that is not the runtime's while its parent is outside of that namespace: the entrypoint. From
//! then on it and its descendants are the container's *members*. The check of the parent tells the
//! entrypoint from createContainer and startContainer hooks, which are children of the container's init.
//!
//! A runtime that a member executes prepares a container within the container: until the entrypoint what it does is
//! the outer one's.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::bpf_get_current_comm,
};
use aya_log_ebpf::{debug, warn};
use tracer_common::{
    container::{Adoptee, CLOSED, ContainerKey, NANOSECONDS_PER_TICK, Process, RESTORER, RUNTIME, Slot},
    lifecycle::{
        Bound, CGROUP_NAME_MAX, Kind, RUNTIME_ARGS_FAULT, RUNTIME_ARGS_MAX, RUNTIME_ARGS_TRUNCATED, Record,
        Runtime, TRUST_PID_NS, TRUST_ROOT, TRUST_ROOT_DIR, TRUST_USER_NS, TRUSTED,
    },
    stats::Program,
};

use crate::{
    atomic,
    emit::{Scratch, is_crowded, now, submit_lifecycle},
    globals,
    identity::{Identity, begin_epoch, verdict},
    maps::{ADOPTEES, FREE_SLOTS, PROCESSES, RUNTIMES, SLOTS},
    read::{self, Copied},
    state::count,
    task::Task,
};

/// A task has executed a program: a runtime to follow, an entrypoint to bind, or neither.
/// Returns whose the task is from now on.
#[inline(always)]
pub fn on_exec(ctx: &impl EbpfContext, task: Task) -> Identity {
    let tgid = task.tgid();
    let name = known_name();
    let Some(process) = find_process(tgid) else {
        if name == Some(RUNTIME) && task.is_visible() {
            follow_runtime(ctx, task, tgid);
        }
        return Identity::HOST;
    };
    if process.preparing != ContainerKey::HOST {
        if is_entrypoint(task, process) {
            bind(ctx, Program::ProcessExec, task, process);
        } else if name == Some(RESTORER)
            && let Some(slot) = slot_of(process.preparing)
        {
            slot.restorer = task.executable().0;
        }
    }
    // The entrypoint itself may be a runtime.
    if process.preparing == ContainerKey::HOST && name == Some(RUNTIME) && may_nest(task, process.container) {
        follow_inner_runtime(ctx, task, process);
    }
    Identity::of(process)
}

/// A process was forked: it belongs where its parent does.
#[inline(always)]
pub fn on_fork(ctx: &impl EbpfContext, parent: Task, child: Task) {
    let Some(process) = find_process(parent.tgid()) else { return };
    if !child.is_leader() {
        return;
    }
    let ids = child.process_ids();
    let process = Process { pid: ids.tracer, container_pid: ids.innermost, ..*process };
    let tgid = child.tgid();
    // A child is new: an entry that is there is left of one whose exit the kernel did not tell of.
    // SAFETY: nobody else has to do with a process that does not run yet.
    if let Some(stale) = unsafe { PROCESSES.get(&tgid) } {
        let Process { container, preparing, pid, .. } = *stale;
        leave(Program::ProcessFork, container, pid, 1);
        leave(Program::ProcessFork, preparing, pid, 1);
    }
    if PROCESSES.insert(&tgid, &process, u64::from(BPF_ANY)).is_err() {
        count(Program::ProcessFork, |stats| &mut stats.lost_processes_full);
        warn!(ctx, "no room for process {}: its events will pass for the host's", ids.tracer);
        return;
    }
    join(process.container);
    join(process.preparing);
}

/// A task exits. With the last one of its group the process is forgotten, with the last process the container:
/// not with its init, whose siblings still open files for a while.
#[inline(always)]
pub fn on_exit(task: Task) {
    let tgid = task.tgid();
    let (container, preparing, pid, counted) = {
        // SAFETY: read before this very function removes the entry.
        if let Some(process) = unsafe { PROCESSES.get(&tgid) } {
            (process.container, process.preparing, process.pid, true)
        } else if let Some((pid, adoptee)) = adoptee(task, tgid) {
            (adoptee.container, adoptee.preparing, pid, false)
        } else {
            return;
        }
    };
    if !task.is_group_dead() {
        return;
    }
    // Two last threads may both find their group dead: one of them removes the entry.
    let removed = if counted { PROCESSES.remove(&tgid) } else { ADOPTEES.remove(&pid) };
    if removed.is_err() {
        return;
    }
    leave(Program::ProcessExit, container, pid, i64::from(counted));
    leave(Program::ProcessExit, preparing, pid, i64::from(counted));
}

/// A signal's handler has returned. criu starts what it has restored in that way: there is no entrypoint that
/// executes.
#[inline(always)]
pub fn on_sigreturn(ctx: &impl EbpfContext, program: Program, tgid: u32) {
    if let Some(process) = find_process(tgid)
        && process.preparing != ContainerKey::HOST
    {
        bind_restored(ctx, program, process);
    }
}

/// Makes the current process, which prepares a container, a member if criu has restored it: each restored process is the
/// container's from then on; what it did before criu did. The criu that it was is told by its executable, which criu
/// changes to the restored one before.
#[inline(always)]
pub fn bind_restored(ctx: &impl EbpfContext, program: Program, process: &mut Process) {
    let Some(slot) = slot_of(process.preparing) else { return };
    let task = Task::current();
    let executable = task.executable().0;
    if slot.restorer != 0
        && executable != 0
        && executable != slot.restorer
        && task.mntns() != slot.runtime_mntns
    {
        bind(ctx, program, task, process);
    }
}

/// The entry of the current process, which is a container's or prepares one.
#[inline(always)]
pub fn find_process(tgid: u32) -> Option<&'static mut Process> {
    let process = PROCESSES.get_ptr_mut(&tgid).or_else(|| adopt(tgid))?;
    // SAFETY: the entry is removed by the exit of the process only, and that is not now. Nobody else writes it.
    Some(unsafe { &mut *process })
}

/// Enters a process that user space has found in a container that ran already. It is the current one, and so
/// cannot end meanwhile.
#[inline(always)]
fn adopt(tgid: u32) -> Option<*mut Process> {
    let task = Task::current();
    let (pid, adoptee) = adoptee(task, tgid)?;
    let mut process = Process {
        container: adoptee.container,
        preparing: adoptee.preparing,
        pid,
        container_pid: task.process_ids().innermost,
    };
    // Since user space has looked at it, it may have executed the container's program.
    if process.preparing != ContainerKey::HOST && is_entrypoint(task, &process) && !is_still_runtime() {
        process.container = process.preparing;
        process.preparing = ContainerKey::HOST;
    }
    // Two threads may do this at once: one of them enters it. Counted before it is no adoptee any more, so that
    // user space, which looks in that order, never finds it nowhere.
    if PROCESSES.insert(&tgid, &process, u64::from(BPF_NOEXIST)).is_ok() {
        join(process.container);
        join(process.preparing);
        // Another thread may have been faster.
        let _ = ADOPTEES.remove(&pid);
        begin_epoch();
    }
    PROCESSES.get_ptr_mut(&tgid)
}

/// Whether the current task, which is in its container's mount namespace already, executes the runtime's own program
/// still: crun's keeps its name, or has that of the memfd that it has copied itself into; runc and youki call theirs
/// `runc:[2:INIT]`. As numbers, since each comparison of a byte would be a path more for the verifier.
#[inline(always)]
fn is_still_runtime() -> bool {
    /// The first six bytes, of eight.
    const RUNC: u64 = u64::from_le_bytes(*b"runc:[\0\0");
    const RUNC_MASK: u64 = (1 << 48) - 1;
    /// The first seven.
    const YOUKI: u64 = u64::from_le_bytes(*b"youki:[\0");
    const YOUKI_MASK: u64 = (1 << 56) - 1;
    /// All eight.
    const CRUN: u64 = u64::from_le_bytes(*b"memfd:cr");
    let comm = bpf_get_current_comm().unwrap_or_default();
    let Some(start) = comm.first_chunk().map(|start| u64::from_le_bytes(*start)) else { return false };
    start & RUNC_MASK == RUNC || start & YOUKI_MASK == YOUKI || start == CRUN || known_name().is_some()
}

/// What user space has found out about a process, with its id in `tracer`'s pid namespace.
#[inline(always)]
fn adoptee(task: Task, tgid: u32) -> Option<(u32, Adoptee)> {
    let pid = if globals::TRACER_PID_NS.load() == 0 { tgid } else { task.process_ids().tracer };
    // SAFETY: copied at once; should it be removed meanwhile, the start time tells the next entry from it.
    let adoptee = *unsafe { ADOPTEES.get(&pid) }?;
    (task.process_start_time() / NANOSECONDS_PER_TICK == adoptee.start_ticks).then_some((pid, adoptee))
}

/// Whose a failed execution is. The entrypoint's counts as the container's although nothing was bound: a
/// container that cannot start is the one people trace for.
#[inline(always)]
pub fn identity_of_failed_exec(task: Task) -> Identity {
    match find_process(task.tgid()) {
        Some(process) if process.preparing != ContainerKey::HOST && is_entrypoint(task, process) => {
            Identity { container: process.preparing, ..Identity::of(process) }
        }
        Some(process) => Identity::of(process),
        None => Identity::HOST,
    }
}

/// What the task that just executed is known as, by its file's name: the kernel has just made that the comm
/// (`kbasename(bprm->filename)`, begin_new_exec() in fs/exec.c), 15 bytes of it.
#[inline(always)]
fn known_name() -> Option<u8> {
    let comm = bpf_get_current_comm().ok()?;
    // SAFETY: the map is written before the programs run.
    unsafe { RUNTIMES.get(&comm) }.copied()
}

/// Whether what a container executes may be a runtime of its own. Most containers may not make any, and must not
/// be able to use slots up by calling something so.
#[inline(always)]
fn may_nest(task: Task, outer: ContainerKey) -> bool {
    task.is_sys_admin() && verdict(outer) & CLOSED == 0 && !is_crowded()
}

/// Whether a preparing task that executes does so as the container. It need not be the first to: a hook that enters
/// the container's namespace looks the same, and must not keep the real entrypoint from being one. A hook that has
/// left the runtime's namespace for one of its own still has the runtime's root directory.
#[inline(always)]
fn is_entrypoint(task: Task, process: &Process) -> bool {
    let Some(slot) = slot_of(process.preparing) else { return false };
    let mntns = task.mntns();
    mntns != slot.runtime_mntns
        && task.real_parent().mntns() != mntns
        && task.root_dentry() != runtime_root(task, slot)
}

/// The root directory of the runtime that a task descends from. That of one which ran before the programs did is not
/// known: most likely the host's.
#[inline(always)]
fn runtime_root(task: Task, slot: &Slot) -> Option<u64> {
    if slot.runtime_root == 0 { task.host_init().root_dentry() } else { Some(slot.runtime_root) }
}

/// Makes a process a member of the container that it was preparing.
#[inline(always)]
fn bind(ctx: &impl EbpfContext, program: Program, task: Task, process: &mut Process) {
    const FIXED: u32 = size_of::<Bound>() as u32;
    let (container, outer) = (process.preparing, process.container);
    process.container = container;
    process.preparing = ContainerKey::HOST;
    begin_epoch();
    leave(program, outer, process.pid, 1);
    debug!(ctx, "container {}: entrypoint is process {}", container.slot(), process.pid);
    let Some(mut scratch) = Scratch::take(program) else { return };
    // SAFETY: the buffer is longer than both together.
    let name = unsafe { read::kernel_str(scratch.at(FIXED), CGROUP_NAME_MAX as u32, task.cgroup_name()) };
    let kind = Kind::Bound as u32;
    scratch.write(Bound {
        record: Record { timestamp: now(), container, kind, pid: process.pid },
        cgroup_len: name.len,
        container_pid: process.container_pid,
    });
    scratch.submit_lifecycle(FIXED + name.len);
}

/// Follows a runtime on the host.
#[inline(always)]
fn follow_runtime(ctx: &impl EbpfContext, task: Task, tgid: u32) {
    let ids = task.process_ids();
    if trust(task) != TRUSTED && is_crowded() {
        count(Program::ProcessExec, |stats| &mut stats.lost_crowded);
        return;
    }
    let Some(preparing) = take_slot(ctx, task, ids.tracer) else { return };
    let process =
        Process { container: ContainerKey::HOST, preparing, pid: ids.tracer, container_pid: ids.innermost };
    if PROCESSES.insert(&tgid, &process, u64::from(BPF_NOEXIST)).is_err() {
        count(Program::ProcessExec, |stats| &mut stats.lost_processes_full);
        warn!(ctx, "no room for runtime {}: its container will pass for the host", ids.tracer);
        submit(Program::ProcessExec, Kind::Ended, preparing, ids.tracer);
        return;
    }
    submit_runtime(task, &process);
}

/// Follows a runtime within a container, whose process it stays.
#[inline(always)]
fn follow_inner_runtime(ctx: &impl EbpfContext, task: Task, process: &mut Process) {
    let Some(preparing) = take_slot(ctx, task, process.pid) else { return };
    process.preparing = preparing;
    submit_runtime(task, process);
}

/// A key for what a runtime brings about, with the runtime as its first process.
#[inline(always)]
fn take_slot(ctx: &impl EbpfContext, task: Task, pid: u32) -> Option<ContainerKey> {
    let Ok(Some(index)) = FREE_SLOTS.pop() else {
        count(Program::ProcessExec, |stats| &mut stats.lost_slots_full);
        warn!(ctx, "no slot is free: the container of runtime {} will pass for the host", pid);
        return None;
    };
    // SAFETY: a value of an array map, never removed; a slot taken from the queue is nobody else's.
    let slot = unsafe { &mut *SLOTS.get_ptr_mut(index)? };
    *slot = Slot {
        generation: slot.generation + 1,
        runtime_mntns: task.mntns(),
        processes: 1,
        runtime_root: task.root_dentry().unwrap_or(0),
        restorer: 0,
    };
    debug!(ctx, "container {}: runtime is process {}", index, pid);
    Some(ContainerKey::new(index, slot.generation))
}

#[inline(always)]
fn submit_runtime(task: Task, process: &Process) {
    const FIXED: u32 = size_of::<Runtime>() as u32;
    let Some(mut scratch) = Scratch::take(Program::ProcessExec) else { return };
    let args = match task.arguments() {
        // SAFETY: the buffer is longer than both together.
        Some((start, len)) => unsafe {
            read::user_block(scratch.at(FIXED), RUNTIME_ARGS_MAX as u32, start, len)
        },
        None => Copied::FAULT,
    };
    let mut marks = 0;
    if args.truncated {
        marks |= RUNTIME_ARGS_TRUNCATED;
    }
    if args.fault {
        marks |= RUNTIME_ARGS_FAULT;
    }
    scratch.write(Runtime {
        record: Record {
            timestamp: now(),
            container: process.preparing,
            kind: Kind::Runtime as u32,
            pid: process.pid,
        },
        start_time: task.process_start_time(),
        outer: process.container,
        trust: trust(task),
        args_len: args.len as u16,
        marks,
        comm: bpf_get_current_comm().unwrap_or_default(),
        ppid: task.real_parent().process_ids().tracer,
        reserved: 0,
    });
    scratch.submit_lifecycle(FIXED + args.len);
}

/// What speaks for a runtime. A container's process may have its user and pid namespaces and its uid in common
/// with the host, and may make itself any mount namespace; the host's root directory it cannot have, unless it
/// was given it.
#[inline(always)]
fn trust(task: Task) -> u32 {
    let mut trust = 0;
    if task.effective_uid() == Some(0) {
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

#[inline(always)]
fn submit(program: Program, kind: Kind, container: ContainerKey, pid: u32) {
    submit_lifecycle(program, &Record { timestamp: now(), container, kind: kind as u32, pid });
}

/// The slot of a container that has processes, and so is in use.
#[inline(always)]
fn slot_of(container: ContainerKey) -> Option<&'static mut Slot> {
    // SAFETY: a value of an array map, never removed. What others write meanwhile, the number of processes, is not
    // read through this.
    Some(unsafe { &mut *SLOTS.get_ptr_mut(container.slot())? })
}

/// Counts one process more.
#[inline(always)]
fn join(container: ContainerKey) {
    if container != ContainerKey::HOST
        && let Some(slot) = SLOTS.get_ptr_mut(container.slot())
    {
        add_processes(slot, 1);
    }
}

/// Counts processes of a container down, one or none, and tells if nobody is left. Of two last ones that leave at
/// once both may find nobody left: user space takes a second end for what it is. That neither does is impossible, as
/// each has counted itself down before it looks.
#[inline(always)]
fn leave(program: Program, container: ContainerKey, pid: u32, count: i64) {
    if container != ContainerKey::HOST
        && let Some(slot) = SLOTS.get_ptr_mut(container.slot())
        && add_processes(slot, -count) == 0
    {
        submit(program, Kind::Ended, container, pid);
    }
}

/// Counts processes of a container up or down; returns how many there are, by then.
#[inline(always)]
fn add_processes(slot: *mut Slot, change: i64) -> u64 {
    // SAFETY: a value of an array map, never removed; all that write this field while the slot is in use do so
    // atomically.
    unsafe {
        let processes = &raw mut (*slot).processes;
        atomic::add(processes, change);
        processes.read_volatile()
    }
}
