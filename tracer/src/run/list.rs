//! `tracer list-containers`: the containers of the node, and what becomes of them.

use std::{collections::HashMap, time::Duration};

use tracer_common::container::ContainerKey;
use tracing::warn;

use crate::{
    bpf,
    bpf::{EventFilter, LifecycleCounters},
    model::ExitStatus,
    output::{ContainerEvent, ContainerRenderer, ContainerRow},
    registry::{ListedContainer, Lookup, Registry, Wait},
    run::{
        doctor,
        limits::{End, Limits},
        list_output::ListOutput,
        observer,
        observer::{Observer, Scope},
        reporter::Selected,
    },
    sys::{clock::WallClock, log_limit::REPORTS, stdout},
};

/// How long to wait for bundles to be read; later containers are not listed, or only with `--watch`.
const BUNDLES_TIMEOUT: Duration = Duration::from_secs(2);
/// How long engines may take to complete what is listed.
const ENGINES_TIMEOUT: Duration = Duration::from_millis(500);
/// How long to wait where a selection needs them.
const LABELS_TIMEOUT: Duration = Duration::from_secs(2);
/// How often missed records are checked for.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Nothing is written to it.
const EVENT_BUFFER: u32 = 4096;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    /// The containers that there are.
    Present,
    /// These, and what changes from then on.
    Changes,
    /// Ends of containers whose first process has failed.
    Failures,
}

/// What to list, and how to show it.
#[derive(Debug)]
pub(crate) struct Config {
    /// How containers are shown: as text, or as frames without a renderer.
    pub(crate) renderer: Option<ContainerRenderer>,
    /// The node's name.
    pub(crate) node: String,
    /// What to list.
    pub(crate) listing: Listing,
    /// When to stop by itself.
    pub(crate) limits: Limits,
    /// The selected containers, and how they are found.
    pub(crate) scope: Scope,
    /// Whether missing labels are reported: whoever asks no engine on purpose knows.
    pub(crate) report_missing_labels: bool,
    /// Whether the BPF programs' own log is wanted.
    pub(crate) log_programs: bool,
}

/// Lists the containers; unless these are all, until a signal, the timeout, or the end of who reads.
pub(crate) fn run(config: Config) -> anyhow::Result<()> {
    doctor::require()?;
    let runtime = observer::runtime()?;
    let runtimes = config.scope.runtimes.clone();
    let options = bpf::Options {
        kinds: Vec::new(),
        buffer_size: EVENT_BUFFER,
        host: false,
        failed: false,
        filter: &EventFilter::default(),
        hook: None,
        runtimes: &runtimes.names,
        trust_rootless: runtimes.trust_rootless,
        log: config.log_programs,
    };
    let engines_timeout =
        if config.scope.selection.labels.is_empty() { ENGINES_TIMEOUT } else { LABELS_TIMEOUT };
    let selected_by = config.scope.options.clone();
    let (observer, _events) = Observer::load(&options, config.scope, &runtime)?;
    stdout::prepare();
    let output = {
        let _context = runtime.enter();
        ListOutput::start(config.renderer, &config.node)?
    };
    let list = List {
        output,
        node: config.node,
        listing: config.listing,
        engines_timeout,
        report_missing_labels: config.report_missing_labels,
        clock: WallClock::new(),
        shown: HashMap::new(),
        selected: Selected::new(&observer.registry, selected_by, &EventFilter::default()),
    };
    let result = runtime.block_on(list.run(&observer, config.limits));
    // A bundle that hangs must not keep the process.
    runtime.shutdown_background();
    result
}

struct List {
    output: ListOutput,
    node: String,
    listing: Listing,
    engines_timeout: Duration,
    report_missing_labels: bool,
    /// One for all rows: that of a container says the same start each time.
    clock: WallClock,
    /// What was shown last of each container.
    shown: HashMap<ContainerKey, ListedContainer>,
    selected: Selected,
}

impl List {
    fn watches(&self) -> bool {
        self.listing != Listing::Present
    }

    async fn run(mut self, observer: &Observer, limits: Limits) -> anyhow::Result<()> {
        let mut end = {
            let reporter = self.output.reporter();
            End::new(limits, move || reporter.alive())?
        };
        let reads_on = tokio::select! {
            () = end.requested() => Ok(false),
            error = observer.failed() => Err(error),
            reads_on = self.begin(observer) => reads_on,
        };
        if !matches!(reads_on, Ok(true)) || !self.watches() {
            observer.detach();
            return reads_on.map(drop);
        }
        let reporter = self.output.reporter();
        reporter.ready(&self.selected);
        let result = tokio::select! {
            () = end.reached() => Ok(()),
            error = observer.failed() => Err(error),
            result = self.follow(observer) => result,
        };
        observer.detach();
        result
    }

