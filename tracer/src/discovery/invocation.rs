//! One invocation of a runtime that is believed, from its command line to the container it is about.

use std::{
    fmt::Display,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Once, PoisonError},
};

use tokio::runtime::Handle;
use tracer_common::{Comm, container::ContainerKey};
use tracing::{debug, warn};

use crate::{
    discovery::{
        claim,
        claim::{Claim, Stray},
        doubt,
        oci::{
            bundle,
            bundle::Bundle,
            cmdline::{Command, CommandLine},
            state,
            state::State,
        },
        place,
        place::Running,
        readers::{Guest, Readers},
    },
    model::{Container, ContainerType, Isolation, Nested, Source, Unknown},
    registry::{Attribution, ContainerName, Lookup, Registry},
    sanitize::line,
    sys::{
        file_helper, files, host_root, proc_table,
        process_handle::{Root, RuntimeProcess},
    },
};

/// Runtimes that run the container's program within themselves, whatever the bundle says.
const IN_PROCESS_RUNTIMES: [&str; 3] = ["crun-krun", "crun-wasm", "krun"];

/// A runtime's invocation that brings a process into a container, with a hold on what it sees of the file system.
#[derive(Debug)]
pub(crate) struct Invocation {
    key: ContainerKey,
    runtime: String,
    view: View,
    /// Who may own its files besides root.
    owner: u32,
    /// The container that it runs in, if that may name others.
    outer: Option<Outer>,
    name: ContainerName,
    task: Task,
    /// The `config.json` that was read last, as a hash.
    read: Mutex<Option<u64>>,
}

/// What a runtime sees of the file system.
#[derive(Debug)]
enum View {
    /// What is below this directory.
    Below(Arc<Root>),
    /// The host's: a runtime that has ended, as its being trusted says that it was one.
    Host,
    /// It has ended, and nobody knows.
    Gone,
}

/// A container whose runtimes name containers of their own.
#[derive(Clone, Debug)]
pub(crate) struct Outer {
    /// Its key.
    pub(crate) key: ContainerKey,
    /// As the containers within it show it.
    pub(crate) shown: Nested,
    /// Its root directory: that of a runtime which has ended, for all that is known.
    root: Option<Arc<Root>>,
}

/// What is to be found out.
#[derive(Debug)]
enum Task {
    /// A container comes into being, or is there, with this `config.json`.
    Read { config: PathBuf, source: Source },
    /// A process joins a container.
    Join,
    /// A container is started: what hooks do for it joins it.
    Start,
}

/// What was found out.
#[derive(Debug)]
pub(crate) enum Found {
    /// A container of its own.
    Container(Box<Container>),
    /// A container that is known already.
    Joined(Arc<Attribution>),
    /// The same as before.
    Unchanged,
}

/// Nothing was found out, and why: the container without its pod.
#[derive(Debug)]
pub(crate) struct Unread {
    container: Box<Container>,
    problem: String,
}

/// Whether more may become known of what an invocation brings about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The runtime is at work: a wrapper may still write the bundle.
    AtWork,
    /// The container's program runs.
    Begun,
}

impl Outer {
    /// The container that a runtime runs in, if it may name others.
    pub(crate) fn new(attribution: &Attribution, registry: &Registry) -> Option<Self> {
        let Container { id, runtime, .. } = &*attribution.container;
        if !attribution.container.may_name_others() {
            return None;
        }
        let shown = Nested { id: id.clone(), runtime: runtime.clone() };
        let root = registry.root(attribution.key, |init| {
            Some(RuntimeProcess::open(init, proc_table::start_ticks(init)?).ok()?.into_root())
        });
        Some(Self { key: attribution.key, shown, root })
    }
}

