#!/bin/bash
# procfs gives one layer of an overlay that has three, and a mount point that no program can open.
#
# Package: procfs 0.18.0 (Rust crate). Needs root and Linux 6.8 or later (overlayfs with lowerdir+ in the new mount API).
# Expected: procfs documents `MountInfo::super_options` as "Per-superblock options" and `mount_point` as "The pathname of the mount
#   point". Documentation/filesystems/overlayfs.rst, "Multiple lower layers": with fsconfig(2), "lowerdir+" is given once for each layer.
#   proc_pid_mountinfo(5): blanks in paths are written as \040.
# Seen: the kernel shows one "lowerdir+=" for each layer. procfs keeps options in a HashMap: only the last, the lowest, layer is left, and
#   no error. mount_point is a PathBuf with the four characters \040 in it, which names no file.
# Output:
#   kernel: lowerdir+=/l1,lowerdir+=/l2,lowerdir+=/l3
#   procfs: lowerdir+=/l3
#   mount point: "/a\\040b", exists: false
source "$(dirname "$0")/lib.sh"
mkdir -p "$work/crate/src" "$work"/{l1,l2,l3} "$work/a b"
cat >"$work/crate/src/main.rs" <<'RUST'
fn main() {
    let work = std::env::args().nth(1).unwrap();
    let mounts = procfs::process::Process::myself().unwrap().mountinfo().unwrap();
    let overlay = mounts.iter().find(|m| m.fs_type == "overlay" && m.mount_source.as_deref() == Some("finding")).unwrap();
    let mut layers: Vec<String> = overlay
        .super_options
        .iter()
        .filter(|(name, _)| name.starts_with("lowerdir"))
        .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or_default().replace(&work, "")))
        .collect();
    layers.sort();
    println!("procfs: {}", layers.join(","));
    let shown = overlay.mount_point.to_str().unwrap().replace(&work, "");
    println!("mount point: {shown:?}, exists: {}", overlay.mount_point.exists());
}
RUST
crate_binary 'procfs = { version = "=0.18.0", default-features = false }'
cat >"$work/mount.py" <<'PYTHON'
import ctypes, os, sys

libc = ctypes.CDLL(None, use_errno=True)
MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT = 429, 430, 431, 432
SET_STRING, CREATE = 1, 6


def call(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {arguments[0]}")
    return result


work, binary = sys.argv[1:]
context = call(FSOPEN, b"overlay", 0)
call(FSCONFIG, context, SET_STRING, b"source", b"finding", 0)
for layer in ("l1", "l2", "l3"):
    call(FSCONFIG, context, SET_STRING, b"lowerdir+", f"{work}/{layer}".encode(), 0)
call(FSCONFIG, context, CREATE, None, None, 0)
call(MOVE_MOUNT, call(FSMOUNT, context, 0, 0), b"", -100, f"{work}/a b".encode(), 4)
with open("/proc/self/mountinfo") as file:
    line = next(line for line in file if " - overlay finding " in line)
options = [o for o in line.split()[-1].split(",") if o.startswith("lowerdir")]
print("kernel:", ",".join(options).replace(work, ""), flush=True)
os.execv(binary, [binary, work])
PYTHON
unshare --mount --propagation private python3 "$work/mount.py" "$work" "$binary" | tee "$work/seen"
cmp -s "$work/seen" - <<'RECORDED' || changed "the output is not the recorded one"
kernel: lowerdir+=/l1,lowerdir+=/l2,lowerdir+=/l3
procfs: lowerdir+=/l3
mount point: "/a\\040b", exists: false
RECORDED
