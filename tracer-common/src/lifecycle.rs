//! Records of the ring buffer `LIFECYCLE`, from which user space learns of containers.

use crate::{assert_layout, container::ContainerKey};

/// Longest command line of a runtime that a record holds, in bytes.
pub const RUNTIME_ARGS_MAX: usize = 8192;

/// The kinds of lifecycle records.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifecycleKind {
    /// A runtime was executed: [`Runtime`].
    Runtime = 1,
    /// The container's entrypoint was found: [`Bound`].
    Bound = 2,
    /// The last process of the tree has exited: a [`Record`] alone.
    Ended = 3,
    /// An entrypoint was executed for which no runtime was seen: [`Bound`].
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

/// Header of every lifecycle record.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Record {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub timestamp: u64,
    /// The container that the record is about.
    pub container: ContainerKey,
    /// A [`LifecycleKind`].
    pub kind: u32,
    /// Process id, in the pid namespace of `tracer`, of the task that caused it.
    pub pid: u32,
}
assert_layout!(Record, size 24, timestamp @ 0, container @ 8, kind @ 16, pid @ 20);

/// Longest name of a cgroup that a record holds, in bytes (`NAME_MAX`).
pub const CGROUP_NAME_MAX: usize = 255;

/// A container's entrypoint was found. `cgroup_len` bytes with the name of its cgroup follow: the last component of
/// the path in the unified hierarchy.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Bound {
    /// Header; its `pid` is the entrypoint's.
    pub record: Record,
    /// Bytes of the name; 0 if it is not known or the cgroup is the root.
    pub cgroup_len: u32,
    /// The process id in its innermost pid namespace.
    pub container_pid: u32,
    /// Process id, in the pid namespace of `tracer`, of its parent.
    pub ppid: u32,
    /// 0.
    pub reserved: u32,
}
assert_layout!(Bound, size 40, record @ 0, cgroup_len @ 24, container_pid @ 28, ppid @ 32, reserved @ 36);

/// [`Runtime::trust`]: the real, effective, saved and file-system user ids are all 0. A set-uid program that a user
/// has executed still has the user's real id and obeys that user.
pub const TRUST_ROOT: u32 = 1;
/// [`Runtime::trust`]: the user namespace is the initial one.
pub const TRUST_USER_NS: u32 = 1 << 1;
/// [`Runtime::trust`]: the pid namespace is `tracer`'s: the initial one, or that of a node that is a container
/// itself.
pub const TRUST_PID_NS: u32 = 1 << 2;
/// [`Runtime::trust`]: the root directory is that of the host's init, the first process of `tracer`'s pid namespace,
/// in whatever mount namespace.
pub const TRUST_ROOT_DIR: u32 = 1 << 3;
/// [`Runtime::trust`] of a runtime that is trusted to name a bundle.
pub const TRUSTED: u32 = TRUST_ROOT | TRUST_USER_NS | TRUST_PID_NS | TRUST_ROOT_DIR;

/// [`Runtime::flags`]: the command line was longer than the record holds.
pub const RUNTIME_ARGS_TRUNCATED: u16 = 1;
/// [`Runtime::flags`]: the command line could not be read.
pub const RUNTIME_ARGS_FAULT: u16 = 1 << 1;
/// [`Runtime::flags`]: the process has executed a runtime before, which was reported with the same key: a wrapper, or
/// the runtime itself.
pub const RUNTIME_REEXECUTED: u16 = 1 << 2;

/// A container runtime was executed. `args_len` bytes of NUL-terminated arguments follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
pub struct Runtime {
    /// Header; its `pid` is the runtime's.
    pub record: Record,
    /// When the process started, in nanoseconds of `CLOCK_BOOTTIME` (`task_struct.start_boottime`).
    pub start_time: u64,
    /// The container that the runtime runs in; [`ContainerKey::HOST`] for none.
    pub outer: ContainerKey,
    /// `TRUST_*` bits.
    pub trust: u32,
    /// Bytes of the arguments that follow.
    pub args_len: u16,
    /// `RUNTIME_ARGS_*` bits and [`RUNTIME_REEXECUTED`].
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
