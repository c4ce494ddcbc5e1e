#!/bin/bash
# procfs cuts a process' name at the first colon, and leaves the kernel's escapes in it.
#
# Package: procfs 0.18.0 (Rust crate).
# Expected: proc_pid_status(5), "Name: Command run by this process. Strings longer than TASK_COMM_LEN (16) characters … are silently
#   truncated." A name may hold any byte but NUL: kernel workers are called kworker/0:1, and prctl(PR_SET_NAME) gives
#   names such as "app: worker". In status the kernel writes newline and backslash as \n and \\.
# Seen: `Process::status().name` is cut at the first colon. The escapes of newline and backslash stay. `Process::stat().comm` has the real
#   name, so that the two disagree: a filter by one misses what the other shows.
# Output:
#   "app: worker": stat "app: worker", status "app"
#   "kworker/0:1H": stat "kworker/0:1H", status "kworker/0"
#   "a\\b": stat "a\\b", status "a\\\\b"
source "$(dirname "$0")/lib.sh"
mkdir -p "$work/crate/src"
cat >"$work/crate/src/main.rs" <<'RUST'
fn main() {
    for name in ["app: worker", "kworker/0:1H", "a\\b"] {
        std::fs::write("/proc/self/comm", name).unwrap();
        let process = procfs::process::Process::myself().unwrap();
        println!("{name:?}: stat {:?}, status {:?}", process.stat().unwrap().comm, process.status().unwrap().name);
    }
}
RUST
crate_binary 'procfs = { version = "=0.18.0", default-features = false }'
"$binary" | tee "$work/seen"
cmp -s "$work/seen" - <<'RECORDED' || changed "the output is not the recorded one"
"app: worker": stat "app: worker", status "app"
"kworker/0:1H": stat "kworker/0:1H", status "kworker/0"
"a\\b": stat "a\\b", status "a\\\\b"
RECORDED
