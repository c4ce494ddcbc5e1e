//! Reads the current task with plain loads.
//!
//! The verifier knows the type that the pointer refers to and permits loads from it without a helper; several loads
//! cost less than one helper call. A load through an invalid pointer returns 0 and does no harm.

use core::mem::MaybeUninit;

use aya_ebpf::{
    Global,
    helpers::generated::{
        bpf_get_current_comm, bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel,
    },
};
use tracer_common::{COMM_LEN, Comm, offsets::UNKNOWN};

use crate::globals;

/// The current task, or a structure that it points to.
#[derive(Clone, Copy)]
pub struct Current(*const u8);

impl Current {
    #[inline(always)]
    pub fn task() -> Self {
        // SAFETY: the helpers take no arguments and always succeed. The second one returns the same pointer as a
        // number.
        unsafe {
            if globals::TYPED_TASKS.load() != 0 {
                Self(bpf_get_current_task_btf().cast::<u8>())
            } else {
                Self(bpf_get_current_task() as *const u8)
            }
        }
    }

    /// Address of the `task_struct`. It identifies the task while that exists; the kernel reuses it afterwards.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    pub fn tid(self) -> u32 {
        self.load(&globals::TASK_PID)
    }

    #[inline(always)]
    pub fn tgid(self) -> u32 {
        self.load(&globals::TASK_TGID)
    }

    /// Thread group id of the parent.
    #[inline(always)]
    pub fn parent_tgid(self) -> u32 {
        self.follow(&globals::TASK_REAL_PARENT).map_or(0, Self::tgid)
    }

    /// When the task started, in nanoseconds of `CLOCK_BOOTTIME`.
    #[inline(always)]
    pub fn start_time(self) -> u64 {
        self.load(&globals::TASK_START_BOOTTIME)
    }

    /// When the first thread of the process started, in nanoseconds of `CLOCK_BOOTTIME`.
    #[inline(always)]
    pub fn process_start_time(self) -> u64 {
        self.follow(&globals::TASK_GROUP_LEADER).map_or(0, Self::start_time)
    }

    /// Real user and group id, in the initial user namespace.
    #[inline(always)]
    pub fn ids(self) -> (u32, u32) {
        self.follow(&globals::TASK_CRED)
            .map_or((0, 0), |cred| (cred.load(&globals::CRED_UID), cred.load(&globals::CRED_GID)))
    }

    #[inline(always)]
    pub fn comm(self) -> Comm {
        const { assert!(COMM_LEN == 2 * size_of::<u64>()) };
        if globals::TYPED_TASKS.load() == 0 {
            return current_comm();
        }
        let halves = [self.load_at::<u64>(&globals::TASK_COMM, 0), self.load_at(&globals::TASK_COMM, 8)];
        // SAFETY: both types have 16 bytes, and every bit pattern is a valid comm.
        unsafe { core::mem::transmute(halves) }
    }

    /// Seccomp mode of the task; 0 if it has no filter or the kernel was built without seccomp.
    #[inline(always)]
    pub fn seccomp_mode(self) -> u32 {
        if globals::TASK_SECCOMP_MODE.load() == UNKNOWN { 0 } else { self.load(&globals::TASK_SECCOMP_MODE) }
    }

    /// Whether a signal that was sent to this thread (not to its process) is pending and not blocked.
    #[inline(always)]
    pub fn has_pending_signal(self, signal: u32) -> bool {
        let pending: u64 = self.load(&globals::TASK_PENDING);
        let blocked: u64 = self.load(&globals::TASK_BLOCKED);
        pending & !blocked & (1 << (signal - 1)) != 0
    }

    /// `thread_info.status` of x86.
    #[cfg(bpf_target_arch = "x86_64")]
    #[inline(always)]
    pub fn thread_status(self) -> u32 {
        self.load(&globals::TASK_THREAD_STATUS)
    }

    /// `thread_info.flags`.
    #[cfg(bpf_target_arch = "aarch64")]
    #[inline(always)]
    pub fn thread_flags(self) -> u64 {
        self.load(&globals::TASK_THREAD_FLAGS)
    }

    /// Follows a pointer in a field; None if it is null. In kernels built with Clang, BTF records which pointers are
    /// protected by RCU (`__rcu`: `cred`, `real_parent`). Since Linux 6.4 the verifier permits neither loads through
    /// such a pointer nor arithmetic on it before it has been compared with null.
    #[inline(always)]
    fn follow(self, offset: &Global<u32>) -> Option<Self> {
        let pointer: *const u8 = self.load(offset);
        (!pointer.is_null()).then_some(Self(pointer))
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: &Global<u32>) -> T {
        self.load_at(offset, 0)
    }

    /// Reads the number or pointer `further` bytes after the start of a field that every kernel has.
    #[inline(always)]
    fn load_at<T: Copy>(self, offset: &Global<u32>, further: usize) -> T {
        // SAFETY: with typed tasks the verifier checks that the load is within the structure, and a faulting load
        // returns 0. Otherwise the helper checks the address and writes at most `size_of::<T>()` bytes to `value`,
        // which starts as zeros: a valid value of the integers and pointers that callers read.
        unsafe {
            let field = self.0.add(offset.load() as usize + further).cast::<T>();
            if globals::TYPED_TASKS.load() != 0 {
                return field.read_volatile();
            }
            let mut value = MaybeUninit::<T>::zeroed();
            bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, field.cast());
            value.assume_init()
        }
    }
}

/// The comm of the current task, by the helper.
#[inline(always)]
pub fn current_comm() -> Comm {
    // Zeros, since Linux 6.1 leaves what is behind the NUL as it was (`strscpy` in bpf_get_current_comm,
    // kernel/bpf/helpers.c). As two numbers: for an array of bytes LLVM calls `memset` at every event.
    let mut halves = [0_u64; 2];
    // SAFETY: the helper writes at most as many bytes as the type has, and every bit pattern is a valid comm.
    unsafe {
        bpf_get_current_comm(halves.as_mut_ptr().cast(), COMM_LEN as u32);
        core::mem::transmute(halves)
    }
}
