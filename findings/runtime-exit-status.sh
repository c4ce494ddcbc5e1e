#!/bin/bash
# Exit statuses of runc, crun and youki for the same operation.
#
# Packages: runc 1.1.5+ds1-1+deb12u1 and crun 1.8.1-1+deb12u1 (Debian), youki 0.7.0 (Rust crate).
# Expected: runtime-spec, runtime.md. "Kill": "Attempting to send a signal to a container that is neither created nor running MUST have
#   no effect on the container and MUST generate an error." "Delete": "Attempting to delete a container that is not stopped MUST have no
#   effect on the container and MUST generate an error." `exec` is not in the spec; runc-exec(8) gives 255 for a failed exec.
# Seen: all three delete a created container without --force. youki exits with the number of the signal that ended the command, not with
#   128 + signal: 9 cannot be told from a command that exits with 9. crun exits with 1 if there is no such container, which cannot be told
#   from a command that exits with 1.
# Output:
#   operation                                       runc  crun  youki
#   delete of a created container                   0     0     0
#   exec of a command that SIGKILL ends             137   137   9
#   exec of a command that is not there             255   255   255
#   exec in a container that is not there           255   1     255
source "$(dirname "$0")/lib.sh"
runtimes
bundle "$work/bundle" ""

# call RUNTIME ARGUMENT...: prints the exit status.
call() {
  local name=$1 status=0
  shift
  runtime "$name" --root "$work/state-$name" "$@" >"$work/log" 2>&1 || status=$?
  echo "$status"
}

id=finding-$$
for name in runc crun youki; do
  container "$name" "$id"
  expect_equal "$name create" 0 "$(call "$name" create --bundle "$work/bundle" "$id")"
  deleted+=("$(call "$name" delete "$id")")
  if runtime "$name" --root "$work/state-$name" state "$id" >/dev/null 2>&1; then changed "$name: the container is still there"; fi
  expect_equal "$name create" 0 "$(call "$name" create --bundle "$work/bundle" "$id")"
  expect_equal "$name start" 0 "$(call "$name" start "$id")"
  killed+=("$(call "$name" exec "$id" /bin/busybox sh -c 'kill -9 $$')")
  no_command+=("$(call "$name" exec "$id" /bin/nothing)")
  no_container+=("$(call "$name" exec "not-$id" /bin/busybox true)")
done

printf '%-47s %-5s %-5s %s\n' operation runc crun youki
report() {
  printf '%-47s %-5s %-5s %s\n' "$1" $3
  expect_equal "$1" "$2" "$3"
}
report "delete of a created container" "0 0 0" "${deleted[*]}"
report "exec of a command that SIGKILL ends" "137 137 9" "${killed[*]}"
report "exec of a command that is not there" "255 255 255" "${no_command[*]}"
report "exec in a container that is not there" "255 1 255" "${no_container[*]}"
