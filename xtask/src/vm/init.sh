#!/bin/busybox sh
# The first process of a guest of `cargo xtask vm`. What the steps say goes to the serial line that the kernel's command
# line names, each between two lines that begin with the mark that it names too.
if [ "$1" != inside ]; then
    # Container runtimes leave their root by pivot_root, which nobody can do from the kernel's first one. So all goes on
    # in a mount of it.
    /bin/busybox mount --bind / /new
    cd /new || exit
    /bin/busybox mount --move . /
    exec /bin/busybox chroot . /bin/busybox sh /init inside
fi

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
# Links for what is not there by itself.
/bin/busybox --install -s /bin 2> /dev/null
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
# Debian's 5.10 has TOMOYO, which looks for the file /dev/fd/N when a descriptor is executed, as runc does.
ln -s /proc/self/fd /dev/fd
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t tracefs tracefs /sys/kernel/tracing
if [ "$tracer_cgroups" = v1 ]; then
    mount -t tmpfs cgroups /sys/fs/cgroup
    while read -r name _ _ enabled; do
        [ "$enabled" = 1 ] || continue
        mkdir "/sys/fs/cgroup/$name"
        mount -t cgroup -o "$name" "$name" "/sys/fs/cgroup/$name"
    done < /proc/cgroups
    # systemd's own hierarchy, which runtimes expect.
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd systemd /sys/fs/cgroup/systemd
else
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
ip link set lo up
hostname guest

# step NAME SECONDS COMMAND...
step() {
    name=$1
    limit=$2
    shift 2
    echo "$tracer_mark begin $name"
    timeout -s KILL "$limit" "$@"
    echo "$tracer_mark end $name $?"
}

# The same for tests that tracer is told a hook for, as far as the kernel has it: else tracer ends with 3, and says so.
step_at() {
    hook=$1
    shift
    tracer trace open --hook "$hook" --max-events 1 --timeout 1s --host > /tmp/hook 2>&1
    if [ $? = 3 ]; then
        echo "$tracer_mark begin $1"
        cat /tmp/hook
        echo "$tracer_mark end $1 absent"
    else
        step "$@"
    fi
}

# suite NAME ARGUMENT...: a test binary, once for each hook if it is about opens. Emulation is slow, which lengthens the
# tests' deadlines.
suite() {
    test=$1
    shift
    export TRACER_BIN=/usr/bin/tracer TRACER_TEST_PROGRAMS=/programs TRACER_TEST_SLOWNESS=10
    if [ "$test" = open ]; then
        for hook in $hooks; do
            step_at "$hook" "open:$hook" 1800 \
                env TRACER_TEST_HOOK="$hook" /tests/open --color=never --test-threads=1 "$@"
        done
    else
        step "$test" 1800 "/tests/$test" --color=never --test-threads=1 "$@"
    fi
}

# A kernel without BTF: tracer says what is missing, and that it cannot be helped, by 3.
cat > /usr/bin/without_btf << 'END'
#!/bin/sh
mount -t tmpfs none /sys/kernel/btf
for command in "trace open" "trace exec" list-containers; do
    timeout 30 tracer $command > /tmp/said 2>&1
    status=$?
    if [ $status != 3 ] || ! grep -q 'no kernel BTF: .* CONFIG_DEBUG_INFO_BTF=y' /tmp/said; then
        echo "tracer $command: $status"
        cat /tmp/said
        umount /sys/kernel/btf
        exit 1
    fi
done
echo 'exit code 3, and what is missing'
umount /sys/kernel/btf
END
chmod +x /usr/bin/without_btf

# A kernel that forbids programs to read its memory, and does not show that it does. There is no way back.
cat > /usr/bin/locked_down << 'END'
#!/bin/sh
mount -t securityfs securityfs /sys/kernel/security || exit
if [ ! -e /sys/kernel/security/lockdown ]; then
    echo 'this kernel has no lockdown'
    exit
fi
echo confidentiality > /sys/kernel/security/lockdown || exit
umount /sys/kernel/security
for command in "trace open" "trace exec" list-containers doctor; do
    timeout 60 tracer $command > /tmp/said 2>&1
    status=$?
    if [ $status != 3 ] || ! grep -q 'confidentiality mode' /tmp/said || grep -q verifier /tmp/said; then
        echo "tracer $command: $status"
        cat /tmp/said
        exit 1
    fi
done
echo 'exit code 3, and the cause'
END
chmod +x /usr/bin/locked_down

exec < /dev/null > "/dev/$tracer_steps" 2>&1
stty -F "/dev/$tracer_steps" raw
if [ ! -e /measure ]; then
    step kernel 60 uname -r
    step doctor 300 tracer doctor
    step no-btf 60 without_btf
fi
. /steps
echo "$tracer_mark done"
reboot -f
