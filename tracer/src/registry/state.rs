//! The part of the registry that is guarded by its lock, and the changes that concern several of its parts.

use std::{collections::HashMap, sync::Arc};

use tracer_common::container::{CLOSED, ContainerKey, IN_PROCESS, REJECTED};
use tracing::{debug, warn};

use crate::{
    model::{Choice, Container},
    registry::{
        Attribution, ContainerName, FirstProcess,
        attribution::Attributions,
        keys::{Key, Keys, RuntimeStart, Used},
        labels::{Labels, Sandbox},
        life::{Announcement, Custody, Refused},
        quotas::{QuotaChange, SlotQuotas},
        slots::Slots,
    },
};

/// Keys, labels and quotas. Callers pass [`Slots`] and [`Attributions`], which have no part in this lock.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) keys: Keys,
    pub(crate) labels: Labels,
    quotas: SlotQuotas,
}

impl State {
    /// A runtime in the container `outer`, or on the host, was executed for a key.
    pub(crate) fn announce(
        &mut self,
        key: ContainerKey,
        outer: ContainerKey,
        name: Option<ContainerName>,
        slots: &Slots,
    ) -> Result<(), Refused> {
        if !slots.is_in_use(key) {
            return Err(Refused::NotInUse);
        }
        let payer = self.payer(outer);
        let announcement = self.keys.get_or_missing(key).life.announce();
        let number = if announcement == Announcement::New { Some(self.keys.next_number()) } else { None };
        let entry = self.keys.get_or_missing(key);
        if name.is_some() && entry.life.ended_at().is_none() {
            entry.name = name;
        }
        if let Some(number) = number {
            (entry.number, entry.payer) = (number, payer);
            self.charge(key, payer, slots);
        }
        Ok(())
    }

    /// Sets what a key resolves to, and passes the decision to the programs.
    pub(crate) fn resolve(
        &mut self,
        key: ContainerKey,
        attribution: Arc<Attribution>,
        slots: &Slots,
        attributions: &Attributions,
    ) -> Result<(), Refused> {
        // A container may have ended and been forgotten before its bundle was read.
        let entry = self.keys.get_mut(key).ok_or(Refused::NotInUse)?;
        let (is_rejected, container) = (attribution.choice == Choice::Rejected, attribution.key);
        let in_process = attribution.container.in_process;
        if entry.life.resolve(attribution)?.is_some() {
            attributions.count_replacement();
        }
        slots.flag(key, REJECTED, is_rejected);
        slots.flag(key, IN_PROCESS, in_process);
        if self.quotas.is_exceeded(container) {
            slots.flag(key, CLOSED, true);
        }
        Ok(())
    }

    /// A process of a container has started; `is_init` if it is the first of a pid namespace.
    pub(crate) fn begin(
        &mut self,
        key: ContainerKey,
        first: FirstProcess,
        is_init: bool,
    ) -> Result<(), Refused> {
        self.keys.get_mut(key).ok_or(Refused::NotInUse)?.life.begin(first, is_init)
    }

    /// The last process of a key has exited, as the programs or /proc show. A key that user space gave out may have more.
    pub(crate) fn end(&mut self, key: ContainerKey, at: u64, slots: &Slots) -> Result<(), Refused> {
        if !slots.is_in_use(key) {
            return Err(Refused::NotInUse);
        }
        let entry = self.keys.get_or_missing(key);
        match entry.custody {
            Custody::Entering => return Err(Refused::HasProcesses),
            Custody::Adopted if slots.has_processes(key) => return Err(Refused::HasProcesses),
            Custody::Adopted | Custody::Programs => entry.life.end(at)?,
        }
        slots.remove_evidence(key);
        // The next container may have the same name.
        entry.name = None;
        Ok(())
    }

    /// All processes of a key that user space gave out were entered.
    pub(crate) fn entered(&mut self, key: ContainerKey) {
        if let Some(entry) = self.keys.get_mut(key)
            && entry.custody == Custody::Entering
        {
            entry.custody = Custody::Adopted;
        }
    }

    /// An event has a key that was not announced, although all records that came before were read.
    pub(crate) fn miss(&mut self, key: ContainerKey, slots: &Slots) -> Result<(), Refused> {
        if !slots.is_in_use(key) {
            return Err(Refused::NotInUse);
        }
        // Counted before, or announced in the meantime.
        if self.keys.get(key).is_some() {
            return Err(Refused::AlreadyKnown);
        }
        self.keys.get_or_missing(key);
        Ok(())
    }

