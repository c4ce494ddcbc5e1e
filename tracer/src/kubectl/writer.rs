//! Renders and writes what all nodes send, on its own thread: a reader that blocks standard output does not stop the
//! renewal of leases.

use std::{
    io,
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::{
    frames::Listed,
    kinds::{Event, Kinds},
    kubectl::{
        batch::{Batch, Item, NodeContainer},
        text,
    },
    output::{ContainerRenderer, ContainerRow, ContainerTexts, EventRenderer, Lost, Row},
    pipeline::{BatchWriter, Stop, WriteCounters},
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
    Events(EventView),
    Containers {
        renderer: ContainerRenderer,
        /// Containers that wait for the lists of the other nodes, so that columns are wide enough. None afterwards.
        pending: Option<Vec<(Arc<str>, Listed)>>,
        /// The message if there are none.
        if_empty: Option<String>,
    },
}

/// Makes a renderer for the kinds that a node declares.
pub(super) type MakeRenderer = Box<dyn Fn(&Arc<Kinds>) -> Result<EventRenderer, String> + Send>;

/// How events are shown. Nodes whose `tracer` is of another version declare kinds of their own.
pub(super) struct EventView {
    make: MakeRenderer,
    /// The first one is that of the kinds that are selected here.
    renderers: Vec<(Arc<Kinds>, EventRenderer)>,
}

impl EventView {
    pub(super) fn new(kinds: &Arc<Kinds>, make: MakeRenderer) -> Result<Self, String> {
        let renderer = make(kinds)?;
        Ok(Self { make, renderers: vec![(Arc::clone(kinds), renderer)] })
    }

    fn renderer(&mut self, kinds: &Arc<Kinds>) -> Result<&mut EventRenderer, String> {
        let known = self.renderers.iter().position(|(known, _)| Arc::ptr_eq(known, kinds));
        if known.is_none() {
            self.renderers.push((Arc::clone(kinds), (self.make)(kinds)?));
        }
        let index = known.unwrap_or(self.renderers.len() - 1);
        Ok(&mut self.renderers[index].1)
    }
}

/// Renders what nodes send.
pub(super) struct Writer {
    view: View,
    outlet: Outlet,
}

/// Writes many lines at a time, and counts them.
struct Outlet {
    batches: BatchWriter,
    written: Arc<[WriteCounters; 1]>,
    clock: WallClock,
}

impl Outlet {
    /// Whether one more is to be written; if not, it is counted: as filtered after `max_events`, and as lost, which is the rest of
    /// the sum, if writing has failed.
    fn accepts_more(&self) -> bool {
        let is_over = self.batches.is_over();
        if is_over {
            self.written[0].filtered.fetch_add(1, Ordering::Relaxed);
        }
        !is_over && !self.batches.has_failed()
    }

    /// Appends one, which `render` writes.
    fn show(&mut self, render: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
        match self.batches.show(0, render) {
            Ok(false) => {}
            Ok(true) => self.flush(),
            // It counts as lost: the rest of the sum.
            Err(error) => warn!("cannot render an event: {error}"),
        }
    }

    /// Writes what was rendered.
    fn flush(&mut self) {
        self.clock.adjust();
        self.batches.flush(&*self.written);
    }
}

impl Writer {
    /// Writes at most `max_events` and counts in `written`. Uses `stop` to report that nothing more is to be written.
    pub(super) fn new(
        view: View,
        max_events: Option<u64>,
        written: Arc<[WriteCounters; 1]>,
        stop: oneshot::Sender<Stop>,
    ) -> Self {
        Self {
            view,
            outlet: Outlet {
                batches: BatchWriter::new(max_events, Box::new(stdout::write), stop),
                written,
                clock: WallClock::new(),
            },
        }
    }

    /// Writes what arrives until the last sender is dropped.
    pub(super) fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        if let View::Events(events) = &mut self.view {
            for (_, renderer) in &mut events.renderers {
                renderer.begin(self.outlet.batches.text());
            }
        }
        self.outlet.flush();
        while let Some(message) = messages.blocking_recv() {
            self.take(message);
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            self.outlet.flush();
        }
        // The session ended before all lists were there.
        if matches!(&self.view, View::Containers { pending: Some(pending), .. } if !pending.is_empty()) {
            self.list();
            self.outlet.flush();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Batch(batch) => self.batch(batch),
            Message::Listed => self.list(),
        }
    }

    /// The terminal may have changed, and the containers of a batch need columns that are wide enough.
    fn begin_batch(&mut self, batch: &Batch) {
        match &mut self.view {
            View::Events(view) => {
                let Some(Ok(renderer)) = batch.kinds.as_ref().map(|kinds| view.renderer(kinds)) else {
                    return;
                };
                renderer.resize(stdout::terminal_width);
                let is_new = |container: &&NodeContainer| container.texts().is_empty();
                for container in batch.containers().filter(is_new) {
                    // If it cannot be measured, it cannot be shown either, which is reported then.
                    let _ = renderer.expect(&batch.node, Some(&container.container));
                }
            }
            View::Containers { renderer, .. } => renderer.resize(stdout::terminal_width),
        }
    }

    fn batch(&mut self, mut batch: Batch) {
        self.begin_batch(&batch);
        for item in std::mem::take(&mut batch.items) {
            match item {
                Item::Lost { timestamp, lost } => self.lost(timestamp, &batch.node, &lost),
                Item::Container(listed) => self.container(&batch.node, *listed),
                Item::Events { container, records } => self.events(&batch, container.as_deref(), records),
            }
        }
    }

    /// Renders consecutive events of one container.
    fn events(&mut self, batch: &Batch, container: Option<&NodeContainer>, records: Range<usize>) {
        let (View::Events(view), Some(kinds)) = (&mut self.view, &batch.kinds) else { return };
        let renderer = match view.renderer(kinds) {
            Ok(renderer) => renderer,
            Err(error) => {
                warn!("cannot render events of node {}: {error}", text::line(&batch.node));
                return;
            }
        };
        let mut of_container = container.map(NodeContainer::texts);
        let mut of_host = ContainerTexts::default();
        for position in records {
            if !self.outlet.accepts_more() {
                continue;
            }
            let Some(event) = Event::decode(kinds, batch.record(position)) else { continue };
            let timestamp = i128::from(event.header.timestamp);
            let container = container.map(|container| &container.container);
            let row = Row { timestamp, node: &batch.node, event: &event, container };
            let texts = of_container.as_deref_mut().unwrap_or(&mut of_host);
            self.outlet.show(|out| renderer.row(&row, texts, out));
        }
    }

    fn lost(&mut self, timestamp: Option<i128>, node: &str, lost: &Lost) {
        let timestamp = timestamp.unwrap_or_else(|| self.outlet.clock.now());
        let result = match &mut self.view {
            View::Events(events) => match events.renderers.first_mut() {
                Some((_, renderer)) => renderer.lost(timestamp, node, lost, self.outlet.batches.text()),
                None => Ok(false),
            },
            View::Containers { .. } => Ok(false),
        };
        if !matches!(result, Ok(true)) {
            warn!(target: REPORTS, "node {}: {}", text::line(node), text::line(&lost.to_string()));
        }
    }

    fn container(&mut self, node: &Arc<str>, listed: Listed) {
        if !self.outlet.accepts_more() {
            return;
        }
        let View::Containers { renderer, pending, .. } = &mut self.view else { return };
        if let Some(pending) = pending {
            pending.push((Arc::clone(node), listed));
            return;
        }
        self.outlet.clock.adjust();
        let now = self.outlet.clock.now();
        self.outlet.show(|out| renderer.row(&row(node, &listed, now), out));
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
                stderr::write_line(format!("{message}\n").into_bytes());
            }
            return;
        }
        // Pods first, as `tracer list-containers` does.
        listed.sort_by_cached_key(|(node, Listed { container, started, .. })| {
            let pod = container.pod.as_ref();
            let names = pod.map(|pod| (pod.namespace.clone(), pod.name.clone(), pod.container.clone()));
            (names.is_none(), names, Arc::clone(node), *started)
        });
        let now = self.outlet.clock.now();
        let rows: Vec<ContainerRow<'_>> =
            listed.iter().map(|(node, listed)| row(node, listed, now)).collect();
        if let Err(error) = renderer.begin(&rows, self.outlet.batches.text()) {
            warn!("cannot render the containers: {error}");
        }
    }
}

fn row<'a>(node: &'a str, listed: &'a Listed, now: i128) -> ContainerRow<'a> {
    let Listed { event, changed, container, pid, started, exit } = listed;
    let changed = changed.iter().map(String::as_str).collect();
    ContainerRow { node, event: *event, changed, container, pid: *pid, started: *started, now, exit: *exit }
}
