//! The keys in use: the life of each, and what depends on it.

use std::{collections::HashMap, sync::Arc};

use tracer_common::container::ContainerKey;

use crate::{
    registry::{
        Attribution, ContainerName,
        labels::Sandbox,
        life::{Custody, Life, Stage},
    },
    sys::process_handle::Root,
};

/// The keys that user space knows of and has not forgotten.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    keys: HashMap<ContainerKey, Key>,
    /// How many were announced.
    announced: u64,
}

/// A key in use.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) life: Life,
    pub(crate) custody: Custody,
    pub(crate) runtime: RuntimeStart,
    /// None for what joined a container, and for containers that have ended.
    pub(crate) name: Option<ContainerName>,
    /// Its processes join a container that has no key any more, or never had one: it is no container itself.
    pub(crate) joins: bool,
    /// The root directory of a container that runtimes work in.
    pub(crate) root: Option<Arc<Root>>,
    /// The container whose quota of slots it uses; [`ContainerKey::HOST`] for none.
    pub(crate) payer: ContainerKey,
    /// How many were announced before.
    pub(crate) number: u64,
}

/// Whether the start of a key's runtime was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuntimeStart {
    /// A runtime was executed, or the key was adopted.
    Seen,
    /// The programs saw a process that only a container has, and no runtime before.
    Unseen,
}

/// What an announced key uses until it is forgotten.
#[derive(Debug)]
pub(crate) struct Used {
    /// A slot of this container's quota.
    pub(crate) payer: ContainerKey,
    /// The labels of this sandbox.
    pub(crate) sandbox: Option<Sandbox>,
}

impl Key {
    const fn new(stage: Stage, custody: Custody) -> Self {
        Self {
            life: Life::Live(stage),
            custody,
            runtime: RuntimeStart::Seen,
            name: None,
            joins: false,
            root: None,
            payer: ContainerKey::HOST,
            number: 0,
        }
    }

    /// Whether this, the entry of `key`, is the container that it is attributed to: no process that joined one, and no host
    /// process.
    pub(crate) fn is_container(&self, key: ContainerKey, attribution: &Attribution) -> bool {
        attribution.key == key && !attribution.host && !self.joins
    }

    /// The container, once it is known.
    pub(crate) const fn attribution(&self) -> Option<&Arc<Attribution>> {
        self.life.stage().attribution()
    }

    /// What it uses of others' as long as it is announced.
    pub(crate) fn used(&self) -> Option<Used> {
        self.life.stage().is_announced().then(|| Used { payer: self.payer, sandbox: self.sandbox() })
    }

    /// The sandbox of its container's pod.
    pub(crate) fn sandbox(&self) -> Option<Sandbox> {
        Sandbox::of(&self.attribution()?.container)
    }
}

impl Keys {
    /// A key that user space has just given out.
    pub(crate) fn insert_taken(&mut self, key: ContainerKey) {
        self.keys.insert(key, Key::new(Stage::Taken, Custody::Entering));
    }

    /// A key in use, whether it was known before or not.
    pub(crate) fn get_or_missing(&mut self, key: ContainerKey) -> &mut Key {
        self.keys.entry(key).or_insert_with(|| Key::new(Stage::Missing, Custody::Programs))
    }

    pub(crate) fn get(&self, key: ContainerKey) -> Option<&Key> {
        self.keys.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: ContainerKey) -> Option<&mut Key> {
        self.keys.get_mut(&key)
    }

    pub(crate) fn remove(&mut self, key: ContainerKey) -> Option<Key> {
        self.keys.remove(&key)
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ContainerKey, &Key)> {
        self.keys.iter().map(|(key, entry)| (*key, entry))
    }

    /// Those that were announced.
    pub(crate) fn announced(&self) -> impl Iterator<Item = (ContainerKey, &Key)> {
        self.iter().filter(|(_, entry)| entry.life.stage().is_announced())
    }

    /// A key, if it was announced.
    pub(crate) fn get_announced(&self, key: ContainerKey) -> Option<&Key> {
        self.get(key).filter(|entry| entry.life.stage().is_announced())
    }

    /// The number of the next announcement.
    pub(crate) const fn next_number(&mut self) -> u64 {
        let number = self.announced;
        self.announced += 1;
        number
    }

    /// The containers with a name, the one first that counts: of several the first that has begun. So a later claim to a
    /// name does not take it over.
    pub(crate) fn named(&self, name: &ContainerName) -> Option<&Key> {
        let named = self.announced().map(|(_, key)| key).filter(|key| key.name.as_ref() == Some(name));
        named.min_by_key(|key| (key.life.stage().first().is_none(), key.number))
    }
}
