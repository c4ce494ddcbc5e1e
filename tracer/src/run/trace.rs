//! One run of `tracer trace`: load, attach, report it, show events until the run is stopped, and account for all of them.

use std::{io, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};
use tracing::{debug, info};

use crate::{
    bpf::{self, Counters, EventFilter, Hook, ProgramCounters},
    frames::{Compressor, FrameWriter, Summary},
    kinds::Kinds,
    output::{EventRenderer, Losses},
    pipeline::{Output, RingSource, Sink, Stop, Tally, View},
    run::{
        doctor,
        limits::{End, Limits},
        observer::{self, Observer, Scope},
        reporter::{Reporter, Selected, closing_frame, closing_line},
    },
    sys::{
        capabilities, log_limit,
        stderr::status,
        stdout,
        thread::{local_runtime, lock, spawn},
    },
};

/// How long `ready` waits for the bundles of containers that were running already.
const BUNDLES_TIMEOUT: Duration = Duration::from_millis(200);

/// What to trace, and how to show it.
#[derive(Debug)]
pub(crate) struct Config {
    /// The traced kinds.
    pub(crate) kinds: Arc<Kinds>,
    /// The selected containers, and how they become known.
    pub(crate) scope: Scope,
    /// What else selects events.
    pub(crate) filter: EventFilter,
    /// Whether events of host processes are shown.
    pub(crate) host: bool,
    /// Whether only failed events are shown.
    pub(crate) failed: bool,
    /// Where system calls are traced; `None` for the best way that this kernel has.
    pub(crate) hook: Option<Hook>,
    /// How events are shown: as text, or as frames without a renderer.
    pub(crate) renderer: Option<EventRenderer>,
    /// The node's name.
    pub(crate) node: String,
    /// When to stop by itself.
    pub(crate) limits: Limits,
    /// How many events to show at the most.
    pub(crate) max_events: Option<u64>,
    /// Size of the event ring in bytes.
    pub(crate) buffer_size: u32,
    /// Whether the eBPF programs log.
    pub(crate) log_programs: bool,
}

/// Traces until a signal, the timeout, the last event of `max_events`, or until the reader closes standard output.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    doctor::require()?;
    let runtime = observer::runtime()?;
    let result = runtime.block_on(Session::start(config, &runtime)?.run());
    // A bundle that hangs must not keep the process.
    runtime.shutdown_background();
    result
}

struct Session {
    observer: Observer,
    kinds: Arc<Kinds>,
    tally: Arc<Tally>,
    reporter: Reporter,
    selected: Selected,
    /// Gets the reason when showing events stops by itself.
    stopped: oneshot::Receiver<Stop>,
    /// Gets the sink when the last event has been handled.
    finished: oneshot::Receiver<anyhow::Result<Sink>>,
    limits: Limits,
}

impl Session {
    /// Loads the programs and starts the two readers; nothing is attached yet.
    fn start(config: Config, runtime: &Runtime) -> anyhow::Result<Self> {
        let Config { kinds, renderer, .. } = config;
        let runtimes = config.scope.runtimes.clone();
        let selected_by = config.scope.options.clone();
        let options = bpf::Options {
            kinds: kinds.declared(),
            buffer_size: config.buffer_size,
            host: config.host,
            failed: config.failed,
            filter: &config.filter,
            hook: config.hook,
            runtimes: &runtimes.names,
            trust_rootless: runtimes.trust_rootless,
            log: config.log_programs,
        };
        let (observer, events) = Observer::load(&options, config.scope, runtime)?;
        let selected = Selected::new(&observer.registry, selected_by, &config.filter);
        stdout::prepare();
        let tally = Arc::new(Tally::new(kinds.len()));
        let (stop, stopped) = oneshot::channel();
        let (finish, finished) = oneshot::channel();
        let (sender, messages) = mpsc::unbounded_channel();
        let (view, output, reporter): (_, Output, _) = match renderer {
            Some(renderer) => (View::Text(renderer), Box::new(stdout::write), Reporter::Lines),
            None => (View::Frames(FrameWriter::default()), compressed_output()?, Reporter::Frames(sender)),
        };
        let mut sink = Sink::new(
            Arc::clone(&kinds),
            view,
            config.node,
            config.max_events,
            Arc::clone(&tally),
            output,
            stop,
        );
        if let Some(comms) = config.filter.comms_of_user_space() {
            sink.select_comms(comms);
        }
        let source = RingSource::new(
            events,
            Arc::clone(&observer.bpf),
            Arc::clone(&observer.registry),
            Arc::clone(&observer.lifecycle),
            sink,
            messages,
        );
        let (phases, kept) = (observer.phases(), observer.kept);
        spawn("events", move || {
            let result = capabilities::keep_only(kept)
                .and_then(|()| local_runtime())
                .and_then(|runtime| runtime.block_on(source.run(phases)));
            // The session is gone only if it has given up waiting.
            let _ = finish.send(result);
            Ok(())
        })?;
        Ok(Self { observer, kinds, tally, reporter, selected, stopped, finished, limits: config.limits })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let reporter = self.reporter.clone();
        let end = End::new(self.limits, move || reporter.alive())?;
        self.observer.start().await?;
        // What is not read by then is reported as a change.
        let _ = self.observer.registry.settled(BUNDLES_TIMEOUT).await;
        self.selected.update();
        self.reporter.ready(&self.selected);
        self.observer.show();
        let mut result = Ok(());
        tokio::select! {
            () = end.reached() => {}
            stop = &mut self.stopped => match stop {
                Ok(Stop::Failed(error)) => result = Err(error).context("writing to standard output"),
                // Of a source that has failed, `finish` gets the error.
                Ok(Stop::MaxEvents | Stop::Closed) | Err(_) => {}
            },
            error = self.observer.failed() => result = Err(error),
            () = self.selected.report_changes(&self.reporter) => {}
        }
        result.and(self.finish().await)
    }

