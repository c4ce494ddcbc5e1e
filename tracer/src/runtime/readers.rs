//! Threads that read what runtimes name, and that may hang in it. For guests each file is read by a process of its own,
//! for which the thread waits.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::Semaphore, time::timeout};
use tracer_common::container::ContainerKey;

use super::helper::with_helpers;

/// Bundles of the host's runtimes that are read at a time. One that hangs keeps a thread; the others go on.
const HOSTS: usize = 8;
/// Files of guests that are read at a time, besides: the host's bundles never wait for them.
const GUESTS: usize = 4;
/// How long a guest's file may wait for its turn, and how long reading it may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whose file system is read where it is not the host's root who made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Guest {
    /// That of a container.
    Container(ContainerKey),
    /// That of the host's users.
    Rootless,
}

/// The threads.
#[derive(Debug)]
pub struct Readers {
    handle: Handle,
    guests: Arc<Semaphore>,
    /// Each guest has one thread at a time, so that one that hangs keeps no other waiting.
    each: Mutex<HashMap<Guest, Arc<Semaphore>>>,
    patience: Duration,
}

impl Readers {
    /// How many threads there are at the most.
    pub const THREADS: usize = HOSTS + GUESTS;

    /// Threads of the runtime behind `handle`.
    pub fn new(handle: Handle) -> Self {
        let guests = Arc::new(Semaphore::new(GUESTS));
        Self { handle, guests, each: Mutex::default(), patience: PATIENCE }
    }

    /// The runtime, for what waits but does not block.
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Reads for the host.
    pub fn host(&self, read: impl FnOnce() + Send + 'static) {
        self.handle.spawn_blocking(read);
    }

    /// Reads for a guest, when it is its turn; None if that takes too long. What was begun goes on all the same.
    pub async fn guest<T: Send + 'static>(
        &self,
        guest: Guest,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let own = timeout(self.patience, self.turns_of(guest).acquire_owned()).await.ok()?.ok()?;
        let any = timeout(self.patience, Arc::clone(&self.guests).acquire_owned()).await.ok()?.ok()?;
        let result = self.handle.spawn_blocking(move || {
            let _turns = (own, any);
            with_helpers(read)
        });
        timeout(self.patience, result).await.ok()?.ok()
    }

    fn turns_of(&self, guest: Guest) -> Arc<Semaphore> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody reads for those, nor waits.
        each.retain(|_, turns| Arc::strong_count(turns) > 1);
        Arc::clone(each.entry(guest).or_insert_with(|| Arc::new(Semaphore::new(1))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_guest_that_hangs_keeps_no_other_waiting() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(Readers::THREADS)
            .build()
            .unwrap();
        let patience = Duration::from_millis(500);
        let readers = Readers { patience, ..Readers::new(runtime.handle().clone()) };
        let guest = |number| Guest::Container(ContainerKey::new(number, 1));
        let (release, hung) = channel::<()>();
        runtime.block_on(async {
            assert_eq!(readers.guest(guest(1), move || hung.recv()).await, None);
            assert_eq!(readers.guest(guest(1), || 1).await, None);
            assert_eq!(readers.guest(guest(2), || 2).await, Some(2));
            assert_eq!(readers.guest(Guest::Rootless, || 3).await, Some(3));
        });
        release.send(()).unwrap();
    }
}
