//! How many slots each container's runtimes may use. A quota belongs to a container's key and outlives the container: what a
//! container has started may continue without it, and start more.

use std::collections::HashMap;

use tracer_common::container::ContainerKey;

/// Runtimes within a container that are followed at a time, those included whose slots are still to be given back. So a
/// container that executes programs named `runc` cannot use up all slots.
const INNER_MAX: usize = 256;
/// The same, within a node container: a whole node of kind.
const INNER_MAX_OF_NODE: usize = 8192;

/// The quotas in use.
#[derive(Debug, Default)]
pub(crate) struct SlotQuotas(HashMap<ContainerKey, SlotQuota>);

#[derive(Debug, Default)]
struct SlotQuota {
    /// Slots in use.
    used: usize,
    /// How many there may be.
    max: usize,
    /// Whether no further runtime is followed.
    exceeded: bool,
}

/// How the use of a quota has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuotaChange {
    /// It has not.
    None,
    /// It is exceeded now: no further runtime is followed.
    Exceeded,
    /// It is no longer exceeded.
    Restored,
}

impl SlotQuotas {
    /// Uses one more slot of the quota of `payer`; [`ContainerKey::HOST`] has no quota.
    pub(crate) fn charge(&mut self, payer: ContainerKey, is_node: bool) -> QuotaChange {
        if payer == ContainerKey::HOST {
            return QuotaChange::None;
        }
        let quota = self.0.entry(payer).or_default();
        quota.used += 1;
        // Whether it is a node container may become known only after its first runtimes, and is not known once it is forgotten.
        quota.max = quota.max.max(if is_node { INNER_MAX_OF_NODE } else { INNER_MAX });
        let exceeds = !quota.exceeded && quota.used > quota.max;
        quota.exceeded |= exceeds;
        if exceeds { QuotaChange::Exceeded } else { QuotaChange::None }
    }

    /// Gives a slot back.
    pub(crate) fn release(&mut self, payer: ContainerKey) -> QuotaChange {
        let Some(quota) = self.0.get_mut(&payer) else { return QuotaChange::None };
        quota.used = quota.used.saturating_sub(1);
        let restores = quota.exceeded && quota.used <= quota.max / 2;
        quota.exceeded &= !restores;
        if quota.used == 0 {
            self.0.remove(&payer);
        }
        if restores { QuotaChange::Restored } else { QuotaChange::None }
    }

    /// Whether no further runtime of `payer` is followed.
    pub(crate) fn is_exceeded(&self, payer: ContainerKey) -> bool {
        self.0.get(&payer).is_some_and(|quota| quota.exceeded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYER: ContainerKey = ContainerKey::new(1, 1);

    #[test]
    fn quota_is_exceeded_beyond_limit_and_restored_at_half_of_it() {
        let mut quotas = SlotQuotas::default();
        for _ in 0..INNER_MAX {
            assert_eq!(quotas.charge(PAYER, false), QuotaChange::None);
        }
        assert_eq!(quotas.charge(PAYER, false), QuotaChange::Exceeded);
        assert_eq!(quotas.charge(PAYER, false), QuotaChange::None);
        assert!(quotas.is_exceeded(PAYER));
        for _ in INNER_MAX / 2..=INNER_MAX {
            assert_eq!(quotas.release(PAYER), QuotaChange::None);
        }
        assert_eq!(quotas.release(PAYER), QuotaChange::Restored);
        assert!(!quotas.is_exceeded(PAYER));
    }

    #[test]
    fn node_container_has_larger_quota_once_known_to_be_one() {
        let mut quotas = SlotQuotas::default();
        assert_eq!(quotas.charge(PAYER, false), QuotaChange::None);
        for _ in 1..INNER_MAX_OF_NODE {
            assert_eq!(quotas.charge(PAYER, true), QuotaChange::None);
        }
        assert_eq!(quotas.charge(PAYER, false), QuotaChange::Exceeded);
    }

    #[test]
    fn quota_is_removed_with_its_last_slot_and_never_negative() {
        let mut quotas = SlotQuotas::default();
        quotas.charge(PAYER, false);
        quotas.release(PAYER);
        assert!(quotas.0.is_empty());
        assert_eq!(quotas.release(PAYER), QuotaChange::None);
        assert_eq!(quotas.charge(ContainerKey::HOST, true), QuotaChange::None);
        assert!(quotas.0.is_empty());
    }
}
