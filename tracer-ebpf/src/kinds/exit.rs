//! Processes that exit, seen with the last of their threads.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use tracer_common::kinds::exit::{self, CORE_DUMPED, Exit, HAS_CODE, IS_FIRST, OOM_KILLED};

use super::EventKind;
use crate::{
    current::Current,
    emit::{now, submit_event},
    exit_status::{slot_of_first, wait_status},
    filter,
    globals::offsets,
    identity::{self, Identity},
    preemption::without_preemption,
    read::KernelAddress,
    state::{ProgramState, programs},
    task::{Task, find_tracer_level},
};

programs! {
    /// Processes that exit.
    AT_EXIT = EXIT_LAST_THREAD, None;
}

offsets! {
    // Set for the processes that the OOM killer chooses (`mark_oom_victim`, mm/oom_kill.c).
    SIGNAL_OOM_MM = offset_if_any__signal_struct__oom_mm;
}

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
    if slot_of_first(process, identity.container, identity.container_pid).is_some() {
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
