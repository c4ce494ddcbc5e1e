//! Rendered events on their way out, many at a time, and what became of each: written, filtered, or lost.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::sync::oneshot;

/// Bytes from which on what is rendered is written at once.
const BUFFER: usize = 64 * 1024;

/// Takes bytes. Returns how many were taken, all of them unless there is an error.
pub type Output = Box<dyn FnMut(&[u8]) -> (usize, io::Result<()>) + Send>;

/// Why showing events has stopped by itself.
#[derive(Debug)]
pub enum Stop {
    /// As many were shown as `--max-events` says.
    MaxEvents,
    /// The reader has closed the output.
    Closed,
    /// They could not be written.
    Failed(io::Error),
}

/// What became of the rendered events of one kind. Each is counted once.
#[derive(Debug, Default)]
pub(crate) struct WriteCounters {
    /// Written.
    pub(crate) emitted: AtomicU64,
    /// Rendered and not needed any more.
    pub(crate) filtered: AtomicU64,
    /// Could not be written.
    pub(crate) lost: AtomicU64,
}

/// The end of a rendered event in the buffer, and its kind.
#[derive(Clone, Copy, Debug)]
struct End {
    at: usize,
    kind: usize,
}

/// Collects rendered events and writes many of them at a time.
pub(crate) struct BatchWriter {
    output: Output,
    /// Rendered, not yet written.
    text: Vec<u8>,
    /// Where in `text` each event ends.
    ends: Vec<End>,
    /// How many more events may be shown.
    left: Option<u64>,
    /// Taken once showing has stopped.
    stop: Option<oneshot::Sender<Stop>>,
    state: State,
}

/// Whether the output takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// It does not, and none is needed.
    Closed,
    /// It does not although more is needed.
    Failed,
}

impl BatchWriter {
    /// Writes `max` events to `output` at the most. `stop` gets the reason when showing stops by itself.
    pub(crate) fn new(max: Option<u64>, output: Output, stop: oneshot::Sender<Stop>) -> Self {
        Self {
            output,
            text: Vec::with_capacity(2 * BUFFER),
            ends: Vec::new(),
            left: max,
            stop: Some(stop),
            state: State::Open,
        }
    }

    /// Whether no more events are needed.
    pub(crate) fn is_over(&self) -> bool {
        self.stop.is_none() && self.state != State::Failed
    }

    /// Whether events that are needed cannot be written.
    pub(crate) fn has_failed(&self) -> bool {
        self.state == State::Failed
    }

    /// The buffer, for text that is no event: a heading, or what is written between events.
    pub(crate) const fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Appends an event of the kind at this position, which `render` writes; nothing if that fails. Returns whether it is time
    /// to write.
    pub(crate) fn show(
        &mut self,
        kind: usize,
        render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<bool> {
        let start = self.text.len();
        render(&mut self.text).inspect_err(|_| self.text.truncate(start))?;
        self.ends.push(End { at: self.text.len(), kind });
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(self.text.len() >= BUFFER || self.left == Some(0))
    }

    /// Writes what has been rendered, and counts the events by the position of their kind.
    pub(crate) fn flush(&mut self, counters: &[WriteCounters]) {
        let (taken, result) = if self.state == State::Open { (self.output)(&self.text) } else { (0, Ok(())) };
        let emitted = self.ends.partition_point(|end| end.at <= taken);
        let (emitted, left) = self.ends.split_at(emitted);
        count(emitted, counters, |counters| &counters.emitted);
        match &result {
            // Nothing more is needed, or the reader has gone.
            Ok(()) => count(left, counters, |counters| &counters.filtered),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                count(left, counters, |counters| &counters.filtered);
            }
            Err(_) => count(left, counters, |counters| &counters.lost),
        }
        self.ends.clear();
        self.text.clear();
        if let Err(error) = result {
            self.close(error);
        }
        if self.left == Some(0) {
            self.stop(Stop::MaxEvents);
        }
    }

    fn close(&mut self, error: io::Error) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            self.state = State::Closed;
            self.stop(Stop::Closed);
            return;
        }
        // What follows the last event that is needed is not missed.
        self.state = if self.stop.is_some() { State::Failed } else { State::Closed };
        self.stop(Stop::Failed(error));
    }

    fn stop(&mut self, reason: Stop) {
        if let Some(stop) = self.stop.take() {
            // The receiver is gone if the run is at its end anyway.
            let _ = stop.send(reason);
        }
    }
}

fn count(ends: &[End], counters: &[WriteCounters], field: fn(&WriteCounters) -> &AtomicU64) {
    // Events of one kind come in runs, and most runs of a program trace one kind.
    for run in ends.chunk_by(|a, b| a.kind == b.kind) {
        if let Some(counters) = run.first().and_then(|end| counters.get(end.kind)) {
            add(field(counters), run.len() as u64);
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl std::fmt::Debug for BatchWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchWriter")
            .field("state", &self.state)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}
