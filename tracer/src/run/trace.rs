//! One run of `tracer trace`: load, attach, say so, show events until told to stop, and account for all of them.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use tokio::{runtime::Runtime, sync::oneshot};
use tracing::debug;

use crate::{
    bpf,
    bpf::{Counters, EventFilter, Hook, ProgramCounters},
    kinds::Tracer,
    output::EventRenderer,
    pipeline::{Sink, Stop, Stream, Tally},
    run::{
        doctor,
        limits::{End, Limits},
        observer,
        observer::{Observer, Scope},
    },
    sys::{
        capabilities, log_limit,
        stderr::status,
        stdout,
        thread::{local_runtime, lock, spawn},
    },
};

/// What to trace, and how to show it.
#[derive(Debug)]
pub(crate) struct Config {
    /// The traced kind.
    pub(crate) tracer: &'static dyn Tracer,
    /// The containers that are asked for, and how they become known.
    pub(crate) scope: Scope,
    /// What is asked of events besides.
    pub(crate) filter: EventFilter,
    /// Whether host processes are shown as well.
    pub(crate) host: bool,
    /// Whether only failed calls are shown.
    pub(crate) failed: bool,
    /// Where opens are hooked; none for the best way that this kernel has.
    pub(crate) hook: Option<Hook>,
    /// How events are shown.
    pub(crate) renderer: EventRenderer,
    /// The node's name.
    pub(crate) node: String,
    /// When to stop by itself.
    pub(crate) limits: Limits,
    /// How many events to show at the most.
    pub(crate) max_events: Option<u64>,
    /// Size of the event ring in bytes.
    pub(crate) buffer_size: u32,
    /// Whether the BPF programs' own log is wanted.
    pub(crate) log_programs: bool,
}

/// Traces until a signal, the timeout, the last event asked for, or the end of who reads.
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
    tally: Arc<Tally>,
    /// Tells that showing events has come to an end by itself.
    stopped: oneshot::Receiver<Stop>,
    /// Tells that the last event has been handled.
    finished: oneshot::Receiver<anyhow::Result<()>>,
    limits: Limits,
}

impl Session {
    /// Loads the programs and starts the two readers; nothing is attached yet.
    fn start(config: Config, runtime: &Runtime) -> anyhow::Result<Self> {
        let runtimes = config.scope.runtimes.clone();
        let options = bpf::Options {
            kind: Some(config.tracer.kind()),
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
        stdout::prepare();
        let tally = Arc::new(Tally::default());
        let (stop, stopped) = oneshot::channel();
        let (finish, finished) = oneshot::channel();
        let sink = Sink::new(
            config.tracer,
            config.renderer,
            config.node,
            config.max_events,
            Arc::clone(&tally),
            stdout::write,
            stop,
        );
        let stream = Stream::new(
            events,
            Arc::clone(&observer.bpf),
            Arc::clone(&observer.registry),
            Arc::clone(&observer.lifecycle),
            sink,
        );
        let (phases, kept) = (observer.phases(), observer.kept);
        spawn("events", move || {
            let result = capabilities::keep_only(kept)
                .and_then(|()| local_runtime())
                .and_then(|runtime| runtime.block_on(stream.run(phases)));
            // The session is gone only if it has given up waiting.
            let _ = finish.send(result);
            Ok(())
        })?;
        Ok(Self { observer, tally, stopped, finished, limits: config.limits })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let end = End::new(self.limits)?;
        self.observer.start().await?;
        status("ready");
        self.observer.show();
        let mut result = Ok(());
        tokio::select! {
            () = end.reached() => {}
            stop = &mut self.stopped => match stop {
                Ok(Stop::Failed(error)) => result = Err(error).context("writing to standard output"),
                // Of a stream that has failed, `finish` says how.
                Ok(Stop::MaxEvents | Stop::Closed) | Err(_) => {}
            },
            error = self.observer.failed() => result = Err(error),
        }
        result.and(self.finish().await)
    }

    /// Detaches, lets the last events be handled, and adds up.
    async fn finish(mut self) -> anyhow::Result<()> {
        self.observer.detach();
        let (result, stuck) = self.finished().await;
        let counters = lock(&self.observer.bpf).counters()?;
        let events = counters.events;
        let emitted = self.tally.emitted();
        let filtered = events.filtered + self.tally.filtered();
        let lost = if stuck {
            events.seen.saturating_sub(emitted + filtered)
        } else {
            events.buffer_full + events.skipped + self.tally.lost() - self.tally.unasked()
        };
        self.log(&counters);
        let missed = counters.lifecycle.by_reason().into_iter().filter(|(_, count)| *count > 0);
        let missed: Vec<String> = missed.map(|(why, count)| format!("{why} {count}")).collect();
        if !missed.is_empty() {
            status(&format!("missed of containers: {}", missed.join(" ")));
        }
        log_limit::finish();
        status(&format!("seen {} emitted {emitted} filtered {filtered} lost {lost}", events.seen));
        result
    }

    /// Waits until the last event has been handled, as long as there is progress. Returns how that went, and whether some
    /// are left.
    async fn finished(&mut self) -> (anyhow::Result<()>, bool) {
        let tally = Arc::clone(&self.tally);
        let handled = || tally.emitted() + tally.filtered() + tally.lost();
        match stdout::finished(&mut self.finished, handled).await {
            Some(Ok(Ok(()))) => (Ok(()), false),
            // What it did not come to is lost.
            Some(Ok(Err(error))) => (Err(error), true),
            Some(Err(_)) => (Err(anyhow!("the thread that shows events has ended without a word")), true),
            None => (Ok(()), true),
        }
    }

    /// Logs every counter.
    fn log(&self, counters: &Counters) {
        for ProgramCounters { program, stats, skipped } in &counters.programs {
            debug!(
                "{}: seen {} filtered {} buffer-full {} no-scratch {} program-skipped {skipped} lifecycle-full {} \
                 process-map-full {} slots-full {} lifecycle-crowded {} user-namespace {}",
                program.name(),
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
        let lost = self.tally.lost_by_reason().map(|(reason, count)| format!(" {reason} {count}")).concat();
        let (emitted, filtered) = (self.tally.emitted(), self.tally.filtered());
        debug!("in user space: emitted {emitted} filtered {filtered}{lost}");
        debug!("keys in use at the end: {}", self.observer.registry.keys_in_use());
    }
}
