//! A reader of BPF ring buffers that disturbs the writers as little as it can.
//!
//! The programs read the reader's position at each record that they reserve, to see whether there is room. Who stores
//! it at each record that it has read, takes that cache line away from them each time, and waits for it in turn. So this
//! reader keeps its position to itself and publishes it a part of the ring at a time, and when it has come to the end.
//!
//! What the kernel maps (kernel/bpf/ringbuf.c, `struct bpf_ringbuf`): a page with the reader's position, which is the
//! reader's to write; a page with the writers' position; then the data, twice in a row, so that a record that crosses the
//! ring's end is in one piece all the same. Positions count bytes since the ring was made and are never taken back to its
//! size. A record is a header of eight bytes, of which the first four are its length and two bits, then the data, then
//! what is missing to a multiple of eight. A writer moves its position on when it reserves a record, marked as busy, and
//! takes the mark away when the record is whole.

use std::{
    ffi::c_void,
    io,
    os::fd::{AsFd, OwnedFd},
    ptr::{self, NonNull},
    slice,
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
};

use anyhow::{Context as _, bail};
use aya::maps::{Map, MapData};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    param::page_size,
};

/// The record is reserved, but not written yet (`BPF_RINGBUF_BUSY_BIT`, include/uapi/linux/bpf.h).
const BUSY: u32 = 1 << 31;
/// The record was given up (`BPF_RINGBUF_DISCARD_BIT`).
const DISCARDED: u32 = 1 << 30;
/// Bytes of a record's header (`BPF_RINGBUF_HDR_SZ`).
const HEADER: usize = 8;
/// Records begin at multiples of this.
const ALIGNMENT: usize = 8;
/// The position is published when this much has been read, or the sixteenth part of a smaller ring.
const PUBLISHED_MAX: usize = 64 * 1024;

/// Bytes of a record that are read at the most: the programs put none together that is longer.
const RECORD_MAX: usize = 32 * 1024;

/// Why a ring cannot be read any further. The kernel keeps it in order; whoever may open its map by id (`CAP_SYS_ADMIN`)
/// may change the reader's position, so that records are overwritten before they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Corrupt {
    /// The reader's position is not what the reader has made it.
    #[error("another process has changed the reader's position to {found}, which was {published}")]
    Position {
        /// What the reader published last.
        published: usize,
        /// What was found.
        found: usize,
    },
    /// The writers have overtaken the reader.
    #[error("{unread} bytes are unread, in a ring of {size}")]
    Overtaken {
        /// Bytes between the two positions.
        unread: usize,
        /// Bytes in the ring.
        size: usize,
    },
    /// A record is longer than what was written, or than any record is.
    #[error("a record has {len} bytes, of {unread} that are unread")]
    Length {
        /// As its header has it.
        len: usize,
        /// Bytes between the two positions.
        unread: usize,
    },
}

/// The reader's side of a ring buffer.
#[derive(Debug)]
pub(crate) struct Ring {
    /// The page with the reader's position.
    reader: Mapping,
    /// The page with the writers' position, and the data twice.
    writers: Mapping,
    /// Bytes of data that the ring holds: a power of two.
    size: usize,
    /// How far this reader has come.
    position: usize,
    /// How far the writers know it has.
    published: usize,
    /// How far the writers had come when that was looked at last.
    written: usize,
    /// The record that is handled: a copy, since whoever changes the reader's position may have it overwritten.
    record: Box<[u64]>,
}

impl Ring {
    /// Maps the ring of `size` bytes that `fd` stands for.
    ///
    /// # Safety
    /// `fd` is a BPF ring buffer with `size` bytes of data, or a file that is laid out like one, which becomes no shorter
    /// while it is mapped. `size` is a power of two, and a page at least.
    pub(crate) unsafe fn map(fd: impl AsFd, size: u32) -> io::Result<Self> {
        let (page, size) = (page_size(), size as usize);
        let reader = Mapping::new(&fd, 0, page, ProtFlags::READ | ProtFlags::WRITE)?;
        let writers = Mapping::new(&fd, page, page + 2 * size, ProtFlags::READ)?;
        let position = reader.position().load(Ordering::Acquire);
        let record = vec![0; size.min(RECORD_MAX) / size_of::<u64>()].into_boxed_slice();
        Ok(Self { reader, writers, size, position, published: position, written: position, record })
    }

