# deb man DIRECTORY -- BINARY...
# deb package DIRECTORY VERSION MAINTAINER TIME -- BINARY...
#
# Replaces the directory by one with the manual pages of the binaries or, for the Debian package, with compressed pages,
# completions and changelog. The binaries write pages and completions themselves.
set -eu
what=$1
directory=$2
if [ "$what" = package ]; then
    version=$3 maintainer=$4 time=$5
fi
while [ "$1" != -- ]; do shift; done
shift

rm -rf "$directory"
mkdir -p "$directory"
if [ "$what" = man ]; then
    for binary; do "$binary" man "$directory"; done
    exit
fi

mkdir -p "$directory/man" "$directory/completions/bash" "$directory/completions/zsh" "$directory/completions/fish"
for binary; do
    name=${binary##*/}
    "$binary" man "$directory/man"
    # Each shell looks for its own name of the file.
    "$binary" completions bash > "$directory/completions/bash/$name"
    "$binary" completions zsh > "$directory/completions/zsh/_$name"
    "$binary" completions fish > "$directory/completions/fish/$name.fish"
done
# What Debian calls a changelog: which version this is. The project's own changelog says what has changed.
cat > "$directory/changelog.Debian" << END
tracer ($version-1) unstable; urgency=medium

  * Version $version: see /usr/share/doc/tracer/changelog.gz.

 -- $maintainer  $(LC_ALL=C date -R -u -d "@$time")
END
# The same files for the same content: without names and times.
gzip -9 --no-name "$directory"/man/* "$directory/changelog.Debian"
