//! The followed processes, and adoption of processes that started before the programs were attached.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::generated::bpf_get_current_cgroup_id,
};
use tracer_common::{
    container::{
        Adoptee, ContainerKey, EVIDENCE_CGROUP, EVIDENCE_MNT_NS, EVIDENCE_PID_NS, Evidence, FollowedProcess,
        NANOSECONDS_PER_TICK, Suspect,
    },
    lifecycle::{LifecycleKind, Record},
};

use crate::{
    atomic::shared_field,
    binding,
    current::{Current, current_comm},
    emit::{now, submit_lifecycle},
    exit_status::store_exit_status,
    globals,
    identity::begin_epoch,
    maps::{ADOPTEES, EVIDENCE, PROCESSES, RUNTIMES},
    slots::slot_of,
    state::{EXIT, FORK, Program},
    task::Task,
};

/// Pid namespaces that are checked between a process's own and the host's: a node in a container, its pods, and one
/// that a program creates for itself.
const PID_NS_DEPTH: u32 = 4;

/// Pointer to the value of a process in the map `PROCESSES`.
///
/// Only the process's own threads change the value, and the last of them removes it: it stays valid while one of them
/// runs a program. Fields are loaded and stored whole.
#[derive(Clone, Copy)]
pub struct ProcessEntry(*mut FollowedProcess);

impl ProcessEntry {
    shared_field!(container: ContainerKey, set_container);
    shared_field!(preparing: ContainerKey, set_preparing);
    shared_field!(pid: u32);
    shared_field!(container_pid: u32);
    shared_field!(start_time: u64);
    shared_field!(executed: u32, set_executed);

    #[inline(always)]
    pub fn of(tgid: u32) -> Option<Self> {
        PROCESSES.get_ptr_mut(&tgid).map(Self)
    }
}

/// A new value for a process that belongs to a container or prepares one.
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

/// The current process, if it belongs to a container or prepares one. Adopts it if user space has found it or the
/// evidence points to a container.
#[inline(always)]
pub fn find(program: Program, tgid: u32) -> Option<ProcessEntry> {
    if let Some(entry) = ProcessEntry::of(tgid) {
        if entry.start_time() == Current::task().process_start_time() {
            return Some(entry);
        }
        // The value belongs to an earlier process with the same id, whose exit the kernel did not report.
        forget(program, tgid);
    }
    if adopt(tgid) == 0 {
        return None;
    }
    ProcessEntry::of(tgid)
}

/// Inserts a process that is not followed yet; None if the map is full.
#[inline(always)]
pub fn insert(tgid: u32, process: &FollowedProcess) -> Option<ProcessEntry> {
    PROCESSES.insert(&tgid, process, u64::from(BPF_NOEXIST)).ok()?;
    ProcessEntry::of(tgid)
}

/// Inserts the child of a followed process; None if the map is full.
#[inline(always)]
pub fn insert_child(tgid: u32, process: &FollowedProcess) -> Option<()> {
    // The child does not run yet, so an existing value belongs to an earlier process, the exit of which was missed.
    forget(FORK, tgid);
    PROCESSES.insert(&tgid, process, u64::from(BPF_ANY)).ok()?;
    join(process.container);
    join(process.preparing);
    Some(())
}

/// Handles the exit of the last thread of a process: removes it and decrements the process counts of its containers.
#[inline(always)]
pub fn remove(task: Task, tgid: u32) {
    if let Some(process) = ProcessEntry::of(tgid) {
        store_exit_status(process.container().0, process.container_pid());
        forget(EXIT, tgid);
    } else if let Some((pid, adoptee)) = adoptee(task, tgid) {
        store_exit_status(adoptee.container.0, task.process_ids().innermost);
        // Two threads may both find that their group is dead: only one of them removes the entry.
        if ADOPTEES.remove(&pid).is_ok() {
            leave(EXIT, adoptee.container, pid, 0);
            leave(EXIT, adoptee.preparing, pid, 0);
        }
    }
}

/// Removes a process, and decrements the process counts of its containers.
#[inline(always)]
fn forget(program: Program, tgid: u32) {
    let Some(entry) = ProcessEntry::of(tgid) else { return };
    let (container, preparing, pid) = (entry.container(), entry.preparing(), entry.pid());
    if PROCESSES.remove(&tgid).is_ok() {
        leave(program, container, pid, 1);
        leave(program, preparing, pid, 1);
    }
}

