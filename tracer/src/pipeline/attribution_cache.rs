//! What is known of containers, without asking for each event.

use std::{collections::HashSet, sync::Arc};

use tracer_common::container::ContainerKey;

use crate::{
    kinds::Event,
    model::Choice,
    output::Kept,
    pipeline::sink::Sink,
    registry::{Attribution, Lookup},
};

/// Who knows of containers.
pub(crate) trait Knowledge {
    /// Takes in all that has been told by now. Returns another number than before as soon as what was known of a
    /// container has changed.
    fn learn(&mut self) -> u64;
    /// What is known of a key.
    fn look_up(&self, key: ContainerKey) -> Lookup;
    /// A key has events, and nothing was told of it.
    fn miss(&self, key: ContainerKey);
    /// What is done with the events of a container of which nothing became known in time.
    fn unknown(&self) -> Attribution;
}

/// A container that is known.
#[derive(Debug)]
pub(crate) struct Known {
    key: ContainerKey,
    attribution: Arc<Attribution>,
    kept: Kept,
}

impl Known {
    fn new(key: ContainerKey, attribution: Arc<Attribution>) -> Self {
        Self { key, attribution, kept: Kept::default() }
    }

    /// Hands one of its events on.
    pub(crate) fn deliver(&mut self, event: &Event<'_>, sink: &mut Sink) {
        match self.attribution.choice {
            Choice::Selected if self.attribution.host => sink.show(event, None, &mut self.kept),
            Choice::Selected => sink.show(event, Some(&self.attribution.container), &mut self.kept),
            Choice::Rejected => sink.filtered(),
            Choice::Undecidable => sink.unattributed(),
        }
    }
}

/// The containers that are known.
pub(crate) struct KnownContainers<K> {
    knowledge: K,
    /// The knowledge's when the containers were looked up.
    revision: u64,
    /// By slot.
    known: Vec<Option<Box<Known>>>,
    /// Containers that were waited for in vain.
    given_up: HashSet<ContainerKey>,
    /// What is done with their events.
    unknown: Known,
}

impl<K: Knowledge> KnownContainers<K> {
    pub(crate) fn new(knowledge: K) -> Self {
        let unknown = Known::new(ContainerKey::HOST, Arc::new(knowledge.unknown()));
        Self { knowledge, revision: 0, known: Vec::new(), given_up: HashSet::new(), unknown }
    }

    /// What was submitted before an event is known before it is handled.
    pub(crate) fn learn(&mut self) {
        let revision = self.knowledge.learn();
        if self.revision != revision {
            self.revision = revision;
            self.known.clear();
        }
    }

    /// A container that was looked up before.
    pub(crate) fn at_hand(&mut self, key: ContainerKey) -> Option<&mut Known> {
        self.known.get_mut(key.slot() as usize)?.as_deref_mut().filter(|known| known.key == key)
    }

    /// A container that is known, or was given up; None for what is worth waiting for.
    pub(crate) fn look_up(&mut self, key: ContainerKey) -> Option<&mut Known> {
        if self.at_hand(key).is_none() {
            let Some(attribution) = self.attribution(key) else {
                return self.given_up.contains(&key).then_some(&mut self.unknown);
            };
            let slot = key.slot() as usize;
            if self.known.len() <= slot {
                self.known.resize_with(slot + 1, || None);
            }
            self.known[slot] = Some(Box::new(Known::new(key, attribution)));
            self.given_up.remove(&key);
        }
        self.at_hand(key)
    }

    fn attribution(&mut self, key: ContainerKey) -> Option<Arc<Attribution>> {
        let lookup = match self.knowledge.look_up(key) {
            Lookup::Unknown => {
                // A record that was reserved earlier but not yet submitted hid the one that tells.
                self.learn();
                self.knowledge.look_up(key)
            }
            lookup => lookup,
        };
        match lookup {
            Lookup::Known(attribution) => Some(attribution),
            Lookup::Pending => None,
            Lookup::Unknown => {
                self.knowledge.miss(key);
                None
            }
        }
    }

    /// No more is waited for this container.
    pub(crate) fn give_up(&mut self, key: ContainerKey) -> &mut Known {
        self.given_up.insert(key);
        &mut self.unknown
    }

    /// No event of this container will come any more.
    pub(crate) fn forget(&mut self, key: ContainerKey) {
        self.given_up.remove(&key);
        if self.at_hand(key).is_some() {
            self.known[key.slot() as usize] = None;
        }
    }
}