    /// Hands every record that is there to `handle`, until it returns false. Returns how many there were. After an error
    /// nothing more can be read.
    pub(crate) fn drain(&mut self, mut handle: impl FnMut(&[u8]) -> bool) -> Result<usize, Corrupt> {
        let step = PUBLISHED_MAX.min(self.size / 16);
        let mut records = 0;
        self.check_position()?;
        loop {
            while let Some((len, is_discarded)) = self.next()? {
                let mut goes_on = true;
                if !is_discarded {
                    records += 1;
                    goes_on = handle(self.copy(len));
                }
                self.position = self.position.wrapping_add((HEADER + len).next_multiple_of(ALIGNMENT));
                if self.position.wrapping_sub(self.published) >= step {
                    self.publish()?;
                }
                if !goes_on {
                    self.publish()?;
                    return Ok(records);
                }
            }
            // A writer wakes the reader only if it finds that this has come to its record. So it is looked once more after
            // that was published.
            if self.published == self.position {
                return Ok(records);
            }
            self.publish()?;
        }
    }

    /// The length of the record at the reader's position, and whether it was given up; None where none is whole yet.
    fn next(&mut self) -> Result<Option<(usize, bool)>, Corrupt> {
        if self.position == self.written {
            // The kernel stores it after the record's header.
            self.written = self.writers.position().load(Ordering::Acquire);
            if self.position == self.written {
                return Ok(None);
            }
            let (unread, size) = (self.written.wrapping_sub(self.position), self.size);
            if unread > size {
                return Err(Corrupt::Overtaken { unread, size });
            }
        }
        // SAFETY: the position is a multiple of the alignment, so there is a header: aligned, in the mapping, and accessed
        // by atomic operations only. The kernel takes the busy mark away after all of the record is written.
        let header = unsafe { &*self.at_position().cast::<AtomicU32>() }.load(Ordering::Acquire);
        if header & BUSY != 0 {
            return Ok(None);
        }
        let len = (header & !DISCARDED) as usize;
        let unread = self.written.wrapping_sub(self.position);
        let is_discarded = header & DISCARDED != 0;
        // What was given up is not copied, so it may be as long as it likes.
        let is_too_long = !is_discarded && len > size_of_val(&*self.record);
        if (HEADER + len).next_multiple_of(ALIGNMENT) > unread || is_too_long {
            return Err(Corrupt::Length { len, unread });
        }
        Ok(Some((len, is_discarded)))
    }

    /// A copy of the data of the record at the reader's position, which [`Self::next`] has found to have this length.
    fn copy(&mut self, len: usize) -> &[u8] {
        let words = len.div_ceil(size_of::<u64>());
        // SAFETY: the record begins in the first copy of the data and is no longer than the ring, so it is within the two
        // copies, aligned to words as records are. Should it be overwritten meanwhile, what is copied makes no sense, but
        // each word is read by an atomic operation.
        let data =
            unsafe { slice::from_raw_parts(self.at_position().byte_add(HEADER).cast::<AtomicU64>(), words) };
        for (copied, word) in self.record.iter_mut().zip(data) {
            *copied = word.load(Ordering::Relaxed);
        }
        // SAFETY: as many bytes as the words have, all of them initialised, and borrowed with `self`.
        let bytes =
            unsafe { slice::from_raw_parts(self.record.as_ptr().cast::<u8>(), size_of_val(&*self.record)) };
        &bytes[..len]
    }

    /// Where the record at the reader's position begins, in the first copy of the data.
    fn at_position(&self) -> *const c_void {
        let offset = page_size() + (self.position & (self.size - 1));
        // SAFETY: less than the page and one copy of the data, and the mapping has the page and two.
        unsafe { self.writers.start.as_ptr().byte_add(offset) }
    }

    /// Lets the writers use what has been read.
    fn publish(&mut self) -> Result<(), Corrupt> {
        if self.published != self.position {
            self.check_position()?;
            self.published = self.position;
            // What was read is read before the writers see that they may write there.
            self.reader.position().store(self.position, Ordering::Release);
            // And either the next look finds what a writer submits, or that writer finds this position.
            fence(Ordering::SeqCst);
        }
        Ok(())
    }

    /// Whether the writers know what this reader has told them.
    fn check_position(&self) -> Result<(), Corrupt> {
        let (published, found) = (self.published, self.reader.position().load(Ordering::Relaxed));
        if found == published { Ok(()) } else { Err(Corrupt::Position { published, found }) }
    }
}

/// A BPF map that is a ring buffer, with its reader.
pub(crate) struct MappedRing {
    map: MapData,
    ring: Ring,
}

