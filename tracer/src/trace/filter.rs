//! What is asked of an event besides its container.

use super::Event;
use crate::containers::Pattern;

/// `--pid`, `--uid`, `--comm`.
#[derive(Debug, Default)]
pub struct EventFilter {
    /// Process ids, as `tracer` sees them.
    pub pids: Pattern<u32>,
    /// Real user ids.
    pub uids: Pattern<u32>,
    /// Comms.
    pub comms: Pattern,
}

impl EventFilter {
    /// Whether the event is asked for.
    #[must_use]
    pub fn selects(&self, event: &Event<'_>) -> bool {
        self.pids.selects(Some(&event.header.pid))
            && self.uids.selects(Some(&event.header.uid))
            && (self.comms.is_empty() || self.comms.selects(Some(&*String::from_utf8_lossy(event.comm()))))
    }
}
