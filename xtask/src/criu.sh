# criu VERSION SUITE TREE SCRATCH
#
# Makes TREE, with the criu of a newer Debian suite and its libraries.
version=$1
suite=$2
target=$3
scratch=$4

open_suite "$suite" "$(dpkg --print-architecture)" "$scratch/apt"
tree=$scratch/tree
unpack_with_dependencies "$tree" "criu=$version*" patchelf
# criu gets to use the libraries beside it, the C library included, at the place where they will be. The executed program
# remains criu itself, so that tracer recognises it.
for loader in "$tree"/usr/lib/*/ld-linux*; do :; done
libraries=$(dirname "$loader")
inside=${libraries#"$tree"}
# patchelf comes from the same suite and needs its libraries as well. An RPATH holds for libraries of libraries, too; a
# RUNPATH does not.
"$loader" --library-path "$libraries" "$tree/usr/bin/patchelf" --set-interpreter "$target$inside/$(basename "$loader")" \
    --force-rpath --set-rpath "$target$inside" "$tree/usr/sbin/criu"
# Another run may have been faster.
mv -T "$tree" "$target" || [ -d "$target" ]
