//! Resolves keys to containers in the background: by what an [`Invocation`] names, or by where a runtime was executed.

use std::sync::{Arc, Once};

use tracer_common::container::ContainerKey;
use tracing::{debug, warn};

use crate::{
    discovery::{
        invocation::{Found, Invocation, Unread},
        node_container::NodeContainer,
        pod_warning,
        readers::{Readers, UntrustedOwner},
        runtime_execution::RuntimeExecution,
        unresolved::UnresolvedContainer,
    },
    model::{Container, Isolation, Nested, Unknown},
    registry::{Attribution, Lookup, Registry},
    sanitize::line,
};

/// The registry, and the threads that read what runtimes name.
#[derive(Clone)]
pub(crate) struct Resolver {
    /// Where keys are resolved.
    pub(crate) registry: Arc<Registry>,
    /// Threads that may block.
    pub(crate) readers: Arc<Readers>,
}

/// Whether a bundle may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BundleState {
    /// The runtime is running, and a wrapper may still write the bundle.
    Provisional,
    /// The container's program runs.
    Final,
}

/// What the container that a runtime runs in makes of the runtime's own container.
enum Around {
    /// It was forgotten before it was resolved.
    Forgotten,
    /// It turned out to be no container: the runtime is an untrusted one of the host's.
    Host,
    /// It may not name others, or the runtime is not its root: what the runtime starts belongs to it.
    Owner(Arc<Attribution>),
    /// The runtime may name a container of its own.
    Node(NodeContainer, Arc<Attribution>),
}

impl Resolver {
    /// Resolves what an invocation is about: a container that has begun.
    pub(crate) fn resolve(&self, invocation: Invocation) {
        self.resolve_at(&Arc::new(invocation), BundleState::Final);
    }

    /// Resolves what an invocation is about. A provisional bundle that cannot be read is no reason for a warning: it is
    /// read again when it is final.
    pub(crate) fn resolve_at(&self, invocation: &Arc<Invocation>, state: BundleState) {
        let key = invocation.key();
        self.registry.announce(key, ContainerKey::HOST, invocation.name().cloned());
        let (resolver, invocation) = (self.clone(), Arc::clone(invocation));
        match invocation.untrusted_owner() {
            None => self.readers.host(move || resolver.look_up(&invocation, state)),
            Some(owner) => {
                let outer = invocation.outer().map(|outer| outer.shown.clone());
                self.readers.handle().clone().spawn(async move {
                    let reading = resolver.clone();
                    let read = move || reading.look_up(&invocation, state);
                    let in_time = resolver.readers.untrusted(owner, read).await;
                    resolver.resolve_late(key, outer, in_time);
                });
            }
        }
    }

    /// Resolves the key of a runtime that runs in a container. The runtime is looked into only if that container may name
    /// others; otherwise what it starts belongs to that container.
    pub(crate) fn resolve_nested(&self, mut execution: RuntimeExecution) {
        self.registry.announce(execution.key, execution.outer, None);
        execution.hold(&self.readers);
        let resolver = self.clone();
        self.readers.handle().clone().spawn(async move {
            let container = match resolver.around(&execution).await {
                Around::Forgotten => Container::unknown(Unknown::Late),
                Around::Host => resolver.untrusted(&execution),
                Around::Owner(owner) => owner.container.with_inner(execution.nested()),
                Around::Node(node, attribution) => {
                    let owner = UntrustedOwner::Container(node.key);
                    resolver.read_as(owner, execution, Some(node), Some(attribution)).await;
                    return;
                }
            };
            resolver.registry.resolve(execution.key, container);
        });
    }

    /// Resolves the key of a user's runtime on the host, if those are trusted.
    pub(crate) fn resolve_rootless(&self, execution: RuntimeExecution) {
        self.registry.announce(execution.key, ContainerKey::HOST, None);
        let resolver = self.clone();
        self.readers.handle().clone().spawn(async move {
            resolver.read_as(UntrustedOwner::Rootless, execution, None, None).await;
        });
    }

    async fn around(&self, execution: &RuntimeExecution) -> Around {
        let Some(attribution) = self.resolution(execution.outer).await else { return Around::Forgotten };
        if attribution.host {
            return Around::Host;
        }
        match NodeContainer::new(&attribution, &self.registry).filter(|_| execution.is_roots()) {
            Some(node) => Around::Node(node, attribution),
            None => Around::Owner(attribution),
        }
    }

