# image TREE FUNCTION ARGUMENTS...
#
# A tree that becomes an initramfs.
set -eu
tree=$1
shift

# make: the directories.
make() {
    for dir in bin lib lib64 sbin; do
        mkdir -p "$tree/usr/$dir"
        ln -s "usr/$dir" "$tree/$dir"
    done
    for dir in dev etc new proc root run sys tmp; do mkdir -p "$tree/$dir"; done
}

# add FILE PATH: a file as it is.
add() {
    mkdir -p "$tree$(dirname "$2")"
    cp "$1" "$tree$2"
}

# add_with_libraries PROGRAM PATH: a program of this machine. What the loader lists is what ldd shows.
add_with_libraries() {
    add "$1" "$2"
    listed=$(LD_TRACE_LOADED_OBJECTS=1 "$1")
    case $listed in
    *'not found'*)
        echo "libraries of $1 are missing: $listed" >&2
        exit 1
        ;;
    esac
    # `libc.so.6 => /lib/…/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`; the vDSO is not a file.
    for word in $listed; do
        case $word in
        /*) add "$word" "$word" ;;
        esac
    done
}

# add_packaged PACKAGES NAME...: programs from a tree of unpacked packages, with all libraries in it. Only their own
# loader could tell which are needed.
add_packaged() {
    packages=$1
    shift
    for name; do
        found=
        for dir in /bin /usr/bin /sbin /usr/sbin; do
            [ -n "$found" ] || [ ! -e "$packages$dir/$name" ] || found=$dir/$name
        done
        add "$packages${found:?"no package has $name"}" "$found"
    done
    cd "$packages"
    find lib usr/lib -name '*.so*' 2> /dev/null | while read -r library; do
        # A link may lead nowhere.
        [ ! -f "$library" ] || add "$library" "/$library"
    done
}

# pack FILE: makes the initramfs, owned by root.
pack() {
    cd "$tree"
    find . | cpio --quiet --create --format=newc --owner=0:0 > "$1"
}

"$@"
