#!/bin/bash
# Hooks under runc, crun and youki: when they run, what they read, where and with which environment.
#
# Packages: runc 1.1.5+ds1-1+deb12u1 and crun 1.8.1-1+deb12u1 (Debian), youki 0.7.0 (Rust crate).
# Expected: runtime-spec. runtime.md, "Lifecycle": `start` (step 6) comes before the program (8) and the poststart hooks (9); createRuntime
#   hooks (4) run while the status is "creating", which "State" defines as step 2 up to the end of `create`; poststart hooks see "running".
#   "State": `ociVersion` is the version of the specification, a SemVer. config.md, "POSIX-platform Hooks": the state is passed over
#   stdin; `env` has the semantics of environ. The working folder is not specified.
# Seen: runc executes poststart hooks in `create`, before the program exists, with status "created". crun passes "created" to
#   createRuntime hooks, and ociVersion "1.0", which is no SemVer. Without `env` a hook gets the whole environment of the engine from runc
#   and crun, and nothing from youki. A poststop hook still gets a pid from crun (0) and from youki (of the process that exited). Hooks run
#   in the bundle with crun; with runc poststop, with youki all of them run elsewhere.
# Output:
#                              runc             crun             youki
#   poststart runs in          create           start            start
#   createRuntime: status      creating         created          creating
#   poststart: status          created          running          running
#   ociVersion is a SemVer     yes              no               yes
#   poststop: pid              missing          0                the old pid
#   environment without env    inherited        inherited        empty
#   createRuntime runs in      bundle           bundle           caller's folder
#   poststart runs in          bundle           bundle           state folder
#   poststop runs in           caller's folder  bundle           caller's folder
source "$(dirname "$0")/lib.sh"
runtimes
mkdir "$work/caller"
cd "$work/caller"
export FINDING=1

# value HOOK EXPRESSION: evaluates the expression of s, the state that the hook read.
value() {
  python3 -c 'import json, sys; s = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$bundle/$1.state" "$2"
}

# folder HOOK RUNTIME
folder() {
  case $(cat "$bundle/$1.folder") in
    "$bundle") echo bundle ;;
    "$work/caller") echo "caller's folder" ;;
    "$work/state-$2/"*) echo "state folder" ;;
    *) echo elsewhere ;;
  esac
}

id=finding-$$
for name in runc crun youki; do
  bundle=$work/bundle-$name
  bundle "$bundle" "
c['hooks'] = {hook: [{'path': '/bin/sh', 'args': ['sh', '-c',
    f'cat >{folder}/{hook}.state; pwd -P >{folder}/{hook}.folder; '
    f'echo \${{FINDING-empty}} >{folder}/{hook}.env; echo {hook} >>{folder}/order']}]
    for hook in ('createRuntime', 'poststart', 'poststop')}"
  container "$name" "$id"
  for operation in create start "kill 9" delete; do
    arguments=("${operation% *}" "$id")
    if [[ $operation == create ]]; then arguments=(create --bundle "$bundle" --pid-file "$work/pid" "$id"); fi
    if [[ $operation == kill* ]]; then arguments+=(9); fi
    runtime "$name" --root "$work/state-$name" "${arguments[@]}" >"$work/log" 2>&1
    echo "${operation% *}" >>"$bundle/order"
    if [[ $operation == kill* ]]; then while [[ -d /proc/$(cat "$work/pid") ]]; do sleep 0.01; done; fi
  done
  order=$(tr '\n' ' ' <"$bundle/order")
  case $order in
    "createRuntime poststart create start "*) when+=(create) ;;
    "createRuntime create poststart start "*) when+=(start) ;;
    *) when+=("$order") ;;
  esac
  created+=("$(value createRuntime 's["status"]')")
  started+=("$(value poststart 's["status"]')")
  semver+=("$(value createRuntime '"yes" if s["ociVersion"].count(".") == 2 else "no"')")
  pids+=("$(value poststop 's.get("pid", "missing")')")
  if [[ "${pids[-1]}" == "$(cat "$work/pid")" ]]; then pids[-1]="the old pid"; fi
  environment+=("$(sed 's/^1$/inherited/' "$bundle/createRuntime.env")")
  create_folder+=("$(folder createRuntime "$name")")
  start_folder+=("$(folder poststart "$name")")
  stop_folder+=("$(folder poststop "$name")")
done

report() {
  local name=$1 recorded=$2
  shift 2
  printf '%-26s %-16s %-16s %s\n' "$name" "$@"
  expect_equal "$name" "$recorded" "$(IFS='|' && echo "$*")"
}
printf '%-26s %-16s %-16s %s\n' "" runc crun youki
report "poststart runs in" "create|start|start" "${when[@]}"
report "createRuntime: status" "creating|created|creating" "${created[@]}"
report "poststart: status" "created|running|running" "${started[@]}"
report "ociVersion is a SemVer" "yes|no|yes" "${semver[@]}"
report "poststop: pid" "missing|0|the old pid" "${pids[@]}"
report "environment without env" "inherited|inherited|empty" "${environment[@]}"
report "createRuntime runs in" "bundle|bundle|caller's folder" "${create_folder[@]}"
report "poststart runs in" "bundle|bundle|state folder" "${start_folder[@]}"
report "poststop runs in" "caller's folder|bundle|caller's folder" "${stop_folder[@]}"
