#!/bin/busybox sh
# The first process of a guest of `cargo xtask vm`. The kernel's messages go to the first serial line, what the
# steps say to the second, each between two lines that begin with the mark that the kernel's command line names.
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

exec < /dev/null > /dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw
. /steps
echo "$tracer_mark done"
reboot -f
