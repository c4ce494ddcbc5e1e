//! What this process may do: what it takes to start, what is kept from then on, and that the rest is gone for good.
//!
//! Rights are those of a thread. A thread has what the one had that started it, at that moment; nothing gives up
//! another thread's. So each gives up its own: those that start before the programs are attached do it first of all,
//! since they never need what attaching takes; the main thread does it when they are attached; what it starts from then
//! on, helpers included, begins with what is left.

use std::{fs, io};

use anyhow::Context as _;
use rustix::{
    process::getuid,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set, set_capabilities,
        set_no_new_privs,
    },
};

/// A capability without which nothing works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needed {
    /// It.
    pub(crate) set: CapabilitySet,
    /// As everyone calls it.
    pub(crate) name: &'static str,
    /// What for.
    pub(crate) purpose: &'static str,
    /// Whether it takes it all the while, not only to start.
    pub(crate) kept: bool,
}

/// All of them.
pub(crate) const NEEDED: [Needed; 4] = [
    Needed { set: CapabilitySet::BPF, name: "CAP_BPF", purpose: "to load BPF programs", kept: false },
    Needed {
        set: CapabilitySet::PERFMON,
        name: "CAP_PERFMON",
        purpose: "to attach them and to read kernel memory",
        kept: false,
    },
    Needed {
        set: CapabilitySet::SYS_PTRACE,
        name: "CAP_SYS_PTRACE",
        purpose: "to find the bundles of container runtimes through /proc",
        kept: true,
    },
    Needed {
        set: CapabilitySet::DAC_READ_SEARCH,
        name: "CAP_DAC_READ_SEARCH",
        purpose: "to read them, unless the user is root",
        kept: true,
    },
];

/// Where it says whether those may use BPF who have no capability for it.
const UNPRIVILEGED_BPF: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

/// The capabilities that count for this thread now.
pub(crate) fn effective() -> io::Result<CapabilitySet> {
    Ok(capabilities(None)?.effective)
}

/// Makes all capabilities count that this thread may have. Those of a file without the effective flag do not by themselves;
/// with it, the kernel would execute nothing where one of them is not allowed, and nobody would say which.
pub(crate) fn raise() -> io::Result<()> {
    let sets = capabilities(None)?;
    Ok(set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets })?)
}

/// Whether this process has capabilities that whoever executed it had not: its file gives them, as in the image of the agents.
/// What root executes, and what a service manager gives capabilities to (ambient ones), exceeds nobody.
#[must_use]
pub(crate) fn exceed_the_callers() -> bool {
    let is_of_file = |set| !capability_is_in_ambient_set(set).unwrap_or(false);
    // Where nothing can be learnt, the worse is taken for granted.
    let has_some = capabilities(None).map_or(true, |sets| sets.permitted.iter().any(is_of_file));
    has_some && !getuid().is_root()
}

/// Of `needed`, those that are neither in `effective` nor included in what is.
pub(crate) fn missing(effective: CapabilitySet, root: bool) -> impl Iterator<Item = &'static Needed> {
    let implied = move |needed: &Needed| match needed.set {
        // It was the one for BPF before 5.8, and still includes these.
        CapabilitySet::BPF | CapabilitySet::PERFMON => effective.contains(CapabilitySet::SYS_ADMIN),
        // The files are root's.
        CapabilitySet::DAC_READ_SEARCH => root,
        _ => false,
    };
    NEEDED.iter().filter(move |needed| !effective.contains(needed.set) && !implied(needed))
}

/// What is kept once the programs are attached. `use_map` uses a BPF map and says whether that was permitted.
///
/// A map that is open may be used by anybody since Linux 5.19. Before, where BPF is for the privileged, each use
/// takes the capability that creating it took.
pub(crate) fn lasting(use_map: impl FnOnce() -> bool) -> io::Result<CapabilitySet> {
    let always: CapabilitySet = NEEDED.iter().filter(|needed| needed.kept).map(|needed| needed.set).collect();
    let used = without(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN, use_map)?;
    // Where everybody may use BPF, that says nothing about what is so when the administrator changes it.
    let for_privileged = fs::read_to_string(UNPRIVILEGED_BPF).is_ok_and(|value| value.trim() != "0");
    if used && for_privileged {
        return Ok(always);
    }
    let has_bpf = effective()?.contains(CapabilitySet::BPF);
    Ok(always | if has_bpf { CapabilitySet::BPF } else { CapabilitySet::SYS_ADMIN })
}

