#!/bin/bash
# The kernel gives the number of a mount namespace to the next one as soon as the first is gone.
#
# Kernel: seen on Linux 6.18; proc_alloc_inum() takes the lowest free number since 3.8.
# Expected: namespaces(7), "The /proc/pid/ns/ directory": "If two processes are in the same namespace, then the device IDs and inode
#   numbers of their /proc/pid/ns/xxx symbolic links will be the same". It is often read the other way round, and used as the key of a
#   container ("mntns" in eBPF tools and their maps).
# Seen: of containers that run one after the other, most have one and the same number. A key made of it joins containers that have nothing
#   to do with each other; an entry that is removed late belongs to the next container. There has to be something else in the key, such as
#   the start time of the first process.
# Output:
#   20 mount namespaces, one after the other: fewer than 20 numbers
#   20 mount namespaces, all at the same time: 20 numbers
source "$(dirname "$0")/lib.sh"

for _ in {1..20}; do unshare --mount readlink /proc/self/ns/mnt; done >"$work/in-turn"
in_turn=$(sort -u "$work/in-turn" | wc -l)
pids=()
for _ in {1..20}; do
  unshare --mount sleep 60 &
  pids+=($!)
done
cleanup_commands+=("kill ${pids[*]}")
host=$(readlink /proc/self/ns/mnt)
for pid in "${pids[@]}"; do
  until number=$(readlink "/proc/$pid/ns/mnt") && [[ $number != "$host" ]]; do sleep 0.01; done
  echo "$number"
done >"$work/together"
together=$(sort -u "$work/together" | wc -l)
kill "${pids[@]}"
wait || true

if ((in_turn < 20)); then seen="fewer than 20 numbers"; else seen="20 numbers"; fi
echo "20 mount namespaces, one after the other: $seen"
expect_equal "one after the other" "fewer than 20 numbers" "$seen"
echo "20 mount namespaces, all at the same time: $together numbers"
expect_equal "at the same time" 20 "$together"
