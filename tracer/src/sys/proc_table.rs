//! A snapshot of the processes of the node, from /proc.

use std::{collections::HashMap, fs, path::Path};

use tracer_common::container::NANOSECONDS_PER_TICK;

use crate::sys::{clock, runtime_copy};

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Process id in the pid namespace of `tracer`.
    pub(crate) pid: u32,
    /// Process id of its parent; 0 if that is not visible.
    pub(crate) ppid: u32,
    /// When it started, in clock ticks since boot, as the programs count them.
    pub(crate) start_ticks: u64,
    /// Its comm; for a runtime that has executed a copy of itself, the runtime's name.
    pub(crate) comm: String,
    /// Inode number of its mount namespace, unique among the existing namespaces.
    pub(crate) mntns: u64,
    /// Inode number of its pid namespace, likewise.
    pub(crate) pidns: u64,
    /// Its cgroup in each hierarchy: the lines `HIERARCHY:CONTROLLERS:PATH` of `/proc/PID/cgroup`.
    pub(crate) cgroups: Vec<String>,
}

impl Process {
    /// None if it has exited or is not visible.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let directory = Path::new("/proc").join(pid.to_string());
        let namespace = |name: &str| namespace(&directory, name);
        let stat = Stat::parse(&fs::read(directory.join("stat")).ok()?)?;
        let cgroups = fs::read_to_string(directory.join("cgroup")).ok()?;
        Some(Self {
            pid,
            ppid: stat.ppid,
            start_ticks: stat.start_ticks,
            comm: runtime_copy::runtime_name(&directory, &stat.comm).unwrap_or(stat.comm),
            mntns: namespace("mnt")?,
            pidns: namespace("pid")?,
            cgroups: cgroups.lines().map(str::to_owned).collect(),
        })
    }

    /// Its cgroup in the unified hierarchy.
    pub(crate) fn unified_cgroup(&self) -> Option<&str> {
        self.cgroups.iter().find_map(|line| line.strip_prefix("0::"))
    }

    /// When it started, in nanoseconds of `CLOCK_BOOTTIME`, rounded down to a tick.
    pub(crate) const fn start_time(&self) -> u64 {
        self.start_ticks * NANOSECONDS_PER_TICK
    }

    /// Its cgroups, each followed by the cgroups that contain it, innermost first. Root cgroups are left out, since
    /// no container has one.
    pub(crate) fn all_cgroups(&self) -> impl Iterator<Item = &str> {
        self.cgroups.iter().flat_map(|cgroup| {
            std::iter::successors(Some(cgroup.as_str()), |inner| Some(inner.rsplit_once('/')?.0))
                .take_while(|cgroup| !is_root(cgroup))
        })
    }
}

/// Inode number of a namespace of a process. A main thread that has exited while other threads go on has no
/// namespaces; theirs are used.
fn namespace(process: &Path, name: &str) -> Option<u64> {
    let of = |task: &Path| Some(rustix::fs::stat(task.join("ns").join(name)).ok()?.st_ino);
    of(process).or_else(|| {
        let mut tasks = fs::read_dir(process.join("task")).ok()?.flatten();
        tasks.find_map(|task| of(&task.path()))
    })
}

/// Whether a line of `/proc/PID/cgroup` names a hierarchy's root.
fn is_root(cgroup: &str) -> bool {
    cgroup.splitn(3, ':').nth(2).is_none_or(|path| path.is_empty() || path == "/")
}

/// The fields of `/proc/PID/stat` that are used (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Field 2, which may contain any byte.
    pub(crate) comm: String,
    /// Field 4.
    pub(crate) ppid: u32,
    /// Field 22, converted to ticks as the programs count them.
    pub(crate) start_ticks: u64,
}

