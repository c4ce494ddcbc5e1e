//! How a task is known to belong to a container.
//!
//! A *container key* stands for a tree of processes that one invocation of a container runtime started: the
//! container's own (`create`, `run`, `restore`), or one that joined it (`exec`). The trees are followed by
//! their forks, so neither `unshare`, nor another cgroup, nor a reused namespace number changes whose a
//! process is. Keys are never used twice.
//!
//! A runtime within a container has a key of its own as well. What it does is the outer container's; what comes
//! of it is the inner one's.

use crate::{assert_layout, impl_pod};

/// Says which container a process or event belongs to; [`ContainerKey::HOST`] for none.
///
/// The low half is the index into the per-container maps, the high half how often that index was used.
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerKey(pub u64);

impl ContainerKey {
    /// No container: the process is the host's.
    pub const HOST: Self = Self(0);

    /// The key of a slot in its `generation`-th use, which starts at 1.
    #[inline]
    #[must_use]
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self(((generation as u64) << 32) | slot as u64)
    }

    /// Index into the per-container maps.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// How often the slot has been used, this time included.
    #[inline]
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What the programs know of a process that belongs to a container or prepares one. Value of the map `PROCESSES`, by
/// thread group id.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FollowedProcess {
    /// The container whose events its are; [`ContainerKey::HOST`] for a runtime on the host.
    pub container: ContainerKey,
    /// The container that it prepares, as a runtime or what a runtime started; [`ContainerKey::HOST`] for none.
    pub preparing: ContainerKey,
    /// Process id in the pid namespace of `tracer`; 0 where it has none there.
    pub pid: u32,
    /// Process id in the innermost pid namespace, the container's own.
    pub container_pid: u32,
    /// When its first thread started, in nanoseconds of `CLOCK_BOOTTIME`: distinguishes it from a later process with the
    /// same id, should its exit have been missed.
    pub start_time: u64,
    /// Whether it has executed a program since criu was, which restores processes: 1 or 0. What criu restores has not.
    pub executed: u32,
    /// 0.
    pub reserved: u32,
}
assert_layout!(FollowedProcess, size 40, container @ 0, preparing @ 8, pid @ 16, container_pid @ 20, start_time @ 24,
    executed @ 32, reserved @ 36);

/// Whose the task is that a program last ran for on a CPU: it is most likely the same one's turn again.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Recent {
    /// Address of the `task_struct`; with its start time it stands for one task for ever.
    pub task: u64,
    /// When the task started, in nanoseconds of `CLOCK_BOOTTIME`.
    pub start_time: u64,
    /// The sum of `EPOCHS` when it was looked up: since another one it may have changed.
    pub epoch: u64,
    /// As in [`FollowedProcess`].
    pub container: ContainerKey,
    /// As in [`FollowedProcess`]; 0 for host processes.
    pub pid: u32,
    /// As in [`FollowedProcess`]; 0 for host processes.
    pub container_pid: u32,
}
assert_layout!(Recent, size 40, task @ 0, start_time @ 8, epoch @ 16, container @ 24, pid @ 32, container_pid @ 36);

/// Index into `EPOCHS` of what the programs count: processes that became a container's.
pub const EPOCH_OF_PROGRAMS: u32 = 0;
/// Index into `EPOCHS` of what user space counts: processes and namespaces that it has entered into `ADOPTEES` and `EVIDENCE`.
pub const EPOCH_OF_USER: u32 = 1;
/// Bit of the user's epoch: events are traced from now on. Before, user space still looks for the containers that run.
pub const TRACING: u64 = 1 << 63;

/// A process that ran before the programs did. Value of the map `ADOPTEES`, by process id in the pid namespace of
/// `tracer`. User space enters it; at the process's next system call or fork it moves to `PROCESSES`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Adoptee {
    /// As in [`FollowedProcess`].
    pub container: ContainerKey,
    /// As in [`FollowedProcess`].
    pub preparing: ContainerKey,
    /// When it started, in [`NANOSECONDS_PER_TICK`]: tells it from a later process with its number.
    pub start_ticks: u64,
}
assert_layout!(Adoptee, size 24, container @ 0, preparing @ 8, start_ticks @ 16);

