#!/bin/bash
# One capability, five spellings, three runtimes: what the container gets.
#
# Packages: runc 1.1.5+ds1-1+deb12u1 and crun 1.8.1-1+deb12u1 (Debian), youki 0.7.0 (Rust crate, reads with oci-spec 0.10).
# Expected: runtime-spec 1.0.2 and later, config.md, "Linux Process", `capabilities`: "valid values are defined in the capabilities(7)
#   man page, such as CAP_CHOWN. Any value which cannot be mapped to a relevant kernel interface, or cannot be granted otherwise MUST be
#   logged as a warning by the runtime. Runtimes SHOULD NOT fail".
# Seen: runc maps only the exact name. crun (libcap) ignores the case, but requires the prefix. youki ignores the case, adds a missing
#   prefix, strips as many prefixes as there are, and refuses the whole file for a name that it does not know. crun and youki warn of
#   nothing. A tool that derives "privileged" from config.json has to know which runtime reads the file.
# Output:
#   spelling            runc       crun       youki
#   CAP_SYS_ADMIN       granted    granted    granted
#   cap_sys_admin       ignored    granted    granted
#   sys_admin           ignored    ignored    granted
#   CAP_CAP_SYS_ADMIN   ignored    ignored    granted
#   CAP_NEWER_KERNEL    ignored    ignored    refused
source "$(dirname "$0")/lib.sh"
runtimes

recorded="
CAP_SYS_ADMIN      granted granted granted
cap_sys_admin      ignored granted granted
sys_admin          ignored ignored granted
CAP_CAP_SYS_ADMIN  ignored ignored granted
CAP_NEWER_KERNEL   ignored ignored refused
"

# effect RUNTIME SPELLING
effect() {
  local id=finding-$$-$1-$RANDOM
  bundle "$work/bundle" "
c['process']['capabilities'] = {s: ['$2'] for s in ('bounding', 'effective', 'permitted')}"
  container "$1" "$id"
  if ! runtime "$1" --root "$work/state-$1" create --bundle "$work/bundle" --pid-file "$work/pid" "$id" >"$work/log" 2>&1; then
    echo refused
    return
  fi
  runtime "$1" --root "$work/state-$1" start "$id" >>"$work/log" 2>&1
  # After the exec of the entrypoint, CAP_SYS_ADMIN is bit 21 of the effective set.
  local pid effective
  pid=$(cat "$work/pid")
  until [[ "$(tr '\0' ' ' <"/proc/$pid/cmdline")" == *"sleep 600"* ]]; do sleep 0.01; done
  effective=$(awk '$1 == "CapEff:" { print $2 }' "/proc/$pid/status")
  runtime "$1" --root "$work/state-$1" delete --force "$id" >/dev/null 2>&1
  if ((0x$effective >> 21 & 1)); then echo granted; else echo ignored; fi
}

printf '%-19s %-10s %-10s %s\n' spelling runc crun youki
while read -r spelling wanted; do
  [[ -n "$spelling" ]] || continue
  seen=()
  for name in runc crun youki; do seen+=("$(effect "$name" "$spelling")"); done
  printf '%-19s %-10s %-10s %s\n' "$spelling" "${seen[@]}"
  expect_equal "$spelling" "$wanted" "${seen[*]}"
done <<<"$recorded"
