#!/bin/bash
# Where runc, crun and youki put a container with the same, or without a, cgroupsPath.
#
# Packages: runc 1.1.5+ds1-1+deb12u1 and crun 1.8.1-1+deb12u1 (Debian), youki 0.7.0 (Rust crate).
# Expected: runtime-spec, config-linux.md, "Cgroups Path": an absolute path is taken "to be relative to the cgroups mount point"; a
#   relative one "MAY" be interpreted "relative to a runtime-determined location". proc_pid_cgroup(5): a line is
#   "hierarchy-ID:controller-list:cgroup-path".
# Seen: a relative path is below the caller's own cgroup with runc, and at the top of the hierarchy with crun and youki: the same bundle
#   has another parent, with other limits. Without cgroupsPath youki calls the cgroup ":youki:ID": its lines in /proc/PID/cgroup have two
#   colons more than others, and a parser that splits at every colon finds the path "/". "SLICE:PREFIX:NAME", which is for the systemd
#   cgroup manager, is an ordinary name without it.
# Output (CALLER: cgroup of the shell that executes the runtime):
#   cgroupsPath             runc                      crun                 youki
#   (none)                  CALLER/ID                 /ID                  /:youki:ID
#   /ID                     /ID                       /ID                  /ID
#   ID                      CALLER/ID                 /ID                  /ID
#   a.slice:prefix:ID       CALLER/a.slice:prefix:ID  /a.slice:prefix:ID   /a.slice:prefix:ID
source "$(dirname "$0")/lib.sh"
runtimes
id=finding-$$

# path PID: the process' cgroup in the hierarchy of the memory controller, or in the v2 hierarchy if there is no other.
path() {
  sed -n 's/^[0-9]*:memory://p; s/^0:://p' "/proc/$1/cgroup" | head -n 1
}

# outcome PATH NAME
outcome() {
  local change="" pid own seen
  if [[ -n "$1" ]]; then change="c['linux']['cgroupsPath'] = '$1'"; fi
  bundle "$work/bundle" "$change"
  runtime "$2" --root "$work/state-$2" create --bundle "$work/bundle" --pid-file "$work/pid" "$id" >"$work/log" 2>&1
  pid=$(cat "$work/pid")
  own=$(path self)
  seen=$(path "$pid")
  runtime "$2" --root "$work/state-$2" delete --force "$id" >"$work/log" 2>&1
  if [[ "$own" != / && "$seen" == "$own"/* ]]; then seen="CALLER${seen#"$own"}"; fi
  echo "${seen//$id/ID}"
}

# report LABEL PATH RECORDED
report() {
  local seen=() name recorded=$3
  for name in runc crun youki; do
    container "$name" "$id"
    seen+=("$(outcome "$2" "$name")")
  done
  # In the top cgroup "below the caller's" is the top.
  if [[ "$(path self)" == / ]]; then recorded=${recorded//CALLER/}; fi
  printf '%-23s %-25s %-20s %s\n' "$1" "${seen[@]}"
  expect_equal "$1" "$recorded" "${seen[*]}"
}
printf '%-23s %-25s %-20s %s\n' cgroupsPath runc crun youki
report "(none)" "" "CALLER/ID /ID /:youki:ID"
report "/ID" "/$id" "/ID /ID /ID"
report "ID" "$id" "CALLER/ID /ID /ID"
report "a.slice:prefix:ID" "a.slice:prefix:$id" "CALLER/a.slice:prefix:ID /a.slice:prefix:ID /a.slice:prefix:ID"
