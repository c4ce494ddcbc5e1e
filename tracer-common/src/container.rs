//! Attribution of tasks to containers: map values and keys that the programs and user space share.
//!
//! A *container key* identifies a tree of processes that one invocation of a container runtime has started: the
//! container's own (`create`, `run`, `restore`), or one that joins it (`exec`). The trees are followed by forks, so
//! neither `unshare`, nor another cgroup, nor a reused namespace number changes which container a process belongs to.
//! Keys are never reused.
//!
//! A runtime within a container has a key of its own as well. What the runtime does is attributed to the outer
//! container, and what it starts to the inner one.

use crate::{assert_layout, impl_pod};

/// The container that a process or event belongs to; [`ContainerKey::HOST`] for none.
///
/// The low half is the index into the per-container maps, the high half is the generation: how often that index has
/// been used.
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerKey(pub u64);

impl ContainerKey {
    /// No container: a host process.
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
    #[expect(clippy::cast_possible_truncation, reason = "only the low half is wanted")]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// How often the slot has been used, including this use.
    #[inline]
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A process that belongs to a container or prepares one. Value of the map `PROCESSES`, by thread group id.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FollowedProcess {
    /// The container that its events are attributed to; [`ContainerKey::HOST`] for a runtime on the host.
    pub container: ContainerKey,
    /// The container that it prepares, as a runtime or a descendant of one; [`ContainerKey::HOST`] for none.
    pub preparing: ContainerKey,
    /// Process id in the pid namespace of `tracer`; 0 if it has none there.
    pub pid: u32,
    /// Process id in the innermost pid namespace, the container's own.
    pub container_pid: u32,
    /// When its first thread started, in nanoseconds of `CLOCK_BOOTTIME`: distinguishes it from a later process with the
    /// same id, should its exit have been missed.
    pub start_time: u64,
    /// 1 if it has executed a program since criu was executed, else 0. Processes that criu restores have not.
    pub executed: u32,
    /// 0.
    pub reserved: u32,
}
assert_layout!(FollowedProcess, size 40, container @ 0, preparing @ 8, pid @ 16, container_pid @ 20, start_time @ 24,
    executed @ 32, reserved @ 36);

/// The task that a program looked up last on a CPU, with its container: the next event is most likely from the same
/// task.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Recent {
    /// Address of the `task_struct`. Together with the start time it identifies one task.
    pub task: u64,
    /// When the task started, in nanoseconds of `CLOCK_BOOTTIME`.
    pub start_time: u64,
    /// Sum of `EPOCHS` at the time of the look-up: the entry is outdated if the sum has changed.
    pub epoch: u64,
    /// As in [`FollowedProcess`].
    pub container: ContainerKey,
    /// As in [`FollowedProcess`]; 0 for host processes.
    pub pid: u32,
    /// As in [`FollowedProcess`]; 0 for host processes.
    pub container_pid: u32,
}
assert_layout!(Recent, size 40, task @ 0, start_time @ 8, epoch @ 16, container @ 24, pid @ 32, container_pid @ 36);

/// Index into `EPOCHS` of the programs' count: processes that became members of a container.
pub const EPOCH_OF_PROGRAMS: u32 = 0;
/// Index into `EPOCHS` of user space's count: entries that it has added to `ADOPTEES` and `EVIDENCE`.
pub const EPOCH_OF_USER: u32 = 1;
/// Bit of user space's epoch: events are traced. Until it is set, user space is scanning for running containers.
pub const TRACING: u64 = 1 << 63;

/// A process that started before the programs were attached. Value of the map `ADOPTEES`, by process id in the pid
/// namespace of `tracer`. User space adds it; at the process's next system call or fork it moves to `PROCESSES`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Adoptee {
    /// As in [`FollowedProcess`].
    pub container: ContainerKey,
    /// As in [`FollowedProcess`].
    pub preparing: ContainerKey,
    /// When it started, in ticks of [`NANOSECONDS_PER_TICK`]: distinguishes it from a later process with the same id.
    pub start_ticks: u64,
}
assert_layout!(Adoptee, size 24, container @ 0, preparing @ 8, start_ticks @ 16);