    /// Detaches, lets the last events be handled, and adds up.
    async fn finish(mut self) -> anyhow::Result<()> {
        self.observer.detach();
        let (result, sink) = self.finished().await;
        let counters = lock(&self.observer.bpf).counters()?;
        let events = counters.events();
        let emitted = self.tally.emitted();
        let filtered = events.filtered + self.tally.filtered();
        let lost = if sink.is_some() {
            events.buffer_full + events.skipped + self.tally.lost() - self.tally.not_needed()
        } else {
            events.seen.saturating_sub(emitted + filtered)
        };
        let losses = self.losses(&counters, lost);
        self.log(&counters);
        let missed = counters.lifecycle.by_reason().into_iter().filter(|(_, count)| *count > 0);
        let missed: Vec<String> = missed.map(|(why, count)| format!("{why} {count}")).collect();
        if !missed.is_empty() {
            status(&format!("missed of containers: {}", missed.join(" ")));
        }
        log_limit::finish();
        let summary = Summary { seen: events.seen, emitted, filtered, lost };
        match (&self.reporter, sink) {
            (Reporter::Lines, _) => status(&closing_line(summary, &losses)),
            (Reporter::Frames(_), Some(mut sink)) => {
                sink.append(&closing_frame(summary));
                sink.flush();
            }
            // The reader takes nothing.
            (Reporter::Frames(_), None) => {}
        }
        result
    }

    /// The reasons of all losses.
    fn losses(&self, counters: &Counters, lost: u64) -> Losses {
        let events = counters.events();
        let unattributed = self.kinds.iter().map(|kind| self.tally.of_kind(kind.index).unattributed).sum();
        let mut losses = Losses::default();
        // What was lost when no more were needed counts as filtered.
        let mut not_needed = self.tally.not_needed();
        let mut needed = |count: u64| {
            let left_out = not_needed.min(count);
            not_needed -= left_out;
            count - left_out
        };
        let known = [
            ("buffer-full", needed(events.buffer_full)),
            ("program-skipped", needed(events.skipped)),
            ("unattributed", unattributed),
            ("malformed", self.tally.malformed()),
        ];
        for (reason, count) in known {
            losses.add(reason, count.into());
        }
        // Could not be written, or was not taken by the reader before the end.
        let known: u64 = known.iter().map(|(_, count)| count).sum();
        losses.add("output", lost.saturating_sub(known).into());
        losses
    }

    /// Waits until the last event has been handled, as long as there is progress. Returns how that went, and the sink unless
    /// events are left.
    async fn finished(&mut self) -> (anyhow::Result<()>, Option<Sink>) {
        let tally = Arc::clone(&self.tally);
        let handled = || tally.emitted() + tally.filtered() + tally.lost();
        match stdout::finished(&mut self.finished, handled).await {
            Some(Ok(Ok(sink))) => (Ok(()), Some(sink)),
            // The events that it did not reach are lost.
            Some(Ok(Err(error))) => (Err(error), None),
            Some(Err(_)) => (Err(anyhow!("the thread that shows events has ended without a result")), None),
            None => (Ok(()), None),
        }
    }

    /// Logs every counter.
    fn log(&self, counters: &Counters) {
        for ProgramCounters { program, kind, stats, skipped } in &counters.programs {
            let kind = kind.and_then(|kind| self.kinds.get(kind)).map_or("lifecycle", |kind| kind.name());
            debug!(
                "{program} ({kind}): seen {} filtered {} buffer-full {} no-scratch {} program-skipped {skipped} \
                 lifecycle-full {} process-map-full {} slots-full {} lifecycle-crowded {} user-namespace {}",
                stats.seen,
                stats.filtered,
                stats.lost_buffer_full,
                stats.lost_no_scratch,
                stats.lost_lifecycle,
                stats.lost_processes_full,
                stats.lost_slots_full,
                stats.lost_crowded,
                stats.lost_user_namespace,
            );
        }
        for (kind, in_kernel) in self.kinds.iter().zip(&counters.kinds) {
            let counts = self.tally.of_kind(kind.index);
            info!(
                "kind {}: seen {} emitted {} filtered {} buffer-full {} program-skipped {} unattributed {} output {}",
                kind.name(),
                in_kernel.seen,
                counts.emitted,
                in_kernel.filtered + counts.filtered,
                in_kernel.buffer_full,
                in_kernel.skipped,
                counts.unattributed,
                counts.output,
            );
        }
        let (emitted, filtered, malformed) =
            (self.tally.emitted(), self.tally.filtered(), self.tally.malformed());
        debug!("in user space: emitted {emitted} filtered {filtered} malformed {malformed}");
        debug!("keys in use at the end: {}", self.observer.registry.keys_in_use());
    }
}

/// Standard output for frames. Of frames that are compressed together all are written or none.
fn compressed_output() -> anyhow::Result<Output> {
    let mut compressor = Compressor::new().context("starting zstd")?;
    Ok(Box::new(move |frames| {
        if frames.is_empty() {
            return (0, Ok(()));
        }
        match compressor.write(frames, stdout::write).and_then(|(_, written)| written) {
            Ok(()) => (frames.len(), Ok(())),
            Err(error) => (0, Err::<(), io::Error>(error)),
        }
    }))
}
