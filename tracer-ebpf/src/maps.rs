//! The maps. Sizes given here are the least that works: user space sets the real ones before loading.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, Queue, RingBuf},
};
use tracer_common::{
    Comm,
    container::{Adoptee, Process, Slot, Verdict},
    stats::{Program, State},
};

/// Bytes of a buffer for putting a record together. More than any record needs: the verifier adds the largest length to
/// the largest offset, and a per-CPU value may have 32 KiB at the most.
pub const SCRATCH_SIZE: usize = 32 * 1024;

/// The same of a buffer for records without arguments.
pub const SHORT_SCRATCH_SIZE: usize = 8 * 1024;

const PROGRAMS: u32 = Program::ALL.len() as u32;

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
pub static PROCESSES: HashMap<u32, Process> = HashMap::with_max_entries(1024, 0);

/// By index 0: how deep the pid namespace of `tracer` is; 0 while that is not known.
#[map]
pub static TRACER_LEVEL: Array<u32> = Array::with_max_entries(1, 0);

/// Counts how often a process that runs has become another container's, by who has made it so:
/// [`tracer_common::container::EPOCH_OF_PROGRAMS`], [`tracer_common::container::EPOCH_OF_USER`].
#[map]
pub static EPOCHS: Array<u64> = Array::with_max_entries(2, 0);

/// The process ids that are asked for, or are not.
#[map]
pub static PIDS: HashMap<u32, u8> = HashMap::with_max_entries(1, 0);

/// The real user ids that are asked for, or are not.
#[map]
pub static UIDS: HashMap<u32, u8> = HashMap::with_max_entries(1, 0);

/// The comms that are asked for, or are not.
#[map]
pub static COMMS: HashMap<Comm, u8> = HashMap::with_max_entries(1, 0);

/// Processes of containers that were there before the programs, until they do something.
#[map]
pub static ADOPTEES: HashMap<u32, Adoptee> = HashMap::with_max_entries(1024, 0);

/// Containers, by slot.
#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(1, 0);

/// What user space decided about containers, by slot.
#[map]
pub static VERDICTS: Array<Verdict> = Array::with_max_entries(1, 0);

/// Slots that no container uses. User space gives them out and takes them back.
#[map]
pub static FREE_SLOTS: Queue<u32> = Queue::with_max_entries(1, 0);

/// The comms of container runtimes ([`tracer_common::container::RUNTIME`]) and of what they restore containers with
/// ([`tracer_common::container::RESTORER`]). User space fills it.
#[map]
pub static RUNTIMES: HashMap<Comm, u8> = HashMap::with_max_entries(64, 0);

/// What each program keeps on each CPU, by [`Program`].
#[map]
pub static STATE: PerCpuArray<State> = PerCpuArray::with_max_entries(PROGRAMS, 0);

/// Buffers for putting records together, by [`tracer_common::stats::Scratch::Long`].
#[map]
pub static SCRATCH: PerCpuArray<[u8; SCRATCH_SIZE]> = PerCpuArray::with_max_entries(1, 0);

/// The same for records without arguments, by [`tracer_common::stats::Scratch::Short`].
#[map]
pub static SHORT_SCRATCH: PerCpuArray<[u8; SHORT_SCRATCH_SIZE]> = PerCpuArray::with_max_entries(1, 0);