/// Evidence that a process belongs to a container although its ancestors were not followed. Key of the map
/// `EVIDENCE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// One of `EVIDENCE_*`.
    pub kind: u32,
    /// 0.
    pub reserved: u32,
    /// Inode number of the namespace, or id of the cgroup.
    pub id: u64,
}
assert_layout!(Evidence, size 16, kind @ 0, reserved @ 4, id @ 8);

/// [`Evidence::id`] is the inode number of a pid namespace that only one container uses.
pub const EVIDENCE_PID_NS: u32 = 1;
/// [`Evidence::id`] is the inode number of a mount namespace.
pub const EVIDENCE_MNT_NS: u32 = 2;
/// [`Evidence::id`] is the id of a cgroup in the unified hierarchy: the inode number of its directory.
pub const EVIDENCE_CGROUP: u32 = 3;

/// The container that a piece of [`Evidence`] points to. Value of the map `EVIDENCE`, written by user space only.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The container.
    pub container: ContainerKey,
    /// For a pid namespace, when its first process started, in ticks of [`NANOSECONDS_PER_TICK`]: distinguishes it
    /// from a later namespace with the same number. Otherwise 0.
    pub init_start_ticks: u64,
}
assert_layout!(Suspect, size 16, container @ 0, init_start_ticks @ 8);

/// Length of the ticks in which /proc reports start times (`USER_HZ`, 100 on x86_64 and aarch64).
pub const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// Per-container values of the programs. Value of the map `SLOTS`, by slot. User space writes it only for a slot that
/// it has taken for a container that was running before the programs were attached.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Generation of the key in use.
    pub generation: u32,
    /// Inode number of the mount namespace that the runtime was started in.
    pub runtime_mntns: u32,
    /// Live processes of the tree, including those that prepare the container.
    pub processes: u64,
    /// The runtime's root directory, identified by its address in the kernel; 0 if not known.
    pub runtime_root: u64,
    /// Executable of criu when it restores the container, identified by its address in the kernel; 0 if there is
    /// none.
    pub restorer: u64,
    /// Thread group id, in the initial pid namespace, of the runtime: another exec of it is part of the same
    /// invocation.
    pub runtime_tgid: u32,
    /// Inode number of the mount namespace in which the container's first process was bound; 0 before that.
    pub bound_mntns: u32,
    /// Inode number of the pid namespace of that process; 0 for the host's.
    pub bound_pidns: u32,
    /// Id of that process in its innermost pid namespace.
    pub bound_container_pid: u32,
    /// Root directory of that process, identified by its address in the kernel; 0 if not known.
    pub bound_root: u64,
    /// How that process has exited: what wait(2) gives its parent, and [`EXITED`]; 0 before that.
    pub exit_status: u32,
    /// 0.
    pub reserved: u32,
}
assert_layout!(Slot, size 64, generation @ 0, runtime_mntns @ 4, processes @ 8, runtime_root @ 16, restorer @ 24,
    runtime_tgid @ 32, bound_mntns @ 36, bound_pidns @ 40, bound_container_pid @ 44, bound_root @ 48, exit_status @ 56,
    reserved @ 60);

/// [`Slot::exit_status`]: the process has exited. A status of wait(2) has 16 bits.
pub const EXITED: u32 = 1 << 31;

/// [`Decision::flags`]: the container is not selected: its events count as filtered.
pub const REJECTED: u32 = 1;
/// [`Decision::flags`]: runtimes within this container are not followed, because there were too many.
pub const CLOSED: u32 = 1 << 1;
/// [`Decision::flags`]: the runtime runs the container's program in its own process (wasm, krun): no entrypoint will
/// be executed.
pub const IN_PROCESS: u32 = 1 << 2;

/// Value of the map `RUNTIMES`: a container runtime.
pub const RUNTIME: u8 = 1;
/// Value of the map `RUNTIMES`: a program that runtimes restore containers with (criu).
pub const RESTORER: u8 = 2;

/// User space's decision about a container. Value of the map `DECISIONS`, by slot; the programs only read it.
///
/// A decision holds only for the generation that it names, so the next container in the slot starts undecided. Events
/// of undecided containers are let through.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    /// Generation of the key that the decision is about.
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
    fn container_key_holds_slot_and_generation() {
        let key = ContainerKey::new(u32::MAX, 7);
        assert_eq!((key.slot(), key.generation()), (u32::MAX, 7));
        assert_ne!(ContainerKey::new(0, 1), ContainerKey::HOST);
    }
}
