//! Pods and containers from the container engine, through the CRI, which the kubelet uses too.
//!
//! Bundles contain everything except the labels of pods, which containerd does not write. The CRI is a second source:
//! it completes what is known, and nothing waits for it. An engine that hangs, fails or exits causes an [`Error`]
//! after two seconds, never a delay. Its responses are limited in size; names in them are displayed, never used as
//! paths.

mod client;
mod endpoint;
mod proto;
mod responses;
mod socket;

pub use client::{Client, WatchEnd};
#[cfg(feature = "testing")]
pub use client::{Engine, Error};
pub(crate) use endpoint::{NONE, SOCKETS, endpoints};
#[cfg(any(test, feature = "testing"))]
pub(crate) use responses::Info;
#[cfg(feature = "testing")]
pub use responses::PodLabels;
#[cfg(feature = "testing")]
pub use socket::SocketError;
