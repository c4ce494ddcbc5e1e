//! What io_uring opens: noted when the request is submitted, reported when its completion is.
//!
//! The kernel forgets the path before it reports the result, and the thread that reports it may be another one than the
//! caller's. So the record is put together when a request is submitted, from the kernel's own copy of what was asked for,
//! and kept in `REQUESTS` until the result is known.

use tracer_common::{
    event::{
        Kind, OPEN_FIXED_FILE, OPEN_PATH_MAX, OPEN_UNREPORTED, Open, OpenCall, OpenExtra, PATH_FAULT,
        PATH_TRUNCATED,
    },
    stats::Program,
};

use super::open::{self, MODE_FLAGS};
use crate::{
    arch::Arguments,
    current::Current,
    emit::{Scratch, now, submit_event},
    filter, globals,
    identity::{self, Identity},
    maps::{REPORTS, REQUEST_RECORD_MAX, REQUESTS, Report, Request},
    read::{self, KernelAddress, capped},
    state::ProgramState,
};

/// `IORING_OP_OPENAT`, `IORING_OP_OPENAT2`, include/uapi/linux/io_uring.h.
const OP_OPENAT: u8 = 18;
const OP_OPENAT2: u8 = 28;
/// `IOSQE_CQE_SKIP_SUCCESS`, likewise: success is not reported. The same bit of the request's flags.
const CQE_SKIP: u32 = 1 << 6;

const HEAD: u32 = core::mem::offset_of!(Request, record) as u32;
const FIXED: u32 = size_of::<Open>() as u32;
const EXTRA: u32 = size_of::<OpenExtra>() as u32;

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

#[inline(always)]
fn call_of(opcode: Option<u8>) -> Option<OpenCall> {
    match opcode? {
        OP_OPENAT => Some(OpenCall::UringOpenat),
        OP_OPENAT2 => Some(OpenCall::UringOpenat2),
        _ => None,
    }
}

/// A request, a `struct io_kiocb`, is submitted by the current task.
#[inline(always)]
pub fn on_submit(request: KernelAddress) {
    const PROGRAM: Program = Program::UringSubmit;
    let Some(call) = call_of(request.read(&globals::IO_KIOCB_OPCODE)) else { return };
    let Some(epoch) = identity::epoch() else { return };
    let Some(state) = ProgramState::of(PROGRAM) else { return };
    if let Some(before) = REQUESTS.get_ptr_mut(&request.0) {
        // The request that was at that address has ended, without a report.
        finish(state, request.0, before, None);
    }
    let task = Current::task();
    let identity = Identity::look_up(state, task, epoch);
    // Whether it fails is not known yet.
    let Some(header) = filter::admit(state, Kind::Open, task, &identity, true) else {
        state.count(|stats| &mut stats.seen);
        return;
    };
    let Some(mut scratch) = Scratch::take(PROGRAM) else {
        state.count(|stats| &mut stats.seen);
        return;
    };
    let start = FIXED + if call.has_extra() { EXTRA } else { 0 };
    let name = request.follow(&globals::IO_OPEN_FILENAME).follow(&globals::FILENAME_NAME);
    // SAFETY: the buffer is longer than both together.
    let path = unsafe { read::kernel_str(scratch.at(HEAD + start), OPEN_PATH_MAX as u32, name) };
    let flags: u64 = request.read(&globals::IO_OPEN_FLAGS).unwrap_or(0);
    let mode = request.number(&globals::IO_OPEN_MODE);
    let is_fixed = request.number(&globals::IO_OPEN_FILE_SLOT) != 0;
    let is_silent = request.number(&globals::IO_KIOCB_FLAGS) & CQE_SKIP != 0;
    let ring = request.follow(&globals::IO_KIOCB_CTX).0;
    let data: u64 = request.read(&globals::IO_KIOCB_USER_DATA).unwrap_or(0);
    let len = start + path.len;
    scratch.write_at::<HEAD, _>(Open {
        header,
        flags,
        ret: 0,
        dirfd: request.number(&globals::IO_OPEN_DFD) as i32,
        mode: if flags & MODE_FLAGS == 0 { 0 } else { mode },
        path_len: path.len as u16,
        marks: path.marks(PATH_TRUNCATED, PATH_FAULT) | if is_fixed { OPEN_FIXED_FILE } else { 0 },
        call: call as u8,
    });
    if call.has_extra() {
        let resolve = request.read(&globals::IO_OPEN_RESOLVE).unwrap_or(0);
        scratch.write_at::<{ HEAD + FIXED }, _>(OpenExtra(resolve));
    }
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
pub fn on_complete(request: KernelAddress, ret: i32) {
    let Some(pending) = REQUESTS.get_ptr_mut(&request.0) else { return };
    let Some(state) = ProgramState::of(Program::UringComplete) else { return };
    // Where the address is another request's by now, the open has ended without a report.
    let is_open = call_of(request.read(&globals::IO_KIOCB_OPCODE)).is_some();
    finish(state, request.0, pending, is_open.then_some(ret));
}

/// The completion of a request of that ring found no room there.
#[inline(always)]
pub fn on_overflow(ring: u64, data: u64, ret: i32) {
    let Some(request) = REPORTS.get_ptr(&Report { ring, data }) else { return };
    // SAFETY: a value of a map; another CPU may have replaced it by another address.
    let request = unsafe { request.read_volatile() };
    let Some(pending) = REQUESTS.get_ptr_mut(&request) else { return };
    let Some(state) = ProgramState::of(Program::UringOverflow) else { return };
    // SAFETY: a value of a map, which is only written before it is inserted.
    let (is_its, is_ambiguous) =
        unsafe { ((*pending).ring == ring && (*pending).data == data, (*pending).is_ambiguous != 0) };
    if is_its {
        finish(state, request, pending, (!is_ambiguous).then_some(ret));
    }
}

/// An entry of the submission queue was refused before it became a request.
#[inline(always)]
pub fn on_refusal(entry: KernelAddress, error: i32) {
    const PROGRAM: Program = Program::UringRefusal;
    let Some(entry) = entry.read_at::<Entry>(0) else { return };
    let Some(call) = call_of(Some(entry.opcode)) else { return };
    let third = if call.has_extra() { entry.addr2 } else { u64::from(entry.open_flags) };
    let arguments = [entry.fd as u64, entry.addr, third, u64::from(entry.len), 0];
    open::emit(PROGRAM, call, Arguments(arguments), Current::task(), || (error, 0));
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
            (*open).ret = ret.unwrap_or(0);
            if ret.is_none() {
                (*open).marks |= OPEN_UNREPORTED;
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
