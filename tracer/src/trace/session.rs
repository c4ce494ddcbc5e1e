//! One run of `tracer trace`: load, attach, say so, show events until told to stop, and account for all of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use aya_log::EbpfLogger;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::{Builder, Handle, Runtime},
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
};
use tracing::{debug, warn};

use super::{
    EventFilter, Tracer,
    sink::{Sink, Stop, Tally},
    stream::Stream,
};
use crate::{
    bpf::{self, Bpf, features},
    cli::say,
    containers::{Registry, Selection},
    render::Renderer,
    runtime::{Lifecycle, running},
};

/// Bundles that are read at a time. One that hangs keeps a thread; the others' containers go on.
const READERS: usize = 8;
/// How long finding the containers that run already may delay `ready`.
const FIND_PATIENCE: Duration = Duration::from_secs(2);
/// How long the end may take when standard output does not take what is left.
const END_PATIENCE: Duration = Duration::from_secs(3);

/// What to trace, and how to show it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Config {
    /// The traced kind.
    pub tracer: &'static dyn Tracer,
    /// The containers that are asked for.
    pub selection: Selection,
    /// What is asked of events besides.
    pub filter: EventFilter,
    /// Whether host processes are shown as well.
    pub host: bool,
    /// Whether only failed calls are shown.
    pub failed: bool,
    /// How events are shown.
    pub renderer: Renderer,
    /// The node's name.
    pub node: String,
    /// When to stop by itself.
    pub timeout: Option<Duration>,
    /// How many events to show at the most.
    pub max_events: Option<u64>,
    /// Size of the event ring in bytes.
    pub buffer_size: u32,
    /// File names of container runtimes.
    pub runtimes: Vec<String>,
    /// The engine's CRI socket, where it is not one of the usual ones.
    pub runtime_endpoint: Option<String>,
    /// Whether runtimes of users may name pods.
    pub trust_rootless: bool,
    /// Whether the BPF programs' own log is wanted.
    pub log_programs: bool,
}

/// Traces until a signal, the timeout, the last event asked for, or the end of who reads.
pub fn run(config: Config) -> anyhow::Result<()> {
    features::require()?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(READERS)
        .build()
        .context("starting the asynchronous runtime")?;
    let result = runtime.block_on(Session::start(config, &runtime)?.run());
    // A bundle that hangs must not keep the process.
    runtime.shutdown_background();
    result
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Programs are attached, or about to be.
    Running,
    /// No program runs any more: what is in the rings is all there will be.
    Detached,
}

struct Session {
    bpf: Arc<Mutex<Bpf>>,
    tally: Arc<Tally>,
    phase: watch::Sender<Phase>,
    /// Tells that showing events has come to an end by itself.
    stopped: oneshot::Receiver<Stop>,
    /// Tells that the last event has been handled.
    finished: oneshot::Receiver<anyhow::Result<()>>,
    timeout: Option<Duration>,
    registry: Arc<Registry>,
    runtimes: Vec<String>,
}

