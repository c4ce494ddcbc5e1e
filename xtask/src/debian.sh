# Packages of another Debian suite than this machine's, without touching what apt and dpkg know: functions for scripts.
#
# apt runs with this machine's settings (a proxy stays in use), but its sources, lists, downloads and its record of
# installed packages (none) are in a directory of ours. It verifies signatures as always, with Debian's keyring.
set -eu
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# open_suite SUITE ARCHITECTURE DIRECTORY: downloads the lists of the suite. The architecture is Debian's name.
open_suite() {
    # The machine's mirror of Debian has the other suites, too.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' \
        'Component: main' | head -n 1)
    [ -n "$mirror" ] || {
        echo 'apt has no mirror of Debian (or `apt-get update` never ran)' >&2
        exit 1
    }
    configure_suite "$mirror" "$@"
    own_apt apt-get update
}

# configure_suite MIRROR SUITE ARCHITECTURE DIRECTORY
configure_suite() {
    apt_dir=$4
    mkdir -p "$apt_dir/archives" "$apt_dir/lists"
    # No package is installed there, so that all dependencies are downloaded, too.
    : > "$apt_dir/status"
    # For the packages alone: no translations, no icons.
    echo "deb [target=Packages signed-by=$keyring] $1 $2 main" > "$apt_dir/sources.list"
    # No suite is preferred, an update without network fails, and nothing else happens after it.
    cat > "$apt_dir/apt.conf" << END
APT::Architecture "$3";
#clear APT::Architectures;
APT::Architectures { "$3"; };
Dir::Etc::SourceList "$apt_dir/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$apt_dir";
Dir::State::Lists "$apt_dir/lists";
Dir::State::Status "$apt_dir/status";
Dir::Cache "$apt_dir";
Dir::Cache::Archives "$apt_dir/archives";
APT::Default-Release "";
#clear APT::Update;
APT::Update::Error-Mode "any";
END
}

# own_apt PROGRAM ARGUMENTS...: a program of apt, for the suite that is open.
own_apt() {
    program=$1
    shift
    "$program" --config-file "$apt_dir/apt.conf" "$@"
}

# unpack_with_dependencies TREE PACKAGE...: the files of packages (`criu`, `criu=4.1*`) and of all that they depend on.
unpack_with_dependencies() {
    tree=$1
    shift
    own_apt apt-get install --download-only --no-install-recommends --yes "$@"
    for package in "$apt_dir"/archives/*.deb; do dpkg-deb --extract "$package" "$tree"; done
}