    /// What a key resolves to, once that is known; None if it is forgotten before.
    async fn resolution(&self, key: ContainerKey) -> Option<Arc<Attribution>> {
        let mut changes = self.registry.changes();
        loop {
            if let Some(attribution) = self.registry.resolved(key) {
                return Some(attribution);
            }
            if matches!(self.registry.look_up(key), Lookup::Unknown) || changes.changed().await.is_err() {
                return None;
            }
        }
    }

    fn untrusted(&self, execution: &RuntimeExecution) -> Container {
        match execution.untrusted() {
            Some(unresolved) => {
                unresolved.warn(execution.key, self);
                unresolved.without_cgroup()
            }
            None => Container::unknown(Unknown::Untrusted),
        }
    }

    /// Reads what a runtime names on a thread for untrusted owners. A command that starts no container belongs to
    /// `around`.
    async fn read_as(
        &self,
        owner: UntrustedOwner,
        mut execution: RuntimeExecution,
        node: Option<NodeContainer>,
        around: Option<Arc<Attribution>>,
    ) {
        let (key, outer) = (execution.key, node.as_ref().map(|node| node.shown.clone()));
        let resolver = self.clone();
        let read = move || match execution.invocation(node) {
            Ok(Some(invocation)) => resolver.look_up_named(&invocation),
            Ok(None) => {
                if let Some(around) = around {
                    resolver.registry.join(key, &around);
                }
            }
            Err(unresolved) => resolver.resolve_unresolved(key, unresolved),
        };
        let in_time = self.readers.untrusted(owner, read).await;
        self.resolve_late(key, outer, in_time);
    }

    fn resolve_unresolved(&self, key: ContainerKey, unresolved: UnresolvedContainer) {
        unresolved.warn(key, self);
        self.registry.resolve(key, unresolved.without_cgroup());
    }

    /// Resolves a key that was not read in time, unless it was resolved before.
    fn resolve_late(&self, key: ContainerKey, outer: Option<Nested>, in_time: Option<()>) {
        if in_time.is_none() && self.registry.resolved(key).is_none() {
            self.registry.resolve(key, Container { outer, ..Container::unknown(Unknown::Late) });
        }
    }

    /// As [`Self::look_up`], of what was announced without its name.
    fn look_up_named(&self, invocation: &Invocation) {
        if let Some(name) = invocation.name() {
            self.registry.set_name(invocation.key(), name.clone());
        }
        self.look_up(invocation, BundleState::Final);
    }

    /// Looks the container of an invocation up and resolves its key. This reads files.
    fn look_up(&self, invocation: &Invocation, state: BundleState) {
        let (key, registry) = (invocation.key(), &self.registry);
        let resolve = |container| {
            if invocation.joins() {
                registry.resolve_joined(key, container);
            } else {
                registry.resolve(key, container);
            }
        };
        match invocation.find(registry) {
            Ok(Found::Container(container)) => {
                if !registry.rejects(&container) {
                    warn_of_isolation(&container);
                }
                resolve(*container);
            }
            Ok(Found::Joined(attribution)) => registry.join(key, &attribution),
            Ok(Found::Unchanged) => {}
            Err(Unread { error, .. }) if state == BundleState::Provisional => {
                debug!("container {:?} cannot be read yet: {}", invocation.id(), line(&error.to_string()));
            }
            // What was read before may have been deleted since.
            Err(_) if registry.resolved(key).is_some() => {}
            Err(Unread { container, error }) => {
                let error = line(&error.to_string());
                let warning = format!("container {:?} is shown without pod: {error}", invocation.id());
                pod_warning::warn(key, &container, warning, registry, self.readers.handle());
                resolve(*container);
            }
        }
    }
}

/// Warns once of each kind of isolation that events from within are not traced.
fn warn_of_isolation(container: &Container) {
    static GVISOR: Once = Once::new();
    static KATA: Once = Once::new();
    let (warned, what) = match container.isolation {
        Some(Isolation::Gvisor) => (&GVISOR, "gVisor, a kernel in user space"),
        Some(Isolation::Kata) => (&KATA, "Kata, in a virtual machine"),
        None => return,
    };
    warned.call_once(|| {
        warn!(
            "container {:?} runs under {what}: what happens inside is not seen, here and in others like it",
            container.id
        );
    });
}
