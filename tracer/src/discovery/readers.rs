//! Threads that read files which runtimes name, and that may block in it. Files of untrusted owners are read by processes
//! of their own, which the thread waits for.

use std::{
    collections::HashMap,
    process::Child,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{timeout, timeout_at},
};
use tracer_common::container::ContainerKey;

use crate::sys::{file_helper::with_helpers, thread::lock};

/// How many bundles of the host's runtimes are read at a time. One that hangs occupies a thread; the others continue.
const HOST_THREADS: usize = 8;
/// How many files of untrusted owners are read at a time, in addition: the host's bundles never wait for them.
const UNTRUSTED_THREADS: usize = 4;
/// How long a file of an untrusted owner may wait for its turn, and how long reading it may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The owner of a file system that the host's root did not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum UntrustedOwner {
    /// A container; [`ContainerKey::HOST`] represents all runtimes whose container is not known yet.
    Container(ContainerKey),
    /// The host's users.
    Rootless,
}

/// The threads.
#[derive(Debug)]
pub(crate) struct Readers {
    handle: Handle,
    untrusted: Arc<Semaphore>,
    /// Each owner has one thread at a time, so that one that hangs delays no other.
    turns: Mutex<HashMap<UntrustedOwner, Arc<Semaphore>>>,
    blocked: Arc<Mutex<Vec<BlockedHelpers>>>,
    timeout: Duration,
}

/// Processes that were killed and have not exited: a process that waits for FUSE cannot always be killed. Until they exit,
/// nothing more is read for their owner, so that it occupies no more than these.
#[derive(Debug)]
struct BlockedHelpers {
    processes: Vec<Child>,
    _turn: OwnedSemaphorePermit,
}

/// Whether helpers that were killed have exited.
enum Helpers {
    Exited,
    Blocked,
}

impl Readers {
    /// How many threads there are at most.
    pub(crate) const THREADS: usize = HOST_THREADS + UNTRUSTED_THREADS;

    /// Threads of the runtime behind `handle`.
    pub(crate) fn new(handle: Handle) -> Self {
        let untrusted = Arc::new(Semaphore::new(UNTRUSTED_THREADS));
        Self { handle, untrusted, turns: Mutex::default(), blocked: Arc::default(), timeout: TIMEOUT }
    }

    /// The asynchronous runtime, for tasks that wait without blocking.
    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Reads for the host.
    pub(crate) fn host(&self, read: impl FnOnce() + Send + 'static) {
        self.handle.spawn_blocking(read);
    }

