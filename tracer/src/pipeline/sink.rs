//! The end of every event: shown, filtered, or lost, each counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::oneshot;
use tracer_common::container::ContainerKey;
use tracing::warn;

use crate::{
    frames::{self, FrameWriter},
    kinds::{Event, Kinds},
    model::{Container, Pattern, name::Name},
    output::{ContainerTexts, EventRenderer, Lost, Row},
    pipeline::{
        batch_writer::{BatchWriter, Output, Stop, WriteCounters, add},
        comm_filter::CommFilter,
    },
    sys::{clock::WallClock, log_limit::REPORTS, stdout},
};

/// What became of the events that reached user space. Each is counted once.
#[derive(Debug, Default)]
pub struct Tally {
    /// By the position of the kind.
    written: Vec<WriteCounters>,
    unattributed: Vec<AtomicU64>,
    malformed: AtomicU64,
    /// Lost in the kernel when no more were needed: they count as filtered.
    not_needed: AtomicU64,
}

/// The numbers of one kind, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UserCounts {
    /// Shown.
    pub(crate) emitted: u64,
    /// Filtered in user space.
    pub(crate) filtered: u64,
    /// Whose container did not become known.
    pub(crate) unattributed: u64,
    /// Could not be written.
    pub(crate) output: u64,
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Tally {
    /// For so many kinds.
    pub fn new(kinds: usize) -> Self {
        Self {
            written: (0..kinds).map(|_| WriteCounters::default()).collect(),
            unattributed: (0..kinds).map(|_| AtomicU64::default()).collect(),
            ..Self::default()
        }
    }

    /// The numbers of the kind at that position.
    pub(crate) fn of_kind(&self, kind: usize) -> UserCounts {
        let mut counts = UserCounts::default();
        if let Some(written) = self.written.get(kind) {
            counts.emitted = load(&written.emitted);
            counts.filtered = load(&written.filtered);
            counts.output = load(&written.lost);
        }
        counts.unattributed = self.unattributed.get(kind).map_or(0, load);
        counts
    }

    fn sum(&self, field: impl Fn(UserCounts) -> u64) -> u64 {
        (0..self.written.len()).map(|kind| field(self.of_kind(kind))).sum()
    }

    /// Shown.
    pub fn emitted(&self) -> u64 {
        self.sum(|counts| counts.emitted)
    }

    /// Filtered in user space, with what was lost in the kernel when no more were needed.
    pub fn filtered(&self) -> u64 {
        self.sum(|counts| counts.filtered) + self.not_needed()
    }

    /// What the kernel counts as lost, and was not needed.
    pub fn not_needed(&self) -> u64 {
        load(&self.not_needed)
    }

    /// Records that are none.
    pub(crate) fn malformed(&self) -> u64 {
        load(&self.malformed)
    }

    /// Lost in user space.
    pub fn lost(&self) -> u64 {
        self.sum(|counts| counts.unattributed + counts.output) + self.malformed()
    }
}

/// The form in which events leave.
#[derive(Debug)]
pub(crate) enum View {
    /// Text, for people and programs.
    Text(EventRenderer),
    /// Frames, for another `tracer`.
    Frames(FrameWriter),
}

/// Renders events and writes them, many at a time.
#[derive(Debug)]
pub struct Sink {
    kinds: Arc<Kinds>,
    view: View,
    node: String,
    /// This process's.
    pid: u32,
    clock: WallClock,
    comms: Option<CommFilter>,
    tally: Arc<Tally>,
    /// Filtered here since that was last added to `tally`, by the position of the kind.
    filtered: Vec<u64>,
    writer: BatchWriter,
}

impl Sink {
    /// Shows events of these kinds in `view`, writes them to `output`, and counts them in `tally`; `max_events` of them at the
    /// most. `stop` gets the reason when that stops by itself.
    pub(crate) fn new(
        kinds: Arc<Kinds>,
        mut view: View,
        node: String,
        max_events: Option<u64>,
        tally: Arc<Tally>,
        output: Output,
        stop: oneshot::Sender<Stop>,
    ) -> Self {
        let mut writer = BatchWriter::new(max_events, output, stop);
        match &mut view {
            View::Text(renderer) => renderer.begin(writer.text()),
            View::Frames(_) => frames::hello(&kinds, &node, writer.text()),
        }
        Self {
            filtered: vec![0; kinds.len()],
            kinds,
            view,
            node,
            pid: std::process::id(),
            clock: WallClock::new(),
            comms: None,
            tally,
            writer,
        }
    }

    /// Leaves out the events of threads with other names.
    pub(crate) fn select_comms(&mut self, pattern: Pattern<Name>) {
        self.comms = Some(CommFilter::new(pattern));
    }

