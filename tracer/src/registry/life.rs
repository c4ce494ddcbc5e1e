//! The life of a container key: its states, and every transition between them.
//!
//! ```text
//!  in use ── take ──▶ Taken ───┐
//!    │                         │ announce
//!    ├── miss ──▶ Missing ─────┤
//!    │               ▲         ▼              resolve
//!    └── announce ───│───▶ Announced ─────────────────▶ Resolved
//!                    │         │ begin                     │ begin
//!                    │         ▼              resolve      ▼
//!               miss │       Begun ───────────────────▶ Running
//!                    │         │                           │
//!                    └─────────┴──── (from any stage) ─────┘
//!
//!  Live(any stage) ── end ──▶ Ended(the same stage) ── forget ──▶ slot free
//! ```
//!
//! [`Custody`] says who may end a key: one that user space took is `Entering` until all processes are entered, and `Adopted`
//! from then on.
//!
//! A key that has ended can still be announced and resolved, for the events that are on their way: its [`Stage`] continues
//! inside [`Life::Ended`]. A key that was forgotten has no `Life` at all; its slot's next container has another key.

use std::sync::Arc;

use crate::registry::Attribution;

/// The process that a container started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FirstProcess {
    /// In `tracer`'s pid namespace; 0 if it has none there.
    pub(crate) pid: u32,
    /// When it became the container's, in nanoseconds of `CLOCK_BOOTTIME`.
    pub(crate) since: u64,
}

/// How much is known of a key.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// User space took the slot for a container that was running already, and has not announced it yet.
    Taken,
    /// Processes or events have the key, but the record of its start was lost, or does not lead to a container.
    Missing,
    /// Its runtime was executed: the container is being looked up.
    Announced,
    /// The container is known, and none of its processes has started.
    Resolved(Arc<Attribution>),
    /// Its first process has started, and the container is still being looked up.
    Begun(FirstProcess),
    /// Both.
    Running(FirstProcess, Arc<Attribution>),
}

/// A key in use.
#[derive(Clone, Debug)]
pub(crate) enum Life {
    /// Its processes may run.
    Live(Stage),
    /// Its last process exited at this time, in nanoseconds of `CLOCK_BOOTTIME`.
    Ended { at: u64, stage: Stage },
}

/// Which side decides that a key has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Custody {
    /// The programs gave the key out and count all of its processes: their record of the end is final.
    Programs,
    /// User space gave it out and is still entering its processes: it cannot end before that is complete.
    Entering,
    /// All of its processes were entered. It ends when no process is left, counted by the programs or not yet.
    Adopted,
}

/// A transition that the key's state does not allow. The state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The key was not announced.
    #[error("the key was not announced")]
    NotAnnounced,
    /// The key was missed or announced before.
    #[error("the key is known already")]
    AlreadyKnown,
    /// The key has ended already.
    #[error("the key has ended")]
    Ended,
    /// The key has not ended.
    #[error("the key has not ended")]
    Live,
    /// No slot is in use for the key: it was forgotten, or never given out.
    #[error("the key is not in use")]
    NotInUse,
    /// The key still has processes, or they are still being entered.
    #[error("the key still has processes")]
    HasProcesses,
}

/// What an announcement changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announcement {
    /// The key is announced now.
    New,
    /// It was before: a wrapper executed the runtime, in the same process.
    Repeated,
}

impl Life {
    /// The stage, of a key that lives or has ended.
    pub(crate) const fn stage(&self) -> &Stage {
        match self {
            Self::Live(stage) | Self::Ended { stage, .. } => stage,
        }
    }

    const fn stage_mut(&mut self) -> &mut Stage {
        match self {
            Self::Live(stage) | Self::Ended { stage, .. } => stage,
        }
    }

    /// When it ended, if it has.
    pub(crate) const fn ended_at(&self) -> Option<u64> {
        if let Self::Ended { at, .. } = self { Some(*at) } else { None }
    }

    /// A runtime was executed for the key.
    pub(crate) fn announce(&mut self) -> Announcement {
        match self.stage() {
            Stage::Taken | Stage::Missing => {
                *self.stage_mut() = Stage::Announced;
                Announcement::New
            }
            Stage::Announced | Stage::Resolved(_) | Stage::Begun(_) | Stage::Running(..) => {
                Announcement::Repeated
            }
        }
    }

    /// The container is known, or more of it. Returns what was known before.
    pub(crate) fn resolve(&mut self, to: Arc<Attribution>) -> Result<Option<Arc<Attribution>>, Refused> {
        let stage = self.stage_mut();
        let (next, before) = match std::mem::replace(stage, Stage::Announced) {
            refused @ (Stage::Taken | Stage::Missing) => {
                *stage = refused;
                return Err(Refused::NotAnnounced);
            }
            Stage::Announced => (Stage::Resolved(to), None),
            Stage::Resolved(before) => (Stage::Resolved(to), Some(before)),
            Stage::Begun(first) => (Stage::Running(first, to), None),
            Stage::Running(first, before) => (Stage::Running(first, to), Some(before)),
        };
        *stage = next;
        Ok(before)
    }