/// Inserts the current process if it belongs to a container that was running before: user space has found the
/// process, or its namespaces or cgroup are those of the container. The process cannot exit meanwhile, since it runs
/// this program. Returns 1 if it is followed now, else 0.
///
/// A separate function for the verifier, as in [`binding`]: it is long and rarely called, and verified once instead
/// of once for every state of its callers. Its arguments and result are therefore plain numbers.
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
    // Since user space inspected it, it may have executed the entrypoint.
    if preparing != ContainerKey::HOST
        && binding::is_entrypoint(preparing, process.container_pid)
        && !is_still_runtime()
    {
        process.container = preparing;
        process.preparing = ContainerKey::HOST;
    }
    // Two threads may do this at once: only one of them inserts. The process is inserted before it is removed from
    // the adoptees, so that user space, which looks them up in the same order, always finds it in one of the maps.
    if PROCESSES.insert(&tgid, &process, u64::from(BPF_NOEXIST)).is_ok() {
        join(process.container);
        join(process.preparing);
        if let Some((pid, _)) = found {
            // Another thread may have removed it first.
            let _ = ADOPTEES.remove(&pid);
        }
        begin_epoch();
    }
    1
}

/// The entry that user space has made for a process, with the process id in `tracer`'s pid namespace.
#[inline(always)]
fn adoptee(task: Task, tgid: u32) -> Option<(u32, Adoptee)> {
    let pid = if globals::TRACER_PID_NS.load() == 0 { tgid } else { task.process_ids().tracer };
    // SAFETY: the value is copied at once. If the entry is replaced meanwhile, the start time distinguishes it from
    // the next process with the same id.
    let adoptee = *unsafe { ADOPTEES.get(&pid) }?;
    (task.process_start_time() / NANOSECONDS_PER_TICK == adoptee.start_ticks).then_some((pid, adoptee))
}

/// The container that the namespaces or the cgroup of the current task point to, or the host. Unlike a list of
/// processes this does not race: it also holds for processes that start and exit faster than user space can scan.
///
/// A separate function for the verifier, like [`adopt`], whose stack use must stay small.
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
    // A host program may be in a container's cgroup: `runc exec` is cloned into it, and some engines put their own
    // processes there.
    let mntns = task.mntns_of_its_own()?;
    if let Some(suspect) = suspect(EVIDENCE_MNT_NS, u64::from(mntns)) {
        return Some(suspect.container);
    }
    // SAFETY: the helper takes no arguments and always succeeds.
    let suspect = suspect(EVIDENCE_CGROUP, unsafe { bpf_get_current_cgroup_id() })?;
    (task.root_dentry() != task.host_init().root_dentry()).then_some(suspect.container)
}

/// The container that a piece of evidence points to, if it has not ended.
#[inline(always)]
fn suspect(kind: u32, id: u64) -> Option<Suspect> {
    // SAFETY: the value is copied at once. If it is replaced meanwhile, the generation shows that it is outdated.
    let suspect = *unsafe { EVIDENCE.get(&Evidence { kind, reserved: 0, id }) }?;
    (slot_of(suspect.container)?.generation() == suspect.container.generation()).then_some(suspect)
}

/// Whether the current task, which is in the container's mount namespace already, still executes the runtime's own
/// program. crun keeps its name or has that of the memfd that it has copied itself into; runc and youki name theirs
/// like `runc:[2:INIT]`. The names are compared as numbers, since each comparison of a byte would be another path for
/// the verifier.
#[inline(always)]
pub fn is_still_runtime() -> bool {
    /// Six bytes of the eight compared.
    const RUNC: u64 = u64::from_le_bytes(*b"runc:[\0\0");
    const RUNC_MASK: u64 = (1 << 48) - 1;
    /// Seven bytes.
    const YOUKI: u64 = u64::from_le_bytes(*b"youki:[\0");
    const YOUKI_MASK: u64 = (1 << 56) - 1;
    /// All eight bytes.
    const CRUN: u64 = u64::from_le_bytes(*b"memfd:cr");
    let comm = current_comm();
    let Some(start) = comm.first_chunk().map(|start| u64::from_le_bytes(*start)) else { return false };
    start & RUNC_MASK == RUNC || start & YOUKI_MASK == YOUKI || start == CRUN || runtime_role() != 0
}

/// The role of the program that the task just executed, by its file name:
/// [`RUNTIME`](tracer_common::container::RUNTIME), [`RESTORER`](tracer_common::container::RESTORER), or 0 for any
/// other program. The kernel has just set the comm to the first 15 bytes of that name (`kbasename(bprm->filename)`,
/// begin_new_exec() in fs/exec.c). Not an `Option`: copying one copies bytes that were never written, which older
/// verifiers refuse.
#[inline(always)]
pub fn runtime_role() -> u8 {
    let comm = current_comm();
    // SAFETY: the map is written before the programs are attached and frozen then, so the value does not change while
    // it is copied.
    unsafe { RUNTIMES.get(&comm) }.copied().unwrap_or(0)
}

/// Increments the process count of a container.
#[inline(always)]
fn join(container: ContainerKey) {
    if container != ContainerKey::HOST
        && let Some(slot) = slot_of(container)
    {
        slot.add_processes(1);
    }
}

/// Decrements the process count of a container by `count`, which may be 0, and reports the container's end if no
/// process is left. If the last two processes leave at once, both may find the count at 0: user space ignores the
/// second report. It is impossible that neither does, because each decrements the count before it reads it.
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
