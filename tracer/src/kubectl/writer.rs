//! Renders and writes what all nodes send, on its own thread: a reader that blocks standard output does not stop the
//! renewal of leases.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::{
    kinds::{Event, Tracer},
    kubectl::{
        batch::{Batch, Item},
        text,
    },
    output::{ContainerRenderer, ContainerRow, EventRenderer, Lost, Row},
    pipeline::{Outlet, Stop, Written},
    read::Listed,
    sanitize,
    sys::{clock::WallClock, log_limit::REPORTS, stderr, stdout},
};

/// A message to the writer.
#[derive(Debug)]
pub(super) enum Message {
    Batch(Batch),
    /// The nodes that were there at the start have sent their lists.
    Listed,
}

/// What is shown.
pub(super) enum View {
    Events {
        tracer: &'static dyn Tracer,
        renderer: EventRenderer,
    },
    Containers {
        renderer: ContainerRenderer,
        /// Containers that wait for the lists of the other nodes, so that columns are wide enough. None afterwards.
        pending: Option<Vec<(Arc<str>, Listed)>>,
        /// The message if there are none.
        if_empty: Option<String>,
    },
}

/// Writes many lines at a time.
pub(super) struct Writer {
    view: View,
    written: Arc<Written>,
    clock: WallClock,
    outlet: Outlet,
}

impl Writer {
    /// Writes at most `max_events` and counts in `written`. Uses `stop` to report that nothing more is to be written.
    pub(super) fn new(
        view: View,
        max_events: Option<u64>,
        written: Arc<Written>,
        stop: oneshot::Sender<Stop>,
    ) -> Self {
        Self { view, written, clock: WallClock::new(), outlet: Outlet::new(max_events, stdout::write, stop) }
    }

    /// Writes what arrives until the last sender is dropped.
    pub(super) fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        if let View::Events { renderer, .. } = &self.view {
            renderer.begin(self.outlet.text());
        }
        self.flush();
        while let Some(message) = messages.blocking_recv() {
            self.take(message);
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            self.flush();
        }
        // The session ended before all lists were there.
        if matches!(&self.view, View::Containers { pending: Some(pending), .. } if !pending.is_empty()) {
            self.list();
            self.flush();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Batch(batch) => self.batch(batch),
            Message::Listed => self.list(),
        }
    }

    fn batch(&mut self, Batch { node, records, items, bytes: _, permit: _permit }: Batch) {
        for item in items {
            match item {
                Item::Lost { timestamp, lost } => self.lost(timestamp, &node, &lost),
                Item::Container(listed) => self.container(&node, *listed),
                Item::Event { timestamp, about, record } => {
                    if !self.accepts_more() {
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
                    let shown = self.outlet.show(|out| renderer.row(&row, &mut kept, out));
                    self.rendered(shown);
                }
            }
        }
    }

    /// Whether one more is to be written. If not, it is counted: as filtered behind `max_events`, and as lost, which is
    /// the rest of the sum, if writing has failed.
    fn accepts_more(&self) -> bool {
        if self.outlet.is_over() {
            self.written.filtered.fetch_add(1, Ordering::Relaxed);
        }
        !self.outlet.is_over() && !self.outlet.has_failed()
    }

    /// Handles the result of rendering.
    fn rendered(&mut self, result: io::Result<bool>) {
        match result {
            Ok(false) => {}
            Ok(true) => self.flush(),
            // It counts as lost: the rest of the sum.
            Err(error) => warn!("cannot render an event: {error}"),
        }
    }

    fn lost(&mut self, timestamp: Option<i128>, node: &str, lost: &Lost) {
        let timestamp = timestamp.unwrap_or_else(|| self.clock.now());
        let result = match &mut self.view {
            View::Events { renderer, .. } => renderer.lost(timestamp, node, lost, self.outlet.text()),
            View::Containers { .. } => Ok(false),
        };
        if !matches!(result, Ok(true)) {
            let (node, hook, reason) = (text::line(node), text::line(&lost.hook), text::line(&lost.reason));
            warn!(target: REPORTS, "node {node}: lost {} of {hook}: {reason}", lost.count);
        }
    }

    fn container(&mut self, node: &Arc<str>, listed: Listed) {
        if !self.accepts_more() {
            return;
        }
        let View::Containers { renderer, pending, .. } = &mut self.view else { return };
        if let Some(pending) = pending {
            pending.push((Arc::clone(node), listed));
            return;
        }
        self.clock.adjust();
        let now = self.clock.now();
        let shown = self.outlet.show(|out| renderer.row(&row(node, &listed, now), out));
        self.rendered(shown);
    }

    /// Writes the pending containers.
    fn list(&mut self) {
        let View::Containers { renderer, pending, if_empty } = &mut self.view else { return };
        let Some(mut listed) = pending.take() else { return };
        if let Some(message) = if_empty
            && listed.is_empty()
        {
            // As kubectl: no header, and no message for output that programs read.
            if renderer.is_table() {
                let message = sanitize::message(message);
                stderr::say(format!("{message}\n").into_bytes());
            }
            return;
        }
        // Pods first, as `tracer list-containers` does.
        listed.sort_by_cached_key(|(node, Listed { container, started, .. })| {
            let pod = container.pod.as_ref();
            let names = pod.map(|pod| (pod.namespace.clone(), pod.name.clone(), pod.container.clone()));
            (names.is_none(), names, Arc::clone(node), *started)
        });
        let now = self.clock.now();
        let rows: Vec<ContainerRow<'_>> =
            listed.iter().map(|(node, listed)| row(node, listed, now)).collect();
        if let Err(error) = renderer.begin(&rows, self.outlet.text()) {
            warn!("cannot render the containers: {error}");
        }
    }

    /// Writes what was rendered.
    fn flush(&mut self) {
        self.clock.adjust();
        self.outlet.flush(&self.written);
    }
}

fn row<'a>(node: &'a str, listed: &'a Listed, now: i128) -> ContainerRow<'a> {
    let Listed { event, changed, container, pid, started } = listed;
    let changed = changed.iter().map(String::as_str).collect();
    ContainerRow { node, event: *event, changed, container, pid: *pid, started: *started, now }
}