/// Does `work` without these capabilities.
fn without<T>(set: CapabilitySet, work: impl FnOnce() -> T) -> io::Result<T> {
    let before = capabilities(None)?;
    set_capabilities(None, CapabilitySets { effective: before.effective - set, ..before })?;
    let result = work();
    set_capabilities(None, before)?;
    Ok(result)
}

/// Gives up every capability but those of `kept`, in this thread and all that it starts from here on. What they
/// execute has no more either: as root it would have all of them again.
pub(crate) fn keep_only(kept: CapabilitySet) -> anyhow::Result<()> {
    let give_up = || {
        set_no_new_privs(true)?;
        let CapabilitySets { permitted, inheritable, .. } = capabilities(None)?;
        let permitted = permitted & kept;
        let inheritable = inheritable & kept;
        set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable })
    };
    give_up().context("giving up the capabilities that are not needed any more")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> CapabilitySet {
        NEEDED.iter().map(|needed| needed.set).collect()
    }

    fn names(effective: CapabilitySet, root: bool) -> Vec<&'static str> {
        missing(effective, root).map(|needed| needed.name).collect()
    }

    /// The unit, the reference and this agree.
    #[test]
    fn what_is_granted_is_what_is_needed() {
        let unit = include_str!("../../../deploy/tracer.service");
        for setting in ["CapabilityBoundingSet=", "AmbientCapabilities="] {
            let granted = unit.lines().find_map(|line| line.strip_prefix(setting)).unwrap();
            let granted: Vec<_> = granted.split(' ').collect();
            assert_eq!(granted, NEEDED.map(|needed| needed.name), "{setting}");
        }
        let reference = include_str!("../../../docs/reference.md");
        for needed in NEEDED {
            assert!(reference.contains(&format!("\n| `{}` | ", needed.name)), "{}", needed.name);
        }
    }

    #[test]
    fn root_exceeds_nobody() {
        // Another user has none to exceed with, unless the tests' own file gave it some.
        assert!(!exceed_the_callers());
    }

    #[test]
    fn exactly_what_is_missing_is_named() {
        assert!(names(all(), false).is_empty());
        for needed in NEEDED {
            assert_eq!(names(all() - needed.set, false), [needed.name]);
        }
        assert_eq!(names(CapabilitySet::empty(), true), ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]);
        assert!(names(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE, true).is_empty());
    }

    #[test]
    fn what_is_given_up_is_gone_in_this_thread_and_those_that_it_starts_but_no_other() {
        let before = capabilities(None).unwrap();
        let within = std::thread::spawn(|| {
            let kept = CapabilitySet::SYS_PTRACE;
            keep_only(kept).unwrap();
            let own = capabilities(None).unwrap();
            let started =
                std::thread::spawn(|| (capabilities(None).unwrap(), rustix::thread::no_new_privs()));
            let (of_started, no_new_privs) = started.join().unwrap();
            assert!(no_new_privs.unwrap());
            assert_eq!(own, of_started);
            assert!(kept.contains(own.permitted) && kept.contains(own.effective));
            let back = CapabilitySets { permitted: own.permitted | CapabilitySet::BPF, ..own };
            assert!(set_capabilities(None, back).is_err());
        });
        within.join().unwrap();
        assert_eq!(capabilities(None).unwrap(), before);
    }

    #[test]
    fn what_is_done_without_a_capability_has_it_again_afterwards() {
        let before = capabilities(None).unwrap();
        let within = without(CapabilitySet::SYS_PTRACE, || effective().unwrap()).unwrap();
        assert_eq!(within, before.effective - CapabilitySet::SYS_PTRACE);
        assert_eq!(capabilities(None).unwrap(), before);
    }

    #[test]
    fn what_uses_maps_is_kept_where_they_take_it() {
        let kept = CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
        assert!(lasting(|| true).unwrap().contains(kept));
        let with_maps = lasting(|| false).unwrap();
        assert!(with_maps.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN), "{with_maps:?}");
        assert!(!with_maps.contains(CapabilitySet::PERFMON));
    }
}
