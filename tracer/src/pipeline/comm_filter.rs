//! Selects events by comm, where the programs in the kernel cannot.

use std::collections::HashMap;

use tracer_common::Comm;

use crate::model::{Pattern, name::Name};

/// How many comms are cached: threads may have any.
const CACHED_MAX: usize = 1024;

/// `--comm` with globs.
#[derive(Debug)]
pub(super) struct CommFilter {
    pattern: Pattern<Name>,
    cached: HashMap<Comm, bool>,
}

impl CommFilter {
    pub(super) fn new(pattern: Pattern<Name>) -> Self {
        Self { pattern, cached: HashMap::with_capacity(CACHED_MAX) }
    }

    /// Whether threads of that name are selected.
    pub(super) fn selects(&mut self, comm: Comm) -> bool {
        if let Some(selected) = self.cached.get(&comm) {
            return *selected;
        }
        let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        // The kernel has cut longer names.
        let is = |wanted: &Name| match wanted.literal() {
            Some(literal) => tracer_common::comm_of(literal) == comm,
            None => wanted.matches(&name),
        };
        let selected = self.pattern.selects(is);
        if self.cached.len() >= CACHED_MAX {
            self.cached.clear();
        }
        self.cached.insert(comm, selected);
        selected
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::comm_of;

    use super::*;

    #[test]
    fn comms_are_selected_by_globs_and_names() {
        let pattern =
            Pattern::parse(&["nginx*,kube-controller-manager,!nginx-debug".to_owned()], Name::any).unwrap();
        let mut filter = CommFilter::new(pattern);
        for _ in 0..2 {
            assert!(filter.selects(comm_of("nginx")) && filter.selects(comm_of("nginx-worker")));
            assert!(filter.selects(comm_of("kube-controller-x")));
            assert!(!filter.selects(comm_of("nginx-debug")) && !filter.selects(comm_of("sh")));
        }
    }

    #[test]
    fn cache_is_bounded() {
        let mut filter = CommFilter::new(Pattern::parse(&["a*".to_owned()], Name::any).unwrap());
        for n in 0..3 * CACHED_MAX {
            assert!(filter.selects(comm_of(&format!("a{n}"))));
        }
        assert!(filter.cached.len() <= CACHED_MAX);
    }
}
