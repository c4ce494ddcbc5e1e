//! From the event ring to standard output: each record is attributed to its container, selected, and rendered.

mod attribution_cache;
mod batch_writer;
mod comm_filter;
mod pending;
mod phase;
mod ring_source;
mod router;
mod sink;

#[cfg(any(test, feature = "testing"))]
pub(crate) use attribution_cache::Attributor;
#[cfg(feature = "kubectl")]
pub(crate) use batch_writer::{BatchWriter, WriteCounters};
pub(crate) use batch_writer::{Output, Stop};
pub(crate) use phase::Phase;
pub(crate) use ring_source::RingSource;
#[cfg(any(test, feature = "testing"))]
pub(crate) use router::Router;
pub(crate) use sink::{Sink, Tally, View};
