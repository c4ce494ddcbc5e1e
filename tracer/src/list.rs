//! `tracer list-containers`: the containers of the node, and what becomes of them.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::Duration,
};

use tokio::time::{Instant, timeout};
use tracer_common::container::ContainerKey;
use tracing::warn;

use crate::{
    bpf::{self, features},
    cli::say,
    clock::WallClock,
    containers::{Listed, Registry},
    observe::{self, End, Observer, Scope},
    render::{ContainerEvent, ContainerRenderer, ContainerRow},
    stdout,
};

/// How long bundles may take to be read: what takes longer is not listed, or comes later.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long engines may take to complete what is listed.
const ENGINES_PATIENCE: Duration = Duration::from_millis(500);
/// How often it is looked whether something was missed.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Nothing is written to it.
const EVENT_BUFFER: u32 = 4096;

/// What to list, and how to show it.
#[derive(Debug)]
pub struct Config {
    /// How containers are shown.
    pub renderer: ContainerRenderer,
    /// The node's name.
    pub node: String,
    /// Whether to go on and show what changes.
    pub watch: bool,
    /// When to stop by itself.
    pub timeout: Option<Duration>,
    /// The containers that are asked for, and how they become known.
    pub scope: Scope,
    /// Whether the BPF programs' own log is wanted.
    pub log_programs: bool,
}

/// Lists the containers; with `watch`, until a signal, the timeout, or the end of who reads.
pub fn run(config: Config) -> anyhow::Result<()> {
    features::require()?;
    let runtime = observe::runtime()?;
    let runtimes = config.scope.runtimes.clone();
    let options = bpf::Options {
        kind: None,
        buffer_size: EVENT_BUFFER,
        host: false,
        failed: false,
        runtimes: &runtimes,
        log: config.log_programs,
    };
    let (observer, _events) = Observer::load(&options, config.scope, &runtime)?;
    let list =
        List { renderer: config.renderer, node: config.node, watch: config.watch, shown: HashMap::new() };
    let result = runtime.block_on(list.run(&observer, config.timeout));
    // A bundle that hangs must not keep the process.
    runtime.shutdown_background();
    result
}

struct List {
    renderer: ContainerRenderer,
    node: String,
    watch: bool,
    /// What was shown last of each container.
    shown: HashMap<ContainerKey, Listed>,
}

impl List {
    async fn run(mut self, observer: &Observer, time: Option<Duration>) -> anyhow::Result<()> {
        let end = End::new(time)?;
        observer.start().await?.within(ENGINES_PATIENCE).await;
        let registry = &observer.registry;
        settled(registry).await;
        if !self.begin(registry)? || !self.watch {
            return observer.detach();
        }
        say("ready");
        let result = tokio::select! {
            () = end.come() => Ok(()),
            result = self.follow(observer) => result,
        };
        result.and(observer.detach())
    }

    /// Shows the containers that there are. Returns whether anybody reads on.
    fn begin(&mut self, registry: &Registry) -> io::Result<bool> {
        let mut listed: Vec<Listed> = registry.list().into_iter().filter(|listed| !listed.ended).collect();
        sort(&mut listed);
        let event = self.watch.then_some(ContainerEvent::Added);
        let clock = WallClock::new();
        let rows: Vec<ContainerRow<'_>> =
            listed.iter().map(|listed| row(&self.node, listed, event, &clock)).collect();
        let mut out = Vec::new();
        self.renderer.begin(&rows, &mut out)?;
        self.shown = listed.iter().map(|listed| (listed.key, listed.clone())).collect();
        write(&out)
    }

    /// Shows what changes.
    async fn follow(&mut self, observer: &Observer) -> anyhow::Result<()> {
        let mut changes = observer.registry.changes();
        let mut report = tokio::time::interval(REPORT_INTERVAL);
        let mut missed = 0;
        loop {
            tokio::select! {
                _ = changes.changed() => {}
                _ = report.tick() => {
                    let now_missed = observer.missed()?;
                    if now_missed > missed {
                        warn!("{} starts, processes or ends of containers were missed", now_missed - missed);
                        missed = now_missed;
                    }
                }
            }
            if !self.show_changes(&observer.registry)? {
                return Ok(());
            }
        }
    }

    /// Shows what has changed since the last time. Returns whether anybody reads on.
    fn show_changes(&mut self, registry: &Registry) -> io::Result<bool> {
        let mut listed = registry.list();
        sort(&mut listed);
        let clock = WallClock::new();
        let mut out = Vec::new();
        for listed in &listed {
            let before = self.shown.get(&listed.key);
            let change = match before {
                None => Some(ContainerEvent::Added),
                Some(before) if before.container != listed.container || before.first != listed.first => {
                    Some(ContainerEvent::Modified)
                }
                Some(_) => None,
            };
            // One that came and went between two looks is shown twice.
            for event in change.into_iter().chain(listed.ended.then_some(ContainerEvent::Deleted)) {
                self.renderer.row(&row(&self.node, listed, Some(event), &clock), &mut out)?;
            }
            if listed.ended {
                self.shown.remove(&listed.key);
            } else {
                self.shown.insert(listed.key, listed.clone());
            }
        }
        registry.forget(&over(registry, &listed));
        write(&out)
    }
}

/// Waits, within bounds, for the bundles that are being read.
async fn settled(registry: &Registry) {
    let mut changes = registry.changes();
    let deadline = Instant::now() + PATIENCE;
    while registry.is_learning() {
        let left = deadline.saturating_duration_since(Instant::now());
        if timeout(left, changes.changed()).await.is_err() {
            warn!("some containers are not listed: their bundles could not be read in time");
            return;
        }
    }
}

/// The keys of which nothing more is to be shown: what has ended and was shown, or will never be.
fn over(registry: &Registry, listed: &[Listed]) -> Vec<ContainerKey> {
    let patience = u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
    let now = WallClock::boot_now();
    let shown: HashSet<ContainerKey> = listed.iter().map(|listed| listed.key).collect();
    let is_over = |key: ContainerKey, at: u64| {
        shown.contains(&key) || registry.resolved(key).is_some() || at.saturating_add(patience) < now
    };
    registry.ended().into_iter().filter(|(key, at)| is_over(*key, *at)).map(|(key, _)| key).collect()
}

fn sort(listed: &mut [Listed]) {
    listed.sort_by(|one, other| {
        let order = |listed: &Listed| {
            let pod = listed.container.pod.as_ref();
            let names = pod.map(|pod| (pod.namespace.clone(), pod.name.clone(), pod.container.clone()));
            // Pods first.
            (names.is_none(), names, listed.first.since)
        };
        order(one).cmp(&order(other))
    });
}

fn row<'a>(
    node: &'a str,
    listed: &'a Listed,
    event: Option<ContainerEvent>,
    clock: &WallClock,
) -> ContainerRow<'a> {
    let started = Some(clock.from_boot(listed.first.since));
    ContainerRow {
        node,
        event,
        container: &listed.container,
        pid: listed.first.pid,
        started,
        now: clock.now(),
    }
}

/// Writes; returns whether anybody reads on.
fn write(bytes: &[u8]) -> io::Result<bool> {
    match stdout::write(bytes).1 {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
