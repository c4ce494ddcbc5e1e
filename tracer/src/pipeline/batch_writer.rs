//! Rendered text on its way out, many pieces of it at a time, and what became of each: written, not asked for any more,
//! or lost.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::sync::oneshot;

/// Text that is written at once at the latest when there is this much of it.
const BUFFER: usize = 64 * 1024;

/// Takes text. Returns how many bytes of it were taken, all of them unless there is an error.
pub(crate) type Output = fn(&[u8]) -> (usize, io::Result<()>);

/// Why showing events came to an end by itself.
#[derive(Debug)]
pub(crate) enum Stop {
    /// As many were shown as were asked for.
    MaxEvents,
    /// Who read them has gone.
    Closed,
    /// They could not be written.
    Failed(io::Error),
}

/// What became of the pieces. Every one is counted once.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Written.
    pub(crate) emitted: AtomicU64,
    /// Nobody asked for them.
    pub(crate) filtered: AtomicU64,
    /// They could not be written.
    pub(crate) lost: AtomicU64,
}

/// Rendered text that is written many pieces at a time.
#[derive(Debug)]
pub(crate) struct Outlet {
    output: Output,
    /// Rendered, not yet written.
    text: Vec<u8>,
    /// Where in `text` each piece ends.
    ends: Vec<usize>,
    /// Pieces that may still be shown.
    left: Option<u64>,
    /// Taken once showing has come to its end.
    stop: Option<oneshot::Sender<Stop>>,
    /// Whether `output` takes nothing more.
    closed: bool,
    /// Whether that is so although somebody asks for more.
    failed: bool,
}

impl Outlet {
    /// Writes `max` pieces to `output` at the most. `stop` is told when that comes to an end by itself.
    pub(crate) fn new(max: Option<u64>, output: Output, stop: oneshot::Sender<Stop>) -> Self {
        Self {
            output,
            text: Vec::with_capacity(2 * BUFFER),
            ends: Vec::new(),
            left: max,
            stop: Some(stop),
            closed: false,
            failed: false,
        }
    }

    /// Whether nobody asks for more.
    pub(crate) const fn is_over(&self) -> bool {
        self.stop.is_none() && !self.failed
    }

    /// Whether what is asked for cannot be written.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Where text is appended that is no piece: what stands before the first one, or between them.
    pub(crate) const fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Appends what `render` does as a piece; nothing where that fails. Returns whether it is time to write.
    pub(crate) fn show(&mut self, render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<bool> {
        let start = self.text.len();
        render(&mut self.text).inspect_err(|_| self.text.truncate(start))?;
        self.ends.push(self.text.len());
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(self.text.len() >= BUFFER || self.left == Some(0))
    }

    /// Writes what there is, and counts the pieces in `written`.
    pub(crate) fn flush(&mut self, written: &Written) {
        let (taken, result) = if self.closed { (0, Ok(())) } else { (self.output)(&self.text) };
        let emitted = self.ends.partition_point(|end| *end <= taken);
        let left = (self.ends.len() - emitted) as u64;
        self.ends.clear();
        self.text.clear();
        add(&written.emitted, emitted as u64);
        match result {
            // Nobody has asked for more, or nobody reads any more.
            Ok(()) => add(&written.filtered, left),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                add(&written.filtered, left);
                self.closed = true;
                self.end(Stop::Closed);
            }
            Err(error) => {
                add(&written.lost, left);
                self.closed = true;
                // What comes after the last piece that was asked for is not missed.
                self.failed = self.stop.is_some();
                self.end(Stop::Failed(error));
            }
        }
        if self.left == Some(0) {
            self.end(Stop::MaxEvents);
        }
    }

    fn end(&mut self, reason: Stop) {
        if let Some(stop) = self.stop.take() {
            // Nobody listens if the session is at its end anyway.
            let _ = stop.send(reason);
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
