//! Putting records together and handing them over, with a counter for every way that this can fail.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_ktime_get_boot_ns,
};
use tracer_common::{
    container::ContainerKey,
    kinds::{Header, schema::Buffer},
};

use crate::{
    current::Current,
    globals,
    identity::Identity,
    maps::{
        EVENTS, LIFECYCLE, LIFECYCLE_SIZE, READER_SLEEPS, Request, SCRATCH, SCRATCH_SIZE, SHORT_SCRATCH,
        SHORT_SCRATCH_OFFSET, SHORT_SCRATCH_SIZE,
    },
    read::{bounded, capped},
    state::{Program, ProgramState, count},
    task::Task,
};

/// Nanoseconds of `CLOCK_BOOTTIME`: it goes on while the machine is suspended, as the wall clock does.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes no arguments and always succeeds.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// This CPU's buffer of a program.
pub struct Scratch {
    start: *mut u8,
    program: Program,
    /// Known where a program is compiled: what depends on it is no branch.
    is_long: bool,
}

impl Scratch {
    /// `None`, and counted, where the kernel refuses it.
    #[inline(always)]
    pub fn take(program: Program) -> Option<Self> {
        let index = program.buffer_index();
        let (start, is_long) = match program.buffer() {
            Buffer::Long => (SCRATCH.get_ptr_mut(index).map(<*mut _>::cast), true),
            Buffer::Short => (SHORT_SCRATCH.get_ptr_mut(index).map(<*mut _>::cast), false),
            Buffer::None => (None, false),
        };
        let Some(start) = start else {
            count(program, |stats| &mut stats.lost_no_scratch);
            return None;
        };
        Some(Self { start, program, is_long })
    }

    /// The byte `offset` bytes on, in the first half of a long buffer and at the start of a short one.
    #[inline(always)]
    pub fn at(&self, offset: u32) -> *mut u8 {
        const LONG: u32 = SCRATCH_SIZE as u32 / 2 - 1;
        let offset =
            if self.is_long { bounded::<LONG>(offset) } else { bounded::<SHORT_SCRATCH_OFFSET>(offset) };
        // SAFETY: the mask keeps it within the buffer.
        unsafe { self.start.add(offset as usize) }
    }

    /// Writes the fixed part of a record.
    #[inline(always)]
    pub fn write<T: Copy>(&mut self, record: T) {
        const { assert!(size_of::<T>() < SHORT_SCRATCH_SIZE && align_of::<T>() <= 8) };
        // SAFETY: the buffer is larger, eight-byte aligned as all map values are, and this program's alone.
        unsafe { self.start.cast::<T>().write(record) }
    }

    /// Writes what follows the fixed part, `OFFSET` bytes on.
    #[inline(always)]
    pub fn write_at<const OFFSET: u32, T: Copy>(&mut self, value: T) {
        const {
            assert!(
                OFFSET as usize + size_of::<T>() < SHORT_SCRATCH_SIZE
                    && (OFFSET as usize).is_multiple_of(align_of::<T>())
            );
        };
        // SAFETY: the buffer is larger, eight-byte aligned as all map values are, and this program's alone.
        unsafe { self.start.add(OFFSET as usize).cast::<T>().write(value) }
    }

    /// What was put together here, as a request of io_uring.
    #[inline(always)]
    pub fn as_request(&self) -> *mut Request {
        const { assert!(size_of::<Request>() <= SHORT_SCRATCH_SIZE && align_of::<Request>() <= 8) };
        self.start.cast()
    }

    /// The record put together here.
    #[inline(always)]
    fn record(&self, len: u32) -> &[u8] {
        const LONG: u32 = SCRATCH_SIZE as u32 - 1;
        const SHORT: u32 = SHORT_SCRATCH_SIZE as u32;
        let len = if self.is_long { bounded::<LONG>(len) } else { capped::<SHORT>(len) };
        // SAFETY: that keeps it within the buffer, all of which is initialised: the kernel zeroes it.
        unsafe { core::slice::from_raw_parts(self.start, len as usize) }
    }

    /// Submits the first `len` bytes as a traced event, or counts it as lost.
    ///
    /// The reader is not woken for each: when much has come together, or when it sleeps for want of events.
    /// In between it looks by itself.
    #[inline(always)]
    pub fn submit_event(&self, state: ProgramState, len: u32) {
        submit_event(state, self.record(len), len);
    }

    /// Submits the first `len` bytes as a lifecycle record and wakes its reader, or counts it as lost.
    #[inline(always)]
    pub fn submit_lifecycle(&self, len: u32) {
        submit_lifecycle(self.program, self.record(len));
    }
}

/// Submits a traced event of `len` bytes, as [`Scratch::submit_event`] does.
#[inline(always)]
pub fn submit_event(state: ProgramState, record: &[u8], len: u32) {
    let flags = if state.is_time_to_wake(len) || reader_sleeps() {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    };
    if EVENTS.output(record, flags).is_err() {
        state.count(|stats| &mut stats.lost_buffer_full);
    }
}

/// Submits a lifecycle record and wakes its reader, or counts it as lost.
#[inline(always)]
pub fn submit_lifecycle<T: ?Sized>(program: impl Into<u32>, record: &T) {
    if LIFECYCLE.output(record, 0).is_err() {
        count(program, |stats| &mut stats.lost_lifecycle);
    }
}

/// Whether so much is still to be read of what runtimes do that the rest of the room is kept for the host's own: anybody
/// may execute what is called like a runtime, as often as they like.
#[inline(always)]
pub fn is_crowded() -> bool {
    LIFECYCLE.query(u64::from(BPF_RB_AVAIL_DATA)) > u64::from(LIFECYCLE_SIZE) / 2
}

/// Whether the reader wants to be woken by the next record; asked once, since the first one does wake it.
#[inline(always)]
fn reader_sleeps() -> bool {
    let Some(sleeps) = READER_SLEEPS.get_ptr_mut(0) else { return false };
    // SAFETY: a value of an array map, never removed. A race makes for one wake-up too many.
    unsafe {
        let asleep = sleeps.read_volatile() != 0;
        if asleep {
            sleeps.write_volatile(0);
        }
        asleep
    }
}

/// The header of an event of the current task, still without its time.
#[inline(always)]
pub fn header(kind: u32, task: Current, identity: &Identity) -> Header {
    let (pid, tid, ppid) = if globals::TRACER_PID_NS.load() == 0 {
        (task.tgid(), task.tid(), task.parent_tgid())
    } else {
        let task = Task::current();
        let pid = if identity.pid == 0 { task.process_ids().tracer } else { identity.pid };
        (pid, task.thread_ids().tracer, task.real_parent().process_ids().tracer)
    };
    let (uid, gid) = task.ids();
    Header {
        timestamp: 0,
        container: identity.container,
        kind,
        pid,
        tid,
        ppid,
        container_pid: if identity.container == ContainerKey::HOST { 0 } else { identity.container_pid },
        uid,
        gid,
        reserved: 0,
        comm: task.comm(),
    }
}