    /// Shows the containers that there are. Returns whether anybody reads on.
    async fn begin(&mut self, observer: &Observer) -> anyhow::Result<bool> {
        observer.start().await?.within(self.engines_timeout).await;
        let registry = &observer.registry;
        if registry.settled(BUNDLES_TIMEOUT).await == Wait::TimedOut {
            warn!("some containers are not listed: their bundles could not be read in time");
        }
        let mut listed: Vec<ListedContainer> =
            registry.list().into_iter().filter(|listed| !listed.ended).collect();
        self.selected.update();
        let undecided = self.selected.undecided();
        if undecided > 0 && !self.watches() {
            warn!("{undecided} containers are left out: their pods, or those pods' labels, are not known");
        }
        // No engine of this node knows those of pods within a container.
        let lacks_labels =
            |listed: &&ListedContainer| listed.container.lacks_labels() && listed.container.outer.is_none();
        let lacking = listed.iter().filter(lacks_labels).count();
        if lacking > 0 && self.report_missing_labels {
            warn!(
                "labels are missing: no container engine reported those of {lacking} of {} containers; check that the \
                 engine runs and that its socket can be used (tracer doctor)",
                listed.len()
            );
        }
        // Pods first.
        listed.sort_by_cached_key(|ListedContainer { container, first, .. }| {
            let pod = container.pod.as_ref();
            let names = pod.map(|pod| (pod.namespace.clone(), pod.name.clone(), pod.container.clone()));
            (names.is_none(), names, first.since)
        });
        let event = self.watches().then_some(ContainerEvent::Added);
        let rows: Vec<ContainerRow<'_>> = listed
            .iter()
            .filter(|_| self.listing != Listing::Failures)
            .map(|listed| row(&self.node, listed, event, &self.clock))
            .collect();
        let mut out = Vec::new();
        self.output.begin(&rows, &mut out)?;
        self.shown = listed.iter().map(|listed| (listed.key, listed.clone())).collect();
        if let Some(nothing) = self.selected.nothing()
            && !self.watches()
        {
            self.output.note(&nothing);
        }
        self.output.write(out).await
    }

    /// Shows what changes.
    async fn follow(&mut self, observer: &Observer) -> anyhow::Result<()> {
        let mut changes = observer.registry.changes();
        let mut report = tokio::time::interval(REPORT_INTERVAL);
        let mut missed = LifecycleCounters::default();
        loop {
            tokio::select! {
                _ = changes.changed() => {}
                _ = report.tick() => {
                    let before = std::mem::replace(&mut missed, observer.missed()?);
                    observer.registry.missed(missed.full, missed.not_followed());
                    for ((reason, count), (_, before)) in missed.by_reason().iter().zip(before.by_reason()) {
                        if *count > before {
                            warn!(target: REPORTS, "missed {} of what becomes of containers: {reason}", count - before);
                        }
                    }
                }
            }
            if !self.show_changes(&observer.registry).await? {
                return Ok(());
            }
        }
    }

    /// Shows what has changed since the last time. Returns whether anybody reads on.
    async fn show_changes(&mut self, registry: &Registry) -> anyhow::Result<bool> {
        // What ends or becomes known from here on has its turn the next time.
        let over = over(registry);
        let mut listed = registry.list();
        listed.sort_by_key(|listed| listed.first.since);
        self.clock.adjust();
        let mut out = Vec::new();
        for listed in listed {
            let change = match self.shown.get(&listed.key) {
                None => Some((ContainerEvent::Added, Vec::new())),
                Some(before) => Some((ContainerEvent::Modified, listed.changes_since(before)))
                    .filter(|(_, changed)| !changed.is_empty()),
            };
            // One that came and went between two looks is shown twice.
            let end = over.contains(&listed.key).then(|| (ContainerEvent::Deleted, Vec::new()));
            for (event, changed) in change.into_iter().chain(end) {
                let exit = listed.exit.filter(|_| event == ContainerEvent::Deleted);
                if self.listing == Listing::Failures && !exit.is_some_and(ExitStatus::is_failure) {
                    continue;
                }
                let row = row(&self.node, &listed, Some(event), &self.clock);
                self.output.row(&ContainerRow { changed, exit, ..row }, &mut out)?;
            }
            self.shown.insert(listed.key, listed);
        }
        for key in &over {
            self.shown.remove(key);
        }
        registry.forget(&over);
        self.output.write(out).await
    }
}

/// The keys that have ended and are known, or have had the time to become known.
fn over(registry: &Registry) -> Vec<ContainerKey> {
    let timeout = u64::try_from(BUNDLES_TIMEOUT.as_nanos()).unwrap_or(u64::MAX);
    let now = WallClock::boot_now();
    let is_over = |key: ContainerKey, at: u64| {
        matches!(registry.look_up(key), Lookup::Known(_)) || at.saturating_add(timeout) < now
    };
    registry.ended().into_iter().filter(|(key, at)| is_over(*key, *at)).map(|(key, _)| key).collect()
}

fn row<'a>(
    node: &'a str,
    listed: &'a ListedContainer,
    event: Option<ContainerEvent>,
    clock: &WallClock,
) -> ContainerRow<'a> {
    let started = Some(clock.wall_time(listed.first.since));
    ContainerRow {
        node,
        event,
        changed: Vec::new(),
        container: &listed.container,
        pid: listed.first.pid,
        started,
        now: clock.now(),
        exit: None,
    }
}
