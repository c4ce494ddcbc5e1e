//! The demonstration's container: a busybox shell, described as containerd describes the container of a pod.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

pub(crate) const NAMESPACE: &str = "tracer-demo";
pub(crate) const POD: &str = "demo";
const CONTAINER: &str = "web";
const IMAGE: &str = "localhost/tracer-demo:1";

/// What runs in the container, for about three seconds. The file that is missing shows how failures look.
const SCRIPT: &str = "\
for round in 1 2 3; do
    cat /etc/hosts /etc/hostname
    ls /
    cat /etc/missing
    sleep 1
done >/dev/null 2>&1
exit 0";

const APPLETS: [&str; 4] = ["sh", "cat", "ls", "sleep"];

/// Writes the bundle: `config.json` and a root file system around that static busybox.
pub(crate) fn write(bundle: &Path, busybox: &Path) -> Result<()> {
    let rootfs = bundle.join("rootfs");
    for dir in ["bin", "dev", "etc", "proc", "sys"] {
        let dir = rootfs.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    let program = rootfs.join("bin/busybox");
    fs::copy(busybox, &program).with_context(|| format!("copying {}", busybox.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).context("making busybox executable")?;
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).with_context(|| format!("linking {applet}"))?;
    }
    fs::write(rootfs.join("etc/hosts"), "127.0.0.1 localhost\n").context("writing hosts")?;
    fs::write(rootfs.join("etc/hostname"), format!("{POD}\n")).context("writing hostname")?;

    let config = serde_json::to_vec_pretty(&config()).context("writing config.json")?;
    fs::write(bundle.join("config.json"), config).context("writing config.json")
}

/// The OCI configuration: what `runc spec` writes, less what a shell can do without, and containerd's
/// annotations, which are all that `tracer` knows the pod from.
fn config() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/sh", "-c", SCRIPT],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": POD,
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"] },
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
        ],
        "annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": CONTAINER,
            "io.kubernetes.cri.image-name": IMAGE,
            "io.kubernetes.cri.sandbox-id": "tracer-demo-sandbox",
            "io.kubernetes.cri.sandbox-name": POD,
            "io.kubernetes.cri.sandbox-namespace": NAMESPACE,
            "io.kubernetes.cri.sandbox-uid": "00000000-0000-4000-8000-000000000000",
        },
        "linux": {
            "namespaces": [
                { "type": "pid" },
                { "type": "ipc" },
                { "type": "uts" },
                { "type": "mount" },
                { "type": "network" },
            ],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundle_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let busybox = dir.path().join("busybox");
        fs::write(&busybox, b"program").unwrap();
        let bundle = dir.path().join("bundle");
        write(&bundle, &busybox).unwrap();

        let config: Value = serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["annotations"]["io.kubernetes.cri.sandbox-namespace"], NAMESPACE);
        assert_eq!(config["process"]["terminal"], false);
        let rootfs = bundle.join(config["root"]["path"].as_str().unwrap());
        // The root itself must be a directory: runc refuses a symbolic link.
        assert!(fs::symlink_metadata(&rootfs).unwrap().is_dir());
        assert_eq!(fs::read(rootfs.join("bin/sh")).unwrap(), b"program");
        assert_eq!(fs::metadata(rootfs.join("bin/cat")).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(rootfs.join("etc/hosts").exists() && !rootfs.join("etc/missing").exists());
    }

    #[test]
    fn annotations_are_strings() {
        let config = config();
        let annotations = config["annotations"].as_object().unwrap();
        assert!(annotations.values().all(Value::is_string), "runc refuses anything else");
    }
}
