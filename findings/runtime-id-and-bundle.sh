#!/bin/bash
# Which ids runc, crun and youki accept, and which path they give for a bundle behind a symbolic link.
#
# Packages: runc 1.1.5+ds1-1+deb12u1 and crun 1.8.1-1+deb12u1 (Debian), youki 0.7.0 (Rust crate).
# Expected: runtime-spec, runtime.md, "State": `id` "is the container's ID. This MUST be unique across all containers on this host";
#   `bundle` "is the absolute path to the container's bundle directory. This is provided so that consumers can find the container's
#   configuration". No form of the id is required, and a bundle has one path.
# Seen: crun accepts blanks, colons and at signs, which then are in the state folder, in the cgroup's name and so in /proc/PID/cgroup;
#   runc and youki accept letters, digits and "_+-." only. runc resolves a link that --bundle names, but not one that the working folder
#   was entered by (it takes $PWD): the same bundle has two paths. crun and youki resolve both. A tool that compares bundles has to
#   resolve links itself.
# Output:
#   what                               runc       crun       youki
#   id "a b"                           refused    created    refused
#   id "a:b"                           refused    created    refused
#   id "a@b"                           refused    created    refused
#   id "a+b"                           created    created    created
#   bundle by --bundle LINK            target     target     target
#   bundle by the working folder LINK  link       target     target
source "$(dirname "$0")/lib.sh"
runtimes
bundle "$work/target" "c['root']['path'] = folder + '/rootfs'"
ln -s target "$work/link"

# state NAME ID EXPRESSION
state() {
  runtime "$1" --root "$work/state-$1" state "$2" 2>/dev/null |
    python3 -c 'import json, sys; s = json.load(sys.stdin); print(eval(sys.argv[1]))' "$3" 2>/dev/null || echo refused
}

# outcome CASE NAME
outcome() {
  local id=finding-$$ folder=$work expression='s["bundle"].rsplit("/")[-1]' words=()
  case $1 in
    id*) id=$id${1#id } expression='s["status"]' words=(--bundle target) ;;
    "bundle by --bundle"*) words=(--bundle link) ;;
    *) folder=$work/link ;;
  esac
  (cd "$folder" && runtime "$2" --root "$work/state-$2" create "${words[@]}" "$id" >"$work/log" 2>&1) || true
  state "$2" "$id" "$expression"
  runtime "$2" --root "$work/state-$2" delete --force "$id" >/dev/null 2>&1 || true
}

report() {
  local seen=() name label=$1
  for name in runc crun youki; do seen+=("$(outcome "$1" "$name")"); done
  if [[ $1 == id* ]]; then label="id \"${1#id }\""; fi
  printf '%-34s %-10s %-10s %s\n' "$label" "${seen[@]}"
  expect_equal "$1" "$2" "${seen[*]}"
}
printf '%-34s %-10s %-10s %s\n' what runc crun youki
report "id a b" "refused created refused"
report "id a:b" "refused created refused"
report "id a@b" "refused created refused"
report "id a+b" "created created created"
report "bundle by --bundle LINK" "target target target"
report "bundle by the working folder LINK" "link target target"
