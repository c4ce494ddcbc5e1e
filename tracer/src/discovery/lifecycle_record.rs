//! Decodes records of the ring buffer `LIFECYCLE`.

use tracer_common::lifecycle::{Bound, LifecycleKind, Record, Runtime};
use zerocopy::FromBytes;

/// A decoded record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LifecycleRecord<'a> {
    /// A runtime was executed, with these NUL-terminated arguments.
    Runtime(Runtime, &'a [u8]),
    /// A container has a process of its own, in a cgroup of this name in the unified hierarchy.
    Bound(Bound, &'a [u8]),
    /// The last process of a container has exited.
    Ended(Record),
    /// A program was executed in what only a container has, in a cgroup of this name; no runtime was seen before.
    Unannounced(Bound, &'a [u8]),
}

impl<'a> LifecycleRecord<'a> {
    /// Decodes a record; None if it is invalid.
    #[must_use]
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (record, _) = Record::read_from_prefix(bytes).ok()?;
        Some(match LifecycleKind::try_from(record.kind).ok()? {
            LifecycleKind::Runtime => {
                let (runtime, args) = Runtime::read_from_prefix(bytes).ok()?;
                Self::Runtime(runtime, args.get(..usize::from(runtime.args_len))?)
            }
            LifecycleKind::Bound => {
                let (bound, cgroup) = bound(bytes)?;
                Self::Bound(bound, cgroup)
            }
            LifecycleKind::Unannounced => {
                let (bound, cgroup) = bound(bytes)?;
                Self::Unannounced(bound, cgroup)
            }
            LifecycleKind::Ended => Self::Ended(record),
        })
    }
}

/// A container's process, with the name of its cgroup.
fn bound(bytes: &[u8]) -> Option<(Bound, &[u8])> {
    let (bound, cgroup) = Bound::read_from_prefix(bytes).ok()?;
    Some((bound, cgroup.get(..bound.cgroup_len as usize)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_shorter_than_its_length_field_is_refused() {
        // A name of 2^32 - 1 bytes, and none of them there.
        let mut bytes = [0xff; size_of::<Bound>()];
        let at = std::mem::offset_of!(Record, kind);
        bytes[at..at + 4].copy_from_slice(&(LifecycleKind::Bound as u32).to_ne_bytes());
        assert!(LifecycleRecord::decode(&bytes).is_none());
        let len = std::mem::offset_of!(Bound, cgroup_len);
        bytes[len..len + 4].copy_from_slice(&0_u32.to_ne_bytes());
        assert!(matches!(LifecycleRecord::decode(&bytes), Some(LifecycleRecord::Bound(_, []))));
    }
}
