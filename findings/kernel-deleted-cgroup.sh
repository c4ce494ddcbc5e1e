#!/bin/bash
# In /proc/PID/cgroup a removed cgroup cannot be told from a live one with " (deleted)" in its name.
#
# Kernel: seen on Linux 6.18. Needs root and a cgroup v2 hierarchy (it may be the empty one of a hybrid layout).
# Expected: Documentation/admin-guide/cgroup-v2.rst, "Processes": "If the process becomes a zombie and the cgroup it was associated with is
#   removed subsequently, " (deleted)" is appended to the path". A cgroup's name may hold any character but newline and slash.
# Seen: the suffix is not escaped in a real name. Both lines are the same, byte for byte: a tool that strips the suffix
#   looks into a cgroup that the live process is not in; a tool that does not finds none for the zombie.
# Output:
#   zombie of the removed cgroup "a": 0::/a (deleted)
#   live process of the cgroup "a (deleted)": 0::/a (deleted)
source "$(dirname "$0")/lib.sh"

cat >"$work/run.py" <<'PYTHON'
import os, sys

root = sys.argv[1]
name = f"finding-{os.getpid()}"
removed, named = f"{root}/{name}", f"{root}/{name} (deleted)"


def child(cgroup, body):
    pid = os.fork()
    if pid == 0:
        try:
            with open(f"{cgroup}/cgroup.procs", "w") as file:
                file.write("0")
            body()
        finally:
            os._exit(0)
    return pid


def line(pid):
    with open(f"/proc/{pid}/cgroup") as file:
        return next(l for l in file if l.startswith("0::")).rstrip("\n").replace(name, "a")


os.mkdir(removed)
os.mkdir(named)
go, wait = os.pipe(), os.pipe()
live = None
try:
    zombie = child(removed, lambda: None)
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    live = child(named, lambda: (os.write(go[1], b"x"), os.read(wait[0], 1)))
    os.read(go[0], 1)
    os.rmdir(removed)
    print('zombie of the removed cgroup "a":', line(zombie))
    print('live process of the cgroup "a (deleted)":', line(live))
    os.waitpid(zombie, 0)
finally:
    if live:
        os.write(wait[1], b"x")
        os.waitpid(live, 0)
    for folder in (removed, named):
        if os.path.isdir(folder):
            os.rmdir(folder)
PYTHON
mkdir "$work/cgroup"
unshare --mount --propagation private sh -c 'mount -t cgroup2 cgroup2 "$1/cgroup" && exec python3 "$1/run.py" "$1/cgroup"' sh "$work" |
  sed "s#0::.*/a (deleted)#0::/a (deleted)#" | tee "$work/seen"
cmp -s "$work/seen" - <<'RECORDED' || changed "the output is not the recorded one"
zombie of the removed cgroup "a": 0::/a (deleted)
live process of the cgroup "a (deleted)": 0::/a (deleted)
RECORDED
