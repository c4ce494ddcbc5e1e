//! Where events end: shown, filtered, or lost, each counted.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;
use tracing::warn;

use super::{Event, Tracer};
use crate::{
    clock::WallClock,
    containers::Container,
    render::{EventRenderer, Kept, Lost, Row},
};

/// Text that is written at once at the latest when there is this much of it.
const BUFFER: usize = 64 * 1024;

/// Takes text. Returns how many bytes of it were taken, all of them unless there is an error.
pub type Output = fn(&[u8]) -> (usize, io::Result<()>);

/// Why showing events came to an end by itself.
#[derive(Debug)]
pub enum Stop {
    /// As many were shown as were asked for.
    MaxEvents,
    /// Who read them has gone.
    Closed,
    /// They could not be written.
    Failed(io::Error),
}

/// What became of the events that reached user space. Every one is counted once.
#[derive(Debug, Default)]
pub struct Tally {
    emitted: AtomicU64,
    filtered: AtomicU64,
    unattributed: AtomicU64,
    malformed: AtomicU64,
    output: AtomicU64,
    /// Lost in the kernel when nobody asked for more: they count as filtered.
    unasked: AtomicU64,
}

impl Tally {
    /// Shown.
    pub fn emitted(&self) -> u64 {
        self.emitted.load(Ordering::Relaxed)
    }

    /// Filtered in user space, with what was lost in the kernel when nobody asked for more.
    pub fn filtered(&self) -> u64 {
        self.filtered.load(Ordering::Relaxed) + self.unasked()
    }

    /// What the kernel counts as lost, and nobody asked for.
    pub fn unasked(&self) -> u64 {
        self.unasked.load(Ordering::Relaxed)
    }

    /// By reason.
    pub fn lost_by_reason(&self) -> [(&'static str, u64); 3] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("unattributed", count(&self.unattributed)),
            ("malformed", count(&self.malformed)),
            ("output", count(&self.output)),
        ]
    }

    /// Lost in user space.
    pub fn lost(&self) -> u64 {
        self.lost_by_reason().iter().map(|(_, count)| count).sum()
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Renders events and writes them to standard output, many at a time.
#[derive(Debug)]
pub struct Sink {
    tracer: &'static dyn Tracer,
    renderer: EventRenderer,
    node: String,
    /// This process's.
    pid: u32,
    clock: WallClock,
    tally: Arc<Tally>,
    /// Filtered here since that was last added to `tally`.
    filtered: u64,
    output: Output,
    /// Rendered, not yet written.
    buffer: Vec<u8>,
    /// Where in `buffer` each event ends.
    ends: Vec<usize>,
    /// Events that may still be shown.
    left: Option<u64>,
    /// Taken once showing events has come to its end.
    stop: Option<oneshot::Sender<Stop>>,
    /// Whether standard output takes nothing more.
    closed: bool,
    /// Whether that is so although somebody asks for more.
    failed: bool,
}

impl Sink {
    /// Shows events of a kind by `renderer`, writes them to `output`, and counts them in `tally`; `max_events` of them at
    /// the most. `stop` is told when that comes to an end by itself.
    pub fn new(
        tracer: &'static dyn Tracer,
        renderer: EventRenderer,
        node: String,
        max_events: Option<u64>,
        tally: Arc<Tally>,
        output: Output,
        stop: oneshot::Sender<Stop>,
    ) -> Self {
        let mut buffer = Vec::with_capacity(2 * BUFFER);
        renderer.begin(&mut buffer);
        Self {
            tracer,
            renderer,
            node,
            pid: std::process::id(),
            clock: WallClock::new(),
            tally,
            filtered: 0,
            output,
            buffer,
            ends: Vec::new(),
            left: max_events,
            stop: Some(stop),
            closed: false,
            failed: false,
        }
    }

    /// The event in a record, if it makes sense and is to be shown as far as it tells itself.
    pub fn accept<'a>(&mut self, record: &'a [u8]) -> Option<Event<'a>> {
        let Some(event) = Event::decode(self.tracer, record) else {
            add(&self.tally.malformed, 1);
            return None;
        };
        // The programs leave out what this process does, but not what reads guests' files for it.
        let is_helper = event.header.ppid == self.pid;
        if self.is_over() || is_helper {
            self.filtered();
            return None;
        }
        Some(event)
    }

