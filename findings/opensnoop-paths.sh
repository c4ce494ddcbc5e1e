#!/bin/bash
# opensnoop of libbpf-tools cuts paths at 254 bytes without a mark, and sees no openat2.
#
# Package: libbpf-tools 0.26.0+ds-1 (Debian 12). Needs root and BPF.
# Expected: `opensnoop --help`: "Trace open family syscalls". open(2): a path has up to PATH_MAX - 1, 4095 bytes (255 is NAME_MAX, the limit
#   of one component); openat2(2) is one of the family since Linux 5.6. runc and crun call it.
# Seen: a path of 500 bytes is shown as its first 254, without a mark: it reads like the whole path of another file. The call of openat2
#   gives no line.
#   Both look like faults of the other tool when opensnoop is the reference for it.
# Output:
#   openat, 500 bytes: 1 line, 254 bytes of the path
#   openat2, 20 bytes: 0 lines
#   openat, 20 bytes: 1 line, 20 bytes of the path
source "$(dirname "$0")/lib.sh"
deb libbpf-tools 0.26.0+ds-1

cat >"$work/open.py" <<'PYTHON'
import ctypes, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
OPENAT2 = 437
long_path = ("/tmp/" + "long-component-of-a-path/" * 20)[:500].encode()
short_path = b"/tmp/finding-openat2".ljust(20, b"x")
last_path = b"/tmp/finding-openat".ljust(20, b"x")
print("ready", flush=True)
sys.stdin.readline()
libc.open(long_path, 0)
libc.syscall(OPENAT2, -100, short_path, struct.pack("<QQQ", 0, 0, 0), 24)
libc.open(last_path, 0)
sys.stdin.readline()
PYTHON
cat >"$work/run.sh" <<'SHELL'
set -euo pipefail
mount -t tracefs tracefs /sys/kernel/tracing
coproc opens { exec python3 "$work/open.py"; }
opens_pid_saved=$opens_PID
read -r _ <&"${opens[0]}"
: >"$work/opens"
stdbuf -oL timeout 60 "$opensnoop" -p "$opens_PID" >"$work/opens" 2>&1 &
tracer=$!
wait_for() {
  local deadline=$((SECONDS + 30))
  until grep -q "$1" "$work/opens"; do
    ((SECONDS < deadline)) || { echo "no \"$1\" in the output of opensnoop:" >&2; cat "$work/opens" >&2; exit 1; }
    sleep 0.05
  done
}
wait_for "^PID"
echo go >&"${opens[1]}"
wait_for "/tmp/finding-openat\(x\|$\)"
kill "$tracer" "$opens_pid_saved"
SHELL
export work opensnoop=$deb_root/usr/sbin/opensnoop
unshare --mount --propagation private bash "$work/run.sh"

# line NAME PATTERN: how many lines there are, and how long the path in them is.
line() {
  local path
  mapfile -t path < <(grep -o "$2" "$work/opens" || true)
  case ${#path[@]} in
    0) echo "$1: 0 lines" ;;
    *) echo "$1: ${#path[@]} line, ${#path[0]} bytes of the path" ;;
  esac
}
{
  line "openat, 500 bytes" '/tmp/long-component.*$'
  line "openat2, 20 bytes" '/tmp/finding-openat2.*$'
  line "openat, 20 bytes" '/tmp/finding-openatx*$'
} | tee "$work/seen"
cmp -s "$work/seen" - <<'RECORDED' || changed "the output is not the recorded one"
openat, 500 bytes: 1 line, 254 bytes of the path
openat2, 20 bytes: 0 lines
openat, 20 bytes: 1 line, 20 bytes of the path
RECORDED
