# setup SCOPE
#
# Installs what the commands of a scope need and lack. Where it may not install, it prints all that is missing and fails.
# The versions are variables: `cargo xtask pins`. static_busybox is a busybox that needs no library, if there is one.
set -eu
scope=$1
rust=
packages=
tools=

# toolchain NAME COMPONENT...: a Rust toolchain, with components or targets beyond rustup's minimal profile
toolchain() {
    name=$1
    shift
    command="rustup toolchain install $name --profile minimal --no-self-update"
    missing=
    # Looking must not install it.
    installed=$(RUSTUP_AUTO_INSTALL=0 rustup component list --installed --toolchain "$name" 2> /dev/null) || missing=all
    for component; do
        case $component in
        rust-std-*) command="$command --target ${component#rust-std-}" ;;
        *) command="$command --component $component" ;;
        esac
        # `rust-src`, or `clippy-x86_64-unknown-linux-gnu`.
        echo "$installed" | grep -Eq "^$component(-|\$)" || missing=$component
    done
    [ -z "$missing" ] || rust="$rust$command
"
}

# tool NAME VERSION ARGUMENT...: a program that cargo installs
tool() {
    # One whose libraries are missing does not start.
    if ! "$1" --version 2> /dev/null | tr ' ' '\n' | grep -qxF "$2"; then
        # By force: where the program is broken or old, cargo may believe that it is installed.
        command="rustup run $STABLE cargo install --locked --force $1 --version $2"
        name=$1
        shift 2
        [ "$name" != bpf-linker ] || command="LLVM_PREFIX=/usr/lib/llvm-$LLVM $command"
        tools="$tools$command${*:+ $*}
"
    fi
}

# package NAME PROGRAM: a Debian package, and a program that shows that its content is there, from whatever source
package() {
    command -v "$2" > /dev/null || packages="$packages $1"
}

busybox() {
    [ -n "$static_busybox" ] || packages="$packages busybox-static"
}

# What is of the architecture that this machine's is not.
foreign() {
    case $(uname -m) in
    aarch64) package 'gcc-x86-64-linux-gnu libc6-dev-amd64-cross' x86_64-linux-gnu-gcc ;;
    *) package 'gcc-aarch64-linux-gnu libc6-dev-arm64-cross' aarch64-linux-gnu-gcc ;;
    esac
}

qemu() {
    case $1 in
    aarch64) package qemu-system-arm qemu-system-aarch64 ;;
    *) package qemu-system-x86 qemu-system-x86_64 ;;
    esac
}

case $scope in
Peers) ;;
Quick | Test)
    toolchain "$STABLE" clippy rustfmt
    toolchain "$NIGHTLY" rust-src clippy
    ;;
Dist | Deb | Kind | Vm | VmForeign)
    toolchain "$STABLE" rust-std-x86_64-unknown-linux-musl rust-std-aarch64-unknown-linux-musl
    toolchain "$NIGHTLY" rust-src
    ;;
*)
    toolchain "$STABLE"
    toolchain "$NIGHTLY" rust-src
    ;;
esac

if [ "$scope" != Peers ]; then
    tool bpf-linker "$BPF_LINKER" --no-default-features --features "llvm-$LLVM"
    if [ -n "$tools" ] && [ ! -e "/usr/lib/llvm-$LLVM/include/llvm-c/Core.h" ]; then
        packages="$packages llvm-$LLVM-dev"
    fi
fi

case $scope in
Build) ;;
Demo)
    package runc runc
    busybox
    ;;
Dist)
    package gcc gcc
    foreign
    ;;
Deb)
    tool cargo-deb "$CARGO_DEB"
    package gcc gcc
    ;;
Man) package gcc gcc ;;
Kind)
    package gcc gcc
    busybox
    ;;
Bench)
    package runc runc
    busybox
    package gcc gcc
    ;;
# The tracers that the benchmark compares with. It runs without them, too.
Peers)
    package libbpf-tools opensnoop
    package bpftrace bpftrace
    ;;
Quick) tool cargo-nextest "$CARGO_NEXTEST" ;;
Test)
    tool cargo-nextest "$CARGO_NEXTEST"
    tool cargo-deny "$CARGO_DENY"
    # Without seccomp and systemd it needs no library of the system.
    tool youki "$YOUKI" --no-default-features --features v1,v2
    package runc runc
    busybox
    package crun crun
    package containerd containerd
    # The daemon: a client alone may come from elsewhere.
    package docker.io dockerd
    package podman podman
    package gcc gcc
    package bpftool bpftool
    package kubernetes-client kubectl
    ;;
Fuzz)
    tool cargo-fuzz "$CARGO_FUZZ"
    package g++ c++
    ;;
Vm)
    package runc runc
    busybox
    package crun crun
    package gcc gcc
    package bpftool bpftool
    package cpio cpio
    qemu "$(uname -m)"
    ;;
VmForeign)
    foreign
    if [ "$(uname -m)" = aarch64 ]; then qemu x86_64; else qemu aarch64; fi
    ;;
*)
    echo "there is no scope $scope" >&2
    exit 1
    ;;
esac

apt=
if [ -n "$packages" ]; then
    apt='DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120'
    apt="$apt update && $apt install -y --no-install-recommends$packages"
fi
[ -n "$rust$apt$tools" ] || exit 0

sudo=
[ "$(id -u)" = 0 ] || sudo='sudo -n'
if { [ -n "$apt" ] && ! { command -v apt-get && $sudo true; } > /dev/null 2>&1; } ||
    { [ -n "$rust$tools" ] && ! command -v rustup > /dev/null; }; then
    echo "something is missing that cannot be installed from here. To install it by hand (names of packages are Debian's,
rustup is at https://rustup.rs; where apt lacks LLVM $LLVM, \`cargo binstall bpf-linker\` installs a prebuilt linker):
"
    printf '%s\n' "$rust${apt:+$apt
}$tools"
    exit 1
fi >&2

# Runs each line, and shows its output only if it fails. apt and rustup must not wait for an answer.
run_lines() {
    printf '%s' "$1" | while IFS= read -r line; do
        echo "xtask: $line" >&2
        if ! output=$($2 sh -c "$line" < /dev/null 2>&1); then
            printf '%s\n' "$output" >&2
            exit 1
        fi
    done
}
run_lines "$rust" ''
run_lines "${apt:+$apt
}" "$sudo"
run_lines "$tools" ''
