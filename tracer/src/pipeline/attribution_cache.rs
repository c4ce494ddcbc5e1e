//! Containers that were looked up: most events are of one of them.

use std::{collections::HashSet, sync::Arc};

use tracer_common::container::ContainerKey;

use crate::{
    kinds::Event,
    model::Choice,
    output::ContainerTexts,
    pipeline::Sink,
    registry::{Attribution, Lookup},
};

/// What attributes keys to containers.
pub trait Attributor {
    /// Takes in every lifecycle record that was submitted so far. Returns another number than before as soon as the
    /// attribution of any key has changed.
    fn update(&mut self) -> u64;
    /// The attribution of a key.
    fn look_up(&self, key: ContainerKey) -> Lookup;
    /// A key has events, and no lifecycle record announced it.
    fn report_missing(&self, key: ContainerKey);
    /// The attribution of events whose container did not become known in time.
    fn unresolved(&self) -> Attribution;
}

/// An attribution, with the container's texts in rows.
#[derive(Debug)]
pub(crate) struct CachedAttribution {
    key: ContainerKey,
    attribution: Arc<Attribution>,
    texts: ContainerTexts,
}

impl CachedAttribution {
    fn new(key: ContainerKey, attribution: Arc<Attribution>) -> Self {
        Self { key, attribution, texts: ContainerTexts::default() }
    }

    /// Shows one of its events, or counts it.
    pub(crate) fn deliver(&mut self, event: &Event<'_>, record: &[u8], sink: &mut Sink) {
        match self.attribution.choice {
            Choice::Selected if self.attribution.host => sink.show(event, record, None, &mut self.texts),
            Choice::Selected => {
                sink.show(event, record, Some(&self.attribution.container), &mut self.texts);
            }
            Choice::Rejected => sink.filtered(event.kind.index),
            Choice::Undecidable => sink.unattributed(event.kind.index),
        }
    }
}

/// The cached attributions.
pub(crate) struct AttributionCache<A> {
    attributor: A,
    /// The attributor's revision when the attributions were looked up.
    revision: u64,
    /// By slot.
    cached: Vec<Option<Box<CachedAttribution>>>,
    /// Containers that events are no longer kept back for.
    unresolved_keys: HashSet<ContainerKey>,
    /// The attribution of their events.
    unresolved: CachedAttribution,
}

impl<A: Attributor> AttributionCache<A> {
    pub(crate) fn new(attributor: A) -> Self {
        let unresolved = CachedAttribution::new(ContainerKey::HOST, Arc::new(attributor.unresolved()));
        Self { attributor, revision: 0, cached: Vec::new(), unresolved_keys: HashSet::new(), unresolved }
    }

    /// Takes in what was submitted so far: a creation is known before its events are handled.
    pub(crate) fn update(&mut self) {
        let revision = self.attributor.update();
        if self.revision != revision {
            self.revision = revision;
            self.cached.clear();
        }
    }

    /// A container that is cached.
    pub(crate) fn cached(&mut self, key: ContainerKey) -> Option<&mut CachedAttribution> {
        self.cached.get_mut(key.slot() as usize)?.as_deref_mut().filter(|cached| cached.key == key)
    }

    /// A container that is known, or unresolved for good; `None` if events are to be kept back for it.
    pub(crate) fn look_up(&mut self, key: ContainerKey) -> Option<&mut CachedAttribution> {
        if self.cached(key).is_none() {
            let Some(attribution) = self.attribution(key) else {
                return self.unresolved_keys.contains(&key).then_some(&mut self.unresolved);
            };
            let slot = key.slot() as usize;
            if self.cached.len() <= slot {
                self.cached.resize_with(slot + 1, || None);
            }
            self.cached[slot] = Some(Box::new(CachedAttribution::new(key, attribution)));
            self.unresolved_keys.remove(&key);
        }
        self.cached(key)
    }

    fn attribution(&mut self, key: ContainerKey) -> Option<Arc<Attribution>> {
        let lookup = match self.attributor.look_up(key) {
            Lookup::Unknown => {
                // A record that was reserved earlier but not yet submitted hid the one that announces the key.
                self.update();
                self.attributor.look_up(key)
            }
            lookup => lookup,
        };
        match lookup {
            Lookup::Known(attribution) => Some(attribution),
            Lookup::Pending => None,
            Lookup::Unknown => {
                self.attributor.report_missing(key);
                None
            }
        }
    }

    /// Events are no longer kept back for this container.
    pub(crate) fn give_up(&mut self, key: ContainerKey) -> &mut CachedAttribution {
        self.unresolved_keys.insert(key);
        &mut self.unresolved
    }

    /// No event of this container will follow.
    pub(crate) fn forget(&mut self, key: ContainerKey) {
        self.unresolved_keys.remove(&key);
        if self.cached(key).is_some() {
            self.cached[key.slot() as usize] = None;
        }
    }
}
