//! Fields of a `task_struct` that the programs need.

use aya_ebpf::helpers::generated::bpf_get_current_task;
use tracer_common::offsets::UPID_SIZE;

use crate::{globals, maps::TRACER_LEVEL, read::KernelAddress};

/// Pid namespaces nest no deeper (`MAX_PID_NS_LEVEL`, include/linux/pid_namespace.h).
const PID_NS_LEVELS: u32 = 32;

/// A `struct task_struct`.
#[derive(Clone, Copy)]
pub struct Task(pub KernelAddress);

/// A process's ids in two pid namespaces.
#[derive(Clone, Copy)]
pub struct ProcessIds {
    /// In `tracer`'s pid namespace; 0 if it has no id there.
    pub tracer: u32,
    /// In its innermost pid namespace.
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

    /// Inode number of the mount namespace; 0 for an exiting task that has left it.
    #[inline(always)]
    pub fn mntns(self) -> u32 {
        self.0.follow(&globals::TASK_NSPROXY).follow(&globals::NSPROXY_MNT_NS).number(&globals::MNT_NS_INUM)
    }

    /// Inode number of the mount namespace; None if it has none or is in the host's.
    #[inline(always)]
    pub fn mntns_of_its_own(self) -> Option<u32> {
        let mntns = self.mntns();
        let hosts = match globals::HOST_MNT_NS.load() {
            0 => self.host_init().mntns(),
            hosts => hosts,
        };
        (mntns != 0 && mntns != hosts).then_some(mntns)
    }

    /// Whether no thread of its group is left. True from the `sched_process_exit` of the last thread on: do_exit()
    /// decrements `signal->live` before that tracepoint (kernel/exit.c).
    #[inline(always)]
    pub fn is_group_dead(self) -> bool {
        let live: Option<u32> = self.0.follow(&globals::TASK_SIGNAL).read(&globals::SIGNAL_LIVE);
        live.is_none_or(|live| live == 0)
    }

    /// The `struct signal_struct` that the threads of its process share.
    #[inline(always)]
    pub fn signal(self) -> KernelAddress {
        self.0.follow(&globals::TASK_SIGNAL)
    }

    /// The first thread of its process.
    #[inline(always)]
    pub fn leader(self) -> KernelAddress {
        self.0.follow(&globals::TASK_GROUP_LEADER)
    }

    /// When the process that it belongs to started, in nanoseconds of `CLOCK_BOOTTIME`.
    #[inline(always)]
    pub fn process_start_time(self) -> u64 {
        self.0.follow(&globals::TASK_GROUP_LEADER).read(&globals::TASK_START_BOOTTIME).unwrap_or(0)
    }

    /// Address and length of the argument block of a process that has just called execve.
    #[inline(always)]
    pub fn arguments(self) -> Option<(u64, u64)> {
        let mm = self.0.follow(&globals::TASK_MM);
        let start: u64 = mm.read(&globals::MM_ARG_START)?;
        let end: u64 = mm.read(&globals::MM_ARG_END)?;
        Some((start, end.saturating_sub(start)))
    }

    /// Whether its real, effective, saved and file-system user ids are all 0.
    #[inline(always)]
    pub fn is_root(self) -> bool {
        let cred = self.0.follow(&globals::TASK_CRED);
        let ids: [Option<u32>; 4] = [
            cred.read(&globals::CRED_UID),
            cred.read(&globals::CRED_EUID),
            cred.read(&globals::CRED_SUID),
            cred.read(&globals::CRED_FSUID),
        ];
        // An id that could not be read is not root's. The ids are combined without a branch for each, which saves the
        // verifier work.
        ids.into_iter().fold(0, |all, id| all | id.unwrap_or(u32::MAX)) == 0
    }

    /// Name of its cgroup in the unified hierarchy, a string in kernel memory; null if not known.
    #[inline(always)]
    pub fn cgroup_name(self) -> KernelAddress {
        self.0
            .follow(&globals::TASK_CGROUPS)
            .follow(&globals::CSS_SET_DFL_CGRP)
            .follow(&globals::CGROUP_KN)
            .follow(&globals::KERNFS_NODE_NAME)
    }

    /// Nesting depth of its user namespace; 0 for the initial one.
    #[inline(always)]
    pub fn user_ns_level(self) -> Option<u32> {
        self.0.follow(&globals::TASK_CRED).follow(&globals::CRED_USER_NS).read(&globals::USER_NS_LEVEL)
    }

    /// Whether it has `CAP_SYS_ADMIN` in its user namespace (include/uapi/linux/capability.h), which creating a
    /// container requires. The first eight bytes of a `kernel_cap_t` have one bit for each capability.
    #[inline(always)]
    pub fn is_sys_admin(self) -> bool {
        const CAP_SYS_ADMIN: u64 = 1 << 21;
        let effective: Option<u64> = self.0.follow(&globals::TASK_CRED).read(&globals::CRED_CAP_EFFECTIVE);
        effective.is_some_and(|effective| effective & CAP_SYS_ADMIN != 0)
    }

    /// Whether its pid namespace is that of `tracer`.
    #[inline(always)]
    pub fn is_in_tracer_pid_ns(self) -> bool {
        let pid = Pid(self.thread_pid());
        let level = pid.0.read(&globals::PID_LEVEL);
        match globals::TRACER_PID_NS.load() {
            0 => level == Some(0),
            inum => level.is_some_and(|level| pid.namespace(level).number(&globals::PID_NS_INUM) == inum),
        }
    }

    /// Inode of its executable, which criu changes when it restores a process; null if not known.
    #[inline(always)]
    pub fn executable(self) -> KernelAddress {
        self.0.follow(&globals::TASK_MM).follow(&globals::MM_EXE_FILE).follow(&globals::FILE_INODE)
    }

