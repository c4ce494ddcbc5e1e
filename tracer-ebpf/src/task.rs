//! What the programs ask of a task.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use tracer_common::offsets::UPID_SIZE;

use crate::{globals, read::KernelAddress};

/// Pid namespaces nest no deeper (`MAX_PID_NS_LEVEL`, include/linux/pid_namespace.h).
const PID_NS_LEVELS: u32 = 32;

/// A `struct task_struct`.
#[derive(Clone, Copy)]
pub struct Task(pub KernelAddress);

/// A process's ids as two pid namespaces see it.
#[derive(Clone, Copy)]
pub struct ProcessIds {
    /// In the one that `tracer` runs in; 0 where it has none there.
    pub tracer: u32,
    /// In its own.
    pub innermost: u32,
}

impl Task {
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper takes no arguments and always succeeds.
        Self(KernelAddress(unsafe { bpf_get_current_task() }))
    }

    /// Thread group id in the initial pid namespace.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        self.0.number(&globals::TASK_TGID)
    }

    /// Whether the task is the first of its thread group.
    #[inline(always)]
    pub fn is_leader(self) -> bool {
        self.0.number(&globals::TASK_PID) == self.tgid()
    }

    #[inline(always)]
    pub fn real_parent(self) -> Self {
        Self(self.0.follow(&globals::TASK_REAL_PARENT))
    }

    /// Inode number of the mount namespace; 0 for a task that has left it, in exiting.
    #[inline(always)]
    pub fn mntns(self) -> u32 {
        self.0.follow(&globals::TASK_NSPROXY).follow(&globals::NSPROXY_MNT_NS).number(&globals::MNT_NS_INUM)
    }

    /// Whether no thread of its group is left. True from the `sched_process_exit` of the last one on:
    /// do_exit() counts `signal->live` down before that (kernel/exit.c).
    #[inline(always)]
    pub fn is_group_dead(self) -> bool {
        let live: Option<u32> = self.0.follow(&globals::TASK_SIGNAL).read(&globals::SIGNAL_LIVE);
        live.is_none_or(|live| live == 0)
    }

    /// When the process it belongs to started, in nanoseconds of `CLOCK_BOOTTIME`.
    #[inline(always)]
    pub fn process_start_time(self) -> u64 {
        self.0.follow(&globals::TASK_GROUP_LEADER).read(&globals::TASK_START_BOOTTIME).unwrap_or(0)
    }

    /// Start and length of the argument block of a process that has just been executed.
    #[inline(always)]
    pub fn arguments(self) -> Option<(u64, u64)> {
        let mm = self.0.follow(&globals::TASK_MM);
        let start: u64 = mm.read(&globals::MM_ARG_START)?;
        let end: u64 = mm.read(&globals::MM_ARG_END)?;
        Some((start, end.saturating_sub(start)))
    }

    #[inline(always)]
    pub fn effective_uid(self) -> Option<u32> {
        self.0.follow(&globals::TASK_CRED).read(&globals::CRED_EUID)
    }

    /// The name of its cgroup in the unified hierarchy, a string of the kernel; null where that is not known.
    #[inline(always)]
    pub fn cgroup_name(self) -> KernelAddress {
        self.0
            .follow(&globals::TASK_CGROUPS)
            .follow(&globals::CSS_SET_DFL_CGRP)
            .follow(&globals::CGROUP_KN)
            .follow(&globals::KERNFS_NODE_NAME)
    }

    /// How deep its user namespace is; 0 for the initial one.
    #[inline(always)]
    pub fn user_ns_level(self) -> Option<u32> {
        self.0.follow(&globals::TASK_CRED).follow(&globals::CRED_USER_NS).read(&globals::USER_NS_LEVEL)
    }

    /// How deep its pid namespace is; 0 for the initial one.
    #[inline(always)]
    pub fn pid_ns_level(self) -> Option<u32> {
        self.thread_pid().read(&globals::PID_LEVEL)
    }

    /// The dentry of its root directory, the same in every mount namespace that shows that directory.
    #[inline(always)]
    pub fn root_dentry(self) -> Option<u64> {
        self.0.follow(&globals::TASK_FS).read(&globals::FS_ROOT_DENTRY)
    }

    /// The init of the initial pid namespace, the host's.
    #[inline(always)]
    pub fn host_init(self) -> Self {
        let initial = Pid(self.thread_pid()).namespace(0);
        Self(initial.follow(&globals::PID_NS_CHILD_REAPER))
    }

    /// The ids of the process it belongs to.
    #[inline(always)]
    pub fn process_ids(self) -> ProcessIds {
        Self(self.0.follow(&globals::TASK_GROUP_LEADER)).thread_ids()
    }

    /// The ids of the task itself.
    #[inline(always)]
    pub fn thread_ids(self) -> ProcessIds {
        let pid = Pid(self.thread_pid());
        let level = pid.0.number(&globals::PID_LEVEL);
        let innermost = pid.number(level);
        let namespace = globals::TRACER_PID_NS.load();
        let tracer = if namespace == 0 { pid.number(0) } else { pid.number_in(namespace, level) };
        ProcessIds { tracer, innermost }
    }

    #[inline(always)]
    fn thread_pid(self) -> KernelAddress {
        self.0.follow(&globals::TASK_THREAD_PID)
    }
}

/// A `struct pid`: its `numbers` are one `struct upid` per level.
#[derive(Clone, Copy)]
struct Pid(KernelAddress);

impl Pid {
    #[inline(always)]
    fn upid(self, level: u32) -> KernelAddress {
        let numbers = u64::from(globals::PID_NUMBERS.load());
        KernelAddress(self.0.0 + numbers + u64::from(level) * u64::from(UPID_SIZE))
    }

    #[inline(always)]
    fn number(self, level: u32) -> u32 {
        self.upid(level).number(&globals::UPID_NR)
    }

    #[inline(always)]
    fn namespace(self, level: u32) -> KernelAddress {
        self.upid(level).follow(&globals::UPID_NS)
    }

    /// The number in the pid namespace with this inode number, or 0.
    #[inline(always)]
    fn number_in(self, inum: u32, innermost: u32) -> u32 {
        for level in 0..PID_NS_LEVELS {
            if level > innermost {
                break;
            }
            if self.namespace(level).number(&globals::PID_NS_INUM) == inum {
                return self.number(level);
            }
        }
        0
    }
}