    /// A process of the container has started. It replaces an earlier one if it `is_init`, the first of a pid namespace.
    pub(crate) fn begin(&mut self, first: FirstProcess, is_init: bool) -> Result<(), Refused> {
        let stage = self.stage_mut();
        match stage {
            Stage::Taken | Stage::Missing => return Err(Refused::NotAnnounced),
            Stage::Announced => *stage = Stage::Begun(first),
            Stage::Resolved(attribution) => *stage = Stage::Running(first, Arc::clone(attribution)),
            Stage::Begun(before) | Stage::Running(before, _) if is_init => *before = first,
            Stage::Begun(_) | Stage::Running(..) => {}
        }
        Ok(())
    }

    /// Nothing available leads from the key to a container: it has to be searched for.
    pub(crate) fn miss(&mut self) {
        *self.stage_mut() = Stage::Missing;
    }

    /// Its last process has exited.
    pub(crate) fn end(&mut self, at: u64) -> Result<(), Refused> {
        match self {
            Self::Live(stage) => {
                let stage = std::mem::replace(stage, Stage::Missing);
                *self = Self::Ended { at, stage };
                Ok(())
            }
            Self::Ended { .. } => Err(Refused::Ended),
        }
    }
}

impl Stage {
    /// Whether the key was announced.
    pub(crate) const fn is_announced(&self) -> bool {
        !matches!(self, Self::Taken | Self::Missing)
    }

    /// The container, once it is known.
    pub(crate) const fn attribution(&self) -> Option<&Arc<Attribution>> {
        match self {
            Self::Resolved(attribution) | Self::Running(_, attribution) => Some(attribution),
            Self::Taken | Self::Missing | Self::Announced | Self::Begun(_) => None,
        }
    }

    /// The first process, once there is one.
    pub(crate) const fn first(&self) -> Option<FirstProcess> {
        match self {
            Self::Begun(first) | Self::Running(first, _) => Some(*first),
            Self::Taken | Self::Missing | Self::Announced | Self::Resolved(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::container::ContainerKey;

    use super::*;
    use crate::model::{Choice, Container, Unknown};

    fn attribution() -> Arc<Attribution> {
        let container = Arc::new(Container::unknown(Unknown::Late));
        Arc::new(Attribution {
            key: ContainerKey::new(1, 1),
            container,
            choice: Choice::Selected,
            host: false,
        })
    }

    const FIRST: FirstProcess = FirstProcess { pid: 7, since: 70 };
    const SECOND: FirstProcess = FirstProcess { pid: 8, since: 80 };

    #[test]
    fn key_that_was_not_announced_is_neither_resolved_nor_begun() {
        for stage in [Stage::Taken, Stage::Missing] {
            let mut life = Life::Live(stage);
            assert_eq!(life.resolve(attribution()).unwrap_err(), Refused::NotAnnounced);
            assert_eq!(life.begin(FIRST, true).unwrap_err(), Refused::NotAnnounced);
            assert!(!life.stage().is_announced());
            assert_eq!(life.announce(), Announcement::New);
            assert_eq!(life.announce(), Announcement::Repeated);
        }
    }

    #[test]
    fn key_runs_whichever_of_bundle_and_first_process_comes_first() {
        let mut bundle_first = Life::Live(Stage::Announced);
        bundle_first.resolve(attribution()).unwrap();
        assert!(matches!(bundle_first.stage(), Stage::Resolved(_)));
        bundle_first.begin(FIRST, true).unwrap();
        let mut process_first = Life::Live(Stage::Announced);
        process_first.begin(FIRST, true).unwrap();
        assert!(matches!(process_first.stage(), Stage::Begun(_)));
        process_first.resolve(attribution()).unwrap();
        for life in [bundle_first, process_first] {
            assert!(matches!(life.stage(), Stage::Running(first, _) if *first == FIRST));
        }
    }

    #[test]
    fn first_process_is_replaced_by_init_of_pid_namespace_only() {
        let mut life = Life::Live(Stage::Announced);
        life.begin(FIRST, false).unwrap();
        life.begin(SECOND, false).unwrap();
        assert_eq!(life.stage().first(), Some(FIRST));
        life.begin(SECOND, true).unwrap();
        assert_eq!(life.stage().first(), Some(SECOND));
    }

    #[test]
    fn ended_key_is_still_resolved_and_ends_once() {
        let mut life = Life::Live(Stage::Announced);
        life.end(90).unwrap();
        assert_eq!(life.end(91).unwrap_err(), Refused::Ended);
        assert_eq!(life.ended_at(), Some(90));
        assert!(life.resolve(attribution()).unwrap().is_none());
        assert!(life.resolve(attribution()).unwrap().is_some());
        assert_eq!(life.ended_at(), Some(90));
    }
}
