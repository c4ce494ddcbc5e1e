//! Capabilities: which ones `tracer` requires to start, which it keeps while tracing, and dropping the others for
//! good.
//!
//! Capabilities belong to threads. A new thread has those that its creator has at that moment, and no thread can drop
//! another thread's. So each thread drops its own: threads that start before the programs are attached do it first,
//! since they never need what attaching requires; the main thread does it once the programs are attached. What it
//! starts afterwards, helper processes included, begins with the remaining ones.

use std::{fs, io};

use anyhow::Context as _;
use rustix::{
    process::getuid,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set, set_capabilities,
        set_no_new_privs,
    },
};

/// A capability that `tracer` cannot work without.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequiredCapability {
    /// The capability, as a set of one.
    pub(crate) set: CapabilitySet,
    /// Its name as in capabilities(7).
    pub(crate) name: &'static str,
    /// What it is required for, as an infinitive clause.
    pub(crate) purpose: &'static str,
    /// Whether it is required while tracing too, not only to start.
    pub(crate) kept: bool,
}

/// All capabilities that `tracer` requires.
pub(crate) const REQUIRED: [RequiredCapability; 4] = [
    RequiredCapability {
        set: CapabilitySet::BPF,
        name: "CAP_BPF",
        purpose: "to load BPF programs",
        kept: false,
    },
    RequiredCapability {
        set: CapabilitySet::PERFMON,
        name: "CAP_PERFMON",
        purpose: "to attach them and to read kernel memory",
        kept: false,
    },
    RequiredCapability {
        set: CapabilitySet::SYS_PTRACE,
        name: "CAP_SYS_PTRACE",
        purpose: "to find the bundles of container runtimes through /proc",
        kept: true,
    },
    RequiredCapability {
        set: CapabilitySet::DAC_READ_SEARCH,
        name: "CAP_DAC_READ_SEARCH",
        purpose: "to read them, unless the user is root",
        kept: true,
    },
];

/// Not 0 if only privileged processes may use BPF.
const UNPRIVILEGED_BPF: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

/// Effective capabilities of this thread.
pub(crate) fn effective() -> io::Result<CapabilitySet> {
    Ok(capabilities(None)?.effective)
}

/// Makes all permitted capabilities of this thread effective. A file's capabilities are permitted only, unless its
/// effective flag is set; with that flag, execve fails with EPERM if one of them is not allowed, which does not say
/// which one.
pub(crate) fn raise() -> io::Result<()> {
    let sets = capabilities(None)?;
    Ok(set_capabilities(None, CapabilitySets { effective: sets.permitted, ..sets })?)
}

/// Whether this process has capabilities that its caller did not have, because its file grants them, as in the image
/// of the agents. Capabilities of root, and ambient ones that a service manager grants, do not count.
#[must_use]
pub(crate) fn exceed_the_callers() -> bool {
    let is_of_file = |set| !capability_is_in_ambient_set(set).unwrap_or(false);
    // If the capabilities cannot be read, assume that it does.
    let has_some = capabilities(None).map_or(true, |sets| sets.permitted.iter().any(is_of_file));
    has_some && !getuid().is_root()
}

/// The required capabilities that are neither in `effective` nor implied by a capability in it.
pub(crate) fn missing(
    effective: CapabilitySet,
    root: bool,
) -> impl Iterator<Item = &'static RequiredCapability> {
    let implied = move |needed: &RequiredCapability| match needed.set {
        // Before 5.8, CAP_SYS_ADMIN was the capability for BPF; it still implies these two.
        CapabilitySet::BPF | CapabilitySet::PERFMON => effective.contains(CapabilitySet::SYS_ADMIN),
        // The files that are read belong to root.
        CapabilitySet::DAC_READ_SEARCH => root,
        _ => false,
    };
    REQUIRED.iter().filter(move |needed| !effective.contains(needed.set) && !implied(needed))
}