impl Session {
    /// Loads the programs and starts the two readers; nothing is attached yet.
    fn start(config: Config, runtime: &Runtime) -> anyhow::Result<Self> {
        let (mut bpf, maps) = Bpf::load(&bpf::Options {
            kind: config.tracer.kind(),
            buffer_size: config.buffer_size,
            host: config.host,
            failed: config.failed,
            runtimes: &config.runtimes,
            log: config.log_programs,
        })?;
        log_programs(&mut bpf, runtime)?;

        let registry = Arc::new(Registry::new(config.selection, maps.registry));
        let lifecycle = Lifecycle::new(maps.lifecycle, Arc::clone(&registry), runtime.handle().clone());
        let lifecycle = Arc::new(Mutex::new(lifecycle));
        let bpf = Arc::new(Mutex::new(bpf));
        let tally = Arc::new(Tally::default());
        let (phase, phases) = watch::channel(Phase::Running);
        let (stop, stopped) = oneshot::channel();
        let (finish, finished) = oneshot::channel();

        let for_lifecycle = (Arc::clone(&lifecycle), phases.clone());
        spawn("lifecycle", move || read_lifecycle(&for_lifecycle.0, for_lifecycle.1))?;
        let sink = Sink::new(
            config.tracer,
            config.filter,
            config.renderer,
            config.node,
            config.max_events,
            Arc::clone(&tally),
            stop,
        );
        let stream = Stream::new(maps.events, lifecycle, Arc::clone(&registry), Arc::clone(&bpf), sink);
        spawn("events", move || {
            let result = local_runtime().and_then(|runtime| runtime.block_on(stream.run(phases)));
            // The session is gone only if it has given up waiting.
            let _ = finish.send(result);
            Ok(())
        })?;
        Ok(Self {
            bpf,
            tally,
            phase,
            stopped,
            finished,
            timeout: config.timeout,
            registry,
            runtimes: config.runtimes,
        })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        // Before `ready`, since who reads that may signal at once.
        let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
        lock(&self.bpf).attach()?;
        self.find_running().await;
        say("ready");
        let timeout = async {
            match self.timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let mut result = Ok(());
        tokio::select! {
            _ = interrupt.recv() => debug!("SIGINT"),
            _ = terminate.recv() => debug!("SIGTERM"),
            () = timeout => debug!("timeout"),
            stop = &mut self.stopped => match stop {
                Ok(Stop::Failed(error)) => result = Err(error).context("writing to standard output"),
                // Of a stream that has failed, `finish` says how.
                Ok(Stop::MaxEvents | Stop::Closed) | Err(_) => {}
            },
        }
        result.and(self.finish().await)
    }

    /// Finds the containers that run already. What hangs there delays nobody for long.
    async fn find_running(&self) {
        let (registry, handle, runtimes) =
            (Arc::clone(&self.registry), Handle::current(), self.runtimes.clone());
        let found = tokio::task::spawn_blocking(move || running::find(&registry, &handle, &runtimes));
        match tokio::time::timeout(FIND_PATIENCE, found).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => warn!("containers that run already pass for the host: {error:#}"),
            Ok(Err(error)) => warn!("containers that run already pass for the host: {error}"),
            Err(_) => warn!("some containers that run already are not found yet: it takes too long"),
        }
    }

    /// Detaches, lets the last events be handled, and adds up.
    async fn finish(self) -> anyhow::Result<()> {
        lock(&self.bpf).detach()?;
        self.phase.send_replace(Phase::Detached);
        let (result, stuck) = match tokio::time::timeout(END_PATIENCE, self.finished).await {
            Ok(Ok(result)) => (result, false),
            Ok(Err(_)) => (Err(anyhow!("the thread that shows events has ended without a word")), true),
            Err(_) => {
                warn!("standard output takes nothing more: events that are left count as lost");
                (Ok(()), true)
            }
        };
        let counters = lock(&self.bpf).counters()?;
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

/// Hands what the programs log on to this process's log.
fn log_programs(bpf: &mut Bpf, runtime: &Runtime) -> anyhow::Result<()> {
    let logger = EbpfLogger::init(bpf.ebpf()).context("reading the BPF programs' log")?;
    let _context = runtime.enter();
    // SAFETY: the logger owns its descriptor, and neither closes nor replaces it before it is dropped.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
        .context("watching the BPF programs' log")?;
    runtime.spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}

/// Handles lifecycle records as they come, whatever the other threads wait for: a runtime's process must be
/// looked at before it ends.
fn read_lifecycle(lifecycle: &Mutex<Lifecycle>, mut phases: watch::Receiver<Phase>) -> anyhow::Result<()> {
    local_runtime()?.block_on(async {
        // SAFETY: the descriptor is owned, and neither closed nor replaced before it is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(lock(lifecycle).readiness()?, Interest::READABLE) }
            .context("watching the lifecycle ring")?;
        loop {
            tokio::select! {
                guard = fd.readable() => guard.context("watching the lifecycle ring")?.clear_ready(),
                _ = phases.changed() => return Ok(()),
            }
            lock(lifecycle).drain();
        }
    })
}

fn local_runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("starting the asynchronous runtime")
}

fn spawn(
    name: &'static str,
    run: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<()> {
    thread::Builder::new()
        .name(name.into())
        .spawn(move || match run() {
            Ok(()) => debug!("thread {name} has ended"),
            Err(error) => warn!("thread {name} has failed: {error:#}"),
        })
        .with_context(|| format!("starting the thread {name}"))?;
    Ok(())
}

/// A panic while the lock was held would have ended the process (`panic = "abort"` in releases); what it guards
/// is whole in any case.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