    /// Nothing available leads from a key, whose runtime was not seen, to a container.
    pub(crate) fn miss_unseen(&mut self, key: ContainerKey, slots: &Slots) -> Result<(), Refused> {
        if !slots.is_in_use(key) {
            return Err(Refused::NotInUse);
        }
        let entry = self.keys.get_or_missing(key);
        let used = entry.used();
        entry.life.miss();
        entry.runtime = RuntimeStart::Unseen;
        (entry.name, entry.root, entry.payer) = (None, None, ContainerKey::HOST);
        self.release(used, slots);
        Ok(())
    }

    /// Forgets a key of which no event can come any more, and gives its slot back: of a key that has ended, or was taken
    /// and never used.
    pub(crate) fn forget(&mut self, key: ContainerKey, slots: &Slots) -> Result<(), Refused> {
        let entry = self.keys.get(key).ok_or(Refused::NotInUse)?;
        if entry.life.ended_at().is_none() && entry.custody != Custody::Entering {
            return Err(Refused::Live);
        }
        let used = entry.used();
        self.keys.remove(key);
        self.release(used, slots);
        slots.give_back(key);
        Ok(())
    }

    /// Releases what an announced key used: a slot of a quota, and labels that no other container of its pod needs.
    fn release(&mut self, used: Option<Used>, slots: &Slots) {
        let Some(Used { payer, sandbox }) = used else { return };
        if self.quotas.release(payer) == QuotaChange::Restored {
            self.close(payer, false, slots);
        }
        if let Some(sandbox) = sandbox
            && !self.sandboxes().any(|other| other == sandbox)
        {
            self.labels.remove(&sandbox);
        }
    }

    /// Uses one more slot of a quota. If that is exceeded, further runtimes are not followed.
    fn charge(&mut self, key: ContainerKey, payer: ContainerKey, slots: &Slots) {
        let attribution = self.keys.get(payer).and_then(Key::attribution);
        let is_node = attribution.is_some_and(|attribution| attribution.container.may_name_others());
        if self.quotas.charge(payer, is_node) == QuotaChange::Exceeded {
            warn!("too many runtimes within one container: further ones are attributed to the container");
            self.close(payer, true, slots);
        }
        if self.quotas.is_exceeded(payer) {
            slots.flag(key, CLOSED, true);
        }
    }

    /// The container whose quota the runtimes of a container use. What joined a container, or runs within one that may
    /// name no others, has no quota. The quota of a container that has ended lasts as long as it is used.
    fn payer(&self, outer: ContainerKey) -> ContainerKey {
        let Some(entry) = self.keys.get_announced(outer) else { return outer };
        if entry.attribution().is_some_and(|attribution| attribution.host) {
            return ContainerKey::HOST;
        }
        match entry.attribution().filter(|attribution| attribution.container.inner.is_none()) {
            Some(own) => own.key,
            None if entry.payer == ContainerKey::HOST => outer,
            None => entry.payer,
        }
    }

    /// Has the programs ignore, or follow again, runtimes that are executed in a container and in those within it.
    fn close(&self, payer: ContainerKey, closed: bool, slots: &Slots) {
        let is_charged = |key: ContainerKey, entry: &Key| {
            key == payer
                || entry.payer == payer
                || entry.attribution().is_some_and(|attribution| attribution.key == payer)
        };
        for (key, _) in self.keys.announced().filter(|(key, entry)| is_charged(*key, entry)) {
            slots.flag(key, CLOSED, closed);
        }
    }

    /// Replaces what is known of containers by what `change` makes of it, if anything. Returns how many keys changed.
    pub(crate) fn change(
        &mut self,
        slots: &Slots,
        attributions: &Attributions,
        mut change: impl FnMut(&Container) -> Option<Container>,
    ) -> usize {
        // A key that joined a container has the container's attribution.
        let mut changed: HashMap<ContainerKey, Option<Arc<Attribution>>> = HashMap::new();
        let mut replaced = Vec::new();
        for (key, entry) in self.keys.iter() {
            let Some(attribution) = entry.attribution() else { continue };
            let new = changed.entry(attribution.key).or_insert_with(|| {
                let container = change(&attribution.container)?;
                Some(Arc::new(attributions.of_container(attribution.key, container)))
            });
            if let Some(new) = new {
                replaced.push((key, Arc::clone(new)));
            }
        }
        let count = replaced.len();
        for (key, attribution) in replaced {
            if let Err(refused) = self.resolve(key, attribution, slots, attributions) {
                debug!("container {} is not changed: {refused}", key.slot());
            }
        }
        count
    }

    /// The sandboxes of all containers.
    pub(crate) fn sandboxes(&self) -> impl Iterator<Item = Sandbox> {
        self.keys.iter().filter_map(|(_, key)| key.sandbox())
    }
}
