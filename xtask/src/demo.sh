# demo TRACER BUSYBOX DIRECTORY [TRACER OPTION]...
#
# The demonstration of `cargo xtask demo`. With options for tracer, only tracer's output is shown. The directory holds
# config.json and everything that is made here; its name, which is unique, is the container's id, too.
tracer=$1
busybox=$2
dir=$3
id=${dir##*/}
pid=
shift 3
quiet=$*

# A state directory of its own: no other container is ever touched.
own_runc() {
    runc --root "$dir/state" "$@"
}

print_step() {
    [ -n "$quiet" ] || echo "demo: $*" >&2
}

fail() {
    echo "demo: error: $*" >&2
    exit 1
}

clean_up() {
    # Where the container has ended there is nothing left to delete, which is no error with --force.
    own_runc delete --force "$id" 2> /dev/null
    [ -z "$pid" ] || kill "$pid" 2> /dev/null
    wait
    rm -rf "$dir/state" "$dir/rootfs" "$dir/log" "$dir/stderr"
}
trap clean_up EXIT
trap 'print_step "interrupted; everything is cleaned up"; exit 130' INT TERM HUP

: > "$dir/log"
mkfifo "$dir/stderr"
tee "$dir/log" < "$dir/stderr" >&2 &
mkdir -p "$dir/rootfs/bin" "$dir/rootfs/etc" "$dir/rootfs/proc"
cp "$busybox" "$dir/rootfs/bin/busybox"
for applet in sh cat ls sleep; do ln -s busybox "$dir/rootfs/bin/$applet"; done
echo '127.0.0.1 localhost' > "$dir/rootfs/etc/hosts"
echo demo > "$dir/rootfs/etc/hostname"

print_step '$ tracer trace open -n tracer-demo --timeout 10s'
"$tracer" trace open -n tracer-demo --timeout 10s "$@" 2> "$dir/stderr" &
pid=$!
until grep -q '^tracer: ready' "$dir/log"; do
    kill -0 "$pid" 2> /dev/null || fail 'tracer ended before it was ready'
    sleep 0.1
done

print_step "starting container $id as containerd would, for pod demo in namespace tracer-demo
      (for three seconds it reads /etc/hosts and /etc/hostname, lists / and looks for a file that does not exist)"
own_runc run --bundle "$dir" "$id" < /dev/null || fail 'the container failed'

print_step 'the container has exited; stopping tracer'
kill -INT "$pid"
wait "$pid" || fail 'tracer failed'
pid=
wait
events=$(sed -n 's/^tracer: seen .* emitted \([0-9]*\) .*/\1/p' "$dir/log")
[ "${events:-0}" -gt 0 ] || fail 'tracer showed no event of the container'
clean_up
trap - EXIT
print_step "$events events, each with its pod's name. Nothing is left behind.

Try next, in another terminal while containers run:
  cargo xtask run -- trace open                      every file that any container opens
  cargo xtask run -- trace open -n NAMESPACE -p POD  those of one pod
  cargo xtask run -- trace exec -o json              every program they execute, as JSON
  cargo xtask run -- doctor                          what this kernel allows"
