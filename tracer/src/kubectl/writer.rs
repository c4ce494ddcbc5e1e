//! Showing what comes of all nodes, on a thread of its own: whoever reads may take nothing for as long as it likes, and
//! the nodes' leases are kept all the same.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::{
    account::Tally,
    reading::{Batch, Item, Listed},
};
use crate::{
    clock::WallClock,
    render::{ContainerRenderer, ContainerRow, EventRenderer, Lost, Row, line},
    stdout,
    trace::{Event, Stop, Tracer},
};

/// Text that is written at once at the latest when there is this much of it.
const BUFFER: usize = 64 * 1024;

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    /// What a node's lines tell.
    Batch(Batch),
    /// All nodes that there are at first have listed their containers.
    Listed,
}

/// How it is shown.
pub(super) enum View {
    /// Events.
    Events { tracer: &'static dyn Tracer, renderer: EventRenderer },
    /// Containers. Those that come before all are listed wait: columns are as wide as these need.
    Containers { renderer: ContainerRenderer, waiting: Option<Vec<(Arc<str>, Listed)>> },
}

/// Shows and writes, many lines at a time.
pub(super) struct Writer {
    view: View,
    tally: Arc<Tally>,
    clock: WallClock,
    /// Rendered, not yet written.
    buffer: Vec<u8>,
    /// Where in `buffer` each event ends.
    ends: Vec<usize>,
    /// Events that may still be shown.
    left: Option<u64>,
    /// Taken once showing has come to its end.
    stop: Option<oneshot::Sender<Stop>>,
    /// Whether standard output takes nothing more.
    closed: bool,
    /// Whether that is so although somebody asks for more.
    failed: bool,
}

impl Writer {
    /// Counts in `tally`; shows `max_events` at the most. `stop` is told when that comes to an end by itself.
    pub(super) fn new(
        view: View,
        max_events: Option<u64>,
        tally: Arc<Tally>,
        stop: oneshot::Sender<Stop>,
    ) -> Self {
        Self {
            view,
            tally,
            clock: WallClock::new(),
            buffer: Vec::with_capacity(2 * BUFFER),
            ends: Vec::new(),
            left: max_events,
            stop: Some(stop),
            closed: false,
            failed: false,
        }
    }

    /// Shows what comes, until nobody is left who tells.
    pub(super) fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        if let View::Events { renderer, .. } = &self.view {
            renderer.begin(&mut self.buffer);
        }
        self.flush();
        while let Some(message) = messages.blocking_recv() {
            self.take(message);
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            self.flush();
        }
        // Nobody has said that all are listed: what there is, is all.
        self.list();
        self.flush();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Batch(batch) => self.batch(batch),
            Message::Listed => self.list(),
        }
    }

    fn batch(&mut self, Batch { node, records, items, bytes: _, room: _room }: Batch) {
        for item in items {
            match item {
                Item::Lost { timestamp, lost } => self.lost(timestamp, &node, &lost),
                Item::Container(listed) => self.container(&node, *listed),
                Item::Event { timestamp, about, record } => {
                    if !self.is_asked_for() {
                        continue;
                    }
                    let View::Events { tracer, renderer } = &mut self.view else { continue };
                    let Some(event) = records.get(record).and_then(|record| Event::decode(*tracer, record))
                    else {
                        continue;
                    };
                    let container = about.container.as_ref();
                    let row = Row { timestamp, node: &node, kind: tracer.name(), event: &event, container };
                    // A panic while the lock was held would have ended the process.
                    let mut kept = about.kept.lock().unwrap_or_else(PoisonError::into_inner);
                    let start = self.buffer.len();
                    let shown = renderer.row(&row, &mut kept, &mut self.buffer);
                    self.shown(start, shown);
                }
            }
        }
    }

    /// Whether one more is to be shown; otherwise it is counted.
    fn is_asked_for(&self) -> bool {
        let is_over = self.stop.is_none();
        if is_over && !self.failed {
            self.tally.filtered.fetch_add(1, Ordering::Relaxed);
        }
        !is_over
    }

    /// One more has been rendered, from `start` on.
    fn shown(&mut self, start: usize, result: io::Result<()>) {
        if let Err(error) = result {
            // Lost, as what is left of the sum.
            warn!("an event cannot be shown: {error}");
            self.buffer.truncate(start);
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

    fn lost(&mut self, timestamp: Option<i128>, node: &str, lost: &Lost) {
        let timestamp = timestamp.unwrap_or_else(|| self.clock.now());
        let result = match &mut self.view {
            View::Events { renderer, .. } => renderer.lost(timestamp, node, lost, &mut self.buffer),
            View::Containers { .. } => Ok(false),
        };
        if !matches!(result, Ok(true)) {
            let (hook, reason) = (line(&lost.hook), line(&lost.reason));
            warn!("node {}: lost {} of {hook}: {reason}", line(node), lost.count);
        }
    }

    fn container(&mut self, node: &Arc<str>, listed: Listed) {
        if !self.is_asked_for() {
            return;
        }
        let View::Containers { renderer, waiting } = &mut self.view else { return };
        if let Some(waiting) = waiting {
            waiting.push((Arc::clone(node), listed));
            return;
        }
        self.clock.adjust();
        let start = self.buffer.len();
        let result = renderer.row(&row(node, &listed, self.clock.now()), &mut self.buffer);
        self.shown(start, result);
    }

    /// Shows the containers that have waited for each other.
    fn list(&mut self) {
        let View::Containers { renderer, waiting } = &mut self.view else { return };
        let Some(mut listed) = waiting.take() else { return };
        // Pods first, as on each node.
        listed.sort_by_cached_key(|(node, Listed { container, started, .. })| {
            let pod = container.pod.as_ref();
            let names = pod.map(|pod| (pod.namespace.clone(), pod.name.clone(), pod.container.clone()));
            (names.is_none(), names, Arc::clone(node), *started)
        });
        let now = self.clock.now();
        let rows: Vec<ContainerRow<'_>> =
            listed.iter().map(|(node, listed)| row(node, listed, now)).collect();
        if let Err(error) = renderer.begin(&rows, &mut self.buffer) {
            warn!("the containers cannot be shown: {error}");
        }
    }

    /// Writes what there is.
    fn flush(&mut self) {
        self.clock.adjust();
        let (written, result) = if self.closed { (0, Ok(())) } else { stdout::write(&self.buffer) };
        let emitted = self.ends.partition_point(|end| *end <= written);
        let left = (self.ends.len() - emitted) as u64;
        self.ends.clear();
        self.buffer.clear();
        self.tally.emitted.fetch_add(emitted as u64, Ordering::Relaxed);
        match result {
            Ok(()) => drop(self.tally.filtered.fetch_add(left, Ordering::Relaxed)),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.tally.filtered.fetch_add(left, Ordering::Relaxed);
                self.closed = true;
                self.end(Stop::Closed);
            }
            Err(error) => {
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

fn row<'a>(node: &'a str, listed: &'a Listed, now: i128) -> ContainerRow<'a> {
    let Listed { event, container, pid, started } = listed;
    ContainerRow { node, event: *event, container, pid: *pid, started: *started, now }
}
