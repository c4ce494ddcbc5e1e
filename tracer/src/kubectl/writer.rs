//! Showing what comes of all nodes, on a thread of its own: whoever reads may take nothing for as long as it likes, and
//! the nodes' leases are kept all the same.

use std::{
    io,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::{
    kinds::{Event, Tracer},
    kubectl::reading::{Batch, Item},
    output::{ContainerRenderer, ContainerRow, EventRenderer, Lost, Row},
    pipeline::{Outlet, Stop, Written},
    read::Listed,
    sanitize::line,
    sys::{clock::WallClock, log_limit::REPORTS, stderr, stdout},
};

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
    /// Where there are none, and there will be none, `nothing` is said.
    Containers {
        renderer: ContainerRenderer,
        waiting: Option<Vec<(Arc<str>, Listed)>>,
        nothing: Option<String>,
    },
}

/// Shows and writes, many lines at a time.
pub(super) struct Writer {
    view: View,
    written: Arc<Written>,
    clock: WallClock,
    outlet: Outlet,
}

impl Writer {
    /// Counts in `written`; shows `max_events` at the most. `stop` is told when that comes to an end by itself.
    pub(super) fn new(
        view: View,
        max_events: Option<u64>,
        written: Arc<Written>,
        stop: oneshot::Sender<Stop>,
    ) -> Self {
        Self { view, written, clock: WallClock::new(), outlet: Outlet::new(max_events, stdout::write, stop) }
    }

    /// Shows what comes, until nobody is left who tells.
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
        // Nobody has said that all are listed: what there is, is all.
        if matches!(&self.view, View::Containers { waiting: Some(waiting), .. } if !waiting.is_empty()) {
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
                    let shown = self.outlet.show(|out| renderer.row(&row, &mut kept, out));
                    self.shown(shown);
                }
            }
        }
    }

    /// Whether one more is to be shown; otherwise it is counted.
    fn is_asked_for(&self) -> bool {
        // What cannot be written is lost, as what is left of the sum.
        if self.outlet.is_over() {
            self.written.filtered.fetch_add(1, Ordering::Relaxed);
        }
        !self.outlet.is_over() && !self.outlet.has_failed()
    }

    /// One more has been rendered, or could not be.
    fn shown(&mut self, result: io::Result<bool>) {
        match result {
            Ok(false) => {}
            Ok(true) => self.flush(),
            // Lost, as what is left of the sum.
            Err(error) => warn!("an event cannot be shown: {error}"),
        }
    }

    fn lost(&mut self, timestamp: Option<i128>, node: &str, lost: &Lost) {
        let timestamp = timestamp.unwrap_or_else(|| self.clock.now());
        let result = match &mut self.view {
            View::Events { renderer, .. } => renderer.lost(timestamp, node, lost, self.outlet.text()),
            View::Containers { .. } => Ok(false),
        };
        if !matches!(result, Ok(true)) {
            let (hook, reason) = (line(&lost.hook), line(&lost.reason));
            warn!(target: REPORTS, "node {}: lost {} of {hook}: {reason}", line(node), lost.count);
        }
    }

    fn container(&mut self, node: &Arc<str>, listed: Listed) {
        if !self.is_asked_for() {
            return;
        }
        let View::Containers { renderer, waiting, .. } = &mut self.view else { return };
        if let Some(waiting) = waiting {
            waiting.push((Arc::clone(node), listed));
            return;
        }
        self.clock.adjust();
        let now = self.clock.now();
        let shown = self.outlet.show(|out| renderer.row(&row(node, &listed, now), out));
        self.shown(shown);
    }

    /// Shows the containers that have waited for each other.
    fn list(&mut self) {
        let View::Containers { renderer, waiting, nothing } = &mut self.view else { return };
        let Some(mut listed) = waiting.take() else { return };
        if let Some(nothing) = nothing
            && listed.is_empty()
        {
            // As kubectl does: no heading, and nothing for programs to read.
            if renderer.is_table() {
                stderr::write_line(format!("{nothing}\n").into_bytes());
            }
            return;
        }
        // Pods first, as on each node.
        listed.sort_by_cached_key(|(node, Listed { container, started, .. })| {
            let pod = container.pod.as_ref();
            let names = pod.map(|pod| (pod.namespace.clone(), pod.name.clone(), pod.container.clone()));
            (names.is_none(), names, Arc::clone(node), *started)
        });
        let now = self.clock.now();
        let rows: Vec<ContainerRow<'_>> =
            listed.iter().map(|(node, listed)| row(node, listed, now)).collect();
        if let Err(error) = renderer.begin(&rows, self.outlet.text()) {
            warn!("the containers cannot be shown: {error}");
        }
    }

    /// Writes what there is.
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
