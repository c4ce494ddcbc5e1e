#!/bin/bash
# systemd-nspawn runs an OCI bundle only if its version is exactly 1.0.0.
#
# Package: systemd-container 252.39-1~deb12u2 (Debian; needs libsystemd-shared of systemd 252).
# Expected: systemd-nspawn(1), `--oci-bundle=`: "Takes the path to an OCI runtime bundle to invoke, as specified in the OCI Runtime
#   Specification". runtime-spec, config.md, "Specification version": the specification "follows semantic versioning and retains forward and
#   backward compatibility within major versions".
# Seen: only 1.0.0 passes the check. Every other version is refused, also 1.0.2-dev, which `runc spec` of Debian's runc 1.1.5 writes, and
#   1.2.0, 1.2.1 and 1.3.0, which current containerd and CRI-O write. nspawn parses config.json itself: no runtime is executed that a
#   tracer could recognise.
# Output:
#   1.0.0: accepted
#   1.0.2: OCI bundle version not supported: 1.0.2
#   1.0.2-dev: OCI bundle version not supported: 1.0.2-dev
#   1.2.1: OCI bundle version not supported: 1.2.1
source "$(dirname "$0")/lib.sh"
deb systemd-container 252.39-1~deb12u2
nspawn=$deb_root/usr/bin/systemd-nspawn
[[ "$(LC_ALL=C ldd "$nspawn")" != *"not found"* ]] || { echo "needs libsystemd-shared 252" >&2; exit 1; }

# outcome VERSION: whether the version passes the check; what nspawn does after that does not matter here.
outcome() {
  bundle "$work/bundle" "
c['ociVersion'] = '$1'
c['process']['args'] = ['/bin/busybox', 'true']"
  mkdir -p "$work/bundle/rootfs/usr"
  # With a /run of its own, nspawn leaves nothing behind.
  timeout 20 unshare --mount --propagation private sh -c 'mount -t tmpfs tmpfs /run && exec "$0" "$@"' \
    "$nspawn" --quiet --register=no --keep-unit --oci-bundle="$work/bundle" </dev/null >"$work/log" 2>&1 || true
  grep --max-count 1 --only-matching 'OCI bundle version not supported: .*' "$work/log" | tr -d '\r' || echo accepted
}

for version in 1.0.0 1.0.2 1.0.2-dev 1.2.1; do
  seen=$(outcome "$version")
  echo "$version: $seen"
  if [[ $version == 1.0.0 ]]; then
    expect_equal "$version" accepted "$seen"
  else
    expect_equal "$version" "OCI bundle version not supported: $version" "$seen"
  fi
done
