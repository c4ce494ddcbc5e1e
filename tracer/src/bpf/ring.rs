//! A reader of BPF ring buffers that interferes with the writers as little as possible.
//!
//! The programs read the reader's position at each record that they reserve, to see whether the ring has capacity. A
//! reader that stores its position after each record takes that cache line away from them each time, and waits for it
//! in turn. So this reader keeps its position to itself and publishes it once for each part of the ring, and when it
//! has reached the end.
//!
//! What the kernel maps (kernel/bpf/ringbuf.c, `struct bpf_ringbuf`): a page with the reader's position, which the
//! reader writes; a page with the writers' position; then the data, twice in a row, so that a record that crosses the
//! end of the ring is contiguous. Positions count bytes since the ring was created and are never reduced modulo its
//! size. A record is a header of eight bytes, of which the first four are its length and two flags, then the data,
//! then padding to a multiple of eight. A writer advances its position when it reserves a record, which has the busy
//! flag then, and clears the flag when the record is complete.

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

/// Flag: the record is reserved, but not complete yet (`BPF_RINGBUF_BUSY_BIT`, include/uapi/linux/bpf.h).
const BUSY: u32 = 1 << 31;
/// Flag: the record was discarded (`BPF_RINGBUF_DISCARD_BIT`).
const DISCARDED: u32 = 1 << 30;
/// Bytes of a record's header (`BPF_RINGBUF_HDR_SZ`).
const HEADER: usize = 8;
/// Records start at multiples of this.
const ALIGNMENT: usize = 8;
/// The position is published after this many bytes, or after a sixteenth of a smaller ring.
const PUBLISH_STEP: usize = 64 * 1024;

/// Longest record that is read, in bytes; the programs submit none that is longer.
const RECORD_MAX: usize = 32 * 1024;

/// Why a ring cannot be read any further. The kernel keeps it consistent, but a process that may open its map by id
/// (`CAP_SYS_ADMIN`) may change the reader's position, so that records are overwritten before they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Corrupt {
    /// The reader's position is not the one that this reader has published.
    #[error("another process has changed the reader's position to {found}, which was {published}")]
    Position {
        /// The position that this reader published last.
        published: usize,
        /// The position found.
        found: usize,
    },
    /// The writers have overtaken the reader.
    #[error("{unread} bytes are unread in a ring of {size} bytes")]
    Overtaken {
        /// Bytes between the two positions.
        unread: usize,
        /// Bytes in the ring.
        size: usize,
    },
    /// A record is longer than what was written, or than any record may be.
    #[error("a record has {len} bytes, but {unread} bytes are unread")]
    Length {
        /// Length in its header.
        len: usize,
        /// Bytes between the two positions.
        unread: usize,
    },
}

/// The reader's side of a ring buffer.
#[derive(Debug)]
pub(crate) struct Ring {
    /// Mapping of the page with the reader's position.
    reader: Mapping,
    /// Mapping of the page with the writers' position and of the data, twice.
    writers: Mapping,
    /// Bytes of data that the ring holds, a power of two.
    size: usize,
    /// This reader's position.
    position: usize,
    /// The position that the writers see.
    published: usize,
    /// The writers' position when it was read last.
    written: usize,
    /// Copy of the current record, because a process that changes the reader's position may cause it to be
    /// overwritten.
    record: Box<[u64]>,
}

impl Ring {
    /// Maps a ring of `size` bytes.
    ///
    /// # Safety
    /// `fd` refers to a BPF ring buffer with `size` bytes of data, or to a file with the same layout that does not
    /// become shorter while it is mapped. `size` is a power of two and at least a page.
    pub(crate) unsafe fn map(fd: impl AsFd, size: u32) -> io::Result<Self> {
        let (page, size) = (page_size(), size as usize);
        let reader = Mapping::new(&fd, 0, page, ProtFlags::READ | ProtFlags::WRITE)?;
        let writers = Mapping::new(&fd, page, page + 2 * size, ProtFlags::READ)?;
        let position = reader.position().load(Ordering::Acquire);
        let record = vec![0; size.min(RECORD_MAX) / size_of::<u64>()].into_boxed_slice();
        Ok(Self { reader, writers, size, position, published: position, written: position, record })
    }

