//! How many slots each container's runtimes use. A share belongs to a container's key and outlives the container: what a
//! container has started may continue without it, and start more.

use std::collections::HashMap;

use tracer_common::container::ContainerKey;

/// Runtimes within a container that are followed at a time, those included whose slots are still to be given back. So a
/// container that executes programs named `runc` cannot use up all slots.
const INNER_MAX: usize = 256;
/// The same, within a node container: a whole node of kind.
const INNER_MAX_OF_NODE: usize = 8192;

/// The shares in use.
#[derive(Debug, Default)]
pub(crate) struct Shares(HashMap<ContainerKey, Share>);

#[derive(Debug, Default)]
struct Share {
    /// Slots in use.
    used: usize,
    /// How many there may be before it is closed.
    max: usize,
    /// Whether no further runtime is followed.
    closed: bool,
}

/// How a share has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It has not.
    None,
    /// It is closed now.
    Closed,
    /// It is open again.
    Opened,
}

impl Shares {
    /// Uses one more slot of the share of `payer`; [`ContainerKey::HOST`] has no share.
    pub(crate) fn charge(&mut self, payer: ContainerKey, is_node: bool) -> Change {
        if payer == ContainerKey::HOST {
            return Change::None;
        }
        let share = self.0.entry(payer).or_default();
        share.used += 1;
        // Whether it is a node container may become known only after its first runtimes, and is not known once it is forgotten.
        share.max = share.max.max(if is_node { INNER_MAX_OF_NODE } else { INNER_MAX });
        let closes = !share.closed && share.used > share.max;
        share.closed |= closes;
        if closes { Change::Closed } else { Change::None }
    }

    /// Gives a slot back.
    pub(crate) fn release(&mut self, payer: ContainerKey) -> Change {
        let Some(share) = self.0.get_mut(&payer) else { return Change::None };
        share.used = share.used.saturating_sub(1);
        let opens = share.closed && share.used <= share.max / 2;
        share.closed &= !opens;
        if share.used == 0 {
            self.0.remove(&payer);
        }
        if opens { Change::Opened } else { Change::None }
    }

    /// Whether no further runtime of a share is followed.
    pub(crate) fn is_closed(&self, payer: ContainerKey) -> bool {
        self.0.get(&payer).is_some_and(|share| share.closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYER: ContainerKey = ContainerKey::new(1, 1);

    #[test]
    fn share_closes_beyond_its_limit_and_opens_at_half_of_it() {
        let mut shares = Shares::default();
        for _ in 0..INNER_MAX {
            assert_eq!(shares.charge(PAYER, false), Change::None);
        }
        assert_eq!(shares.charge(PAYER, false), Change::Closed);
        assert_eq!(shares.charge(PAYER, false), Change::None);
        assert!(shares.is_closed(PAYER));
        for _ in INNER_MAX / 2..=INNER_MAX {
            assert_eq!(shares.release(PAYER), Change::None);
        }
        assert_eq!(shares.release(PAYER), Change::Opened);
        assert!(!shares.is_closed(PAYER));
    }

    #[test]
    fn node_container_has_larger_share_once_known_to_be_one() {
        let mut shares = Shares::default();
        assert_eq!(shares.charge(PAYER, false), Change::None);
        for _ in 1..INNER_MAX_OF_NODE {
            assert_eq!(shares.charge(PAYER, true), Change::None);
        }
        assert_eq!(shares.charge(PAYER, false), Change::Closed);
    }

    #[test]
    fn share_is_removed_with_its_last_slot_and_never_negative() {
        let mut shares = Shares::default();
        shares.charge(PAYER, false);
        shares.release(PAYER);
        assert!(shares.0.is_empty());
        assert_eq!(shares.release(PAYER), Change::None);
        assert_eq!(shares.charge(ContainerKey::HOST, true), Change::None);
        assert!(shares.0.is_empty());
    }
}
