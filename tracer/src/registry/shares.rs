//! How many slots each container's runtimes use. A share belongs to a container's key and outlives its entry: what a
//! container has started may go on without it, and start more.

use std::collections::HashMap;

use tracer_common::container::ContainerKey;

/// Runtimes within a container that are followed at a time, those included whose slots are still to be given back:
/// whoever calls programs `runc` must not use up the slots of all.
const INNER_MAX: usize = 256;
/// Likewise, within a container whose runtimes name containers of their own: a whole node of kind.
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

/// What has become of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is as open as before.
    None,
    /// It is closed from now on.
    Closed,
    /// It is open again.
    Opened,
}

impl Shares {
    /// One slot more is used of the share of `payer`; nothing is of [`ContainerKey::HOST`].
    pub(crate) fn charge(&mut self, payer: ContainerKey, is_node: bool) -> Change {
        if payer == ContainerKey::HOST {
            return Change::None;
        }
        let share = self.0.entry(payer).or_default();
        share.used += 1;
        // What a container may be is known only after its first runtimes, and not any more once it is forgotten.
        share.max = share.max.max(if is_node { INNER_MAX_OF_NODE } else { INNER_MAX });
        let closes = !share.closed && share.used > share.max;
        share.closed |= closes;
        if closes { Change::Closed } else { Change::None }
    }

    /// A slot is given back.
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
    fn a_share_closes_beyond_its_limit_and_opens_at_half_of_it() {
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
    fn a_node_has_a_larger_share_from_when_it_is_known_to_be_one() {
        let mut shares = Shares::default();
        assert_eq!(shares.charge(PAYER, false), Change::None);
        for _ in 1..INNER_MAX_OF_NODE {
            assert_eq!(shares.charge(PAYER, true), Change::None);
        }
        assert_eq!(shares.charge(PAYER, false), Change::Closed);
    }

    #[test]
    fn a_share_is_forgotten_with_its_last_slot_and_never_negative() {
        let mut shares = Shares::default();
        shares.charge(PAYER, false);
        shares.release(PAYER);
        assert!(shares.0.is_empty());
        assert_eq!(shares.release(PAYER), Change::None);
        assert_eq!(shares.charge(ContainerKey::HOST, true), Change::None);
        assert!(shares.0.is_empty());
    }
}
