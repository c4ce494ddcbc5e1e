//! The kernel side as user space sees it: prerequisites, loading, attaching, rings, counters.

pub(crate) mod btf;
mod container_maps;
mod event_ring;
pub(crate) mod features;
mod filter;
mod freeze;
mod hooks;
mod load;
mod offsets;
pub(crate) mod preemption;
mod programs;
mod refusal;
mod ring;
mod sizes;
#[cfg(test)]
mod stack;
mod stats;
pub(crate) mod sys_exit_event;
mod uring;
mod ways;

pub(crate) use container_maps::{ContainerMaps, FreeSlots};
pub(crate) use event_ring::EventRing;
pub(crate) use filter::EventFilter;
pub(crate) use hooks::Hook;
pub(crate) use load::{Bpf, Options, wait_for_running_programs};
pub(crate) use ring::{Corrupt, MappedRing};
pub(crate) use stats::{Counters, LifecycleCounters, ProgramCounters};
pub(crate) use ways::Taken;
