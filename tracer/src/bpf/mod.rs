//! The kernel side as user space sees it: prerequisites, loading, attaching, rings, counters.

mod events;
pub mod features;
mod load;
mod offsets;
mod ring;
mod stats;

pub use events::EventRing;
pub use load::{Bpf, Options};
pub use offsets::KERNEL_BTF;
pub use ring::Ring;
pub use stats::{Counters, HookCounters};
