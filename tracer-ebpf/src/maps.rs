//! The maps. Sizes given here are the least that works: user space sets the real ones before loading.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, Queue, RingBuf},
};
use tracer_common::{
    Comm,
    container::{Adoptee, Decision, Evidence, FollowedProcess, Slot, Suspect},
    kinds::open::{Open, PATH_MAX},
    stats::State,
};

/// Bytes of a buffer for putting a record together. More than any record needs: the verifier adds the largest length to
/// the largest offset, and a per-CPU value may have 32 KiB at the most.
pub const SCRATCH_SIZE: usize = 32 * 1024;

/// The largest offset of a string in a buffer for records without arguments: the verifier takes it for the offset of each.
pub const SHORT_SCRATCH_OFFSET: u32 = 255;
/// Bytes of such a buffer: that offset, the longest path, its NUL and one more. There is one for each program on each
/// possible CPU.
pub const SHORT_SCRATCH_SIZE: usize = (SHORT_SCRATCH_OFFSET as usize + PATH_MAX + 2).next_multiple_of(8);

/// Bytes of the largest record of an open, the NUL of its path and one more included, which the helper may write.
pub const REQUEST_RECORD_MAX: usize = (size_of::<Open>() + PATH_MAX + 2).next_multiple_of(8);

/// A request of io_uring that is under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Request {
    /// Bytes of the record.
    pub len: u32,
    /// Whether another request of its ring that was under way had the same data: 1 or 0.
    pub is_ambiguous: u32,
    /// The ring, by its address.
    pub ring: u64,
    /// What the caller wants the completion to carry.
    pub data: u64,
    /// The record of the event, still without its result.
    pub record: [u8; REQUEST_RECORD_MAX],
}

/// What a completion carries that finds no room in its ring.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Report {
    pub ring: u64,
    pub data: u64,
}

/// Bytes of [`LIFECYCLE`].
pub const LIFECYCLE_SIZE: u32 = 1 << 20;

/// What runtimes do. Never shared with traced events, so that a flood of them cannot push this out.
#[map]
pub static LIFECYCLE: RingBuf = RingBuf::with_byte_size(LIFECYCLE_SIZE, 0);

/// Traced events.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 12, 0);

/// By index 0: 1 while the reader of `EVENTS` sleeps without a timer and wants to be woken by the next record.
#[map]
pub static READER_SLEEPS: Array<u32> = Array::with_max_entries(1, 0);

/// Runtimes and the processes that they started, by thread group id in the initial pid namespace.
#[map]
pub static PROCESSES: HashMap<u32, FollowedProcess> = HashMap::with_max_entries(1024, 0);

/// By index 0: how deep the pid namespace of `tracer` is; 0 while that is not known.
#[map]
pub static TRACER_LEVEL: Array<u32> = Array::with_max_entries(1, 0);

/// Counts how often a process that runs has become another container's, by who has made it so:
/// [`tracer_common::container::EPOCH_OF_PROGRAMS`], [`tracer_common::container::EPOCH_OF_USER`].
#[map]
pub static EPOCHS: Array<u64> = Array::with_max_entries(2, 0);

/// The process ids that are selected, or excluded.
#[map]
pub static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(1, 0);

/// The real user ids that are selected, or excluded.
#[map]
pub static UIDS: HashMap<u32, u8> = HashMap::with_max_entries(1, 0);

/// The comms that are selected, or excluded.
#[map]
pub static COMMS: HashMap<Comm, u8> = HashMap::with_max_entries(1, 0);

/// Processes of containers that were there before the programs, until they do something.
#[map]
pub static ADOPTEES: HashMap<u32, Adoptee> = HashMap::with_max_entries(1024, 0);

/// The namespaces and cgroups of containers that were there before the programs: a process in one of them belongs to the
/// container even if nobody has seen where it comes from.
#[map]
pub static EVIDENCE: HashMap<Evidence, Suspect> = HashMap::with_max_entries(1024, 0);

/// Processes that become a container's just now, by thread group id: of several threads one does it.
#[map]
pub static BINDING: HashMap<u32, u8> = HashMap::with_max_entries(256, 0);
/// Opens that io_uring has under way, by the address of the request.
#[map]
pub static REQUESTS: HashMap<u64, Request> = HashMap::with_max_entries(1, 0);

/// Their keys in [`REQUESTS`], by what a completion carries that finds no room in its ring.
#[map]
pub static REPORTS: LruHashMap<Report, u64> = LruHashMap::with_max_entries(1, 0);

/// Containers, by slot.
#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(1, 0);

/// What user space decided about containers, by slot.
#[map]
pub static DECISIONS: Array<Decision> = Array::with_max_entries(1, 0);

/// Slots that no container uses, and that are kept for trusted runtimes: one half of all. User space fills it, and gives
/// them back.
#[map]
pub static KEPT_SLOTS: Queue<u32> = Queue::with_max_entries(1, 0);

/// The other half, which any runtime may have.
#[map]
pub static FREE_SLOTS: Queue<u32> = Queue::with_max_entries(1, 0);

/// The comms of container runtimes ([`tracer_common::container::RUNTIME`]) and of what they restore containers with
/// ([`tracer_common::container::RESTORER`]). User space fills it.
#[map]
pub static RUNTIMES: HashMap<Comm, u8> = HashMap::with_max_entries(64, 0);

/// Per-CPU state of each program, and of each kind that a program sees: [`crate::state::Program`].
#[map]
pub static STATE: PerCpuArray<State> = PerCpuArray::with_max_entries(1, 0);

/// Buffers for putting records together ([`tracer_common::kinds::schema::Buffer::Long`]).
#[map]
pub static SCRATCH: PerCpuArray<[u8; SCRATCH_SIZE]> = PerCpuArray::with_max_entries(1, 0);

/// The same for records without arguments ([`tracer_common::kinds::schema::Buffer::Short`]).
#[map]
pub static SHORT_SCRATCH: PerCpuArray<[u8; SHORT_SCRATCH_SIZE]> = PerCpuArray::with_max_entries(1, 0);
