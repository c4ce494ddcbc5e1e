//! What io_uring opens: noted when the request is submitted, reported when its completion is.
//!
//! The kernel forgets the path before it reports the result, and the thread that reports it may be another one than the
//! caller's. So the record is put together when a request is submitted, from the kernel's own copy of the request,
//! and kept in `REQUESTS` until the result is known.

use core::arch::asm;

use aya_ebpf::{Global, macros::btf_tracepoint, programs::BtfTracePointContext};
use tracer_common::kinds::{
    PATH_FAULT, PATH_TRUNCATED,
    open::{self, FIXED_FILE, HAS_RESOLVE, Open, PATH_MAX, RESULT_UNREPORTED, URING_OPENAT, URING_OPENAT2},
    schema::UNREPORTED,
};

use super::{
    open::{self as opens, MODE_FLAGS},
    seccomp::Answer,
};
use crate::{
    arch::Arguments,
    current::Current,
    emit::{Scratch, now, submit_event},
    filter,
    globals::{self, offsets},
    identity::{self, Identity},
    maps::{REPORTS, REQUEST_RECORD_MAX, REQUESTS, Report, Request},
    preemption::without_preemption,
    read::{self, KernelAddress, capped},
    state::{ProgramState, programs},
    task::find_tracer_level,
};

programs! {
    /// Requests that were submitted.
    SUBMIT = URING_SUBMIT, Short;
    /// Results of requests.
    COMPLETE = URING_COMPLETE, None;
    /// Results that did not fit in the completion queue.
    OVERFLOW = URING_OVERFLOW, None;
    /// Entries that were refused.
    REFUSAL = URING_REFUSAL, Short;
}

/// Which argument of the tracepoint of io_uring's submissions is the request.
#[unsafe(no_mangle)]
static URING_REQUEST_ARGUMENT: Global<u32> = Global::new(0);

/// Whether the tracepoint of io_uring's completions has the result as an argument: 1 or 0. Where it has not, it
/// is read from the request: what the tracepoint points to instead, the process may write.
#[unsafe(no_mangle)]
static URING_RESULT_ARGUMENT: Global<u32> = Global::new(0);

/// Which argument of the tracepoint of refused entries is the error.
#[unsafe(no_mangle)]
static URING_ERROR_ARGUMENT: Global<u32> = Global::new(2);

offsets! {
    IO_KIOCB_OPCODE = offset_if_any__io_kiocb__opcode;
    IO_KIOCB_FLAGS = offset_if_any__io_kiocb__flags;
    IO_KIOCB_CTX = offset_if_any__io_kiocb__ctx;
    IO_KIOCB_USER_DATA = offset_if_any__io_kiocb__cqe__user_data;
    IO_KIOCB_RESULT = offset_if_any__io_kiocb__cqe__res;
    // Every operation's own structure lies at the start of the request.
    IO_OPEN_DFD = offset_if_any__io_open__dfd;
    IO_OPEN_FILENAME = offset_if_any__io_open__filename;
    IO_OPEN_FLAGS = offset_if_any__io_open__how__flags;
    IO_OPEN_MODE = offset_if_any__io_open__how__mode;
    IO_OPEN_RESOLVE = offset_if_any__io_open__how__resolve;
    IO_OPEN_FILE_SLOT = offset_if_any__io_open__file_slot;
    FILENAME_NAME = offset_if_any__filename__name;
}

/// `IORING_OP_OPENAT`, `IORING_OP_OPENAT2`, include/uapi/linux/io_uring.h.
const OP_OPENAT: u8 = 18;
const OP_OPENAT2: u8 = 28;
/// `IOSQE_CQE_SKIP_SUCCESS`, likewise: success is not reported. The same bit of the request's flags.
const CQE_SKIP: u32 = 1 << 6;

const HEAD: u32 = core::mem::offset_of!(Request, record) as u32;
const FIXED: u32 = size_of::<Open>() as u32;

/// What of a `struct io_uring_sqe` matters here, an ABI.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    /// Of openat2 the address of its `struct open_how`.
    addr2: u64,
    addr: u64,
    /// Of openat the mode.
    len: u32,
    open_flags: u32,
}

/// `TP_PROTO(struct io_kiocb *req)`, include/trace/events/io_uring.h; `io_uring_submit_sqe` before 6.4, in 5.18 and 5.19 with
/// the ring first.
#[btf_tracepoint(function = "io_uring_submit_req")]
#[inline(always)]
pub fn uring_submit(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| {
        find_tracer_level();
        let request =
            if URING_REQUEST_ARGUMENT.load() == 0 { argument::<0>(&ctx) } else { argument::<1>(&ctx) };
        on_submit(KernelAddress(request));
    });
    0
}

