//! Records of the ring buffer `LIFECYCLE`: what runtimes do, from which user space learns the containers.

use crate::{assert_layout, container::ContainerKey};

/// Bytes of a runtime's command line that a record holds at the most.
pub const RUNTIME_ARGS_MAX: usize = 8192;

/// The kinds of lifecycle records.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecycleKind {
    /// A runtime was executed: [`Runtime`].
    Runtime = 1,
    /// The container's entrypoint was found: [`Bound`].
    Bound = 2,
    /// The last process of the tree is gone: [`Record`] alone.
    Ended = 3,
    /// A program was executed in a container that no runtime was seen to start: [`Bound`].
    Unannounced = 4,
}

impl TryFrom<u32> for LifecycleKind {
    type Error = u32;

    fn try_from(value: u32) -> Result<Self, u32> {
        match value {
            1 => Ok(Self::Runtime),
            2 => Ok(Self::Bound),
            3 => Ok(Self::Ended),
            4 => Ok(Self::Unannounced),
            unknown => Err(unknown),
        }
    }
}

/// What every lifecycle record starts with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub timestamp: u64,
    /// The container it is about.
    pub container: ContainerKey,
    /// A [`LifecycleKind`].
    pub kind: u32,
    /// Process id, in the pid namespace of `tracer`, of the task that caused it.
    pub pid: u32,
}
assert_layout!(Record, size 24, timestamp @ 0, container @ 8, kind @ 16, pid @ 20);

/// Bytes of a cgroup's name that a record holds at the most (`NAME_MAX`).
pub const CGROUP_NAME_MAX: usize = 255;

/// A container's entrypoint was found; `cgroup_len` bytes of its cgroup's name follow: the last component, in the
/// unified hierarchy.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// What all records share; its `pid` is the entrypoint's.
    pub record: Record,
    /// Bytes of the name; 0 where it is not known, or the root's.
    pub cgroup_len: u32,
    /// The process id in its innermost pid namespace.
    pub container_pid: u32,
    /// Process id, in the pid namespace of `tracer`, of its parent.
    pub ppid: u32,
    /// 0.
    pub reserved: u32,
}
assert_layout!(Bound, size 40, record @ 0, cgroup_len @ 24, container_pid @ 28, ppid @ 32, reserved @ 36);

/// [`Runtime::trust`]: the real, effective, saved and file-system user ids are all 0. A set-uid program that a user has
/// executed still has the user's real id, and does what the user says.
pub const TRUST_ROOT: u32 = 1;
/// [`Runtime::trust`]: the user namespace is the initial one.
pub const TRUST_USER_NS: u32 = 1 << 1;
/// [`Runtime::trust`]: the pid namespace is that of `tracer`: the initial one, or that of a node that is a container
/// itself.
pub const TRUST_PID_NS: u32 = 1 << 2;
/// [`Runtime::trust`]: its root directory is that of the host's init, the first process of `tracer`'s pid namespace,
/// whichever mount namespace shows it.
pub const TRUST_ROOT_DIR: u32 = 1 << 3;
/// [`Runtime::trust`] of a runtime that may name a bundle.
pub const TRUSTED: u32 = TRUST_ROOT | TRUST_USER_NS | TRUST_PID_NS | TRUST_ROOT_DIR;

/// [`Runtime::flags`]: the command line was longer than the record holds.
pub const RUNTIME_ARGS_TRUNCATED: u16 = 1;
/// [`Runtime::flags`]: the command line could not be read.
pub const RUNTIME_ARGS_FAULT: u16 = 1 << 1;
/// [`Runtime::flags`]: the process has executed a runtime before, which was reported with the same key: a wrapper, or the
/// runtime itself.
pub const RUNTIME_REEXECUTED: u16 = 1 << 2;

/// A container runtime was executed; `args_len` bytes of NUL-terminated arguments follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Runtime {
    /// What all records share; its `pid` is the runtime's.
    pub record: Record,
    /// When the process started: nanoseconds of `CLOCK_BOOTTIME` (`task_struct.start_boottime`).
    pub start_time: u64,
    /// The container that it runs in; [`ContainerKey::HOST`] for none.
    pub outer: ContainerKey,
    /// `TRUST_*` bits.
    pub trust: u32,
    /// Bytes of arguments that follow.
    pub args_len: u16,
    /// `RUNTIME_ARGS_*` bits.
    pub flags: u16,
    /// The runtime's comm: the first 15 bytes of its file name.
    pub comm: crate::Comm,
    /// Process id, in the pid namespace of `tracer`, of its parent.
    pub ppid: u32,
    /// 0.
    pub reserved: u32,
}
assert_layout!(Runtime, size 72, record @ 0, start_time @ 24, outer @ 32, trust @ 40, args_len @ 44, flags @ 46, comm @ 48,
    ppid @ 64, reserved @ 68);