impl Invocation {
    /// From the command line of a runtime that is at work, or was until just now. None where it brings no process
    /// into any container.
    pub(crate) fn new(
        key: ContainerKey,
        runtime: String,
        process: Option<RuntimeProcess>,
        owner: u32,
        outer: Option<Outer>,
        line: CommandLine,
    ) -> Option<Self> {
        // Below which a relative state directory is.
        let mut base = PathBuf::new();
        let (id, task) = match line.command {
            Command::Init | Command::Other => return None,
            Command::Create(creation) | Command::Run(creation) | Command::Restore(creation) => {
                let bundle = bundle(process.as_ref(), &creation.bundle.unwrap_or_default());
                // crun has gone into the bundle by the time that it makes the directory.
                if place::is_crun(&runtime) {
                    base.clone_from(&bundle);
                }
                let config = match creation.config {
                    // crun takes a file elsewhere from its own working directory.
                    Some(config) if config != Path::new("config.json") => absolute(process.as_ref(), &config),
                    _ => bundle.join("config.json"),
                };
                (creation.id, Task::Read { config, source: Source::Bundle })
            }
            Command::Exec(exec) => (exec.id, Task::Join),
            Command::Start(id) => (id, Task::Start),
        };
        let runtime = full_name(runtime, process.as_ref());
        let root = line.root.unwrap_or_else(|| state_root(&runtime, owner, process.as_ref()));
        let name = ContainerName {
            outer: outer.as_ref().map_or(ContainerKey::HOST, |outer| outer.key),
            root: absolute(process.as_ref(), &base.join(root)),
            id: id.to_string_lossy().into_owned(),
        };
        let view = match (process, &outer) {
            (Some(process), _) => View::Below(Arc::new(process.into_root())),
            (None, None) => View::Host,
            (None, Some(outer)) => outer.root.clone().map_or(View::Gone, View::Below),
        };
        Some(Self { key, runtime, view, owner, outer, name, task, read: Mutex::default() })
    }

    /// From a container that runs.
    pub(crate) fn of_running(key: ContainerKey, container: &Running, outer: Option<Outer>) -> Self {
        let name = ContainerName {
            outer: outer.as_ref().map_or(ContainerKey::HOST, |outer| outer.key),
            root: container.state_root.clone().unwrap_or_default(),
            id: container.id.clone(),
        };
        let config = container.bundle.join("config.json");
        Self {
            key,
            runtime: container.runtime.clone(),
            view: container.view.clone().map_or(View::Host, View::Below),
            owner: container.owner,
            outer,
            name,
            task: Task::Read { config, source: Source::State },
            read: Mutex::default(),
        }
    }

    /// The key that it was given.
    pub(crate) const fn key(&self) -> ContainerKey {
        self.key
    }

    /// By what `exec` names the container that this brings into being.
    pub(crate) fn name(&self) -> Option<&ContainerName> {
        matches!(self.task, Task::Read { .. }).then_some(&self.name)
    }

    /// Finds the container, reading files where that is needed: to be called where waiting does no harm.
    pub(crate) fn find(&self, registry: &Registry) -> Result<Found, Unread> {
        match &self.task {
            Task::Read { config, source } if config.is_absolute() => self.read_bundle(config, *source),
            // The runtime has ended, and with it the directory that its path began from.
            Task::Read { .. } => self.read_state(),
            Task::Join | Task::Start => {
                match registry.find(&self.name).or_else(|| self.find_running(registry)) {
                    Some(attribution) => Ok(Found::Joined(attribution)),
                    None => self.read_state(),
                }
            }
        }
    }

    /// The container that its state shows to be one that is known by another name.
    fn find_running(&self, registry: &Registry) -> Option<Arc<Attribution>> {
        registry.find_running(&self.name, self.state().ok()?.init?)
    }

    fn state(&self) -> Result<State, String> {
        let ContainerName { root: state_root, id, .. } = &self.name;
        self.view(|root| state::read(root, state_root, id, self.owner))
    }

    fn read_state(&self) -> Result<Found, Unread> {
        let state = self.state().map_err(|problem| self.unread(problem, Source::State))?;
        self.read_bundle(&state.bundle.join("config.json"), Source::State)
    }

    fn unread(&self, problem: String, source: Source) -> Unread {
        Unread { container: Box::new(Container { source, ..self.without_bundle() }), problem }
    }

