# kernel SUITE SERIES ARCHITECTURE FILE SCRATCH
#
# Makes FILE, the newest kernel of a Debian suite whose version begins with SERIES, or the newest of all.
suite=$1
series=$2
architecture=$3
file=$4
scratch=$5

open_suite "$suite" "$architecture" "$scratch/apt"
# The one for virtual machines, without the drivers of others.
package=linux-image-cloud-$architecture
if [ -n "$series" ]; then
    package=$(own_apt apt-cache pkgnames "linux-image-$series" | grep -- "-cloud-$architecture\$" | sort -V | tail -n 1)
    [ -n "$package" ] || {
        echo "Debian $suite has no kernel $series" >&2
        exit 1
    }
fi
# It depends on the package that has the kernel, directly or not. Since 7, that is a part of the image.
while
    depends=$(own_apt apt-cache show --no-all-versions "$package" | sed -n 's/^Depends: //p' | tr ',' '\n' | tr -d ' ')
    next=$(echo "$depends" | sed 's/(.*//' | grep -E '^linux-(binary|image)-' | grep -vx "$package" | sort | head -n 1)
    [ -n "$next" ]
do
    package=$next
done
mkdir "$scratch/package"
(cd "$scratch/package" && own_apt apt-get download "$package")
dpkg-deb --extract "$scratch/package"/*.deb "$scratch/tree"
# In boot or, since 7, in usr/lib/modules/VERSION.
found=$(find "$scratch/tree/boot" "$scratch/tree/usr/lib/modules" "$scratch/tree/lib/modules" \
    -maxdepth 2 -name 'vmlinuz*' 2> /dev/null | head -n 1)
mv "${found:?"the package $package has no vmlinuz"}" "$file"
