//! The processes that are followed, and how those get in that ran before the programs did.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::{bpf_get_current_comm, generated::bpf_get_current_cgroup_id},
};
use tracer_common::{
    container::{
        Adoptee, ContainerKey, EVIDENCE_CGROUP, EVIDENCE_MNT_NS, EVIDENCE_PID_NS, Evidence,
        NANOSECONDS_PER_TICK, FollowedProcess, Suspect,
    },
    lifecycle::{LifecycleKind, Record},
};

use crate::{
    atomic::shared_field,
    binding,
    current::Current,
    emit::{now, submit_lifecycle},
    globals,
    identity::begin_epoch,
    maps::{ADOPTEES, EVIDENCE, PROCESSES, RUNTIMES},
    slots::slot_of,
    state::{EXIT, FORK, Program},
    task::Task,
};

/// Pid namespaces that are looked at between a process's own and the host's: a node in a container, its pods, and what a
/// program makes for itself.
const PID_NS_DEPTH: u32 = 4;

/// The entry of a process in `PROCESSES`.
///
/// Its own threads alone change it, and remove it with the last of them, so that it stays as long as one of them runs a
/// program. Fields are loaded and stored whole.
#[derive(Clone, Copy)]
pub struct Entry(*mut FollowedProcess);

impl Entry {
    shared_field!(container: ContainerKey);
    shared_field!(preparing: ContainerKey);
    shared_field!(pid: u32);
    shared_field!(container_pid: u32);
    shared_field!(start_time: u64);
    shared_field!(executed: u32);

    #[inline(always)]
    pub fn set_container(self, container: ContainerKey) {
        // SAFETY: as for the fields above.
        unsafe { (&raw mut (*self.0).container).write_volatile(container) }
    }

    #[inline(always)]
    pub fn set_preparing(self, preparing: ContainerKey) {
        // SAFETY: as for the fields above.
        unsafe { (&raw mut (*self.0).preparing).write_volatile(preparing) }
    }

    #[inline(always)]
    pub fn set_executed(self, executed: bool) {
        // SAFETY: as for the fields above.
        unsafe { (&raw mut (*self.0).executed).write_volatile(u32::from(executed)) }
    }

    #[inline(always)]
    pub fn of(tgid: u32) -> Option<Self> {
        PROCESSES.get_ptr_mut(&tgid).map(Self)
    }
}

/// What is entered of a process that belongs to a container or prepares one.
#[inline(always)]
pub fn new(task: Task, container: ContainerKey, preparing: ContainerKey) -> FollowedProcess {
    let ids = task.process_ids();
    FollowedProcess {
        container,
        preparing,
        pid: ids.tracer,
        container_pid: ids.innermost,
        start_time: task.process_start_time(),
        executed: 1,
        reserved: 0,
    }
}

/// The entry of the current process, if it belongs to a container or prepares one.
#[inline(always)]
pub fn find(program: Program, tgid: u32) -> Option<Entry> {
    if let Some(entry) = Entry::of(tgid) {
        if entry.start_time() == Current::task().process_start_time() {
            return Some(entry);
        }
        // It is that of an earlier process whose exit the kernel did not report.
        forget(program, tgid);
    }
    if adopt(tgid) == 0 {
        return None;
    }
    Entry::of(tgid)
}

/// Enters a process that nobody follows yet; None if there is no room.
#[inline(always)]
pub fn insert(tgid: u32, process: &FollowedProcess) -> Option<Entry> {
    PROCESSES.insert(&tgid, process, u64::from(BPF_NOEXIST)).ok()?;
    Entry::of(tgid)
}

/// Enters the child of a process that is followed; None if there is no room.
#[inline(always)]
pub fn insert_child(tgid: u32, process: &FollowedProcess) -> Option<()> {
    // The child does not run yet, so an entry that is there belongs to an earlier process whose exit was missed.
    forget(FORK, tgid);
    PROCESSES.insert(&tgid, process, u64::from(BPF_ANY)).ok()?;
    join(process.container);
    join(process.preparing);
    Some(())
}

/// The last thread of a process exits: counts it out of its containers.
#[inline(always)]
pub fn remove(task: Task, tgid: u32) {
    if Entry::of(tgid).is_some() {
        forget(EXIT, tgid);
    } else if let Some((pid, adoptee)) = adoptee(task, tgid) {
        // Two last threads may both find their group dead: one of them removes the entry.
        if ADOPTEES.remove(&pid).is_ok() {
            leave(EXIT, adoptee.container, pid, 0);
            leave(EXIT, adoptee.preparing, pid, 0);
        }
    }
}

/// Removes an entry, and counts its process out of its containers.
#[inline(always)]
fn forget(program: Program, tgid: u32) {
    let Some(entry) = Entry::of(tgid) else { return };
    let (container, preparing, pid) = (entry.container(), entry.preparing(), entry.pid());
    if PROCESSES.remove(&tgid).is_ok() {
        leave(program, container, pid, 1);
        leave(program, preparing, pid, 1);
    }
}