    /// Reads for an untrusted owner, when it is its turn; None if that takes too long. To `read`, files that are not read in
    /// time are unreadable, so that the thread is free again.
    pub(crate) async fn untrusted<T: Send + 'static>(
        &self,
        owner: UntrustedOwner,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let own = self.turn_of(owner).await?;
        let any = timeout(self.timeout, Arc::clone(&self.untrusted).acquire_owned()).await.ok()?.ok()?;
        let (blocked, limit) = (Arc::clone(&self.blocked), self.timeout);
        let result = self.handle.spawn_blocking(move || {
            let (result, processes) = with_helpers(Instant::now() + limit, read);
            drop(any);
            if !processes.is_empty() {
                lock(&blocked).push(BlockedHelpers { processes, _turn: own });
            }
            result
        });
        // `read` may block elsewhere as well: nothing waits for that either.
        timeout(2 * self.timeout, result).await.ok()?.ok()
    }

    /// An owner's turn, which may be occupied by processes of its own that do not exit.
    async fn turn_of(&self, owner: UntrustedOwner) -> Option<OwnedSemaphorePermit> {
        /// How often they are checked.
        const INTERVAL: Duration = Duration::from_millis(100);
        let deadline = Instant::now() + self.timeout;
        let turns = self.turns_of(owner);
        loop {
            let next = match self.reap_blocked() {
                Helpers::Blocked => deadline.min(Instant::now() + INTERVAL),
                Helpers::Exited => deadline,
            };
            match timeout_at(next.into(), Arc::clone(&turns).acquire_owned()).await {
                Ok(turn) => return turn.ok(),
                Err(_) if next < deadline => {}
                Err(_) => return None,
            }
        }
    }

    /// Gives back the turns of processes that have exited by now.
    fn reap_blocked(&self) -> Helpers {
        let mut blocked = lock(&self.blocked);
        blocked.retain_mut(|blocked| {
            blocked.processes.retain_mut(|process| matches!(process.try_wait(), Ok(None)));
            !blocked.processes.is_empty()
        });
        if blocked.is_empty() { Helpers::Exited } else { Helpers::Blocked }
    }

    fn turns_of(&self, owner: UntrustedOwner) -> Arc<Semaphore> {
        let mut turns = lock(&self.turns);
        // Nothing is read for the others, nor waits.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(owner).or_insert_with(|| Arc::new(Semaphore::new(1))))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Stdio},
        sync::mpsc::channel,
    };

    use tokio::runtime::Runtime;

    use super::*;
    use crate::sys::file_helper;

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(Readers::THREADS)
            .build()
            .unwrap()
    }

    fn readers(runtime: &Runtime) -> Readers {
        Readers { timeout: Duration::from_millis(500), ..Readers::new(runtime.handle().clone()) }
    }

    fn container(number: usize) -> UntrustedOwner {
        UntrustedOwner::Container(ContainerKey::new(u32::try_from(number).unwrap(), 1))
    }

    fn hanging() -> Child {
        Command::new("sleep").arg("1000").stdout(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn hanging_owner_delays_no_other() {
        let runtime = runtime();
        let readers = readers(&runtime);
        let (release, hung) = channel::<()>();
        runtime.block_on(async {
            assert_eq!(readers.untrusted(container(1), move || hung.recv()).await, None);
            assert_eq!(readers.untrusted(container(1), || 1).await, None);
            assert_eq!(readers.untrusted(container(2), || 2).await, Some(2));
            assert_eq!(readers.untrusted(UntrustedOwner::Rootless, || 3).await, Some(3));
        });
        release.send(()).unwrap();
    }

    #[test]
    fn more_hanging_reads_than_threads_occupy_none() {
        let runtime = runtime();
        let readers = readers(&runtime);
        let hang = || file_helper::answer_of(hanging(), Instant::now() + Duration::from_millis(500)).is_err();
        runtime.block_on(async {
            for number in 0..=UNTRUSTED_THREADS {
                assert_eq!(readers.untrusted(container(number), hang).await, Some(true), "owner {number}");
            }
            for number in 0..=UNTRUSTED_THREADS {
                assert_eq!(readers.untrusted(container(number), || 7).await, Some(7), "owner {number}");
            }
        });
        assert_eq!(readers.untrusted.available_permits(), UNTRUSTED_THREADS);
    }

    #[test]
    fn process_that_does_not_exit_delays_its_own_owner_only() {
        let runtime = runtime();
        let readers = readers(&runtime);
        runtime.block_on(async {
            let mut stays = hanging();
            let turn = readers.turn_of(container(1)).await.unwrap();
            let end = rustix::process::pidfd_open(
                rustix::process::Pid::from_child(&stays),
                rustix::process::PidfdFlags::empty(),
            )
            .unwrap();
            stays.stdout.take();
            lock(&readers.blocked).push(BlockedHelpers { processes: vec![stays], _turn: turn });
            assert_eq!(readers.untrusted(container(1), || 1).await, None);
            assert_eq!(readers.untrusted(container(2), || 2).await, Some(2));
            rustix::process::pidfd_send_signal(&end, rustix::process::Signal::KILL).unwrap();
            assert_eq!(readers.untrusted(container(1), || 3).await, Some(3));
        });
        assert!(lock(&readers.blocked).is_empty());
    }
}
