//! What is asked of an event besides its container. The programs see to it.

use std::hash::Hash;

use anyhow::Context as _;
use aya::{Ebpf, Pod, maps::HashMap};
use tracer_common::{
    Comm, comm_of,
    filter::{ANY, EXCEPT, ONLY},
};

use crate::{bpf::load::borrow, model::Pattern};

/// `--pid`, `--uid`, `--comm`.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventFilter {
    /// Process ids, as `tracer` sees them.
    pub(crate) pids: Pattern<u32>,
    /// Real user ids.
    pub(crate) uids: Pattern<u32>,
    /// Comms; longer names as the kernel cuts them.
    pub(crate) comms: Pattern,
}

/// The filter as the programs have it.
pub(crate) struct KernelFilter {
    pub(crate) pids: Listed<u32>,
    pub(crate) uids: Listed<u32>,
    pub(crate) comms: Listed<Comm>,
}

/// Values, and what is meant by listing them.
pub(crate) struct Listed<T> {
    /// One of `tracer_common::filter`.
    pub(crate) mode: u32,
    values: Vec<T>,
}

impl KernelFilter {
    pub(crate) fn new(filter: &EventFilter) -> Self {
        Self {
            pids: Listed::new(&filter.pids, |pid| *pid),
            uids: Listed::new(&filter.uids, |uid| *uid),
            comms: Listed::new(&filter.comms, |comm| comm_of(comm)),
        }
    }
}

impl<T: Pod + Eq + Hash> Listed<T> {
    fn new<V: PartialEq>(pattern: &Pattern<V>, value: impl Fn(&V) -> T) -> Self {
        let unwanted: Vec<T> = pattern.unwanted().iter().map(&value).collect();
        let wanted = pattern.wanted().iter().map(&value);
        if !pattern.wanted().is_empty() {
            return Self { mode: ONLY, values: wanted.filter(|value| !unwanted.contains(value)).collect() };
        }
        Self { mode: if unwanted.is_empty() { ANY } else { EXCEPT }, values: unwanted }
    }

    /// Entries that the map has to have room for; the kernel makes none without any.
    pub(crate) fn max_entries(&self) -> u32 {
        u32::try_from(self.values.len()).unwrap_or(u32::MAX).max(1)
    }

    /// Lists the values in the map.
    pub(crate) fn fill(&self, ebpf: &mut Ebpf, map: &str) -> anyhow::Result<()> {
        let mut listed: HashMap<_, T, u8> = borrow(ebpf, map)?;
        for value in &self.values {
            listed.insert(value, &1, 0).with_context(|| format!("filling the map {map}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pids(values: &[&str]) -> (u32, Vec<u32>) {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        let filter = EventFilter { pids: Pattern::parse(&values).unwrap(), ..EventFilter::default() };
        let listed = KernelFilter::new(&filter).pids;
        (listed.mode, listed.values)
    }

    #[test]
    fn what_is_wanted_and_unwanted_is_not_listed() {
        assert_eq!(pids(&[]), (ANY, vec![]));
        assert_eq!(pids(&["1,2", "!2,!3"]), (ONLY, vec![1]));
        assert_eq!(pids(&["1,!1"]), (ONLY, vec![]));
        assert_eq!(pids(&["!2,!3"]), (EXCEPT, vec![2, 3]));
    }

    #[test]
    fn a_long_comm_is_listed_as_the_kernel_has_it() {
        let comms = Pattern::parse(&["kube-controller-manager".to_owned()]).unwrap();
        let filter = KernelFilter::new(&EventFilter { comms, ..EventFilter::default() });
        assert_eq!(filter.comms.values, [*b"kube-controller\0"]);
    }
}