impl Stat {
    /// None if the format is invalid.
    pub(crate) fn parse(stat: &[u8]) -> Option<Self> {
        // The comm is in parentheses and may contain parentheses and blanks itself: the last one ends it.
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
pub(crate) struct Processes(HashMap<u32, Process>);

impl FromIterator<Process> for Processes {
    fn from_iter<T: IntoIterator<Item = Process>>(processes: T) -> Self {
        Self(processes.into_iter().map(|process| (process.pid, process)).collect())
    }
}

impl Processes {
    /// The processes that are visible now.
    pub(crate) fn read() -> std::io::Result<Self> {
        let entries: Vec<fs::DirEntry> = fs::read_dir("/proc")?.collect::<Result<_, _>>()?;
        let pids = entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Ok(pids.filter_map(Process::read).collect())
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.0.values()
    }

    /// One of them.
    pub(crate) fn get(&self, pid: u32) -> Option<&Process> {
        self.0.get(&pid)
    }

    /// A process and its ancestors, nearest first.
    pub(crate) fn lineage(&self, pid: u32) -> impl Iterator<Item = &Process> {
        // A snapshot may contain a loop if a process id was reused while it was taken.
        std::iter::successors(self.get(pid), |process| self.get(process.ppid)).take(self.0.len())
    }

    /// Whether `pid` is `ancestor` or descends from it.
    pub(crate) fn descends_from(&self, pid: u32, ancestor: u32) -> bool {
        self.lineage(pid).any(|process| process.pid == ancestor)
    }
}

/// The ids of a process in each pid namespace that it is in, from `tracer`'s to its own: `NSpid` of
/// `/proc/PID/status` (proc_pid_status(5)). None if it has exited; never empty.
pub(crate) fn namespace_pids(pid: u32) -> Option<Vec<u32>> {
    namespace_pids_in(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn namespace_pids_in(status: &str) -> Option<Vec<u32>> {
    status_numbers(status, "NSpid").filter(|pids| !pids.is_empty())
}

/// A field of `/proc/PID/status` (proc_pid_status(5)), with the blanks around it.
pub(super) fn status_field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// The numbers in a field of `/proc/PID/status`.
pub(super) fn status_numbers(status: &str, name: &str) -> Option<Vec<u32>> {
    let words = status_field(status, name)?.split_ascii_whitespace();
    Some(words.map_while(|number| number.parse().ok()).collect())
}

/// A process and its ancestors, nearest first, as far as they are visible.
pub(crate) fn ancestors(pid: u32) -> Vec<u32> {
    /// No engine nests deeper.
    const DEPTH: usize = 32;
    std::iter::successors((pid != 0).then_some(pid), |pid| parent(*pid)).take(DEPTH).collect()
}

/// A process's parent; None if it is not visible.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let ppid = stat(pid)?.ppid;
    (ppid != 0).then_some(ppid)
}

/// Reads `/proc/PID/stat`; None if the process has exited.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    Stat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// When a process started, in clock ticks; None if it has exited.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    Some(stat(pid)?.start_ticks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comm_that_looks_like_stat_fields_is_parsed() {
        let tail = "S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let stat = Stat::parse(format!("5 (a) R 1 (b)) {tail}").as_bytes()).unwrap();
        assert_eq!(stat, Stat { comm: "a) R 1 (b)".into(), ppid: 7, start_ticks: 4242 });
        for broken in ["", "5 (a", "5 (a) S", "5 )a( S 1"] {
            assert_eq!(Stat::parse(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn ancestors_begin_with_the_process_itself() {
        let mine = ancestors(std::process::id());
        assert_eq!(mine[..2], [std::process::id(), std::os::unix::process::parent_id()]);
        assert!(ancestors(0).is_empty());
    }

    #[test]
    fn namespace_pids_lists_one_id_per_namespace() {
        assert_eq!(namespace_pids_in("Name:\tx\nNSpid:\t70\t7\t1\n"), Some(vec![70, 7, 1]));
        assert_eq!(namespace_pids_in("Name:\tx\n"), None);
        assert_eq!(namespace_pids(std::process::id()), Some(vec![std::process::id()]));
    }

    #[test]
    fn snapshot_contains_this_process_and_its_parent() {
        let processes = Processes::read().unwrap();
        let me = processes.get(std::process::id()).unwrap();
        assert_eq!(Some(me.start_ticks), start_ticks(me.pid));
        assert!(processes.descends_from(me.pid, me.ppid));
        assert!(!processes.descends_from(me.ppid, me.pid));
    }

    #[test]
    fn all_cgroups_lists_cgroups_and_their_parents() {
        let process = Process {
            pid: 1,
            ppid: 0,
            start_ticks: 0,
            comm: String::new(),
            mntns: 0,
            pidns: 0,
            cgroups: ["1:cpu:/x", "2:pids:/", "0::/pod/a:b/c"].map(ToOwned::to_owned).into(),
        };
        let cgroups: Vec<&str> = process.all_cgroups().collect();
        assert_eq!(cgroups, ["1:cpu:/x", "0::/pod/a:b/c", "0::/pod/a:b", "0::/pod"]);
        assert_eq!(process.unified_cgroup(), Some("/pod/a:b/c"));
    }
}
