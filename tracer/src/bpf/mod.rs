//! The kernel side as user space sees it: prerequisites, loading, attaching, rings, counters.

mod btf;
mod event;
mod events;
pub mod features;
mod filter;
mod freeze;
mod hooks;
mod load;
mod offsets;
mod preemption;
mod ring;
#[cfg(test)]
mod stack;
mod stats;
mod ways;

pub use btf::KERNEL_BTF;
pub use events::EventRing;
pub use filter::EventFilter;
pub use hooks::Hook;
pub use load::{Bpf, Options, wait_for_running_programs};
pub use ring::{Corrupt, MappedRing};
pub use stats::{Counters, HookCounters, LifecycleCounters, ProgramCounters};
pub use ways::Taken;
