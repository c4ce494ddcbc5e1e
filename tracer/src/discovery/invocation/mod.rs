//! A trusted runtime's invocation, from its command line to the container that it is about.

mod lookup;
mod paths;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use tracer_common::container::ContainerKey;

use crate::{
    discovery::{
        environment::RunningContainer,
        node_container::NodeContainer,
        oci::cmdline::{Command, CommandLine},
        readers::UntrustedOwner,
        state_roots,
    },
    model::Source,
    registry::ContainerName,
    sys::{
        files,
        process_handle::{Root, RuntimeProcess},
    },
};

pub(crate) use lookup::{Found, Unread};
use paths::{absolute, bundle, full_name, state_root};

/// A runtime's invocation that brings a process into a container, with its view of the file system.
#[derive(Debug)]
pub(crate) struct Invocation {
    key: ContainerKey,
    runtime: String,
    view: View,
    /// The user who may own its files besides root.
    owner: u32,
    /// The container that it runs in, if that may name others.
    outer: Option<NodeContainer>,
    name: ContainerName,
    task: Task,
    /// A hash of the `config.json` that was read last.
    digest: Mutex<Option<u64>>,
}

/// What a runtime sees of the file system.
#[derive(Debug)]
enum View {
    /// What is below this directory.
    Below(Arc<Root>),
    /// The host's: a runtime that has exited, and was trusted as one of the host's.
    Host,
    /// Not known: it exited before it was opened.
    Exited,
}

/// What leads to the container.
#[derive(Debug)]
enum Task {
    /// A container is created, or runs, with this `config.json`.
    Read { config: PathBuf, source: Source },
    /// A process joins a container.
    Join,
    /// A container is started: what hooks do for it joins it.
    Start,
}

impl Invocation {
    /// From the command line of a runtime that runs, or did until just now. None if it brings no process into any
    /// container.
    pub(crate) fn new(
        key: ContainerKey,
        runtime: String,
        process: Option<RuntimeProcess>,
        owner: u32,
        outer: Option<NodeContainer>,
        line: CommandLine,
    ) -> Option<Self> {
        // A relative state directory is below this.
        let mut base = PathBuf::new();
        let (id, task) = match line.command {
            Command::Init | Command::Other => return None,
            Command::Create(creation) | Command::Run(creation) | Command::Restore(creation) => {
                let bundle = bundle(process.as_ref(), &creation.bundle.unwrap_or_default());
                // crun has gone into the bundle by the time that it makes the directory.
                if state_roots::is_crun(&runtime) {
                    base.clone_from(&bundle);
                }
                let config = match creation.config {
                    // crun resolves another file from its own working directory.
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
            (None, Some(outer)) => outer.root.clone().map_or(View::Exited, View::Below),
        };
        Some(Self { key, runtime, view, owner, outer, name, task, digest: Mutex::default() })
    }

    /// From a container that was running already.
    pub(crate) fn of_running(
        key: ContainerKey,
        container: &RunningContainer,
        outer: Option<NodeContainer>,
    ) -> Self {
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
            digest: Mutex::default(),
        }
    }

    /// Its key.
    pub(crate) const fn key(&self) -> ContainerKey {
        self.key
    }

    /// The name of the container that it creates, as `exec` uses it.
    pub(crate) fn name(&self) -> Option<&ContainerName> {
        matches!(self.task, Task::Read { .. }).then_some(&self.name)
    }

    /// Whether its processes join a container that another invocation creates.
    pub(crate) fn joins(&self) -> bool {
        matches!(self.task, Task::Join | Task::Start)
    }

    /// The id of its container.
    pub(crate) fn id(&self) -> &str {
        &self.name.id
    }

    /// The container that it runs in, if that may name others.
    pub(crate) const fn outer(&self) -> Option<&NodeContainer> {
        self.outer.as_ref()
    }

    /// The owner of its files, unless that is the host's root.
    pub(crate) const fn untrusted_owner(&self) -> Option<UntrustedOwner> {
        match &self.outer {
            Some(outer) => Some(UntrustedOwner::Container(outer.key)),
            None if self.owner != files::ROOT => Some(UntrustedOwner::Rootless),
            None => None,
        }
    }
}
