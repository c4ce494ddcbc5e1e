//! Processes that exit, seen with the last of their threads.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tracer_common::{
    container::{ContainerKey, EVIDENCE_PID_NS, Evidence},
    kinds::exit::{self, CORE_DUMPED, Exit, HAS_CODE, IS_FIRST, OOM_KILLED},
};

use super::EventKind;
use crate::{
    current::Current,
    emit::{now, submit_event},
    filter,
    globals::offsets,
    identity::{self, Identity},
    maps::EVIDENCE,
    preemption::without_preemption,
    read::KernelAddress,
    slots::slot_of,
    state::{ProgramState, programs},
    task::{Task, find_tracer_level},
};

programs! {
    /// Processes that exit.
    AT_EXIT = EXIT_LAST_THREAD, None;
}

offsets! {
    TASK_EXIT_CODE = offset__task_struct__exit_code;
    SIGNAL_FLAGS = offset__signal_struct__flags;
    SIGNAL_GROUP_EXIT_CODE = offset__signal_struct__group_exit_code;
    // Set for the processes that the OOM killer chooses (`mark_oom_victim`, mm/oom_kill.c).
    SIGNAL_OOM_MM = offset_if_any__signal_struct__oom_mm;
}

/// `signal_struct.flags`: the threads exit together, with the code of the whole group (include/linux/sched/signal.h).
const SIGNAL_GROUP_EXIT: u32 = 4;
/// Of an exit code: the signal, whether there is a core dump, and what was given to exit(2) (wait(2)).
const SIGNAL: u32 = 0x7f;
const CORE: u32 = 0x80;
const CODE_SHIFT: u32 = 8;

/// Processes that have exited.
pub enum Events {}

impl EventKind for Events {
    const NUMBER: u32 = exit::NUMBER;
}

/// `TP_PROTO(struct task_struct *p)`, with a second argument since 6.16; include/trace/events/sched.h. It runs before the
/// program `process_exit` forgets which container the process belongs to.
#[btf_tracepoint(function = "sched_process_exit")]
#[inline(always)]
pub fn exit_last_thread(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| {
        find_tracer_level();
        let task = Task(KernelAddress(ctx.arg(0)));
        if task.is_group_dead() && identity::is_tracing() {
            emit_exit();
        }
    });
    0
}

/// The current process has exited. A function of its own for the verifier, as in [`binding`](crate::binding).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn emit_exit() -> u32 {
    const LEN: usize = size_of::<Exit>();
    let Some(epoch) = identity::epoch() else { return 0 };
    let Some(state) = ProgramState::of(AT_EXIT) else { return 0 };
    state.count(|stats| &mut stats.seen);
    let task = Current::task();
    let identity = Identity::look_up(state, task, epoch);
    let status = wait_status();
    let Some(header) = filter::admit(state, exit::NUMBER, task, &identity, status != 0) else { return 0 };
    let process = Task::current();
    let signal = status & SIGNAL;
    let mut flags = if signal == 0 { HAS_CODE } else { 0 };
    if status & CORE != 0 {
        flags |= CORE_DUMPED;
    }
    if process.signal().follow(&SIGNAL_OOM_MM) != KernelAddress(0) {
        flags |= OOM_KILLED;
    }
    if is_first(process, &identity) {
        flags |= IS_FIRST;
    }
    let record = Exit {
        header,
        lifetime: now().saturating_sub(task.process_start_time()),
        event_flags: flags,
        code: (status >> CODE_SHIFT) as u8,
        signal: signal as u8,
        reserved: 0,
    };
    // SAFETY: a structure without padding is as many initialized bytes.
    let bytes = unsafe { core::slice::from_raw_parts((&raw const record).cast::<u8>(), LEN) };
    submit_event(state, bytes, LEN as u32);
    1
}

/// The status that the parent's wait(2) gives: that of the group where the threads exit together, else that of the first
/// thread (`wait_task_zombie`, kernel/exit.c).
#[inline(always)]
fn wait_status() -> u32 {
    let task = Task::current();
    let signal = task.signal();
    if signal.number(&SIGNAL_FLAGS) & SIGNAL_GROUP_EXIT != 0 {
        signal.number(&SIGNAL_GROUP_EXIT_CODE)
    } else {
        task.leader().number(&TASK_EXIT_CODE)
    }
}

/// Whether the process was its container's first: the one that was bound, which is number 1 of a pid namespace of the
/// container's own. Of a container that ran before the programs did, its pid namespace is evidence.
#[inline(always)]
fn is_first(task: Task, identity: &Identity) -> bool {
    let Identity { container, container_pid, .. } = *identity;
    if container == ContainerKey::HOST || container_pid != 1 {
        return false;
    }
    let Some(slot) = slot_of(container) else { return false };
    let pid_ns = task.own_pid_ns();
    if slot.bound_container_pid() != 0 {
        return slot.bound_container_pid() == 1 && slot.bound_pidns() == pid_ns;
    }
    let evidence = Evidence { kind: EVIDENCE_PID_NS, reserved: 0, id: pid_ns.into() };
    // SAFETY: the value is read at once; user space replaces it as a whole.
    unsafe { EVIDENCE.get(&evidence) }.is_some_and(|suspect| suspect.container == container)
}
