#!/bin/bash
# `state` of runc, crun and youki for a container that exited: pid, owner, rootfs and status.
#
# Packages: runc 1.1.5+ds1-1+deb12u1 and crun 1.8.1-1+deb12u1 (Debian), youki 0.7.0 (Rust crate).
# Expected: runtime-spec, runtime.md, "State": "pid (int, REQUIRED when status is created or running on Linux, OPTIONAL on other
#   platforms) is the ID of the container process", "bundle (string, REQUIRED) is the absolute path". "owner" and "rootfs" are additions
#   of runc that crun and youki copy.
# Seen: a stopped container has pid 0 with runc and crun. youki still gives the pid of the process that exited, which the kernel can give
#   to any other process. "owner" is an empty string with runc (though `list` knows the user), the user's name with crun, a number with
#   youki: one struct cannot decode all three. "rootfs" is absolute with runc, as written in config.json with crun, missing with youki.
#   `youki list --format json` ignores the format and prints the table.
# Output:
#   value            runc             crun             youki
#   pid              0                0                the old pid
#   owner            str ''           str 'root'       int 0
#   rootfs           absolute         relative         missing
#   list -f json     JSON             JSON             table
source "$(dirname "$0")/lib.sh"
runtimes
bundle "$work/bundle" ""

# field JSON EXPRESSION: evaluates the expression of s, the state.
field() {
  python3 -c 'import json, sys; s = json.loads(sys.argv[1]); print(eval(sys.argv[2]))' "$1" "$2"
}

id=finding-$$
for name in runc crun youki; do
  container "$name" "$id"
  runtime "$name" --root "$work/state-$name" create --bundle "$work/bundle" --pid-file "$work/pid" "$id" >"$work/log" 2>&1
  runtime "$name" --root "$work/state-$name" start "$id" >"$work/log" 2>&1
  old=$(cat "$work/pid")
  runtime "$name" --root "$work/state-$name" kill "$id" 9
  until state=$(runtime "$name" --root "$work/state-$name" state "$id") && [[ "$state" == *'"stopped"'* ]]; do sleep 0.01; done
  pid=$(field "$state" 's.get("pid", "missing")')
  if [[ "$pid" == "$old" ]]; then pid="the old pid"; fi
  pids+=("$pid")
  owners+=("$(field "$state" 'type(s["owner"]).__name__ + " " + repr(s["owner"])')")
  rootfs+=("$(field "$state" '"missing" if "rootfs" not in s else "absolute" if s["rootfs"].startswith("/") else "relative"')")
  if runtime "$name" --root "$work/state-$name" list --format json | python3 -m json.tool >/dev/null 2>&1; then
    lists+=(JSON)
  else
    lists+=(table)
  fi
done

report() {
  local name=$1 recorded=$2
  shift 2
  printf '%-16s %-16s %-16s %s\n' "$name" "$@"
  expect_equal "$name" "$recorded" "$(IFS='|' && echo "$*")"
}
printf '%-16s %-16s %-16s %s\n' value runc crun youki
report pid "0|0|the old pid" "${pids[@]}"
report owner "str ''|str 'root'|int 0" "${owners[@]}"
report rootfs "absolute|relative|missing" "${rootfs[@]}"
report "list -f json" "JSON|JSON|table" "${lists[@]}"
