#!/bin/bash
# The same words on the command line of runc, crun and youki: which runtime creates the container.
#
# Packages: runc 1.1.5+ds1-1+deb12u1 and crun 1.8.1-1+deb12u1 (Debian), youki 0.7.0 (Rust crate).
# Expected: the three document one command line. crun(1): "crun [global options] command [command options] [arguments...]"; youki's
#   `create --help` refers to runc-create(8). They are used in place of each other.
# Seen: each parser accepts forms that the others refuse or read as something else. runc (Go) accepts long options with one dash and
#   options behind the id, but no joined short options. crun (argp) accepts abbreviated long options, takes no option behind the id, and
#   reads `-b=DIR` as the folder "=DIR". youki (clap) accepts options behind the id and joined short options. Worst is `exec -td`: youki
#   detaches, crun takes "d" as the value of --tty and waits for the command, runc refuses. A tool that reads the
#   arguments of runtimes has to parse each by its own rules.
# Output:
#   arguments                              runc       crun       youki
#   --root R create --bundle B ID          created    created    created
#   -root R create -bundle B ID            created    refused    refused
#   --roo R create --bun B ID              refused    created    refused
#   --root R create ID --bundle B          created    refused    created
#   --root R create -bB ID                 refused    created    created
#   --root R create -b=B ID                created    refused    created
#   --root R create --no-pivot=false ID    created    refused    refused
#   --root R exec -td ID sleep 2           refused    waits      detaches
#   --root R exec -dt ID sleep 2           refused    detaches   detaches
source "$(dirname "$0")/lib.sh"
runtimes
bundle "$work/bundle" "
c['mounts'].append({'destination': '/dev/pts', 'type': 'devpts', 'source': 'devpts', 'options': ['newinstance', 'ptmxmode=0666']})"

recorded="
--root R create --bundle B ID|created created created
-root R create -bundle B ID|created refused refused
--roo R create --bun B ID|refused created refused
--root R create ID --bundle B|created refused created
--root R create -bB ID|refused created created
--root R create -b=B ID|created refused created
--root R create --no-pivot=false ID|created refused refused
--root R exec -td ID sleep 2|refused waits detaches
--root R exec -dt ID sleep 2|refused detaches detaches
"

# words ARGUMENTS RUNTIME ID: sets $words to the arguments with the real values.
words() {
  local word
  words=()
  for word in $1; do
    case $word in
      R) word=$work/state-$2 ;;
      B) word=$work/bundle ;;
      ID) word=$3 ;;
      -b=B | -bB) word=${word%B}$work/bundle ;;
      sleep) words+=(/bin/busybox) ;;
    esac
    words+=("$word")
  done
}

status() {
  runtime "$1" --root "$work/state-$1" state "$2" 2>/dev/null |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["status"])' 2>/dev/null || echo refused
}

# outcome ARGUMENTS RUNTIME
outcome() {
  local id=finding-$$-$2-$RANDOM start
  container "$2" "$id"
  words "$1" "$2" "$id"
  if [[ "$1" != *" exec "* ]]; then
    # The current folder is a bundle, too: --bundle is optional.
    (cd "$work/bundle" && runtime "$2" "${words[@]}" >"$work/log" 2>&1) || true
    status "$2" "$id"
  else
    runtime "$2" --root "$work/state-$2" create --bundle "$work/bundle" "$id" >"$work/log" 2>&1
    runtime "$2" --root "$work/state-$2" start "$id" >"$work/log" 2>&1
    start=$(date +%s%N)
    # script gives the runtime a terminal.
    if ! SHELL=/bin/sh script -qec "$(printf '%q ' "$work/bin/$2" "${words[@]}")" /dev/null </dev/null >"$work/log" 2>&1; then
      echo refused
    elif (($(date +%s%N) - start < 1500000000)); then
      echo detaches
    else
      echo waits
    fi
  fi
  runtime "$2" --root "$work/state-$2" delete --force "$id" >/dev/null 2>&1 || true
}

printf '%-38s %-10s %-10s %s\n' arguments runc crun youki
while IFS='|' read -r arguments wanted; do
  [[ -n "$arguments" ]] || continue
  seen=()
  for name in runc crun youki; do seen+=("$(outcome "$arguments" "$name")"); done
  printf '%-38s %-10s %-10s %s\n' "$arguments" "${seen[@]}"
  expect_equal "$arguments" "$wanted" "${seen[*]}"
done <<<"$recorded"
