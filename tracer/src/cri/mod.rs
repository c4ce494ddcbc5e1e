//! A container engine's own word on its pods and containers: the CRI, which the kubelet speaks too.
//!
//! What bundles say is complete but for the labels of pods, which containerd writes into none. So this is a second
//! witness: it completes what is known, and nothing waits for it. An engine that hangs, errs or goes away is an
//! [`Error`] after two seconds, never a stall. Its answers are bounded in size; names in them are shown, never used
//! as paths.

mod answers;
mod client;
mod endpoint;
mod proto;
mod socket;

pub(crate) use answers::{Info, PodLabels};
pub(crate) use client::{Client, Ended, Engine, Error};
pub(crate) use endpoint::{NONE, SOCKETS, endpoints};
pub(crate) use socket::SocketError;