    /// Whether an event may be shown, as far as it says itself; if not, it is counted.
    pub(crate) fn accepts(&mut self, event: &Event<'_>) -> bool {
        // The programs leave out what this process does, but not what reads containers' files for it.
        let is_helper = event.header.ppid == self.pid;
        let is_left_out = self.comms.as_mut().is_some_and(|comms| !comms.selects(event.header.comm));
        if self.is_over() || is_helper || is_left_out {
            self.filtered(event.kind.index);
            return false;
        }
        true
    }

    /// Counts a record that is none.
    pub(crate) fn malformed(&self) {
        add(&self.tally.malformed, 1);
    }

    /// Whether no more events are needed.
    pub(crate) fn is_over(&self) -> bool {
        self.writer.is_over()
    }

    /// Counts events that were lost in the kernel after that.
    pub(crate) fn not_needed(&self, count: u64) {
        add(&self.tally.not_needed, count);
    }

    /// The kinds that are traced.
    pub(crate) fn kinds(&self) -> &Arc<Kinds> {
        &self.kinds
    }

    /// What became of the events so far.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Counts an event that is not selected, of the kind at that position.
    pub(crate) fn filtered(&mut self, kind: usize) {
        if let Some(count) = self.filtered.get_mut(kind) {
            *count += 1;
        }
    }

    /// Counts an event whose container did not become known, where the selection depends on it.
    pub(crate) fn unattributed(&mut self, kind: usize) {
        // After the end none is needed, of whichever container.
        if self.is_over() {
            self.filtered(kind);
        } else if let Some(count) = self.tally.unattributed.get(kind) {
            add(count, 1);
        }
    }

    /// Shows an event. `texts` are those of its container in rows.
    pub(crate) fn show(
        &mut self,
        event: &Event<'_>,
        record: &[u8],
        container: Option<&Container>,
        texts: &mut ContainerTexts,
    ) {
        let kind = event.kind.index;
        if self.writer.has_failed() {
            if let Some(written) = self.tally.written.get(kind) {
                add(&written.lost, 1);
            }
            return;
        }
        if self.is_over() {
            self.filtered(kind);
            return;
        }
        if self.writer.text().is_empty() {
            self.begin_batch();
        }
        let timestamp = self.clock.wall_time(event.header.timestamp);
        let shown = match &mut self.view {
            View::Text(renderer) => {
                let row = Row { timestamp, node: &self.node, event, container };
                self.writer.show(kind, |out| renderer.row(&row, texts, out))
            }
            View::Frames(frames) => self.writer.show(kind, |out| {
                frames.event(timestamp, event.header.container, record, container, texts, out)
            }),
        };
        match shown {
            Ok(false) => {}
            Ok(true) => self.flush(),
            Err(error) => {
                warn!("an event cannot be shown: {error}");
                add(&self.tally.malformed, 1);
            }
        }
    }

    /// The terminal may have changed since the last batch was written.
    fn begin_batch(&mut self) {
        if let View::Text(renderer) = &mut self.view {
            renderer.resize(stdout::terminal_width);
        }
    }

    /// Events of these containers may follow: columns will be wide enough for them.
    pub(crate) fn expect<'a>(&mut self, containers: impl Iterator<Item = &'a Container>) {
        if let View::Text(renderer) = &mut self.view {
            for container in containers {
                // If it cannot be measured, it cannot be shown either, which is reported then.
                let _ = renderer.expect(&self.node, Some(container));
            }
        }
    }

    /// No event of this container will follow.
    pub(crate) fn forget(&mut self, key: ContainerKey) {
        if let View::Frames(frames) = &mut self.view {
            frames.forget(key, self.writer.text());
        }
    }

    /// Reports a loss: in the stream where it has a form for that, else on standard error.
    pub(crate) fn lost(&mut self, lost: &Lost) {
        let now = self.clock.now();
        let result = match &mut self.view {
            View::Text(renderer) => renderer.lost(now, &self.node, lost, self.writer.text()),
            View::Frames(_) => frames::lost(now, lost, self.writer.text()).map(|()| true),
        };
        match result {
            Ok(true) => {}
            Ok(false) => warn!(target: REPORTS, "{lost}"),
            Err(error) => warn!(target: REPORTS, "{lost}: {error}"),
        }
    }

    /// Appends what another part of the run has to say to the reader of frames.
    pub(crate) fn append(&mut self, frames: &[u8]) {
        self.writer.text().extend_from_slice(frames);
    }

    /// Writes what has been rendered, and brings the tally up to date.
    pub fn flush(&mut self) {
        self.clock.adjust();
        for (filtered, written) in self.filtered.iter_mut().zip(&self.tally.written) {
            add(&written.filtered, std::mem::take(filtered));
        }
        self.writer.flush(&self.tally.written);
    }
}
