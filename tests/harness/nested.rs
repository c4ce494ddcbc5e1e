//! Containers that run container runtimes themselves: kind's nodes, docker-in-docker.
//!
//! The inner bundles are ordinary [`Bundle`]s of the host, which the outer container sees under
//! another path: what that path names on the host is nothing.

use std::fs;

use serde_json::{Value, json};

use crate::{Bundle, Dialect, Pod};

/// The capabilities of Linux by their number (capability.h).
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Where an outer container has what it brings of the host: programs and their libraries.
const HOST_DIRS: [&str; 3] = ["/usr", "/lib", "/lib64"];

/// All capabilities that may be given here: the tests may be in a container themselves.
pub fn all_capabilities() -> Vec<&'static str> {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("a bounding set");
    let set = u64::from_str_radix(set.trim(), 16).expect("hexadecimal");
    let named = CAPABILITIES.iter().enumerate();
    named.filter(|(number, _)| set & (1 << number) != 0).map(|(_, name)| *name).collect()
}

/// The path under which an outer container sees the bundle of an inner one.
pub fn path(inner: &Bundle) -> String {
    format!("/inner/{}", inner.id)
}

/// A privileged container with the host's programs, in which runc runs as on a node of kind. Its
/// runtime must be dropped before the inner bundles are: declare it last.
pub fn privileged(pod: Option<&Pod>, script: &str, inner: &[&Bundle]) -> Bundle {
    let outer = visible(pod, script, inner);
    outer.edit(|config| {
        let all = json!(all_capabilities());
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = all.clone();
        }
        add_mounts(
            config,
            [
                json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                       "options": ["newinstance", "ptmxmode=0666", "mode=0620"]}),
                json!({"destination": "/sys", "type": "sysfs", "source": "sysfs"}),
                // All that runc sees are pure v2 cgroups below this container's.
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup2", "source": "cgroup2"}),
            ],
        );
        config["linux"]["resources"] = json!({"devices": [{"allow": true, "access": "rwm"}]});
        config["linux"]["namespaces"] =
            json!(["pid", "ipc", "uts", "mount", "cgroup"].map(|kind| json!({"type": kind})));
    })
}

/// An ordinary container, with no more rights than any, that sees the host's programs and the inner
/// bundles.
pub fn visible(pod: Option<&Pod>, script: &str, inner: &[&Bundle]) -> Bundle {
    let args = ["/bin/sh", "-c", script];
    let bundle = match pod {
        Some(pod) => Bundle::pod(Dialect::Containerd, pod, &args),
        None => Bundle::plain(&args),
    };
    bundle.edit(|config| {
        config["process"]["env"] = json!(["PATH=/bin:/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin"]);
        add_mounts(config, HOST_DIRS.map(|dir| bind(dir, dir, &["ro"])));
        add_mounts(
            config,
            ["/run", "/tmp"].map(|dir| json!({"destination": dir, "type": "tmpfs", "source": "tmpfs"})),
        );
        add_mounts(
            config,
            inner.iter().map(|inner| bind(&inner.path().display().to_string(), &path(inner), &[])),
        );
    })
}

/// A bind mount for a bundle's `mounts`.
pub fn bind(source: &str, destination: &str, options: &[&str]) -> Value {
    let options: Vec<&str> = ["rbind"].iter().chain(options).copied().collect();
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

/// Adds to a bundle's `mounts`.
pub fn add_mounts(config: &mut Value, mounts: impl IntoIterator<Item = Value>) {
    config["mounts"].as_array_mut().expect("a list of ours").extend(mounts);
}

/// Options that make a container of docker what [`privileged`] makes. Not `--privileged`: that asks
/// for capabilities that those who run the tests may not have.
pub fn docker_options(inner: &[&Bundle]) -> Vec<String> {
    // Old versions of docker do not know the newest ones, which CAP_SYS_ADMIN includes.
    let known = all_capabilities()
        .into_iter()
        .filter(|name| !["CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"].contains(name));
    let mut options: Vec<String> = known.map(|name| format!("--cap-add={name}")).collect();
    options.extend(
        [
            "--security-opt=seccomp=unconfined",
            "--security-opt=apparmor=unconfined",
            "--security-opt=systempaths=unconfined",
            "--device-cgroup-rule=a *:* rwm",
            "--cgroupns=private",
            "--tmpfs=/run",
            "--tmpfs=/tmp",
            "--env=PATH=/bin:/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin",
        ]
        .map(ToOwned::to_owned),
    );
    options.extend(HOST_DIRS.map(|dir| format!("--volume={dir}:{dir}:ro")));
    options.extend(inner.iter().map(|inner| format!("--volume={}:{}", inner.path().display(), path(inner))));
    options
}
