//! The kernel side as user space sees it: prerequisites, loading, attaching, rings, counters.

mod events;
pub mod features;
mod load;
mod offsets;
mod stats;

pub use events::EventRing;
pub use load::{Bpf, Options, wait_for_running_programs};
pub use offsets::KERNEL_BTF;
pub use stats::{Counters, HookCounters, LifecycleCounters, ProgramCounters};
