//! What tracer's programs are compared with: the least that a hook costs, empty or with a record written.
//!
//! | program | hook | purpose |
//! |---|---|---|
//! | `empty` | `tp_btf/sys_exit` | what the hook itself costs |
//! | `floor` | `tp_btf/sys_exit` | a record for each call of the load that opens a file, nothing else |
//! | `filled` | `tp_btf/sys_exit` | the same with what such a record tells: time, ids, comm, path |
//! | `enter`, `leave` | `tracepoint/syscalls/sys_{enter,exit}_openat` | the same through two tracepoints and a hash map |
//! | `empty_fexit` | `fexit/do_sys_openat2` | what the hook itself costs, where the kernel allows it |
//! | `floor_fexit` | `fexit/do_sys_openat2` | as `floor` |
//!
//! Nobody is woken: the reader looks by itself.

#![no_std]
#![no_main]
#![allow(
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::inline_always,
    clippy::needless_pass_by_value,
    reason = "a program, not a library; the context is passed by value; what is not inlined the verifier sees without its bounds"
)]

use aya_ebpf::{
    Global,
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_ktime_get_boot_ns, bpf_probe_read_user_str},
    },
    macros::{btf_tracepoint, fexit, map, tracepoint},
    maps::{HashMap, PerCpuArray, RingBuf},
    programs::{BtfTracePointContext, FExitContext, TracePointContext},
};

/// Bytes of the longest record.
const RECORD_MAX: usize = 4096;

/// Thread group id of the load.
#[unsafe(no_mangle)]
static LOAD: Global<u32> = Global::new(0);

/// Bytes of a record, [`RECORD_MAX`] at the most. The verifier takes it for a constant.
#[unsafe(no_mangle)]
static RECORD_SIZE: Global<u32> = Global::new(0);

/// Records that found no room, by index 0.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// The records. User space sets the size.
#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 12, 0);

/// What `enter` tells `leave`, by thread.
#[map]
static CALLS: HashMap<u64, [u64; 4]> = HashMap::with_max_entries(4096, 0);

/// Where `filled` puts its record together.
#[map]
static SCRATCH: PerCpuArray<Filled> = PerCpuArray::with_max_entries(1, 0);

/// What any record of an open tells.
#[repr(C)]
struct Filled {
    time: u64,
    process: u64,
    user: u64,
    comm: [u8; 16],
    path: [u8; RECORD_MAX - 40],
}

/// What all records hold: a floor has nothing to tell.
static RECORD: [u8; RECORD_MAX] = [0; RECORD_MAX];

/// `TP_PROTO(struct pt_regs *regs, long ret)`, include/trace/events/syscalls.h.
#[btf_tracepoint(function = "sys_exit")]
pub fn empty(_ctx: BtfTracePointContext) -> i32 {
    0
}

/// As for [`empty`].
#[btf_tracepoint(function = "sys_exit")]
pub fn floor(ctx: BtfTracePointContext) -> i32 {
    if is_open(&ctx) && is_load() {
        write();
    }
    0
}

/// As for [`empty`].
#[btf_tracepoint(function = "sys_exit")]
#[inline(always)]
pub fn filled(ctx: BtfTracePointContext) -> i32 {
    if is_open(&ctx) && is_load() {
        write_filled(&ctx);
    }
    0
}

/// `long do_sys_openat2(int dfd, const char __user *filename, struct open_how *how)`, fs/open.c since 5.6.
#[fexit(function = "do_sys_openat2")]
pub fn empty_fexit(_ctx: FExitContext) -> i32 {
    0
}

/// As for [`empty_fexit`].
#[fexit(function = "do_sys_openat2")]
pub fn floor_fexit(_ctx: FExitContext) -> i32 {
    if is_load() {
        write();
    }
    0
}

