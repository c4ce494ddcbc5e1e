//! One run of `tracer trace`: load, attach, say so, show events until told to stop, and account for all of them.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::{runtime::Runtime, sync::oneshot};
use tracing::warn;

use super::{
    EventFilter, Tracer,
    sink::{Sink, Stop, Tally},
    stream::Stream,
};
use crate::{
    bpf::{self, features},
    cli::say,
    observe::{self, End, Observer, Scope, local_runtime, lock, spawn},
    render::EventRenderer,
    stdout,
};

/// How long the end may take when standard output does not take what is left.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// What to trace, and how to show it.
#[derive(Debug)]
pub struct Config {
    /// The traced kind.
    pub tracer: &'static dyn Tracer,
    /// The containers that are asked for, and how they become known.
    pub scope: Scope,
    /// What is asked of events besides.
    pub filter: EventFilter,
    /// Whether host processes are shown as well.
    pub host: bool,
    /// Whether only failed calls are shown.
    pub failed: bool,
    /// How events are shown.
    pub renderer: EventRenderer,
    /// The node's name.
    pub node: String,
    /// When to stop by itself.
    pub timeout: Option<Duration>,
    /// How many events to show at the most.
    pub max_events: Option<u64>,
    /// Size of the event ring in bytes.
    pub buffer_size: u32,
    /// Whether the BPF programs' own log is wanted.
    pub log_programs: bool,
}

/// Traces until a signal, the timeout, the last event asked for, or the end of who reads.
pub fn run(config: Config) -> anyhow::Result<()> {
    features::require()?;
    let runtime = observe::runtime()?;
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
    timeout: Option<Duration>,
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
            runtimes: &runtimes,
            log: config.log_programs,
        };
        let (observer, events) = Observer::load(&options, config.scope, runtime)?;
        stdout::enlarge();
        let tally = Arc::new(Tally::default());
        let (stop, stopped) = oneshot::channel();
        let (finish, finished) = oneshot::channel();
        let sink = Sink::new(
            config.tracer,
            config.filter,
            config.renderer,
            config.node,
            config.max_events,
            Arc::clone(&tally),
            stdout::write,
            stop,
        );
        let stream = Stream::new(events, &observer, sink);
        let phases = observer.phases();
        spawn("events", move || {
            let result = local_runtime().and_then(|runtime| runtime.block_on(stream.run(phases)));
            // The session is gone only if it has given up waiting.
            let _ = finish.send(result);
            Ok(())
        })?;
        Ok(Self { observer, tally, stopped, finished, timeout: config.timeout })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let end = End::new(self.timeout)?;
        self.observer.start().await?;
        say("ready");
        let mut result = Ok(());
        tokio::select! {
            () = end.come() => {}
            stop = &mut self.stopped => match stop {
                Ok(Stop::Failed(error)) => result = Err(error).context("writing to standard output"),
                // Of a stream that has failed, `finish` says how.
                Ok(Stop::MaxEvents | Stop::Closed) | Err(_) => {}
            },
        }
        result.and(self.finish().await)
    }

    /// Detaches, lets the last events be handled, and adds up.
    async fn finish(self) -> anyhow::Result<()> {
        self.observer.detach()?;
        let (result, stuck) = match tokio::time::timeout(END_PATIENCE, self.finished).await {
            Ok(Ok(result)) => (result, false),
            Ok(Err(_)) => (Err(anyhow!("the thread that shows events has ended without a word")), true),
            Err(_) => {
                warn!("standard output takes nothing more: events that are left count as lost");
                (Ok(()), true)
            }
        };
        let counters = lock(&self.observer.bpf).counters()?;
        let events = counters.events;
        let emitted = self.tally.emitted();
        let filtered = events.filtered + self.tally.filtered();
        let lost = if stuck {
            events.seen.saturating_sub(emitted + filtered)
        } else {
            events.buffer_full + events.skipped + self.tally.lost()
        };
        if counters.not_followed > 0 {
            warn!("{} processes or runtimes could not be followed: a map was full", counters.not_followed);
        }
        if counters.lifecycle_lost > 0 {
            warn!("{} starts or ends of containers were missed", counters.lifecycle_lost);
        }
        say(&format!("seen {} emitted {emitted} filtered {filtered} lost {lost}", events.seen));
        result
    }
}
