//! Handling an event allocates nothing: what events need is there after the first ones.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use tracer::testing::{HotPath, Load, Selected};

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged, and counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of the same function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of the same function.
        unsafe { System.dealloc(address, layout) }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of the same function.
        unsafe { System.realloc(address, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const EVENTS: u32 = 2000;

/// What handling all records once more allocates.
fn allocations(path: &mut HotPath) -> usize {
    path.handle();
    let before = ALLOCATIONS.get();
    path.handle();
    let after = ALLOCATIONS.get();
    assert_eq!(path.emitted(), 2 * u64::from(EVENTS));
    after - before
}

#[test]
fn allocations_are_counted() {
    let before = ALLOCATIONS.get();
    drop(Box::new(before));
    assert_eq!(ALLOCATIONS.get() - before, 1);
}

#[test]
fn no_event_allocates() {
    for load in [Load::ONE, Load::MIXED] {
        for kind in ["open", "exec", "exit"] {
            for output in ["json", "columns", "wide"] {
                let mut path = HotPath::new(kind, load, EVENTS, output, Selected::Yes);
                assert_eq!(allocations(&mut path), 0, "{kind} as {output}");
            }
        }
    }
}

#[test]
fn text_that_needs_escaping_allocates_nothing() {
    let path = ["/tmp/\u{1b}[2J\u{202e}日本\u{e0001}".as_bytes(), b"\xff"].concat();
    for output in ["json", "columns"] {
        let mut path = HotPath::of_opens(&path, EVENTS, output);
        assert_eq!(allocations(&mut path), 0, "{output}");
    }
}
