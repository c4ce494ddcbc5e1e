//! What is asked of an event besides its container. The programs see to it.

use std::hash::Hash;

use anyhow::Context as _;
use aya::{Ebpf, Pod, maps::HashMap};
use tracer_common::{
    Comm, comm_of,
    filter::{ANY, EXCEPT, ONLY},
};

use crate::{
    bpf::load::borrow,
    model::{Pattern, name::Name},
};

/// `--pid`, `--uid`, `--comm`.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventFilter {
    /// Process ids, as `tracer` sees them.
    pub(crate) pids: Pattern<u32>,
    /// Real user ids.
    pub(crate) uids: Pattern<u32>,
    /// Comms; longer names as the kernel cuts them. Globs are left to user space: see [`Self::comms_of_user_space`].
    pub(crate) comms: Pattern<Name>,
}

impl EventFilter {
    /// The comms, if the programs do not see to all of them.
    pub(crate) fn comms_of_user_space(&self) -> Option<Pattern<Name>> {
        let mut names = self.comms.wanted().iter().chain(self.comms.unwanted());
        names.any(|name| name.literal().is_none()).then(|| self.comms.clone())
    }
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
            pids: Listed::new(filter.pids.wanted().to_vec(), filter.pids.unwanted().to_vec()),
            uids: Listed::new(filter.uids.wanted().to_vec(), filter.uids.unwanted().to_vec()),
            comms: comms(&filter.comms),
        }
    }
}

/// As much of the pattern as can be listed: a glob among the included names may include any.
fn comms(pattern: &Pattern<Name>) -> Listed<Comm> {
    let literal = |names: &[Name]| names.iter().filter_map(Name::literal).map(comm_of).collect::<Vec<_>>();
    let wanted = literal(pattern.wanted());
    let has_globs = wanted.len() < pattern.wanted().len();
    Listed::new(if has_globs { Vec::new() } else { wanted }, literal(pattern.unwanted()))
}

impl<T: Pod + Eq + Hash> Listed<T> {
    fn new(wanted: Vec<T>, unwanted: Vec<T>) -> Self {
        if wanted.is_empty() {
            return Self { mode: if unwanted.is_empty() { ANY } else { EXCEPT }, values: unwanted };
        }
        Self { mode: ONLY, values: wanted.into_iter().filter(|value| !unwanted.contains(value)).collect() }
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
    use crate::model::pattern::number;

    fn pids(values: &[&str]) -> (u32, Vec<u32>) {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        let filter = EventFilter { pids: Pattern::parse(&values, number).unwrap(), ..EventFilter::default() };
        let listed = KernelFilter::new(&filter).pids;
        (listed.mode, listed.values)
    }

    #[test]
    fn what_is_wanted_and_unwanted_is_not_listed() {
        assert_eq!(pids(&[]), (ANY, vec![]));
        assert_eq!(pids(&["1,2", "!2,!3"]), (ONLY, vec![1]));
        assert_eq!(pids(&["!2,!3"]), (EXCEPT, vec![2, 3]));
    }

    #[test]
    fn a_long_comm_is_listed_as_the_kernel_has_it() {
        assert_eq!(comms("kube-controller-manager"), (ONLY, vec![*b"kube-controller\0"], false));
    }

    #[test]
    fn globs_of_comms_are_left_to_user_space() {
        const A: Comm = *b"a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(comms("a,b*"), (ANY, vec![], true));
        assert_eq!(comms("b*,!a"), (EXCEPT, vec![A], true));
        assert_eq!(comms("a,!b*"), (ONLY, vec![A], true));
        assert_eq!(comms("!b*"), (ANY, vec![], true));
        assert_eq!(comms("!a"), (EXCEPT, vec![A], false));
    }

    /// The mode and values of a filter by comms, and whether user space has to see to some.
    fn comms(value: &str) -> (u32, Vec<Comm>, bool) {
        let comms = Pattern::parse(&[value.to_owned()], Name::any).unwrap();
        let filter = EventFilter { comms, ..EventFilter::default() };
        let of_user_space = filter.comms_of_user_space().is_some();
        let Listed { mode, values } = KernelFilter::new(&filter).comms;
        (mode, values, of_user_space)
    }
}