/// Enters the current process if it belongs to a container that ran already: user space has found it, or it is where only
/// that container's processes are. It runs this program, and so cannot end meanwhile. Returns 1 if it is entered, else 0.
///
/// A function of its own, which the verifier looks at once and not for each of its callers' states: it is long, and rarely
/// called. So it takes and returns numbers only.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn adopt(tgid: u32) -> u32 {
    let task = Task::current();
    let found = adoptee(task, tgid);
    let (container, preparing) = match found {
        Some((_, adoptee)) => (adoptee.container, adoptee.preparing),
        None => match ContainerKey(container_by_evidence()) {
            ContainerKey::HOST => return 0,
            container => (container, ContainerKey::HOST),
        },
    };
    let mut process = new(task, container, preparing);
    // Since user space looked at it, it may have executed the container's program.
    if preparing != ContainerKey::HOST
        && binding::is_entrypoint(preparing, process.container_pid)
        && !is_still_runtime()
    {
        process.container = preparing;
        process.preparing = ContainerKey::HOST;
    }
    // Two threads may do this at once: one of them enters it. It is counted before it ceases to be an adoptee, so that
    // user space, which looks in that order, never finds it nowhere.
    if PROCESSES.insert(&tgid, &process, u64::from(BPF_NOEXIST)).is_ok() {
        join(process.container);
        join(process.preparing);
        if let Some((pid, _)) = found {
            // Another thread may have been faster.
            let _ = ADOPTEES.remove(&pid);
        }
        begin_epoch();
    }
    1
}

/// What user space has found out about a process, with its id in `tracer`'s pid namespace.
#[inline(always)]
fn adoptee(task: Task, tgid: u32) -> Option<(u32, Adoptee)> {
    let pid = if globals::TRACER_PID_NS.load() == 0 { tgid } else { task.process_ids().tracer };
    // SAFETY: copied at once; should it be removed meanwhile, the start time distinguishes it from the next entry.
    let adoptee = *unsafe { ADOPTEES.get(&pid) }?;
    (task.process_start_time() / NANOSECONDS_PER_TICK == adoptee.start_ticks).then_some((pid, adoptee))
}

/// The container that the current task is in by its namespaces or its cgroup, or the host. Unlike a list of processes that
/// does not race: it holds for processes too that come and go faster than user space can look.
///
/// A function of its own for the verifier, like [`adopt`], whose stack has to be short.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn container_by_evidence() -> u64 {
    by_evidence(Task::current()).unwrap_or(ContainerKey::HOST).0
}

#[inline(always)]
fn by_evidence(task: Task) -> Option<ContainerKey> {
    for namespace in task.pid_namespaces::<PID_NS_DEPTH>() {
        if let Some(suspect) = suspect(EVIDENCE_PID_NS, u64::from(namespace.inum()))
            && namespace.init_start_time() / NANOSECONDS_PER_TICK == suspect.init_start_ticks
        {
            return Some(suspect.container);
        }
    }
    // Host programs may be in a container's cgroup: `runc exec` is cloned into it, and engines put their own there.
    let mntns = task.mntns_of_its_own()?;
    if let Some(suspect) = suspect(EVIDENCE_MNT_NS, u64::from(mntns)) {
        return Some(suspect.container);
    }
    // SAFETY: the helper takes no arguments and always succeeds.
    let suspect = suspect(EVIDENCE_CGROUP, unsafe { bpf_get_current_cgroup_id() })?;
    (task.root_dentry() != task.host_init().root_dentry()).then_some(suspect.container)
}

/// The container that a piece of evidence points to, if that has not ended.
#[inline(always)]
fn suspect(kind: u32, id: u64) -> Option<Suspect> {
    // SAFETY: copied at once. Should it be removed meanwhile, the generation tells that it holds no more.
    let suspect = *unsafe { EVIDENCE.get(&Evidence { kind, reserved: 0, id }) }?;
    (slot_of(suspect.container)?.generation() == suspect.container.generation()).then_some(suspect)
}

/// Whether the current task, which is in its container's mount namespace already, still executes the runtime's own program:
/// crun's keeps its name, or has that of the memfd that it has copied itself into; runc and youki call theirs `runc:[2:INIT]`.
/// As numbers, since each comparison of a byte
/// would be a path more for the verifier.
#[inline(always)]
pub fn is_still_runtime() -> bool {
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
    start & RUNC_MASK == RUNC || start & YOUKI_MASK == YOUKI || start == CRUN || known_name() != 0
}

/// What the task that just executed is known as, by its file's name: the kernel has just made that the comm
/// (`kbasename(bprm->filename)`, begin_new_exec() in fs/exec.c), 15 bytes of it. 0 for nothing: an `Option` is copied with bytes
/// that were never written, which older verifiers refuse.
#[inline(always)]
pub fn known_name() -> u8 {
    let Ok(comm) = bpf_get_current_comm() else { return 0 };
    // SAFETY: the map is written before the programs run.
    unsafe { RUNTIMES.get(&comm) }.copied().unwrap_or(0)
}

/// Counts one process more.
#[inline(always)]
fn join(container: ContainerKey) {
    if container != ContainerKey::HOST
        && let Some(slot) = slot_of(container)
    {
        slot.add_processes(1);
    }
}

/// Counts processes of a container down, one or none, and reports its end if none is left. Of two last ones that leave at
/// once both may find none left: user space takes a second end for what it is. That neither does is impossible, as
/// each has counted itself down before it looks.
#[inline(always)]
pub fn leave(program: impl Into<u32>, container: ContainerKey, pid: u32, count: i64) {
    if container != ContainerKey::HOST
        && let Some(slot) = slot_of(container)
        && slot.add_processes(-count) == 0
    {
        let kind = LifecycleKind::Ended as u32;
        submit_lifecycle(program, &Record { timestamp: now(), container, kind, pid });
    }
}