/// Keeps the arguments, which the tracepoint of the exit does not tell.
#[tracepoint]
pub fn enter(ctx: TracePointContext) -> u32 {
    /// Where the arguments are in `struct trace_event_raw_sys_enter`.
    const ARGUMENTS: usize = 16;
    if is_load() {
        let argument = |index: usize| {
            // SAFETY: the context has six arguments of eight bytes from there on.
            unsafe { ctx.read_at::<u64>(ARGUMENTS + 8 * index) }.unwrap_or(0)
        };
        let call = [argument(0), argument(1), argument(2), argument(3)];
        // A thread that has no room is not seen leaving.
        let _ = CALLS.insert(&bpf_get_current_pid_tgid(), &call, 0);
    }
    0
}

#[tracepoint]
pub fn leave(_ctx: TracePointContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    if CALLS.get_ptr(&thread).is_some() {
        write();
        let _ = CALLS.remove(&thread);
    }
    0
}

#[inline(always)]
fn is_load() -> bool {
    (bpf_get_current_pid_tgid() >> 32) as u32 == LOAD.load()
}

#[inline(always)]
fn write() {
    submit(RECORD.as_ptr());
}

/// With what each way of telling an open has to ask for, and nothing to tell whose it is.
#[inline(always)]
fn write_filled(ctx: &BtfTracePointContext) {
    /// Bytes of a path that are read at the most.
    const PATH_MAX: u32 = 255;
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's value, and the program never runs within itself there; the helper checks the path's address.
    unsafe {
        let record = &mut *scratch;
        record.time = bpf_ktime_get_boot_ns();
        record.process = bpf_get_current_pid_tgid();
        record.user = bpf_get_current_uid_gid();
        record.comm = bpf_get_current_comm().unwrap_or_default();
        bpf_probe_read_user_str(record.path.as_mut_ptr().cast(), PATH_MAX, path(ctx) as *const _);
    }
    submit(scratch.cast());
}

/// Submits a record that starts there, or counts it as lost.
#[inline(always)]
fn submit(start: *const u8) {
    // SAFETY: user space sets a size that is within the array.
    let record = unsafe { core::slice::from_raw_parts(start, RECORD_SIZE.load() as usize) };
    if RECORDS.output(record, u64::from(BPF_RB_NO_WAKEUP)).is_err()
        && let Some(lost) = LOST.get_ptr_mut(0)
    {
        // SAFETY: this CPU's value, and the program never runs within itself there.
        unsafe { *lost += 1 };
    }
}

/// Whether the call is one that opens a file, by its number alone.
#[inline(always)]
fn is_open(ctx: &BtfTracePointContext) -> bool {
    /// Where `struct pt_regs` has the number (`orig_ax`), in words, and the numbers of open, creat, openat, openat2.
    #[cfg(bpf_target_arch = "x86_64")]
    const CALL: (usize, [u64; 4]) = (15, [2, 85, 257, 437]);
    /// The same (`syscallno`, of 32 bits), of openat and openat2.
    #[cfg(bpf_target_arch = "aarch64")]
    const CALL: (usize, [u64; 4]) = (35, [56, 437, 56, 437]);

    let registers: *const u64 = ctx.arg(0);
    // SAFETY: the tracepoint's first argument, never null, valid while the program runs; a layout fixed per
    // architecture.
    let number = unsafe { *registers.add(CALL.0) } as u32;
    CALL.1.contains(&u64::from(number))
}

/// The address of openat's path, its second argument.
#[inline(always)]
fn path(ctx: &BtfTracePointContext) -> u64 {
    /// Where `struct pt_regs` has it (`si`), in words.
    #[cfg(bpf_target_arch = "x86_64")]
    const SECOND: usize = 13;
    #[cfg(bpf_target_arch = "aarch64")]
    const SECOND: usize = 1;
    let registers: *const u64 = ctx.arg(0);
    // SAFETY: as in `is_open`.
    unsafe { *registers.add(SECOND) }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Not `unreachable_unchecked`: a panic that could be reached is a loop that the verifier refuses.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
