//! Threads that read what runtimes name, and that may hang in it. For guests each file is read by a process of its own,
//! for which the thread waits.

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

/// Bundles of the host's runtimes that are read at a time. One that hangs keeps a thread; the others go on.
const HOSTS: usize = 8;
/// Files of guests that are read at a time, besides: the host's bundles never wait for them.
const GUESTS: usize = 4;
/// How long a guest's file may wait for its turn, and how long reading it may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whose file system is read where it is not the host's root who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Guest {
    /// That of a container; [`ContainerKey::HOST`] stands for all of which it is not known yet in which container they are.
    Container(ContainerKey),
    /// That of the host's users.
    Rootless,
}

/// The threads.
#[derive(Debug)]
pub(crate) struct Readers {
    handle: Handle,
    guests: Arc<Semaphore>,
    /// Each guest has one thread at a time, so that one that hangs keeps no other waiting.
    each: Mutex<HashMap<Guest, Arc<Semaphore>>>,
    stuck: Arc<Mutex<Vec<Stuck>>>,
    patience: Duration,
}

/// Processes that have not ended though they were killed: what waits for FUSE cannot always be. Until they end their guest
/// has nothing read, so that it keeps no more than these.
#[derive(Debug)]
struct Stuck {
    processes: Vec<Child>,
    _turn: OwnedSemaphorePermit,
}

impl Readers {
    /// How many threads there are at the most.
    pub(crate) const THREADS: usize = HOSTS + GUESTS;

    /// Threads of the runtime behind `handle`.
    pub(crate) fn new(handle: Handle) -> Self {
        let guests = Arc::new(Semaphore::new(GUESTS));
        Self { handle, guests, each: Mutex::default(), stuck: Arc::default(), patience: PATIENCE }
    }

    /// The runtime, for what waits but does not block.
    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Reads for the host.
    pub(crate) fn host(&self, read: impl FnOnce() + Send + 'static) {
        self.handle.spawn_blocking(read);
    }

    /// Reads for a guest, when it is its turn; None if that takes too long. Files that are not read in time `read` finds
    /// to be unreadable, so that the thread is free again.
    pub(crate) async fn guest<T: Send + 'static>(
        &self,
        guest: Guest,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let own = self.turn_of(guest).await?;
        let any = timeout(self.patience, Arc::clone(&self.guests).acquire_owned()).await.ok()?.ok()?;
        let (stuck, patience) = (Arc::clone(&self.stuck), self.patience);
        let result = self.handle.spawn_blocking(move || {
            let (result, processes) = with_helpers(Instant::now() + patience, read);
            drop(any);
            if !processes.is_empty() {
                lock(&stuck).push(Stuck { processes, _turn: own });
            }
            result
        });
        // What reads nothing may hang as well: nobody waits for that either.
        timeout(2 * self.patience, result).await.ok()?.ok()
    }

    /// A guest's turn, which may be kept by processes of its own that do not end.
    async fn turn_of(&self, guest: Guest) -> Option<OwnedSemaphorePermit> {
        /// How often it is looked whether they have.
        const LOOK: Duration = Duration::from_millis(100);
        let deadline = Instant::now() + self.patience;
        let turns = self.turns_of(guest);
        loop {
            let look = if self.forget_ended() { deadline.min(Instant::now() + LOOK) } else { deadline };
            match timeout_at(look.into(), Arc::clone(&turns).acquire_owned()).await {
                Ok(turn) => return turn.ok(),
                Err(_) if look < deadline => {}
                Err(_) => return None,
            }
        }
    }

    /// Gives back what was kept by processes that have ended by now. Returns whether some have not.
    fn forget_ended(&self) -> bool {
        let mut stuck = lock(&self.stuck);
        stuck.retain_mut(|stuck| {
            stuck.processes.retain_mut(|process| matches!(process.try_wait(), Ok(None)));
            !stuck.processes.is_empty()
        });
        !stuck.is_empty()
    }

    fn turns_of(&self, guest: Guest) -> Arc<Semaphore> {
        let mut each = lock(&self.each);
        // Nobody reads for those, nor waits.
        each.retain(|_, turns| Arc::strong_count(turns) > 1);
        Arc::clone(each.entry(guest).or_insert_with(|| Arc::new(Semaphore::new(1))))
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
        Readers { patience: Duration::from_millis(500), ..Readers::new(runtime.handle().clone()) }
    }

    fn container(number: usize) -> Guest {
        Guest::Container(ContainerKey::new(u32::try_from(number).unwrap(), 1))
    }

    fn hanging() -> Child {
        Command::new("sleep").arg("1000").stdout(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn a_guest_that_hangs_keeps_no_other_waiting() {
        let runtime = runtime();
        let readers = readers(&runtime);
        let (release, hung) = channel::<()>();
        runtime.block_on(async {
            assert_eq!(readers.guest(container(1), move || hung.recv()).await, None);
            assert_eq!(readers.guest(container(1), || 1).await, None);
            assert_eq!(readers.guest(container(2), || 2).await, Some(2));
            assert_eq!(readers.guest(Guest::Rootless, || 3).await, Some(3));
        });
        release.send(()).unwrap();
    }

    #[test]
    fn more_hanging_reads_than_there_are_threads_keep_none_of_them() {
        let runtime = runtime();
        let readers = readers(&runtime);
        let hang = || file_helper::answer_of(hanging(), Instant::now() + Duration::from_millis(500)).is_err();
        runtime.block_on(async {
            for number in 0..=GUESTS {
                assert_eq!(readers.guest(container(number), hang).await, Some(true), "guest {number}");
            }
            for number in 0..=GUESTS {
                assert_eq!(readers.guest(container(number), || 7).await, Some(7), "guest {number}");
            }
        });
        assert_eq!(readers.guests.available_permits(), GUESTS);
    }

    #[test]
    fn a_process_that_does_not_end_keeps_its_own_guest_waiting_until_it_does() {
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
            lock(&readers.stuck).push(Stuck { processes: vec![stays], _turn: turn });
            assert_eq!(readers.guest(container(1), || 1).await, None);
            assert_eq!(readers.guest(container(2), || 2).await, Some(2));
            rustix::process::pidfd_send_signal(&end, rustix::process::Signal::KILL).unwrap();
            assert_eq!(readers.guest(container(1), || 3).await, Some(3));
        });
        assert!(lock(&readers.stuck).is_empty());
    }
}