/// `TP_PROTO(struct io_ring_ctx *ctx, void *req, struct io_uring_cqe *cqe)`; before 6.10 with the result as the fourth.
#[btf_tracepoint(function = "io_uring_complete")]
#[inline(always)]
pub fn uring_complete(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| {
        let request = KernelAddress(ctx.arg(1));
        let ret: i32 = if URING_RESULT_ARGUMENT.load() == 0 {
            request.number(&IO_KIOCB_RESULT) as i32
        } else {
            ctx.arg(3)
        };
        on_complete(request, ret);
    });
    0
}

/// `TP_PROTO(void *ctx, unsigned long long user_data, s32 res, u32 cflags, void *ocqe)`, since 5.18.
#[btf_tracepoint(function = "io_uring_cqe_overflow")]
#[inline(always)]
pub fn uring_overflow(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| on_overflow(ctx.arg(0), ctx.arg(1), ctx.arg(2)));
    0
}

/// `TP_PROTO(const struct io_uring_sqe *sqe, struct io_kiocb *req, int error)`; before 6.0 with the ring between.
#[btf_tracepoint(function = "io_uring_req_failed")]
#[inline(always)]
pub fn uring_refusal(ctx: BtfTracePointContext) -> i32 {
    without_preemption(|| {
        find_tracer_level();
        let error = if URING_ERROR_ARGUMENT.load() == 2 { argument::<2>(&ctx) } else { argument::<3>(&ctx) };
        on_refusal(KernelAddress(ctx.arg(0)), error as i32);
    });
    0
}

/// An argument of a tracepoint whose position differs between kernels. The assembly, which changes nothing, keeps the compiler
/// from merging the two loads into one at a computed offset: the verifier refuses that.
#[inline(always)]
fn argument<const INDEX: usize>(ctx: &BtfTracePointContext) -> u64 {
    let mut argument: u64 = ctx.arg(INDEX);
    // SAFETY: plain operations on one register.
    unsafe {
        asm!(
            "{argument} += {index}",
            "{argument} -= {index}",
            argument = inout(reg) argument,
            index = const INDEX,
            options(nomem, nostack),
        );
    }
    argument
}

#[inline(always)]
fn call_of(opcode: Option<u8>) -> Option<u8> {
    match opcode? {
        OP_OPENAT => Some(URING_OPENAT),
        OP_OPENAT2 => Some(URING_OPENAT2),
        _ => None,
    }
}

/// A request, a `struct io_kiocb`, is submitted by the current task.
#[inline(always)]
fn on_submit(request: KernelAddress) {
    let Some(call) = call_of(request.read(&IO_KIOCB_OPCODE)) else { return };
    let Some(epoch) = identity::epoch() else { return };
    let Some(state) = ProgramState::of(SUBMIT) else { return };
    if let Some(before) = REQUESTS.get_ptr_mut(&request.0) {
        // The request that was at that address has ended, without a report.
        finish(state, request.0, before, None);
    }
    let task = Current::task();
    let identity = Identity::look_up(state, task, epoch);
    // Whether it fails is not known yet.
    let Some(header) = filter::admit(state, open::NUMBER, task, &identity, true) else {
        state.count(|stats| &mut stats.seen);
        return;
    };
    let Some(mut scratch) = Scratch::take(SUBMIT) else {
        state.count(|stats| &mut stats.seen);
        return;
    };
    let name = request.follow(&IO_OPEN_FILENAME).follow(&FILENAME_NAME);
    // SAFETY: the buffer is longer than both together.
    let path = unsafe { read::kernel_str(scratch.at(HEAD + FIXED), PATH_MAX as u32, name) };
    let flags: u64 = request.read(&IO_OPEN_FLAGS).unwrap_or(0);
    let mode = request.number(&IO_OPEN_MODE);
    let is_fixed = request.number(&IO_OPEN_FILE_SLOT) != 0;
    let is_silent = request.number(&IO_KIOCB_FLAGS) & CQE_SKIP != 0;
    let ring = request.follow(&IO_KIOCB_CTX).0;
    let data: u64 = request.read(&IO_KIOCB_USER_DATA).unwrap_or(0);
    let len = FIXED + path.len;
    let has_resolve = call == URING_OPENAT2;
    let resolve: u64 = if has_resolve { request.read(&IO_OPEN_RESOLVE).unwrap_or(0) } else { 0 };
    scratch.write_at::<HEAD, _>(Open {
        header,
        flags,
        resolve,
        ret: 0,
        dirfd: request.number(&IO_OPEN_DFD) as i32,
        mode: if flags & MODE_FLAGS == 0 { 0 } else { mode },
        handle_type: 0,
        path_len: path.len as u16,
        handle_len: 0,
        event_flags: path.flags(PATH_TRUNCATED, PATH_FAULT)
            | if is_fixed { FIXED_FILE } else { 0 }
            | if has_resolve { HAS_RESOLVE } else { 0 },
        call,
        reserved: 0,
    });
    let report = Report { ring, data };
    let is_ambiguous = REPORTS.get_ptr(&report).is_some();
    scratch.write_at::<0, _>([len, u32::from(is_ambiguous)]);
    scratch.write_at::<8, _>([ring, data]);
    let pending = scratch.as_request();
    if is_silent {
        finish(state, 0, pending, None);
        return;
    }
    // SAFETY: written above, and this program's alone.
    if REQUESTS.insert(&request.0, unsafe { &*pending }, 0).is_err() {
        state.count(|stats| &mut stats.seen);
        state.count(|stats| &mut stats.lost_no_scratch);
        return;
    }
    // Without it a report that finds no room in the ring is not matched.
    let _ = REPORTS.insert(&report, &request.0, 0);
}

