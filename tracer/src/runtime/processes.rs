//! The processes of the machine, as /proc shows them at one moment.

use std::{collections::HashMap, fs, path::Path};

use tracer_common::container::NANOSECONDS_PER_TICK;

use super::reexecuted;
use crate::clock;

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    /// In the pid namespace of `tracer`.
    pub pid: u32,
    /// Its parent; 0 where that is not to be seen.
    pub ppid: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Its comm; of a runtime that has executed a copy of itself, the runtime's name.
    pub comm: String,
    /// Inode numbers of its mount and pid namespaces; unique among those that exist at one moment.
    pub mntns: u64,
    /// See `mntns`.
    pub pidns: u64,
    /// Its cgroup in each hierarchy: `/proc/PID/cgroup`, `HIERARCHY:CONTROLLERS:PATH`.
    pub cgroups: Vec<String>,
}

impl Process {
    /// None if it is gone, or not to be seen.
    pub fn read(pid: u32) -> Option<Self> {
        let directory = Path::new("/proc").join(pid.to_string());
        let namespace = |name: &str| Some(rustix::fs::stat(directory.join("ns").join(name)).ok()?.st_ino);
        let stat = Stat::parse(&fs::read(directory.join("stat")).ok()?)?;
        let cgroups = fs::read_to_string(directory.join("cgroup")).ok()?;
        Some(Self {
            pid,
            ppid: stat.ppid,
            start_ticks: stat.start_ticks,
            comm: reexecuted::runtime(&directory, &stat.comm).unwrap_or(stat.comm),
            mntns: namespace("mnt")?,
            pidns: namespace("pid")?,
            cgroups: cgroups.lines().map(str::to_owned).collect(),
        })
    }

    /// When it started, in nanoseconds of `CLOCK_BOOTTIME`, to a tick.
    pub const fn start_time(&self) -> u64 {
        self.start_ticks * NANOSECONDS_PER_TICK
    }

    /// Whether it is in this cgroup, or below it. A root cgroup is no container's.
    pub fn is_in(&self, cgroup: &str) -> bool {
        let is_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        !cgroup.ends_with(":/")
            && self.cgroups.iter().any(|mine| mine.strip_prefix(cgroup).is_some_and(is_below))
    }
}

/// What `/proc/PID/stat` says (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
pub struct Stat {
    /// Field 2, which may hold anything.
    pub comm: String,
    /// Field 4.
    pub ppid: u32,
    /// Field 22, as the programs tell it.
    pub start_ticks: u64,
}

impl Stat {
    /// None where the file has another form.
    pub fn parse(stat: &[u8]) -> Option<Self> {
        // The comm stands in parentheses and may hold some itself, and blanks: the last one ends it.
        let start = stat.iter().position(|byte| *byte == b'(')?;
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let comm = String::from_utf8_lossy(stat.get(start + 1..end)?).into_owned();
        let rest = String::from_utf8_lossy(stat.get(end + 1..)?);
        let mut fields = rest.split_ascii_whitespace();
        let ppid = fields.nth(1)?.parse().ok()?;
        let start_ticks = clock::ticks(fields.nth(17)?.parse().ok()?);
        Some(Self { comm, ppid, start_ticks })
    }
}

/// All processes by id.
#[derive(Debug, Default)]
pub struct Processes(HashMap<u32, Process>);

impl Processes {
    /// Those that can be seen now.
    pub fn read() -> std::io::Result<Self> {
        let mut processes = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
            // Kernel threads have neither a parent but kthreadd nor a place in any container.
            if let Some(process) = pid.and_then(Process::read) {
                processes.insert(process.pid, process);
            }
        }
        Ok(Self(processes))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Process> {
        self.0.values()
    }

    /// One of them.
    pub fn get(&self, pid: u32) -> Option<&Process> {
        self.0.get(&pid)
    }

    /// A process and its ancestors, the nearest first.
    pub fn lineage(&self, pid: u32) -> impl Iterator<Item = &Process> {
        // A table of one moment may have a loop where a number was used again.
        std::iter::successors(self.get(pid), |process| self.get(process.ppid)).take(self.0.len())
    }

    /// Whether `pid` is `ancestor` or descends from it.
    pub fn descends_from(&self, pid: u32, ancestor: u32) -> bool {
        self.lineage(pid).any(|process| process.pid == ancestor)
    }
}

/// The numbers of a process in each pid namespace that it is in, from `tracer`'s to its own: `NSpid` of
/// `/proc/PID/status` (proc_pid_status(5)). None if it is gone; never empty.
pub fn namespace_pids(pid: u32) -> Option<Vec<u32>> {
    namespace_pids_in(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn namespace_pids_in(status: &str) -> Option<Vec<u32>> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let pids: Vec<u32> = line.split_ascii_whitespace().map_while(|pid| pid.parse().ok()).collect();
    (!pids.is_empty()).then_some(pids)
}

/// A process, its parent, that one's parent and so on, as far as they are to be seen.
pub fn ancestors(pid: u32) -> Vec<u32> {
    /// No engine nests deeper.
    const DEPTH: usize = 32;
    let parent = |pid: &u32| {
        let ppid = Stat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)?.ppid;
        (ppid != 0).then_some(ppid)
    };
    std::iter::successors((pid != 0).then_some(pid), parent).take(DEPTH).collect()
}

/// When a process started; None if it is gone.
pub fn start_ticks(pid: u32) -> Option<u64> {
    Some(Stat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)?.start_ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comm_may_look_like_the_fields_behind_it() {
        let tail = "S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let stat = Stat::parse(format!("5 (a) R 1 (b)) {tail}").as_bytes()).unwrap();
        assert_eq!(stat, Stat { comm: "a) R 1 (b)".into(), ppid: 7, start_ticks: 4242 });
        for broken in ["", "5 (a", "5 (a) S", "5 )a( S 1"] {
            assert_eq!(Stat::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn ancestors_begin_with_the_process_and_end_at_the_first() {
        let mine = ancestors(std::process::id());
        assert_eq!(mine[..2], [std::process::id(), std::os::unix::process::parent_id()]);
        assert!(ancestors(0).is_empty());
    }

    #[test]
    fn a_process_has_a_number_in_each_of_its_namespaces() {
        assert_eq!(namespace_pids_in("Name:\tx\nNSpid:\t70\t7\t1\n"), Some(vec![70, 7, 1]));
        assert_eq!(namespace_pids_in("Name:\tx\n"), None);
        assert_eq!(namespace_pids(std::process::id()), Some(vec![std::process::id()]));
    }

    #[test]
    fn this_process_is_found_with_its_ancestors() {
        let processes = Processes::read().unwrap();
        let me = processes.get(std::process::id()).unwrap();
        assert_eq!(Some(me.start_ticks), start_ticks(me.pid));
        assert!(processes.descends_from(me.pid, me.ppid));
        assert!(!processes.descends_from(me.ppid, me.pid));
    }

    #[test]
    fn a_nested_cgroup_is_the_containers_a_longer_name_is_not() {
        let process = |cgroups: &[&str]| Process {
            pid: 1,
            ppid: 0,
            start_ticks: 0,
            comm: String::new(),
            mntns: 0,
            pidns: 0,
            cgroups: cgroups.iter().map(ToString::to_string).collect(),
        };
        assert!(process(&["0::/pod/a/b"]).is_in("0::/pod/a"));
        assert!(process(&["0::/pod/a"]).is_in("0::/pod/a"));
        assert!(!process(&["1:cpu:/x", "0::/pod/ab"]).is_in("0::/pod/a"));
        assert!(!process(&["1:cpu:/"]).is_in("1:cpu:/"));
    }
}
