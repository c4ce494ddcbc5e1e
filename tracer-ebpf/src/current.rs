//! The current task by plain loads.
//!
//! The verifier knows what the pointer points to and lets fields be read without a helper: a handful of them cost less
//! than one call. Reading through a wrong pointer gives 0, and does no harm.

use core::mem::MaybeUninit;

use aya_ebpf::{
    Global,
    helpers::{
        bpf_get_current_comm,
        generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel},
    },
};
use tracer_common::{COMM_LEN, Comm, offsets::UNKNOWN};

use crate::globals;

/// The current task, or one that it leads to.
#[derive(Clone, Copy)]
pub struct Current(*const u8);

impl Current {
    #[inline(always)]
    pub fn task() -> Self {
        // SAFETY: the helpers take no arguments and always succeed.
        unsafe {
            if globals::TYPED_TASKS.load() != 0 {
                Self(bpf_get_current_task_btf().cast::<u8>())
            } else {
                Self(bpf_get_current_task() as *const u8)
            }
        }
    }

    /// What stands for the task, and is reused after it.
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

    /// When the first thread of its process started, likewise.
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
            return bpf_get_current_comm().unwrap_or_default();
        }
        let halves = [self.load_at::<u64>(&globals::TASK_COMM, 0), self.load_at(&globals::TASK_COMM, 8)];
        // SAFETY: as many bytes, and any of them are a comm.
        unsafe { core::mem::transmute(halves) }
    }

    /// What seccomp does with the task's calls: 0 for nothing, also where the kernel has no seccomp.
    #[inline(always)]
    pub fn seccomp_mode(self) -> u32 {
        if globals::TASK_SECCOMP_MODE.load() == UNKNOWN { 0 } else { self.load(&globals::TASK_SECCOMP_MODE) }
    }

    /// Whether a signal that was sent to this very thread waits to be delivered and is not blocked.
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

    /// Where the kernel was built by Clang its types say which pointers are RCU's (`__rcu`: `cred`, `real_parent`). Since
    /// Linux 6.4 the verifier lets nothing be read through those that may be null before they are compared with it, nor
    /// anything be added to them.
    #[inline(always)]
    fn follow(self, offset: &Global<u32>) -> Option<Self> {
        let pointer: *const u8 = self.load(offset);
        (!pointer.is_null()).then_some(Self(pointer))
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: &Global<u32>) -> T {
        self.load_at(offset, 0)
    }

    /// Reads what lies `further` bytes behind the start of a field that every kernel has: a number or a pointer.
    #[inline(always)]
    fn load_at<T: Copy>(self, offset: &Global<u32>, further: usize) -> T {
        // SAFETY: the verifier refuses what is not in the structure. What is not readable reads as 0, here and there.
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
