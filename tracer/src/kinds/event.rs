//! Records of events, decoded as far as every event needs it.

use tracer_common::{comm_bytes, kinds::Header};
use zerocopy::FromBytes as _;

use super::{Kind, Kinds, Schema, Signal};

/// One event, borrowing from its record.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    /// What all kinds share.
    pub(crate) header: Header,
    /// Its kind.
    pub(crate) kind: &'a Kind,
    /// The structure that the record begins with.
    fixed: &'a [u8],
    /// What follows it.
    tail: &'a [u8],
    /// Where in `tail` each part ends.
    ends: [u32; Schema::PARTS_MAX],
    /// Flags of the record.
    pub(super) flags: u16,
}

impl<'a> Event<'a> {
    /// From the bytes of a record; `None` if they are no record of these kinds.
    pub(crate) fn decode(kinds: &'a Kinds, record: &'a [u8]) -> Option<Self> {
        let (header, _) = Header::read_from_prefix(record).ok()?;
        let kind = kinds.by_number(header.kind)?;
        let (fixed, tail) = record.split_at_checked(kind.schema.record_size)?;
        let mut ends = [0; Schema::PARTS_MAX];
        let mut end = 0;
        for (at, slot) in kind.schema.parts.iter().zip(&mut ends) {
            end += u32::from(u16_at(fixed, *at));
            *slot = end;
        }
        let tail = tail.get(..end as usize)?;
        let flags = u16_at(fixed, kind.schema.flags_at);
        Some(Self { header, kind, fixed, tail, ends, flags })
    }

    /// The task's comm, up to its NUL.
    pub(crate) fn comm(&self) -> &[u8] {
        comm_bytes(&self.header.comm)
    }

    /// A part; empty if the kind has no such part.
    pub(super) fn part(&self, index: u8) -> &'a [u8] {
        let index = usize::from(index);
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        self.tail.get(start as usize..self.ends[index] as usize).unwrap_or_default()
    }

    pub(super) fn u8_at(&self, at: usize) -> u8 {
        self.fixed.get(at).copied().unwrap_or(0)
    }

    /// An unsigned number of 1, 2, 4 or 8 bytes.
    pub(super) fn unsigned_at(&self, at: usize, size: u8) -> u64 {
        match size {
            1 => self.u8_at(at).into(),
            2 => u16_at(self.fixed, at).into(),
            4 => u32::from_le_bytes(bytes_at(self.fixed, at)).into(),
            _ => self.u64_at(at),
        }
    }

    pub(super) fn u64_at(&self, at: usize) -> u64 {
        u64::from_le_bytes(bytes_at(self.fixed, at))
    }

    pub(super) fn i32_at(&self, at: usize) -> i32 {
        i32::from_le_bytes(bytes_at(self.fixed, at))
    }

    /// The name of the signal whose number is at this offset; `None` for number 0.
    pub(super) fn signal_at(&self, at: usize) -> Option<Signal> {
        Signal::of(self.u8_at(at))
    }
}

/// Both ends of a stream have the byte order of the kernels that `tracer` runs on: little endian.
fn bytes_at<const N: usize>(fixed: &[u8], at: usize) -> [u8; N] {
    fixed.get(at..).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or([0; N])
}

fn u16_at(fixed: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(fixed, at))
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    fn record() -> Vec<u8> {
        let mut bytes = vec![0; Kinds::by_name(&["open"]).unwrap().get(0).unwrap().schema.record_size];
        bytes[16] = 1;
        bytes
    }

    #[test]
    fn record_that_ends_before_its_parts_is_refused() {
        let kinds = Kinds::by_name(&["open", "exec", "exit"]).unwrap();
        let good = record();
        assert!(Event::decode(&kinds, &good).is_some());
        assert!(Event::decode(&kinds, &good[..good.len() - 1]).is_none());
        for kind in kinds.iter() {
            let mut bytes = vec![0xff; kind.schema.record_size];
            bytes[16..20].copy_from_slice(kind.schema.number.as_bytes());
            // Lengths of 65535, and nothing behind the structure.
            assert_eq!(Event::decode(&kinds, &bytes).is_some(), kind.schema.parts.is_empty());
        }
    }

    #[test]
    fn record_of_a_kind_that_is_not_traced_is_refused() {
        assert!(Event::decode(&Kinds::by_name(&["exec"]).unwrap(), &record()).is_none());
    }
}