/// A request was completed, by whichever thread.
#[inline(always)]
fn on_complete(request: KernelAddress, ret: i32) {
    let Some(pending) = REQUESTS.get_ptr_mut(&request.0) else { return };
    let Some(state) = ProgramState::of(COMPLETE) else { return };
    // Where the address is another request's by now, the open has ended without a report.
    let is_open = call_of(request.read(&IO_KIOCB_OPCODE)).is_some();
    finish(state, request.0, pending, is_open.then_some(ret));
}

/// The completion of a request of that ring found no room there.
#[inline(always)]
fn on_overflow(ring: u64, data: u64, ret: i32) {
    let Some(request) = REPORTS.get_ptr(&Report { ring, data }) else { return };
    // SAFETY: a value of a map; another CPU may have replaced it by another address.
    let request = unsafe { request.read_volatile() };
    let Some(pending) = REQUESTS.get_ptr_mut(&request) else { return };
    let Some(state) = ProgramState::of(OVERFLOW) else { return };
    // SAFETY: a value of a map, which is only written before it is inserted.
    let (is_its, is_ambiguous) =
        unsafe { ((*pending).ring == ring && (*pending).data == data, (*pending).is_ambiguous != 0) };
    if is_its {
        finish(state, request, pending, (!is_ambiguous).then_some(ret));
    }
}

/// An entry of the submission queue was refused before it became a request.
#[inline(always)]
fn on_refusal(entry: KernelAddress, error: i32) {
    let Some(entry) = entry.read_at::<Entry>(0) else { return };
    let Some(call) = call_of(Some(entry.opcode)) else { return };
    let third = if call == URING_OPENAT2 { entry.addr2 } else { u64::from(entry.open_flags) };
    let arguments = [entry.fd as u64, entry.addr, third, u64::from(entry.len), 0];
    let answer = || Answer { ret: error, flags: 0 };
    opens::emit(REFUSAL, call, Arguments(arguments), Current::task(), answer);
}

/// Shows a request with its result, or without where that was not reported.
#[inline(always)]
fn finish(state: ProgramState, key: u64, pending: *mut Request, ret: Option<i32>) {
    state.count(|stats| &mut stats.seen);
    let failed = ret.is_some_and(|ret| ret < 0);
    if failed || globals::FAILED_ONLY.load() == 0 {
        // SAFETY: a value of a map or this program's buffer, as long as a `Request`, which nobody else writes: the request
        // is completed once. The record is aligned to eight bytes in it.
        let (record, len) = unsafe {
            let open = pending.byte_add(HEAD as usize).cast::<Open>();
            (*open).header.timestamp = now();
            (*open).ret = ret.unwrap_or(UNREPORTED);
            if ret.is_none() {
                (*open).event_flags |= RESULT_UNREPORTED;
            }
            let len = capped::<{ REQUEST_RECORD_MAX as u32 }>((&raw const (*pending).len).read_volatile());
            (core::slice::from_raw_parts(open.cast::<u8>(), len as usize), len)
        };
        submit_event(state, record, len);
    } else {
        state.count(|stats| &mut stats.filtered);
    }
    if key == 0 {
        return;
    }
    // SAFETY: as above.
    let report = unsafe { Report { ring: (*pending).ring, data: (*pending).data } };
    // SAFETY: a value of a map.
    if REPORTS.get_ptr(&report).is_some_and(|request| unsafe { request.read_volatile() } == key) {
        let _ = REPORTS.remove(&report);
    }
    let _ = REQUESTS.remove(&key);
}
