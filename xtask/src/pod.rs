//! A container as containerd describes that of a pod.

use serde_json::{Value, json};

/// Its OCI configuration: what `runc spec` writes, without what a small program can do without, and containerd's
/// annotations, which are all that tracer knows the pod from.
pub(crate) fn config(namespace: &str, pod: &str, container: &str, args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": pod,
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "annotations": {
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": container,
            "io.kubernetes.cri.image-name": format!("localhost/{namespace}:1"),
            "io.kubernetes.cri.sandbox-id": format!("{namespace}-sandbox"),
            "io.kubernetes.cri.sandbox-name": pod,
            "io.kubernetes.cri.sandbox-namespace": namespace,
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
        },
    })
}
