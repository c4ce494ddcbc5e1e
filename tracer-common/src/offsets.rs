//! Offsets of fields in kernel structures, which differ between kernels.
//!
//! Rust has no CO-RE relocations, so user space resolves the offsets from the kernel's BTF and stores them in
//! read-only globals before the programs are loaded. The verifier treats them as constants.

/// Offset of a field that this kernel does not have. Features that depend on it are disabled; the offset is never
/// guessed.
pub const UNKNOWN: u32 = u32::MAX;

/// A field that the programs need the offset of.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name of the global variable that holds the offset in bytes.
    pub global: &'static str,
    /// Name of the structure in the kernel's BTF.
    pub structure: &'static str,
    /// The field, as a dotted path through nested structures.
    pub member: &'static str,
    /// Whether `tracer` fails to start on a kernel without it.
    pub required: bool,
}

/// Calls `$with!` with every field: `GLOBAL: "structure" "member" required;`.
///
/// The single list of fields: the programs generate their globals from it, and user space its look-ups.
#[macro_export]
macro_rules! with_offsets {
    ($with:ident) => {
        $with! {
            TASK_TGID: "task_struct" "tgid" true;
            TASK_PID: "task_struct" "pid" true;
            TASK_COMM: "task_struct" "comm" true;
            TASK_MM: "task_struct" "mm" true;
            TASK_GROUP_LEADER: "task_struct" "group_leader" true;
            TASK_REAL_PARENT: "task_struct" "real_parent" true;
            TASK_THREAD_PID: "task_struct" "thread_pid" true;
            TASK_START_BOOTTIME: "task_struct" "start_boottime" true;
            TASK_NSPROXY: "task_struct" "nsproxy" true;
            TASK_SIGNAL: "task_struct" "signal" true;
            TASK_CRED: "task_struct" "cred" true;
            TASK_FS: "task_struct" "fs" true;
            // x86: shows whether a system call is a 32-bit one. arm64 has a flag for that.
            TASK_THREAD_STATUS: "task_struct" "thread_info.status" (cfg!(target_arch = "x86_64"));
            TASK_THREAD_FLAGS: "task_struct" "thread_info.flags" (cfg!(target_arch = "aarch64"));
            TASK_SECCOMP_MODE: "task_struct" "seccomp.mode" false;
            TASK_PENDING: "task_struct" "pending.signal" true;
            TASK_BLOCKED: "task_struct" "blocked" true;
            TASK_CGROUPS: "task_struct" "cgroups" false;
            CSS_SET_DFL_CGRP: "css_set" "dfl_cgrp" false;
            CGROUP_KN: "cgroup" "kn" false;
            KERNFS_NODE_NAME: "kernfs_node" "name" false;
            NSPROXY_MNT_NS: "nsproxy" "mnt_ns" true;
            MNT_NS_INUM: "mnt_namespace" "ns.inum" true;
            PID_LEVEL: "pid" "level" true;
            PID_NUMBERS: "pid" "numbers" true;
            UPID_NR: "upid" "nr" true;
            UPID_NS: "upid" "ns" true;
            PID_NS_INUM: "pid_namespace" "ns.inum" true;
            PID_NS_CHILD_REAPER: "pid_namespace" "child_reaper" true;
            SIGNAL_LIVE: "signal_struct" "live" true;
            CRED_UID: "cred" "uid" true;
            CRED_GID: "cred" "gid" true;
            CRED_EUID: "cred" "euid" true;
            CRED_SUID: "cred" "suid" true;
            CRED_FSUID: "cred" "fsuid" true;
            CRED_USER_NS: "cred" "user_ns" true;
            CRED_CAP_EFFECTIVE: "cred" "cap_effective" true;
            USER_NS_LEVEL: "user_namespace" "level" true;
            FS_ROOT_DENTRY: "fs_struct" "root.dentry" true;
            MM_ARG_START: "mm_struct" "arg_start" true;
            MM_ARG_END: "mm_struct" "arg_end" true;
            MM_EXE_FILE: "mm_struct" "exe_file" false;
            FILE_INODE: "file" "f_inode" false;
            IO_KIOCB_OPCODE: "io_kiocb" "opcode" false;
            IO_KIOCB_FLAGS: "io_kiocb" "flags" false;
            IO_KIOCB_CTX: "io_kiocb" "ctx" false;
            IO_KIOCB_USER_DATA: "io_kiocb" "cqe.user_data" false;
            IO_KIOCB_RESULT: "io_kiocb" "cqe.res" false;
            // The structure of each operation is at the start of the request.
            IO_OPEN_DFD: "io_open" "dfd" false;
            IO_OPEN_FILENAME: "io_open" "filename" false;
            IO_OPEN_FLAGS: "io_open" "how.flags" false;
            IO_OPEN_MODE: "io_open" "how.mode" false;
            IO_OPEN_RESOLVE: "io_open" "how.resolve" false;
            IO_OPEN_FILE_SLOT: "io_open" "file_slot" false;
            FILENAME_NAME: "filename" "name" false;
            BPRM_FILENAME: "linux_binprm" "filename" true;
        }
    };
}

macro_rules! fields {
    ($($global:ident: $structure:literal $member:literal $required:tt;)*) => {
        /// Every field that the programs need.
        pub const FIELDS: &[Field] = &[$(Field {
            global: stringify!($global),
            structure: $structure,
            member: $member,
            required: $required,
        }),*];
    };
}
with_offsets!(fields);

/// Size of `struct upid` (include/linux/pid.h: an int and a pointer, unchanged since 2.6.24).
pub const UPID_SIZE: u32 = 16;