    /// Dentry of its root directory. It is the same in every mount namespace that shows that directory.
    #[inline(always)]
    pub fn root_dentry(self) -> Option<u64> {
        self.0.follow(&globals::TASK_FS).read(&globals::FS_ROOT_DENTRY)
    }

    /// Inode number of its innermost pid namespace; 0 for `tracer`'s, which is the host's.
    #[inline(always)]
    pub fn own_pid_ns(self) -> u32 {
        let pid = Pid(self.thread_pid());
        let inum = pid.namespace(pid.level()).number(&globals::PID_NS_INUM);
        match globals::TRACER_PID_NS.load() {
            0 if pid.level() == 0 => 0,
            tracer if tracer == inum => 0,
            _ => inum,
        }
    }

    /// Its pid namespaces below `tracer`'s, innermost first, at most `DEPTH`.
    #[inline(always)]
    pub fn pid_namespaces<const DEPTH: u32>(self) -> impl Iterator<Item = PidNamespace> {
        let pid = Pid(self.thread_pid());
        let level = pid.level();
        let tracer = match globals::TRACER_PID_NS.load() {
            0 => 0,
            _ => TRACER_LEVEL.get(0).copied().unwrap_or(0),
        };
        (0..DEPTH)
            .take_while(move |up| level > tracer + up)
            .map(move |up| PidNamespace(pid.namespace(level - up)))
    }

    /// The host's init, which is the first process of `tracer`'s pid namespace; null if this task has no id in that
    /// namespace.
    #[inline(always)]
    pub fn host_init(self) -> Self {
        let pid = Pid(self.thread_pid());
        let namespace = match globals::TRACER_PID_NS.load() {
            0 => pid.namespace(0),
            inum => pid.upid_in(inum).follow(&globals::UPID_NS),
        };
        Self(namespace.follow(&globals::PID_NS_CHILD_REAPER))
    }

    /// Whether it has an id in `tracer`'s pid namespace. A task without one is not on the traced host.
    #[inline(always)]
    pub fn is_visible(self) -> bool {
        globals::TRACER_PID_NS.load() == 0 || self.thread_ids().tracer != 0
    }

    /// The ids of the process that it belongs to.
    #[inline(always)]
    pub fn process_ids(self) -> ProcessIds {
        Self(self.0.follow(&globals::TASK_GROUP_LEADER)).thread_ids()
    }

    /// The ids of the task itself.
    #[inline(always)]
    pub fn thread_ids(self) -> ProcessIds {
        let pid = Pid(self.thread_pid());
        let innermost = pid.upid(pid.0.number(&globals::PID_LEVEL)).number(&globals::UPID_NR);
        let tracer = match globals::TRACER_PID_NS.load() {
            0 => pid.upid(0),
            inum => pid.upid_in(inum),
        };
        ProcessIds { tracer: tracer.number(&globals::UPID_NR), innermost }
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
    /// Nesting depth of its innermost pid namespace; 0 for the initial one.
    #[inline(always)]
    fn level(self) -> u32 {
        self.0.number(&globals::PID_LEVEL)
    }

    #[inline(always)]
    fn upid(self, level: u32) -> KernelAddress {
        let numbers = u64::from(globals::PID_NUMBERS.load());
        KernelAddress(self.0.0 + numbers + u64::from(level) * u64::from(UPID_SIZE))
    }

    #[inline(always)]
    fn namespace(self, level: u32) -> KernelAddress {
        self.upid(level).follow(&globals::UPID_NS)
    }

    /// The `struct upid` of `tracer`'s pid namespace, which has this inode number and is not the initial one; null if
    /// there is none.
    #[inline(always)]
    fn upid_in(self, inum: u32) -> KernelAddress {
        match TRACER_LEVEL.get(0) {
            Some(&level) if level <= self.0.number(&globals::PID_LEVEL) && self.is_in(level, inum) => {
                self.upid(level)
            }
            _ => KernelAddress(0),
        }
    }

    #[inline(always)]
    fn is_in(self, level: u32, inum: u32) -> bool {
        self.namespace(level).number(&globals::PID_NS_INUM) == inum
    }
}

/// A `struct pid_namespace`.
#[derive(Clone, Copy)]
pub struct PidNamespace(KernelAddress);

impl PidNamespace {
    /// Its inode number.
    #[inline(always)]
    pub fn inum(self) -> u32 {
        self.0.number(&globals::PID_NS_INUM)
    }

    /// When its first process started, in nanoseconds of `CLOCK_BOOTTIME`.
    #[inline(always)]
    pub fn init_start_time(self) -> u64 {
        Task(self.0.follow(&globals::PID_NS_CHILD_REAPER)).process_start_time()
    }
}

/// Determines the nesting depth of `tracer`'s pid namespace if it is not the initial one, from the first of its
/// processes that runs a program. Done once, at the start of a program, and stored in a map: a search for each
/// process would be one path for each depth, too many for the verifier.
#[inline(always)]
pub fn find_tracer_level() {
    let inum = globals::TRACER_PID_NS.load();
    if inum == 0 {
        return;
    }
    let Some(stored) = TRACER_LEVEL.get_ptr_mut(0) else { return };
    // SAFETY: the pointer is to a value of an array map, which is never removed. All writers write the same number.
    if unsafe { stored.read_volatile() } != 0 {
        return;
    }
    let pid = Pid(Task::current().thread_pid());
    let innermost = pid.0.number(&globals::PID_LEVEL);
    for level in 1..PID_NS_LEVELS {
        if level > innermost {
            break;
        }
        if pid.is_in(level, inum) {
            // SAFETY: as above.
            unsafe { stored.write_volatile(level) };
            break;
        }
    }
}
