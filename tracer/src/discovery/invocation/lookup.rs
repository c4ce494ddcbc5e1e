//! Looks up the container of an [`Invocation`]: in the registry, the bundle or the runtime's state.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::Arc,
};

use super::{Invocation, Task, View};
use crate::{
    discovery::oci::{
        bundle,
        bundle::{Bundle, BundleError},
        state,
        state::{RuntimeState, StateError},
    },
    model::{Container, ContainerType, Isolation, Source, Unknown},
    registry::{Attribution, ContainerName, Registry},
    sys::{file_helper, files, files::FileError, host_root, thread::lock},
};

/// Runtimes that run the container's program within themselves, whatever the bundle says.
const IN_PROCESS_RUNTIMES: [&str; 3] = ["crun-krun", "crun-wasm", "krun"];

/// What was looked up.
#[derive(Debug)]
pub(crate) enum Found {
    /// A container of its own.
    Container(Box<Container>),
    /// A container that is known already.
    Joined(Arc<Attribution>),
    /// The same as before.
    Unchanged,
}

/// The container could not be looked up.
#[derive(Debug)]
pub(crate) struct Unread {
    /// The container, without its pod.
    pub(crate) container: Box<Container>,
    /// Why.
    pub(crate) error: ReadError,
}

/// Why a container could not be looked up. A path or a file may put anything into the text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// Its view of the file system is not known.
    #[error("the runtime exited before its root directory could be opened")]
    RuntimeExited,
    /// The host's view is not to be had.
    #[error("cannot open the host's root directory: {0}")]
    HostRoot(#[source] io::Error),
    /// The bundle was not read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The state was not read.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another file was not read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Invocation {
    /// Looks the container up. This may read files, so it is called where blocking does no harm.
    pub(crate) fn find(&self, registry: &Registry) -> Result<Found, Unread> {
        match &self.task {
            Task::Read { config, source } if config.is_absolute() => self.read_bundle(config, *source),
            // The runtime has exited, and the directory that its path starts from is not known.
            Task::Read { .. } => self.read_state(),
            Task::Join | Task::Start => {
                match registry.find(&self.name).or_else(|| self.find_running(registry)) {
                    Some(attribution) => Ok(Found::Joined(attribution)),
                    None => self.read_state(),
                }
            }
        }
    }

    /// The container whose first process is in the state: it may be known by another name.
    fn find_running(&self, registry: &Registry) -> Option<Arc<Attribution>> {
        registry.find_running(&self.name, self.state().ok()?.init?)
    }

    fn state(&self) -> Result<RuntimeState, ReadError> {
        let ContainerName { root: state_root, id, .. } = &self.name;
        self.view(|root| state::read(root, state_root, id, self.owner))
    }

    fn read_state(&self) -> Result<Found, Unread> {
        let state = self.state().map_err(|error| self.unread(error, Source::State))?;
        self.read_bundle(&state.bundle.join("config.json"), Source::State)
    }

    fn unread(&self, error: ReadError, source: Source) -> Unread {
        Unread { container: Box::new(Container { source, ..self.without_bundle() }), error }
    }

    /// Reads the bundle, unless it is what was read before.
    fn read_bundle(&self, config: &Path, source: Source) -> Result<Found, Unread> {
        // Of two threads that read it the later one has the newer file.
        let mut last = lock(&self.digest);
        let bytes = self
            .view(|root| bundle::read(root, config, self.owner))
            .map_err(|error| self.unread(error, source))?;
        let digest = digest(&bytes);
        if *last == Some(digest) {
            return Ok(Found::Unchanged);
        }
        let beside = |path: &Path| self.view(|root| files::read_below(root, path, self.owner)).ok();
        let Bundle { engine, kind, name, image, pod, sandbox_id, privileged, in_process } =
            Bundle::parse(&bytes, config, &self.name.id, &beside)
                .map_err(|error| self.unread(error.into(), source))?;
        *last = Some(digest);
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

    /// Reads something as the runtime sees it.
    fn view<T, E: Into<ReadError>>(
        &self,
        read: impl FnOnce(BorrowedFd<'_>) -> Result<T, E>,
    ) -> Result<T, ReadError> {
        let result = match &self.view {
            View::Below(root) => read(root.as_fd()),
            View::Host => read(host_root::root().map_err(ReadError::HostRoot)?.as_fd()),
            View::Exited => return Err(ReadError::RuntimeExited),
        };
        result.map_err(Into::into)
    }
}

/// A hash of a file, by which a change shows. Whoever can make two files with the same hash can write the bundle anyway.
fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
