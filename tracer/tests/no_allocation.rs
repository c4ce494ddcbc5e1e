//! Handling an event takes no memory: what events need is there after the first ones.

mod records;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io,
};

use records::{All, EXEC, Load, OPEN, router};
use tracer::containers::Choice;

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more, and nobody asks for it.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: all of it is the system's allocator's; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as this was called.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // SAFETY: as this was called.
        unsafe { System.dealloc(address, layout) }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as this was called.
        unsafe { System.realloc(address, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What handling so many events once more allocates.
fn allocations(tracer: &'static dyn tracer::trace::Tracer, output: &str, records: &[Vec<u8>]) -> usize {
    let taken: fn(&[u8]) -> (usize, io::Result<()>) = |text| (text.len(), Ok(()));
    let (mut router, tally, _stopped) = router(All(Choice::Selected), tracer, output, taken);
    let mut handle_all = || {
        for record in records {
            router.handle(record);
        }
        router.sink.flush();
    };
    handle_all();
    let before = ALLOCATIONS.get();
    handle_all();
    let after = ALLOCATIONS.get();
    assert_eq!(tally.emitted(), 2 * records.len() as u64);
    after - before
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    drop(Box::new(before));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

#[test]
fn no_event_allocates() {
    for load in [Load::ONE, Load::MIXED] {
        for tracer in [OPEN, EXEC] {
            for output in ["json", "columns", "wide"] {
                let allocations = allocations(tracer, output, &load.records(tracer, 2000));
                assert_eq!(allocations, 0, "{} as {output}", tracer.name());
            }
        }
    }
}

#[test]
fn what_needs_escaping_allocates_nothing_either() {
    let path = "/tmp/\u{1b}[2J\u{202e}日本\u{e0001}".as_bytes();
    let mut record = Load::ONE.open(1);
    let header = size_of::<tracer_common::event::Open>();
    record.truncate(header);
    record.extend_from_slice(path);
    record.push(0xff);
    let len = u16::try_from(record.len() - header).unwrap();
    let at = std::mem::offset_of!(tracer_common::event::Open, path_len);
    record[at..at + 2].copy_from_slice(&len.to_ne_bytes());
    for output in ["json", "columns"] {
        assert_eq!(allocations(OPEN, output, &vec![record.clone(); 2000]), 0, "{output}");
    }
}