    /// Passes every available record to `handle`, until that returns false. Returns the number of records. After an
    /// error nothing more can be read.
    pub(crate) fn drain(&mut self, mut handle: impl FnMut(&[u8]) -> bool) -> Result<usize, Corrupt> {
        let step = PUBLISH_STEP.min(self.size / 16);
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
            // A writer wakes the reader only if it finds the reader's position at its record. So after the position
            // has been published, the ring is checked once more.
            if self.published == self.position {
                return Ok(records);
            }
            self.publish()?;
        }
    }

    /// Length of the record at the reader's position, and whether it was discarded; None if there is no complete one.
    fn next(&mut self) -> Result<Option<(usize, bool)>, Corrupt> {
        if self.position == self.written {
            // The kernel stores the writers' position after the record's header.
            self.written = self.writers.position().load(Ordering::Acquire);
            if self.position == self.written {
                return Ok(None);
            }
            let (unread, size) = (self.written.wrapping_sub(self.position), self.size);
            if unread > size {
                return Err(Corrupt::Overtaken { unread, size });
            }
        }
        // SAFETY: the position is a multiple of eight, so the header is aligned and does not cross the end of the
        // data; it is within the mapping, as `at_position` guarantees, and both sides access it with atomic
        // operations only. The kernel clears the busy flag after it has written the record, which the acquire load
        // orders.
        let header = unsafe { &*self.at_position().cast::<AtomicU32>() }.load(Ordering::Acquire);
        if header & BUSY != 0 {
            return Ok(None);
        }
        let len = (header & !DISCARDED) as usize;
        let unread = self.written.wrapping_sub(self.position);
        let is_discarded = header & DISCARDED != 0;
        // A discarded record is not copied, so its length is not limited.
        let is_too_long = !is_discarded && len > size_of_val(&*self.record);
        if (HEADER + len).next_multiple_of(ALIGNMENT) > unread || is_too_long {
            return Err(Corrupt::Length { len, unread });
        }
        Ok(Some((len, is_discarded)))
    }

    /// Copies the data of the record at the reader's position, whose length [`Self::next`] has checked.
    fn copy(&mut self, len: usize) -> &[u8] {
        let words = len.div_ceil(size_of::<u64>());
        // SAFETY: the record starts in the first copy of the data and is no longer than the ring, so it is within the
        // two copies. Records are aligned to words. If it is overwritten concurrently, the copy is meaningless, but
        // each word is read with an atomic operation, so there is no data race.
        let data =
            unsafe { slice::from_raw_parts(self.at_position().byte_add(HEADER).cast::<AtomicU64>(), words) };
        for (copied, word) in self.record.iter_mut().zip(data) {
            *copied = word.load(Ordering::Relaxed);
        }
        // SAFETY: a word has no padding and any of its bytes is a valid u8; the slice has exactly the bytes of
        // `self.record`, all initialised, and is borrowed together with `self`.
        let bytes =
            unsafe { slice::from_raw_parts(self.record.as_ptr().cast::<u8>(), size_of_val(&*self.record)) };
        &bytes[..len]
    }

    /// Address of the record at the reader's position, in the first copy of the data.
    fn at_position(&self) -> *const c_void {
        let offset = page_size() + (self.position & (self.size - 1));
        // SAFETY: the offset is less than one page and one copy of the data, and the mapping has a page and two
        // copies, so the result is within the mapping.
        unsafe { self.writers.start.as_ptr().byte_add(offset) }
    }

    /// Publishes the position, so that the writers may reuse what has been read.
    fn publish(&mut self) -> Result<(), Corrupt> {
        if self.published != self.position {
            self.check_position()?;
            self.published = self.position;
            // Orders all reads of the records before the writers see that they may overwrite them.
            self.reader.position().store(self.position, Ordering::Release);
            // Either the next check finds a record that a writer submits now, or that writer finds this position and
            // wakes the reader.
            fence(Ordering::SeqCst);
        }
        Ok(())
    }

    /// Fails if the reader's position is not the one that this reader has published.
    fn check_position(&self) -> Result<(), Corrupt> {
        let (published, found) = (self.published, self.reader.position().load(Ordering::Relaxed));
        if found == published { Ok(()) } else { Err(Corrupt::Position { published, found }) }
    }
}

/// The map of a ring buffer, with its reader.
pub(crate) struct MappedRing {
    map: MapData,
    ring: Ring,
}

impl MappedRing {
    /// Maps a ring buffer; `name` is for errors.
    pub(crate) fn new(map: Map, name: &str) -> anyhow::Result<Self> {
        let Map::RingBuf(map) = map else { bail!("the BPF map {name} is not a ring buffer") };
        let info = map.info().with_context(|| format!("cannot query the size of the BPF map {name}"))?;
        // SAFETY: the kernel has just reported that the map is a ring buffer, and its size, which is a power of two
        // and a multiple of the page size.
        let ring = unsafe { Ring::map(map.fd(), info.max_entries()) }
            .with_context(|| format!("mapping the BPF map {name}"))?;
        Ok(Self { map, ring })
    }

