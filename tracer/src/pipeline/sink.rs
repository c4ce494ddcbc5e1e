//! Where events end: shown, filtered, or lost, each counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::oneshot;
use tracing::warn;

use crate::{
    kinds::{Event, Tracer},
    model::Container,
    output::{EventRenderer, Kept, Lost, Row},
    pipeline::batch_writer::{Outlet, Output, Stop, Written, add},
    sys::{clock::WallClock, log_limit::REPORTS},
};

/// What became of the events that reached user space. Every one is counted once.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    written: Written,
    unattributed: AtomicU64,
    malformed: AtomicU64,
    /// Lost in the kernel when nobody asked for more: they count as filtered.
    unasked: AtomicU64,
}

impl Tally {
    /// Shown.
    pub(crate) fn emitted(&self) -> u64 {
        self.written.emitted.load(Ordering::Relaxed)
    }

    /// Filtered in user space, with what was lost in the kernel when nobody asked for more.
    pub(crate) fn filtered(&self) -> u64 {
        self.written.filtered.load(Ordering::Relaxed) + self.unasked()
    }

    /// What the kernel counts as lost, and nobody asked for.
    pub(crate) fn unasked(&self) -> u64 {
        self.unasked.load(Ordering::Relaxed)
    }

    /// By reason.
    pub(crate) fn lost_by_reason(&self) -> [(&'static str, u64); 3] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("unattributed", count(&self.unattributed)),
            ("malformed", count(&self.malformed)),
            ("output", count(&self.written.lost)),
        ]
    }

    /// Lost in user space.
    pub(crate) fn lost(&self) -> u64 {
        self.lost_by_reason().iter().map(|(_, count)| count).sum()
    }
}

/// Renders events and writes them to standard output, many at a time.
#[derive(Debug)]
pub(crate) struct Sink {
    tracer: &'static dyn Tracer,
    renderer: EventRenderer,
    node: String,
    /// This process's.
    pid: u32,
    clock: WallClock,
    tally: Arc<Tally>,
    /// Filtered here since that was last added to `tally`.
    filtered: u64,
    outlet: Outlet,
}

impl Sink {
    /// Shows events of a kind by `renderer`, writes them to `output`, and counts them in `tally`; `max_events` of them at
    /// the most. `stop` is told when that comes to an end by itself.
    pub(crate) fn new(
        tracer: &'static dyn Tracer,
        renderer: EventRenderer,
        node: String,
        max_events: Option<u64>,
        tally: Arc<Tally>,
        output: Output,
        stop: oneshot::Sender<Stop>,
    ) -> Self {
        let mut outlet = Outlet::new(max_events, output, stop);
        renderer.begin(outlet.text());
        Self {
            tracer,
            renderer,
            node,
            pid: std::process::id(),
            clock: WallClock::new(),
            tally,
            filtered: 0,
            outlet,
        }
    }

    /// The event in a record, if it makes sense and is to be shown as far as it tells itself.
    pub(crate) fn accept<'a>(&mut self, record: &'a [u8]) -> Option<Event<'a>> {
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
    pub(crate) const fn is_over(&self) -> bool {
        self.outlet.is_over()
    }

    /// Events that were lost in the kernel after that.
    pub(crate) fn unasked(&self, count: u64) {
        add(&self.tally.unasked, count);
    }

    /// The kind that is traced.
    pub(crate) const fn tracer(&self) -> &'static dyn Tracer {
        self.tracer
    }

    /// The hook's name in reports of losses.
    pub(crate) fn hook(&self) -> &'static str {
        self.tracer.name()
    }

    /// Events that were lost here, by reason.
    pub(crate) fn lost_by_reason(&self) -> [(&'static str, u64); 3] {
        self.tally.lost_by_reason()
    }

    /// An event that nobody asked for.
    pub(crate) const fn filtered(&mut self) {
        self.filtered += 1;
    }

    /// An event whose container did not become known, where it takes that to know whether it is asked for.
    pub(crate) fn unattributed(&mut self) {
        // After the end nobody asks for it, whosever it is.
        if self.is_over() {
            self.filtered();
        } else {
            add(&self.tally.unattributed, 1);
        }
    }

    /// Shows an event. `kept` is what rows have of its container.
    pub(crate) fn show(&mut self, event: &Event<'_>, container: Option<&Container>, kept: &mut Kept) {
        if self.outlet.has_failed() {
            add(&self.tally.written.lost, 1);
            return;
        }
        if self.is_over() {
            self.filtered();
            return;
        }
        let timestamp = self.clock.wall_time(event.header.timestamp);
        let row = Row { timestamp, node: &self.node, kind: self.tracer.name(), event, container };
        match self.outlet.show(|out| self.renderer.row(&row, kept, out)) {
            Ok(false) => {}
            Ok(true) => self.flush(),
            Err(error) => {
                warn!("an event cannot be shown: {error}");
                add(&self.tally.malformed, 1);
            }
        }
    }

    /// Tells of what was lost: in the stream where it has a form for that, else on standard error.
    pub(crate) fn lost(&mut self, lost: &Lost) {
        let now = self.clock.now();
        match self.renderer.lost(now, &self.node, lost, self.outlet.text()) {
            Ok(true) => {}
            Ok(false) => warn!(target: REPORTS, "lost {} of {}: {}", lost.count, lost.hook, lost.reason),
            Err(error) => {
                warn!(target: REPORTS, "lost {} of {}: {} ({error})", lost.count, lost.hook, lost.reason);
            }
        }
    }

    /// Writes what there is, and brings the tally up to date.
    pub(crate) fn flush(&mut self) {
        self.clock.adjust();
        add(&self.tally.written.filtered, std::mem::take(&mut self.filtered));
        self.outlet.flush(&self.tally.written);
    }
}
