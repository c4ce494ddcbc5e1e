//! What a run of the tests must not leave on the machine.

use std::fs;

use crate::scratch;

/// Processes, mounts, cgroups and directories whose names carry this process's token.
pub fn find() -> Vec<String> {
    let token = scratch::token();
    let mut left = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    left.extend(mounts.lines().filter(|line| line.contains(token)).map(|line| format!("mount {line}")));
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(cmdline) = fs::read(entry.path().join("cmdline")) else { continue };
        let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
        // Tracers of other tests read every bundle, by short-lived processes of their own.
        let is_reader = cmdline.starts_with("tracer read-for-tracer ");
        if pid != std::process::id() && cmdline.contains(token) && !is_reader {
            left.push(format!("process {pid}: {cmdline}"));
        }
    }
    // Each controller's hierarchy, or the unified tree itself: what we make lies at the top.
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let name = hierarchy.file_name().to_string_lossy().into_owned();
        if name.contains(token) {
            left.push(format!("cgroup {}", hierarchy.path().display()));
        }
        for group in fs::read_dir(hierarchy.path()).into_iter().flatten().flatten() {
            if group.file_name().to_string_lossy().contains(token) {
                left.push(format!("cgroup {}", group.path().display()));
            }
        }
    }
    if scratch::root().exists() {
        // `root()` made it afresh if nobody did: an empty one is no trace of a test.
        let _ = fs::remove_dir(scratch::root());
    }
    if scratch::root().exists() {
        left.push(format!("directory {}", scratch::root().display()));
    }
    left
}