/// The capabilities to keep once the programs are attached. `use_map` uses a BPF map and returns whether that was
/// permitted.
///
/// Since Linux 5.19 any process may use a map that it has open. Before, where BPF is restricted to privileged
/// processes, each use requires the same capability as creating the map.
pub(crate) fn lasting(use_map: impl FnOnce() -> bool) -> io::Result<CapabilitySet> {
    let always: CapabilitySet =
        REQUIRED.iter().filter(|needed| needed.kept).map(|needed| needed.set).collect();
    let used = without(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN, use_map)?;
    // Where unprivileged BPF is enabled, the result does not show what happens once the administrator disables it.
    let for_privileged = fs::read_to_string(UNPRIVILEGED_BPF).is_ok_and(|value| value.trim() != "0");
    if used && for_privileged {
        return Ok(always);
    }
    let has_bpf = effective()?.contains(CapabilitySet::BPF);
    Ok(always | if has_bpf { CapabilitySet::BPF } else { CapabilitySet::SYS_ADMIN })
}

/// Runs `work` with these capabilities disabled in this thread.
fn without<T>(set: CapabilitySet, work: impl FnOnce() -> T) -> io::Result<T> {
    let before = capabilities(None)?;
    set_capabilities(None, CapabilitySets { effective: before.effective - set, ..before })?;
    let result = work();
    set_capabilities(None, before)?;
    Ok(result)
}

/// Drops every capability except `kept`, for this thread and everything that it starts afterwards. Programs that they
/// execute do not gain any either, which root would otherwise do.
pub(crate) fn keep_only(kept: CapabilitySet) -> anyhow::Result<()> {
    let give_up = || {
        set_no_new_privs(true)?;
        let CapabilitySets { permitted, inheritable, .. } = capabilities(None)?;
        let permitted = permitted & kept;
        let inheritable = inheritable & kept;
        set_capabilities(None, CapabilitySets { effective: permitted, permitted, inheritable })
    };
    give_up().context("cannot drop capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> CapabilitySet {
        REQUIRED.iter().map(|needed| needed.set).collect()
    }

    fn names(effective: CapabilitySet, root: bool) -> Vec<&'static str> {
        missing(effective, root).map(|needed| needed.name).collect()
    }

    /// The systemd unit, the reference and this table list the same capabilities.
    #[test]
    fn service_unit_and_reference_list_required_capabilities() {
        let unit = include_str!("../../../deploy/tracer.service");
        for setting in ["CapabilityBoundingSet=", "AmbientCapabilities="] {
            let granted = unit.lines().find_map(|line| line.strip_prefix(setting)).unwrap();
            let granted: Vec<_> = granted.split(' ').collect();
            assert_eq!(granted, REQUIRED.map(|needed| needed.name), "{setting}");
        }
        let reference = include_str!("../../../docs/reference.md");
        for needed in REQUIRED {
            assert!(reference.contains(&format!("\n| `{}` | ", needed.name)), "{}", needed.name);
        }
    }

    #[test]
    fn root_does_not_exceed_its_caller() {
        // Nor does another user, unless the test binary itself has capabilities.
        assert!(!exceed_the_callers());
    }

    #[test]
    fn missing_lists_exactly_the_absent_capabilities() {
        assert!(names(all(), false).is_empty());
        for needed in REQUIRED {
            assert_eq!(names(all() - needed.set, false), [needed.name]);
        }
        assert_eq!(names(CapabilitySet::empty(), true), ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]);
        assert!(names(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE, true).is_empty());
    }

    #[test]
    fn dropped_capabilities_are_gone_in_this_thread_and_its_children_only() {
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
    fn without_restores_capabilities_afterwards() {
        let before = capabilities(None).unwrap();
        let within = without(CapabilitySet::SYS_PTRACE, || effective().unwrap()).unwrap();
        assert_eq!(within, before.effective - CapabilitySet::SYS_PTRACE);
        assert_eq!(capabilities(None).unwrap(), before);
    }

    #[test]
    fn bpf_capability_is_kept_if_using_maps_requires_it() {
        let kept = CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
        assert!(lasting(|| true).unwrap().contains(kept));
        let with_maps = lasting(|| false).unwrap();
        assert!(with_maps.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN), "{with_maps:?}");
        assert!(!with_maps.contains(CapabilitySet::PERFMON));
    }
}
