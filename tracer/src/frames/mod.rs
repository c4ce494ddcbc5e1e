//! The binary stream in which one `tracer` sends events to another: from a node to `kubectl tracer`.
//!
//! A stream begins with a preamble of eight bytes: `tracer`, a NUL, and the version of the protocol. What follows is one zstd
//! stream (RFC 8878) of frames, flushed whenever there is nothing more to send. A frame is a head of four bytes, a little-endian
//! number whose upper eight bits are the type and whose lower 24 bits the length of the body, and the body:
//!
//! | type | frame | body |
//! |---|---|---|
//! | 1 | `Hello`: first, once | JSON: version, architecture, node, schemas of the kinds |
//! | 2 | `Container`: before its first event, again when more is known | key (8 bytes), JSON: `k8s`, `container` |
//! | 3 | `Forget`: no event of it follows | key (8 bytes) |
//! | 4 | `Event` | the record as the eBPF program wrote it, its timestamp in nanoseconds since 1970 |
//! | 5 | `Lost` | JSON: timestamp, count, reason, hook |
//! | 6 | `Ready`: all is attached | empty |
//! | 7 | `Alive`: answers the client's heartbeat | empty |
//! | 8 | `Summary`: last, once | JSON: the counters of the closing line |
//! | 9 | `Listed`: a container of `list-containers` | JSON, a line of its output |
//! | 10 | `Matches`: what the selection matches, before `Ready` and whenever that changes | JSON |
//!
//! A reader skips frames of types that it does not know, and shows kinds that it does not know by their schema. It trusts the
//! stream with nothing: every length is bounded, every schema validated.

#[cfg(any(test, feature = "kubectl", feature = "testing"))]
mod listed;
#[cfg_attr(not(feature = "kubectl"), allow(dead_code, reason = "the client alone reads all of a frame"))]
#[cfg(any(test, feature = "kubectl", feature = "testing"))]
mod reader;
mod writer;

use serde::{Deserialize, Serialize};

#[cfg(any(test, feature = "kubectl", feature = "testing"))]
pub(crate) use listed::Listed;
#[cfg(any(test, feature = "kubectl", feature = "testing"))]
pub(crate) use reader::{Frame, FrameError, FrameReader};
pub(crate) use writer::{Compressor, FrameWriter, frame, hello, lost};

use crate::kinds::Schema;

/// The version of the protocol.
pub(crate) const VERSION: u8 = 1;
/// What a stream begins with, before the version.
pub(crate) const MAGIC: [u8; 7] = *b"tracer\0";
/// Bytes of a frame's head.
const HEAD: usize = 4;

/// The types of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Type {
    Hello = 1,
    Container = 2,
    Forget = 3,
    Event = 4,
    Lost = 5,
    Ready = 6,
    Alive = 7,
    Summary = 8,
    Listed = 9,
    Matches = 10,
}

/// What a stream's sender is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Version of the sending `tracer`.
    pub(crate) version: String,
    /// Its architecture.
    pub(crate) architecture: String,
    /// The node's name.
    pub(crate) node: String,
    /// The kinds of events that may follow.
    pub(crate) kinds: Vec<Schema>,
}

/// Events that were lost on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LostFrame {
    /// Nanoseconds since 1970.
    pub(crate) timestamp: i64,
    /// How many.
    pub(crate) count: u64,
    /// Why.
    pub(crate) reason: String,
    /// The kind, or `lifecycle`.
    pub(crate) hook: String,
}

/// The counters of the closing line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) seen: u64,
    pub(crate) emitted: u64,
    pub(crate) filtered: u64,
    pub(crate) lost: u64,
}