impl MappedRing {
    /// Maps the ring buffer that is called `name`.
    pub(crate) fn new(map: Map, name: &str) -> anyhow::Result<Self> {
        let Map::RingBuf(map) = map else { bail!("the BPF map {name} is not a ring buffer") };
        let info = map.info().with_context(|| format!("asking for the size of the BPF map {name}"))?;
        // SAFETY: the kernel has just said that it is a ring buffer, and how large: a power of two, and whole pages.
        let ring = unsafe { Ring::map(map.fd(), info.max_entries()) }
            .with_context(|| format!("mapping the BPF map {name}"))?;
        Ok(Self { map, ring })
    }

    /// Hands every record that is there to `handle`, until it returns false. Returns how many there were.
    pub(crate) fn drain(&mut self, handle: impl FnMut(&[u8]) -> bool) -> Result<usize, Corrupt> {
        self.ring.drain(handle)
    }

    /// A descriptor that is readable when a record has come since the last one was read.
    pub(crate) fn readiness(&self) -> io::Result<OwnedFd> {
        self.map.fd().as_fd().try_clone_to_owned()
    }
}

/// Memory that is shared with the kernel.
#[derive(Debug)]
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the memory stays mapped wherever its owner is moved to, and none of it is accessed by two threads of this
// process at once, as there is no shared access to what changes but by atomic operations.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: impl AsFd, offset: usize, len: usize, access: ProtFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { mmap(ptr::null_mut(), len, access, MapFlags::SHARED, fd, offset as u64) }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The position at the beginning of the mapping.
    const fn position(&self) -> &AtomicUsize {
        // SAFETY: a page's beginning is aligned, and the mapping lives as long as `self`. Both sides access the
        // position by atomic operations only.
        unsafe { &*self.start.as_ptr().cast::<AtomicUsize>() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from the mapping any more. It was mapped with this address and length, so this does
        // not fail.
        let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt as _};

    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    const SIZE: usize = 4096;

    /// A file laid out like a ring buffer, and what the kernel does with it. The second copy of the data is written as
    /// well, since a file has none of its own.
    struct Writer {
        file: File,
        position: usize,
    }

    impl Writer {
        fn new(position: usize) -> Self {
            let file = File::from(memfd_create("ring", MemfdFlags::CLOEXEC).unwrap());
            file.set_len((2 * page_size() + 2 * SIZE) as u64).unwrap();
            file.write_all_at(&position.to_ne_bytes(), 0).unwrap();
            let writer = Self { file, position };
            writer.publish();
            writer
        }

        fn publish(&self) {
            self.file.write_all_at(&self.position.to_ne_bytes(), page_size() as u64).unwrap();
        }

        /// The position that the reader has published.
        fn read_up_to(&self) -> usize {
            let mut bytes = [0; size_of::<usize>()];
            self.file.read_exact_at(&mut bytes, 0).unwrap();
            usize::from_ne_bytes(bytes)
        }

        fn has_room(&self, len: usize) -> bool {
            self.position + (HEADER + len).next_multiple_of(8) - self.read_up_to() <= SIZE
        }

        fn write_at(&self, position: usize, bytes: &[u8]) {
            for (index, byte) in bytes.iter().enumerate() {
                let offset = (position + index) & (SIZE - 1);
                for copy in [0, SIZE] {
                    self.file.write_all_at(&[*byte], (2 * page_size() + copy + offset) as u64).unwrap();
                }
            }
        }

        fn header(&self, position: usize, len: usize, marks: u32) {
            self.write_at(position, &(u32::try_from(len).unwrap() | marks).to_ne_bytes());
        }

        /// Reserves a record and returns its position.
        fn reserve(&mut self, data: &[u8]) -> usize {
            assert!(self.has_room(data.len()));
            let at = self.position;
            self.header(at, data.len(), BUSY);
            self.write_at(at + HEADER, data);
            self.position += (HEADER + data.len()).next_multiple_of(8);
            self.publish();
            at
        }

        fn submit(&mut self, data: &[u8]) {
            let at = self.reserve(data);
            self.header(at, data.len(), 0);
        }

        fn ring(&self) -> Ring {
            // SAFETY: the file is laid out like a ring, and keeps its length.
            unsafe { Ring::map(&self.file, u32::try_from(SIZE).unwrap()) }.unwrap()
        }
    }

    fn drained(ring: &mut Ring) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        ring.drain(|record| {
            records.push(record.to_vec());
            true
        })
        .unwrap();
        records
    }

    #[test]
    fn what_is_busy_hides_what_comes_behind_it_until_it_is_whole() {
        let mut writer = Writer::new(0);
        let mut ring = writer.ring();
        assert!(drained(&mut ring).is_empty());
        writer.submit(b"first");
        let at = writer.reserve(b"second");
        writer.submit(b"third");
        assert_eq!(drained(&mut ring), [b"first"]);
        assert_eq!(writer.read_up_to(), at);
        writer.header(at, 6, 0);
        assert_eq!(drained(&mut ring), [b"second".to_vec(), b"third".to_vec()]);
        assert_eq!(writer.read_up_to(), writer.position);
    }

    #[test]
    fn what_was_given_up_is_passed_over() {
        let mut writer = Writer::new(0);
        let mut ring = writer.ring();
        for _ in 0..2 {
            let at = writer.reserve(&[7; 100]);
            writer.header(at, 100, DISCARDED);
        }
        writer.submit(b"");
        assert_eq!(drained(&mut ring), [b""]);
        assert_eq!(writer.read_up_to(), writer.position);
    }

    #[test]
    fn who_stops_goes_on_with_the_next() {
        let mut writer = Writer::new(0);
        let mut ring = writer.ring();
        for data in [b"a", b"b"] {
            writer.submit(data);
        }
        assert_eq!(ring.drain(|_| false), Ok(1));
        assert_eq!(writer.read_up_to(), 16);
        assert_eq!(drained(&mut ring), [b"b"]);
    }

    #[test]
    fn room_is_given_back_before_the_end_is_reached() {
        let mut writer = Writer::new(0);
        let mut ring = writer.ring();
        for _ in 0..SIZE / 64 {
            writer.submit(&[1; 56]);
        }
        let mut published = Vec::new();
        ring.drain(|_| {
            published.push(writer.read_up_to());
            true
        })
        .unwrap();
        published.dedup();
        assert_eq!(published, (0..16).map(|part| part * SIZE / 16).collect::<Vec<_>>());
    }

    #[test]
    fn a_ring_that_was_read_before_goes_on_where_that_ended() {
        let mut writer = Writer::new(SIZE - 8);
        writer.submit(b"crosses the end");
        assert_eq!(drained(&mut writer.ring()), [b"crosses the end"]);
    }

    #[test]
    fn a_record_longer_than_what_was_written_is_an_error() {
        for len in [8, 16, SIZE, (DISCARDED - 1) as usize] {
            for marks in [0, DISCARDED] {
                let mut writer = Writer::new(0);
                let mut ring = writer.ring();
                let at = writer.reserve(b"");
                writer.header(at, len, marks);
                let error = ring.drain(|_| panic!("{len} bytes were handled")).unwrap_err();
                assert_eq!(error, Corrupt::Length { len, unread: HEADER });
            }
        }
    }

    #[test]
    fn writers_that_overtake_the_reader_are_an_error() {
        let mut writer = Writer::new(0);
        let mut ring = writer.ring();
        writer.position = SIZE + 8;
        writer.publish();
        let error = ring.drain(|_| true).unwrap_err();
        assert_eq!(error, Corrupt::Overtaken { unread: SIZE + 8, size: SIZE });
    }

    #[test]
    fn a_position_that_another_process_has_changed_is_an_error() {
        let mut writer = Writer::new(0);
        let mut ring = writer.ring();
        writer.submit(b"one");
        assert_eq!(drained(&mut ring), [b"one"]);
        writer.file.write_all_at(&8_usize.to_ne_bytes(), 0).unwrap();
        assert_eq!(ring.drain(|_| true), Err(Corrupt::Position { published: 16, found: 8 }));
    }

    #[test]
    fn a_record_that_is_overwritten_meanwhile_does_not_change_for_its_reader() {
        let mut writer = Writer::new(0);
        let mut ring = writer.ring();
        writer.submit(b"before");
        ring.drain(|record| {
            writer.write_at(HEADER, b"after!");
            assert_eq!(record, b"before");
            true
        })
        .unwrap();
    }

    proptest! {
        #[test]
        fn every_record_comes_once_whole_and_in_order(
            records in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<bool>(), any::<bool>()), 0..30),
        ) {
            let mut writer = Writer::new(0);
            let mut ring = writer.ring();
            let (mut got, mut expected) = (Vec::new(), Vec::new());
            for (data, kept, drain) in records {
                if drain || !writer.has_room(data.len()) {
                    got.extend(drained(&mut ring));
                }
                let at = writer.reserve(&data);
                writer.header(at, data.len(), if kept { 0 } else { DISCARDED });
                if kept {
                    expected.push(data);
                }
            }
            got.extend(drained(&mut ring));
            prop_assert_eq!(got, expected);
            prop_assert_eq!(writer.read_up_to(), writer.position);
        }
    }
}