    /// Reads the bundle, unless it is what was read before.
    fn read_bundle(&self, config: &Path, source: Source) -> Result<Found, Unread> {
        // Of two threads that read it the later one has the newer file.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self
            .view(|root| bundle::read(root, config, self.owner))
            .map_err(|problem| self.unread(problem, source))?;
        let digest = digest(&bytes);
        if *read == Some(digest) {
            return Ok(Found::Unchanged);
        }
        let beside = |path: &Path| self.view(|root| files::read_below(root, path, self.owner)).ok();
        let Bundle { engine, kind, name, image, pod, sandbox_id, privileged, in_process } =
            Bundle::parse(&bytes, config, &self.name.id, &beside)
                .map_err(|error| self.unread(line(&error.to_string()), source))?;
        *read = Some(digest);
        Ok(Found::Container(Box::new(Container {
            runtime: engine.map_or_else(|| self.runtime.clone(), str::to_owned),
            kind,
            name,
            image,
            source,
            why: None,
            pod,
            pod_known: true,
            sandbox_id,
            privileged,
            in_process: in_process || IN_PROCESS_RUNTIMES.contains(&self.runtime.as_str()),
            ..self.without_bundle()
        })))
    }

    fn without_bundle(&self) -> Container {
        Container {
            id: self.name.id.clone(),
            runtime: self.runtime.clone(),
            kind: ContainerType::Container,
            outer: self.outer.as_ref().map(|outer| outer.shown.clone()),
            isolation: Isolation::of_runtime(&self.runtime),
            ..Container::unknown(if file_helper::is_overdue() { Unknown::Late } else { Unknown::Unreadable })
        }
    }