    /// Whether nobody asks for more events.
    pub(super) const fn is_over(&self) -> bool {
        self.stop.is_none() && !self.failed
    }

    /// Events that were lost in the kernel after that.
    pub(super) fn unasked(&self, count: u64) {
        add(&self.tally.unasked, count);
    }

    /// The kind that is traced.
    pub const fn tracer(&self) -> &'static dyn Tracer {
        self.tracer
    }

    /// The hook's name in reports of losses.
    pub fn hook(&self) -> &'static str {
        self.tracer.name()
    }

    /// Events that were lost here, by reason.
    pub fn lost_by_reason(&self) -> [(&'static str, u64); 3] {
        self.tally.lost_by_reason()
    }

    /// An event that nobody asked for.
    pub const fn filtered(&mut self) {
        self.filtered += 1;
    }

    /// An event whose container did not become known, where it takes that to know whether it is asked for.
    pub fn unattributed(&mut self) {
        // After the end nobody asks for it, whosever it is.
        if self.is_over() {
            self.filtered();
        } else {
            add(&self.tally.unattributed, 1);
        }
    }

    /// Shows an event. `kept` is what rows have of its container.
    pub fn show(&mut self, event: &Event<'_>, container: Option<&Container>, kept: &mut Kept) {
        if self.failed {
            add(&self.tally.output, 1);
            return;
        }
        if self.is_over() {
            self.filtered();
            return;
        }
        let timestamp = self.clock.from_boot(event.header.timestamp);
        let row = Row { timestamp, node: &self.node, kind: self.tracer.name(), event, container };
        let len = self.buffer.len();
        if let Err(error) = self.renderer.row(&row, kept, &mut self.buffer) {
            warn!("an event cannot be shown: {error}");
            self.buffer.truncate(len);
            add(&self.tally.malformed, 1);
            return;
        }
        self.ends.push(self.buffer.len());
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
            if *left == 0 {
                self.flush();
                self.end(Stop::MaxEvents);
            }
        }
    }

    /// Tells of what was lost: in the stream where it has a form for that, else on standard error.
    pub fn lost(&mut self, lost: &Lost) {
        let now = self.clock.now();
        match self.renderer.lost(now, &self.node, lost, &mut self.buffer) {
            Ok(true) => {}
            Ok(false) => warn!("lost {} of {}: {}", lost.count, lost.hook, lost.reason),
            Err(error) => warn!("lost {} of {}: {} ({error})", lost.count, lost.hook, lost.reason),
        }
    }

    /// Writes what there is, and brings the tally up to date.
    pub fn flush(&mut self) {
        self.clock.adjust();
        add(&self.tally.filtered, std::mem::take(&mut self.filtered));
        let (written, result) = if self.closed { (0, Ok(())) } else { (self.output)(&self.buffer) };
        let emitted = self.ends.partition_point(|end| *end <= written);
        let left = (self.ends.len() - emitted) as u64;
        self.ends.clear();
        self.buffer.clear();
        add(&self.tally.emitted, emitted as u64);
        match result {
            // Nobody has asked for more, or nobody reads any more.
            Ok(()) => add(&self.tally.filtered, left),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                add(&self.tally.filtered, left);
                self.closed = true;
                self.end(Stop::Closed);
            }
            Err(error) => {
                add(&self.tally.output, left);
                self.closed = true;
                // What comes after the last event that was asked for is not missed.
                self.failed = self.stop.is_some();
                self.end(Stop::Failed(error));
            }
        }
    }

    fn end(&mut self, reason: Stop) {
        if let Some(stop) = self.stop.take() {
            // Nobody listens if the session is at its end anyway.
            let _ = stop.send(reason);
        }
    }
}
