# measure none
# measure before COMMAND...   the command is there when the load's container starts
# measure after COMMAND...    it comes then, with the load's process id as its last argument
#
# What it must say when it is there: `tracer: ready` or `attached`.
when=$1
shift
pid=

attach() {
    : > /tmp/err
    "$@" > /tmp/out 2> /tmp/err &
    pid=$!
    until grep -qE '^(tracer: ready|attached)' /tmp/err; do
        if ! kill -0 "$pid" 2> /dev/null; then
            cat /tmp/err
            exit 1
        fi
        sleep 0.1
    done
}

[ "$when" = before ] && attach "$@"
rm -f /tmp/go /tmp/pid
mkfifo /tmp/go
runc run --bundle /bundles/loops --pid-file /tmp/pid loops < /tmp/go &
load=$!
exec 3> /tmp/go
until [ -s /tmp/pid ]; do sleep 0.1; done
[ "$when" = after ] && attach "$@" "$(cat /tmp/pid)"
echo >&3
exec 3>&-
wait "$load" || exit 1
/load run 5 runc run --bundle /bundles/nothing nothing || exit 1
if [ -n "$pid" ]; then
    kill -INT "$pid"
    wait "$pid" || exit 1
    tail -n 1 /tmp/err
fi