    /// Reads something as the runtime sees it. Why that failed is fit for the log, whatever a path or a file holds.
    fn view<T, E: Display>(&self, read: impl FnOnce(BorrowedFd<'_>) -> Result<T, E>) -> Result<T, String> {
        let result = match &self.view {
            View::Below(root) => read(root.as_fd()),
            View::Host => read(host_root::root().map_err(|error| error.to_string())?.as_fd()),
            View::Gone => return Err("its runtime has ended too soon".to_owned()),
        };
        result.map_err(|error| line(&error.to_string()))
    }
}

/// The content of a file as a number, by which a change shows. Whoever can make two files with the same number can write
/// the bundle anyway.
fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Has a container found out without waiting for it.
pub(crate) fn learn(invocation: Invocation, registry: &Arc<Registry>, readers: &Arc<Readers>) {
    learn_at(&Arc::new(invocation), Stage::Begun, registry, readers);
}

/// Likewise, of a container that may not have begun yet: what cannot be read then is read again when it has.
pub(crate) fn learn_at(
    invocation: &Arc<Invocation>,
    stage: Stage,
    registry: &Arc<Registry>,
    readers: &Arc<Readers>,
) {
    registry.announce(invocation.key(), ContainerKey::HOST, invocation.name().cloned());
    let (invocation, registry) = (Arc::clone(invocation), Arc::clone(registry));
    let handle = readers.handle().clone();
    let guest = match &invocation.outer {
        Some(outer) => Guest::Container(outer.key),
        None if invocation.owner != files::ROOT => Guest::Rootless,
        None => {
            readers.host(move || resolve(&invocation, stage, &registry, &handle));
            return;
        }
    };
    let readers = Arc::clone(readers);
    let shown = invocation.outer.as_ref().map(|outer| outer.shown.clone());
    let late = Late { key: invocation.key(), outer: shown, registry: Arc::clone(&registry) };
    readers.handle().clone().spawn(async move {
        let read = move || resolve(&invocation, stage, &registry, &handle);
        late.unless(readers.guest(guest, read).await);
    });
}

/// A container that nothing becomes known of in time.
struct Late {
    key: ContainerKey,
    /// The container that it is in.
    outer: Option<Nested>,
    registry: Arc<Registry>,
}

impl Late {
    /// Says so, unless it has been found out.
    fn unless(self, found: Option<()>) {
        if found.is_none() && self.registry.resolved(self.key).is_none() {
            let container = Container { outer: self.outer, ..Container::unknown(Unknown::Late) };
            self.registry.resolve(self.key, container);
        }
    }
}

/// Finds the container, and lets the registry know.
fn resolve(invocation: &Invocation, stage: Stage, registry: &Arc<Registry>, handle: &Handle) {
    let key = invocation.key();
    match invocation.find(registry) {
        Ok(Found::Container(container)) => {
            if !registry.rejects(&container) {
                warn_of_isolation(&container);
            }
            registry.resolve(key, *container);
        }
        Ok(Found::Joined(attribution)) => registry.join(key, &attribution),
        Ok(Found::Unchanged) => {}
        Err(Unread { problem, .. }) if stage == Stage::AtWork => {
            debug!("container {:?} cannot be read yet: {problem}", invocation.name.id);
        }
        // What was read before may have been deleted since.
        Err(_) if registry.resolved(key).is_some() => {}
        Err(Unread { container, problem }) => {
            let warning = format!("container {:?} is shown without pod: {problem}", invocation.name.id);
            doubt::warn(key, &container, warning, registry, handle);
            registry.resolve(key, *container);
        }
    }
}

/// Has the container of a runtime that runs in a container found out without waiting for it. `claim` is looked into
/// only if that container may name others; else what it brings about is that container's.
pub(crate) fn learn_inner(mut claim: Claim, registry: &Arc<Registry>, readers: &Arc<Readers>) {
    registry.announce(claim.key, claim.outer, None);
    claim.hold(readers);
    let (registry, readers) = (Arc::clone(registry), Arc::clone(readers));
    readers.handle().clone().spawn(async move {
        let Some(around) = known(&registry, claim.outer).await else {
            registry.resolve(claim.key, Container::unknown(Unknown::Late));
            return;
        };
        if around.host {
            // It turned out to be no container.
            let stray = claim.disbelieved().map(|stray| {
                stray.warn(claim.key, &registry, readers.handle());
                stray.container("", 0)
            });
            registry.resolve(claim.key, stray.unwrap_or_else(|| Container::unknown(Unknown::Untrusted)));
            return;
        }
        match Outer::new(&around, &registry).filter(|_| claim.is_roots()) {
            None => registry.resolve(claim.key, around.container.with_inner(claim.nested())),
            Some(outer) => {
                let guest = Guest::Container(outer.key);
                let shown = Some(outer.shown.clone());
                let late = Late { key: claim.key, outer: shown, registry: Arc::clone(&registry) };
                let handle = readers.handle().clone();
                let read = move || match claim_as_guest(&mut claim, Some(outer)) {
                    Ok(Some(invocation)) => resolve_named(&invocation, &registry, &handle),
                    // It brings nothing about, so what it does is the outer one's.
                    Ok(None) => registry.join(claim.key, &around),
                    Err(stray) => stray.resolve(claim.key, &registry, &handle),
                };
                late.unless(readers.guest(guest, read).await);
            }
        }
    });
}

/// Has the container of a user's runtime found out without waiting for it.
pub(crate) fn learn_rootless(mut claim: Claim, registry: &Arc<Registry>, readers: &Arc<Readers>) {
    registry.announce(claim.key, ContainerKey::HOST, None);
    let (registry, readers) = (Arc::clone(registry), Arc::clone(readers));
    readers.handle().clone().spawn(async move {
        let late = Late { key: claim.key, outer: None, registry: Arc::clone(&registry) };
        let handle = readers.handle().clone();
        let read = move || match claim_as_guest(&mut claim, None) {
            Ok(Some(invocation)) => resolve_named(&invocation, &registry, &handle),
            Ok(None) => {}
            Err(stray) => stray.resolve(claim.key, &registry, &handle),
        };
        late.unless(readers.guest(Guest::Rootless, read).await);
    });
}

/// The invocation behind a claim; None if it brings no process into any container, and the container that is left
/// where it cannot be understood.
fn claim_as_guest(claim: &mut Claim, outer: Option<Outer>) -> Result<Option<Invocation>, NotUnderstood> {
    let (line, process) = claim.request();
    let owner = match (&outer, &process) {
        (None, Some(process)) => process.effective_uid().unwrap_or(files::ROOT),
        _ => files::ROOT,
    };
    match line {
        Ok(line) => Ok(Invocation::new(claim.key, claim.runtime.clone(), process, owner, outer, line)),
        Err(problem) => {
            let stray = claim.not_understood(&problem);
            Err(NotUnderstood { stray, outer: outer.map(|outer| outer.shown) })
        }
    }
}

/// The container of a claim that is not understood.
struct NotUnderstood {
    stray: Stray,
    /// The container that it is in.
    outer: Option<Nested>,
}

impl NotUnderstood {
    fn resolve(self, key: ContainerKey, registry: &Arc<Registry>, handle: &Handle) {
        self.stray.warn(key, registry, handle);
        let container = self.stray.container("", 0);
        registry.resolve(key, Container { outer: self.outer, ..container });
    }
}

/// As [`resolve`], for what was announced without its name.
fn resolve_named(invocation: &Invocation, registry: &Arc<Registry>, handle: &Handle) {
    if let Some(name) = invocation.name() {
        registry.name(invocation.key(), name.clone());
    }
    resolve(invocation, Stage::Begun, registry, handle);
}

/// What a key resolves to, once that is known; None if it is forgotten before.
async fn known(registry: &Registry, key: ContainerKey) -> Option<Arc<Attribution>> {
    let mut changes = registry.changes();
    loop {
        if let Some(attribution) = registry.resolved(key) {
            return Some(attribution);
        }
        if matches!(registry.look_up(key), Lookup::Unknown) || changes.changed().await.is_err() {
            return None;
        }
    }
}

/// Says once of each kind of isolation that events from within are not seen.
fn warn_of_isolation(container: &Container) {
    static GVISOR: Once = Once::new();
    static KATA: Once = Once::new();
    let (said, what) = match container.isolation {
        Some(Isolation::Gvisor) => (&GVISOR, "gVisor, a kernel in user space"),
        Some(Isolation::Kata) => (&KATA, "Kata, in a virtual machine"),
        None => return,
    };
    said.call_once(|| {
        warn!(
            "container {:?} runs under {what}: what happens inside is not seen, here and in others like it",
            container.id
        );
    });
}

/// A runtime's name in full: a comm, which is what those have that ran before, has 15 bytes of it.
fn full_name(name: String, process: Option<&RuntimeProcess>) -> String {
    /// A comm ends with a NUL byte.
    const COMM_LEN: usize = size_of::<Comm>() - 1;
    let Some(process) = process.filter(|_| name.len() == COMM_LEN) else { return name };
    let full = process.cmdline().map_or_else(|_| name.clone(), |block| claim::full_name(&name, &block));
    let executed = || process.program().filter(|program| claim::is_cut_to(program, &name));
    if full == name { executed().unwrap_or(full) } else { full }
}

/// Where a runtime keeps its state that was not told where. `owner` is its user.
fn state_root(runtime: &str, owner: u32, process: Option<&RuntimeProcess>) -> PathBuf {
    if owner == files::ROOT && !place::is_crun(runtime) {
        return place::state_root(runtime);
    }
    let of_session = process.and_then(|process| process.variable("XDG_RUNTIME_DIR"));
    match of_session.filter(|directory| !directory.is_empty()) {
        Some(directory) => place::state_root_of_user(runtime, Path::new(&directory)),
        None if owner == files::ROOT => place::state_root(runtime),
        None => place::state_root_of_user(runtime, &place::runtime_directory(owner)),
    }
}

/// The bundle that a runtime was given, from its root. Runtimes go there, so a relative path is one from where
/// they were, or, if they have gone already, the end of where they are.
fn bundle(process: Option<&RuntimeProcess>, given: &Path) -> PathBuf {
    let path = absolute(process, given);
    if let Some(process) = process
        && given.is_relative()
        && process.cwd().ends_with(given)
        && !process.has(&path.join("config.json"))
    {
        return process.cwd().to_owned();
    }
    path
}

/// A path that the runtime was given, from its root. Should the runtime be gone, a relative path stays one.
fn absolute(process: Option<&RuntimeProcess>, path: &Path) -> PathBuf {
    process.map_or_else(|| path.to_owned(), |process| process.absolute(path))
}
