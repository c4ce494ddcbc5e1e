//! Read-only globals, set by user space before the programs are loaded. The verifier takes them for constants,
//! so that what they switch off costs nothing.

use aya_ebpf::Global;
use tracer_common::{filter::ANY, programs::SYSTEM_CALLS as SYSTEM_CALLS_SIZE};

/// Process id of `tracer` itself in its pid namespace: its own events are never shown.
#[unsafe(no_mangle)]
pub static TRACER_PID: Global<u32> = Global::new(0);

/// Inode number of the pid namespace that `tracer` runs in, or 0 for the initial one.
#[unsafe(no_mangle)]
pub static TRACER_PID_NS: Global<u32> = Global::new(0);

/// Inode number of the host's mount namespace, that of the first process of `tracer`'s pid namespace; 0 where user space may
/// not look at that: then the programs do.
#[unsafe(no_mangle)]
pub static HOST_MNT_NS: Global<u32> = Global::new(0);

/// The kinds that are traced: a bit for each ([`tracer_common::kinds::schema::bit`]).
#[unsafe(no_mangle)]
pub static KINDS: Global<u32> = Global::new(0);

/// Whether events of host processes are wanted: 1 or 0.
#[unsafe(no_mangle)]
pub static TRACE_HOST: Global<u32> = Global::new(0);

/// Whether only failed calls are wanted: 1 or 0.
#[unsafe(no_mangle)]
pub static FAILED_ONLY: Global<u32> = Global::new(0);

/// Whether runtimes of users are trusted, who have user namespaces of their own: 1 or 0.
#[unsafe(no_mangle)]
pub static TRUST_ROOTLESS: Global<u32> = Global::new(0);

/// Whether the kernel gives the current task as a pointer that the verifier knows (`bpf_get_current_task_btf`, 5.11):
/// 1 or 0.
#[unsafe(no_mangle)]
pub static TYPED_TASKS: Global<u32> = Global::new(0);

/// Which process ids are selected: one of `tracer_common::filter`, about the map `PIDS`.
#[unsafe(no_mangle)]
pub static FILTER_PIDS: Global<u32> = Global::new(ANY);

/// Which real user ids are selected, likewise.
#[unsafe(no_mangle)]
pub static FILTER_UIDS: Global<u32> = Global::new(ANY);

/// Which comms are selected, likewise.
#[unsafe(no_mangle)]
pub static FILTER_COMMS: Global<u32> = Global::new(ANY);

/// The system calls that are traced, by number: the low half is what a 64-bit call with that number is, the high half what a
/// 32-bit one is ([`tracer_common::programs::traced_call`]); 0 if it is not traced. See [`crate::arch::is_traced`].
#[unsafe(no_mangle)]
pub static SYSTEM_CALLS: Global<[u32; SYSTEM_CALLS_SIZE]> = Global::new([0; SYSTEM_CALLS_SIZE]);

/// Bytes that a CPU puts into `EVENTS` between two wake-ups of its reader.
#[unsafe(no_mangle)]
pub static WAKE_BYTES: Global<u64> = Global::new(0);

/// Declares offsets of kernel structures' fields ([`tracer_common::offsets`]): of each a global, under a name for the code here.
macro_rules! offsets {
    ($($(#[$attribute:meta])* $name:ident = $global:ident;)*) => {
        $(
            $(#[$attribute])*
            #[allow(non_upper_case_globals, reason = "the name says which field it is")]
            #[unsafe(no_mangle)]
            pub static $global: aya_ebpf::Global<u32> = aya_ebpf::Global::new(tracer_common::offsets::UNKNOWN);
            $(#[$attribute])*
            pub use self::$global as $name;
        )*
    };
}
pub(crate) use offsets;

offsets! {
    TASK_TGID = offset__task_struct__tgid;
    TASK_PID = offset__task_struct__pid;
    TASK_COMM = offset__task_struct__comm;
    TASK_MM = offset__task_struct__mm;
    TASK_GROUP_LEADER = offset__task_struct__group_leader;
    TASK_REAL_PARENT = offset__task_struct__real_parent;
    TASK_THREAD_PID = offset__task_struct__thread_pid;
    TASK_START_BOOTTIME = offset__task_struct__start_boottime;
    TASK_NSPROXY = offset__task_struct__nsproxy;
    TASK_SIGNAL = offset__task_struct__signal;
    TASK_CRED = offset__task_struct__cred;
    TASK_FS = offset__task_struct__fs;
    TASK_SECCOMP_MODE = offset_if_any__task_struct__seccomp__mode;
    TASK_PENDING = offset__task_struct__pending__signal;
    TASK_BLOCKED = offset__task_struct__blocked;
    TASK_CGROUPS = offset_if_any__task_struct__cgroups;
    CSS_SET_DFL_CGRP = offset_if_any__css_set__dfl_cgrp;
    CGROUP_KN = offset_if_any__cgroup__kn;
    KERNFS_NODE_NAME = offset_if_any__kernfs_node__name;
    NSPROXY_MNT_NS = offset__nsproxy__mnt_ns;
    MNT_NS_INUM = offset__mnt_namespace__ns__inum;
    PID_LEVEL = offset__pid__level;
    PID_NUMBERS = offset__pid__numbers;
    UPID_NR = offset__upid__nr;
    UPID_NS = offset__upid__ns;
    PID_NS_INUM = offset__pid_namespace__ns__inum;
    PID_NS_CHILD_REAPER = offset__pid_namespace__child_reaper;
    SIGNAL_LIVE = offset__signal_struct__live;
    CRED_UID = offset__cred__uid;
    CRED_GID = offset__cred__gid;
    CRED_EUID = offset__cred__euid;
    CRED_SUID = offset__cred__suid;
    CRED_FSUID = offset__cred__fsuid;
    CRED_USER_NS = offset__cred__user_ns;
    CRED_CAP_EFFECTIVE = offset__cred__cap_effective;
    USER_NS_LEVEL = offset__user_namespace__level;
    FS_ROOT_DENTRY = offset__fs_struct__root__dentry;
    MM_ARG_START = offset__mm_struct__arg_start;
    MM_ARG_END = offset__mm_struct__arg_end;
    MM_EXE_FILE = offset_if_any__mm_struct__exe_file;
    FILE_INODE = offset_if_any__file__f_inode;
}

// Says whether a system call was a 32-bit one. arm64 has a flag for that.
#[cfg(bpf_target_arch = "x86_64")]
offsets! {
    TASK_THREAD_STATUS = offset__task_struct__thread_info__status;
}
#[cfg(bpf_target_arch = "aarch64")]
offsets! {
    TASK_THREAD_FLAGS = offset__task_struct__thread_info__flags;
}
