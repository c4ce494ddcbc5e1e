# Helpers for the scripts of this folder. Source it; it makes a temp folder in $work that is removed on exit.
set -euo pipefail

work=$(mktemp -d)
cleanup_commands=()

cleanup() {
  local command
  for command in "${cleanup_commands[@]}"; do
    eval "$command" >/dev/null 2>&1 || true
  done
  rm -rf "$work"
}
trap cleanup EXIT

# changed TEXT: the behaviour is not the one that was recorded.
changed() {
  echo "CHANGED: $*" >&2
  exit 1
}

# expect_equal WHAT RECORDED SEEN
expect_equal() {
  [[ "$2" == "$3" ]] || changed "$1: recorded \"$2\", now \"$3\""
}

# deb NAME VERSION: sets $deb_root to where the files of that Debian package are. Uses the installed package if it has this version,
# else downloads it and unpacks it into the temp folder (libraries that it needs must be installed).
deb() {
  local name=$1 version=$2
  if [[ "$(dpkg-query -W -f '${Version}' "$name" 2>/dev/null || true)" == "$version" ]]; then
    deb_root=
    return
  fi
  deb_root=$work/deb/$name
  mkdir -p "$deb_root"
  (cd "$deb_root" && apt-get -o APT::Sandbox::User=root -qq download "$name=$version" && dpkg -x ./*.deb .)
}

# crate_binary VERSION_OF_CRATE...: builds the package in $work/crate, whose src/main.rs the caller wrote; sets $binary.
# Each argument is a line of [dependencies].
crate_binary() {
  {
    printf '[package]\nname = "finding"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n'
    printf '%s\n' "$@"
  } >"$work/crate/Cargo.toml"
  CARGO_TARGET_DIR=$work/target cargo build --quiet --manifest-path "$work/crate/Cargo.toml"
  binary=$work/target/debug/finding
}

# runtimes: makes executables runc, crun and youki, in the recorded versions, in $work/bin. They run for at most 20 s. crun runs in a
# mount namespace without the v2 tree of a hybrid cgroup layout, which crun 1.8 refuses.
runtimes() {
  local runc crun youki
  deb runc 1.1.5+ds1-1+deb12u1
  runc=$deb_root/usr/sbin/runc
  deb crun 1.8.1-1+deb12u1
  crun=$deb_root/usr/bin/crun
  youki=$(command -v youki || true)
  if [[ "$("${youki:-false}" --version 2>/dev/null || true)" != *" 0.7.0"* ]]; then
    cargo install --quiet --locked --root "$work/cargo" youki@=0.7.0
    youki=$work/cargo/bin/youki
  fi
  mkdir -p "$work/bin"
  printf '#!/bin/sh\nexec timeout --foreground 20 %s "$@"\n' "$runc" >"$work/bin/runc"
  printf '#!/bin/sh\nexec timeout --foreground 20 %s "$@"\n' "$youki" >"$work/bin/youki"
  cat >"$work/bin/crun" <<CRUN
#!/bin/sh
exec unshare --mount --propagation private sh -c '
  umount /sys/fs/cgroup/unified 2>/dev/null
  exec timeout --foreground 20 $crun "\$@"
' sh "\$@"
CRUN
  chmod +x "$work"/bin/*
}

# runtime NAME ARGUMENT...: executes a runtime without standard input.
runtime() {
  local name=$1
  shift
  "$work/bin/$name" "$@" </dev/null
}

# bundle FOLDER PYTHON: writes a bundle with busybox as the root file system. The Python code changes the configuration "c".
bundle() {
  mkdir -p "$1"/rootfs/{bin,dev,proc,sys,tmp}
  cp "$(command -v busybox)" "$1/rootfs/bin/busybox"
  python3 - "$1" "$2" <<'PYTHON'
import json, sys
folder, change = sys.argv[1:]
c = {
    "ociVersion": "1.0.2",
    "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["/bin/busybox", "sleep", "600"], "cwd": "/",
                "env": ["PATH=/bin"], "capabilities": {}},
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
               {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}],
    "linux": {"namespaces": [{"type": t} for t in ("pid", "ipc", "uts", "mount")]},
}
exec(change)
json.dump(c, open(folder + "/config.json", "w"))
PYTHON
}

# container NAME ID: has the container of a runtime deleted on exit.
container() {
  cleanup_commands+=("runtime $1 --root $work/state-$1 delete --force $2")
}