    /// Passes every available record to `handle`, until that returns false. Returns the number of records.
    pub(crate) fn drain(&mut self, handle: impl FnMut(&[u8]) -> bool) -> Result<usize, Corrupt> {
        self.ring.drain(handle)
    }

    /// A descriptor that becomes readable when a record is submitted after the last one was read.
    pub(crate) fn readiness(&self) -> io::Result<OwnedFd> {
        self.map.fd().as_fd().try_clone_to_owned()
    }
}

/// A memory mapping shared with the kernel.
#[derive(Debug)]
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and stays valid wherever its owner is moved. Memory
// that changes is accessed with atomic operations only.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: impl AsFd, offset: usize, len: usize, access: ProtFlags) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses, so it overlaps no existing memory.
        let start = unsafe { mmap(ptr::null_mut(), len, access, MapFlags::SHARED, fd, offset as u64) }?;
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The position at the start of the mapping.
    const fn position(&self) -> &AtomicUsize {
        // SAFETY: the start of a page is aligned, and the mapping is at least a page and exists as long as `self`.
        // Both sides access the position with atomic operations only.
        unsafe { &*self.start.as_ptr().cast::<AtomicUsize>() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing borrows from the mapping any more, since all references to it borrow `self`. It was mapped
        // with this address and length, so unmapping it does not fail.
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

    /// A file with the layout of a ring buffer, and the kernel's side of it. The second copy of the data is written
    /// explicitly, because a file cannot be mapped twice in a row.
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

        fn has_capacity(&self, len: usize) -> bool {
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

        fn header(&self, position: usize, len: usize, flags: u32) {
            self.write_at(position, &(u32::try_from(len).unwrap() | flags).to_ne_bytes());
        }

        /// Reserves a record and returns its position.
        fn reserve(&mut self, data: &[u8]) -> usize {
            assert!(self.has_capacity(data.len()));
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
            // SAFETY: the file has the layout of a ring buffer and keeps its length.
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
    fn busy_record_blocks_later_records_until_it_is_complete() {
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
    fn discarded_records_are_skipped() {
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
    fn drain_resumes_after_the_record_at_which_it_stopped() {
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
    fn position_is_published_before_the_end_is_reached() {
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
    fn new_reader_starts_at_the_published_position() {
        let mut writer = Writer::new(SIZE - 8);
        writer.submit(b"crosses the end");
        assert_eq!(drained(&mut writer.ring()), [b"crosses the end"]);
    }

    #[test]
    fn record_longer_than_the_unread_data_is_an_error() {
        for len in [8, 16, SIZE, (DISCARDED - 1) as usize] {
            for flags in [0, DISCARDED] {
                let mut writer = Writer::new(0);
                let mut ring = writer.ring();
                let at = writer.reserve(b"");
                writer.header(at, len, flags);
                let error = ring.drain(|_| panic!("{len} bytes were handled")).unwrap_err();
                assert_eq!(error, Corrupt::Length { len, unread: HEADER });
            }
        }
    }

    #[test]
    fn overtaken_reader_is_an_error() {
        let mut writer = Writer::new(0);
        let mut ring = writer.ring();
        writer.position = SIZE + 8;
        writer.publish();
        let error = ring.drain(|_| true).unwrap_err();
        assert_eq!(error, Corrupt::Overtaken { unread: SIZE + 8, size: SIZE });
    }

    #[test]
    fn changed_reader_position_is_an_error() {
        let mut writer = Writer::new(0);
        let mut ring = writer.ring();
        writer.submit(b"one");
        assert_eq!(drained(&mut ring), [b"one"]);
        writer.file.write_all_at(&8_usize.to_ne_bytes(), 0).unwrap();
        assert_eq!(ring.drain(|_| true), Err(Corrupt::Position { published: 16, found: 8 }));
    }

    #[test]
    fn record_overwritten_during_its_handling_does_not_change() {
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
        fn every_record_is_read_once_complete_and_in_order(
            records in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<bool>(), any::<bool>()), 0..30),
        ) {
            let mut writer = Writer::new(0);
            let mut ring = writer.ring();
            let (mut got, mut expected) = (Vec::new(), Vec::new());
            for (data, kept, drain) in records {
                if drain || !writer.has_capacity(data.len()) {
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
