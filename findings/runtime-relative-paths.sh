#!/bin/bash
# Relative paths in the options of runc, crun and youki: the folder that each is relative to.
#
# Packages: runc 1.1.5+ds1-1+deb12u1 and crun 1.8.1-1+deb12u1 (Debian), youki 0.7.0 (Rust crate).
# Expected: runc-create(8), crun(1) and `youki create --help` describe --root, --log and --pid-file as paths; a relative path of a command
#   line starts at the working folder (POSIX, "Pathname Resolution").
# Seen: crun changes into the bundle before it opens them: state, log and pid file appear there. `crun --root state list` in the same
#   working folder does not find the container that `crun --root state create` made. runc and youki use the working folder.
#   /proc/PID/cwd of a crun is the caller's folder or the bundle, depending on when it is read.
# Output:
#   option          runc             crun             youki
#   --root          working folder   bundle           working folder
#   --log           working folder   bundle           working folder
#   --pid-file      working folder   bundle           working folder
#   found by list   yes              no               yes
source "$(dirname "$0")/lib.sh"
runtimes

# where NAME
where() {
  local found=()
  [[ ! -e "$work/caller/$1" ]] || found+=("working folder")
  [[ ! -e "$work/caller/bundle/$1" ]] || found+=(bundle)
  echo "${found[*]:-nowhere}"
}

id=finding-$$
for name in runc crun youki; do
  rm -rf "$work/caller"
  mkdir "$work/caller"
  cd "$work/caller"
  bundle bundle ""
  runtime "$name" --root state --log log create --bundle bundle --pid-file pid "$id" >"$work/log" 2>&1
  roots+=("$(where state)")
  logs+=("$(where log)")
  pid_files+=("$(where pid)")
  if runtime "$name" --root state list | grep -q "$id"; then lists+=(yes); else lists+=(no); fi
  state=state
  if [[ ${roots[-1]} == bundle ]]; then state=bundle/state; fi
  runtime "$name" --root "$work/caller/$state" delete --force "$id"
done

report() {
  local name=$1 recorded=$2
  shift 2
  printf '%-15s %-16s %-16s %s\n' "$name" "$@"
  expect_equal "$name" "$recorded" "$(IFS='|' && echo "$*")"
}
printf '%-15s %-16s %-16s %s\n' option runc crun youki
report --root "working folder|bundle|working folder" "${roots[@]}"
report --log "working folder|bundle|working folder" "${logs[@]}"
report --pid-file "working folder|bundle|working folder" "${pid_files[@]}"
report "found by list" "yes|no|yes" "${lists[@]}"
