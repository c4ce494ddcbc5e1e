//! From the event ring to standard output: each record is attributed to its container, selected, and rendered.

mod attribution_cache;
mod batch_writer;
mod pending;
mod phase;
mod ring_source;
mod router;
mod sink;

pub(crate) use attribution_cache::Knowledge;
pub(crate) use batch_writer::{Outlet, Output, Stop, Written};
pub(crate) use phase::Phase;
pub(crate) use ring_source::Stream;
pub(crate) use router::Router;
pub(crate) use sink::{Sink, Tally};