/// What shows that a process belongs to a container although its ancestors were not followed. Key of the map `EVIDENCE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// One of `EVIDENCE_*`.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// The number of the namespace or cgroup.
    pub id: u64,
}
assert_layout!(Evidence, size 16, kind @ 0, reserved @ 4, id @ 8);

/// [`Evidence::id`] is the inode number of a pid namespace that belongs to one container alone.
pub const EVIDENCE_PID_NS: u32 = 1;
/// [`Evidence::id`] is the inode number of a mount namespace.
pub const EVIDENCE_MNT_NS: u32 = 2;
/// [`Evidence::id`] is the id of a cgroup in the unified hierarchy: the inode number of its directory.
pub const EVIDENCE_CGROUP: u32 = 3;

/// The container that a piece of [`Evidence`] points to. Value of the map `EVIDENCE`, written by user space alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The container.
    pub container: ContainerKey,
    /// Of a pid namespace, when its first process started, in [`NANOSECONDS_PER_TICK`]: distinguishes it from a later
    /// namespace with the same number. Otherwise 0.
    pub init_start_ticks: u64,
}
assert_layout!(Suspect, size 16, container @ 0, init_start_ticks @ 8);

/// /proc counts start times in ticks of this length (`USER_HZ`, 100 on x86_64 and aarch64).
pub const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// What the programs keep of a container. Value of the map `SLOTS`, by slot. User space writes it only for a slot
/// that it has taken for a container that ran before the programs did.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Generation of the key in use.
    pub generation: u32,
    /// Inode number of the mount namespace that the runtime was started in.
    pub runtime_mntns: u32,
    /// Processes of the tree that live, those that prepare it included.
    pub processes: u64,
    /// The runtime's root directory, an address in the kernel that serves as its name; 0 where it is not known.
    pub runtime_root: u64,
    /// The file that criu was executed from to restore the container, likewise; 0 where none was.
    pub restorer: u64,
    /// Thread group id, in the initial pid namespace, of the runtime: executed again, it is the same invocation.
    pub runtime_tgid: u32,
    /// Inode number of the mount namespace that the container's first process was bound in; 0 before.
    pub bound_mntns: u32,
    /// Likewise of its pid namespace; 0 where that is the host's.
    pub bound_pidns: u32,
    /// The id of that process in its innermost pid namespace.
    pub bound_container_pid: u32,
    /// Its root directory, an address in the kernel; 0 where it is not known.
    pub bound_root: u64,
}
assert_layout!(Slot, size 56, generation @ 0, runtime_mntns @ 4, processes @ 8, runtime_root @ 16, restorer @ 24,
    runtime_tgid @ 32, bound_mntns @ 36, bound_pidns @ 40, bound_container_pid @ 44, bound_root @ 48);

/// [`Decision::flags`]: nobody selected this container: its events count as filtered.
pub const REJECTED: u32 = 1;
/// [`Decision::flags`]: runtimes within this container are not followed: there were too many.
pub const CLOSED: u32 = 1 << 1;
/// [`Decision::flags`]: the runtime runs this container's program within itself (wasm, krun): there will be no entrypoint
/// that is executed.
pub const IN_PROCESS: u32 = 1 << 2;

/// Value of the map `RUNTIMES`: a container runtime.
pub const RUNTIME: u8 = 1;
/// Value of the map `RUNTIMES`: what runtimes restore containers with.
pub const RESTORER: u8 = 2;

/// What user space decided about a container. Value of the map `DECISIONS`, by slot; the programs only read it.
///
/// A verdict holds for the generation it names alone, so a slot's next container starts undecided, and what is
/// undecided is let through.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    /// Generation of the key that the verdict is about.
    pub generation: u32,
    /// [`REJECTED`], [`CLOSED`] and [`IN_PROCESS`], or 0.
    pub flags: u32,
}
assert_layout!(Decision, size 8, generation @ 0, flags @ 4);

impl_pod!(ContainerKey, FollowedProcess, Recent, Adoptee, Evidence, Suspect, Slot, Decision);

#[cfg(test)]
mod tests {
    use super::ContainerKey;

    #[test]
    fn key_keeps_slot_and_generation_apart() {
        let key = ContainerKey::new(u32::MAX, 7);
        assert_eq!((key.slot(), key.generation()), (u32::MAX, 7));
        assert_ne!(ContainerKey::new(0, 1), ContainerKey::HOST);
    }
}
