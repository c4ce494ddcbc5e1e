//! Waiting within bounds for something that changes of containers bring about.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// The outcome of waiting within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// What was waited for has happened.
    Complete,
    /// It took too long.
    TimedOut,
}

/// Waits until `holds`, which is looked at now and after each change.
pub(super) async fn wait_for(
    mut changes: watch::Receiver<()>,
    timeout: Duration,
    mut holds: impl FnMut() -> bool,
) -> Wait {
    let deadline = Instant::now() + timeout;
    while !holds() {
        // `timeout_at` looks at the changes first: if they come all the time, it does not notice that time is over.
        if timeout_at(deadline, changes.changed()).await.is_err() || Instant::now() >= deadline {
            return Wait::TimedOut;
        }
    }
    Wait::Complete
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::sys::thread::local_runtime;

    #[test]
    fn time_is_over_although_changes_come_all_the_time() {
        let (sender, changes) = watch::channel(());
        // It ends when nobody waits any more.
        let changing = thread::spawn(move || while sender.send(()).is_ok() {});
        let waited =
            local_runtime().unwrap().block_on(wait_for(changes, Duration::from_millis(10), || false));
        assert_eq!(waited, Wait::TimedOut);
        changing.join().unwrap();
    }

    #[test]
    fn condition_is_looked_at_after_each_change() {
        let (sender, changes) = watch::channel(());
        let mut looks = 0;
        let holds = || {
            looks += 1;
            sender.send_replace(());
            looks == 3
        };
        let waited = local_runtime().unwrap().block_on(wait_for(changes, Duration::from_secs(60), holds));
        assert_eq!((waited, looks), (Wait::Complete, 3));
    }
}
