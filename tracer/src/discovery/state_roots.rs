//! The directories in which runtimes keep the state of their containers.

use std::path::{Path, PathBuf};

use crate::discovery::RUNTIMES;

/// The state directories that runtimes have by default, or engines give them.
pub(crate) const STATE_ROOTS: [&str; 6] =
    ["/run/runc", "/run/crun", "/run/youki", "/run/sysbox-runc", "/run/urunc", "/run/crio/runc"];
/// Directories of state directories of runc's: one for each of the engine's namespaces.
pub(crate) const STATE_ROOT_PARENTS: [&str; 3] =
    ["/run/containerd/runc", "/run/docker/runtime-runc", "/run/k3s/containerd/runc"];
/// The directories of users' sessions, by user id.
pub(crate) const RUNTIME_DIRECTORIES: &str = "/run/user";
/// The names of users' state directories there.
pub(crate) const ROOTLESS: [&str; 3] = ["runc", "crun", "youki"];

/// The default state directory of a runtime that root runs: below `/run`, by a name that is compiled in. So that of a
/// wrapper or of a renamed file is that of the runtime which is executed in the end.
pub(crate) fn state_root(runtime: &str) -> PathBuf {
    Path::new("/run").join(directory(runtime))
}

/// The default state directory of a user's runtime, or of any that looks there: below the directory of the user's session.
pub(crate) fn state_root_of_user(runtime: &str, runtime_directory: &Path) -> PathBuf {
    runtime_directory.join(directory(runtime))
}

/// Whether a runtime is crun, by whatever name. crun looks for `XDG_RUNTIME_DIR` even as root, and resolves a relative
/// state directory below the bundle.
pub(crate) fn is_crun(runtime: &str) -> bool {
    directory(runtime) == "crun"
}

/// The directory that a user's session has for sockets and state.
pub(crate) fn runtime_directory(uid: u32) -> PathBuf {
    Path::new(RUNTIME_DIRECTORIES).join(uid.to_string())
}

/// Whether a state directory is in a user's session.
pub(crate) fn is_of_user(state_root: &Path) -> bool {
    state_root.starts_with(RUNTIME_DIRECTORIES)
}

fn directory(runtime: &str) -> &str {
    match runtime {
        "docker-runc" | "buildkit-runc" => "runc",
        "krun" => "crun",
        wrapper if wrapper.starts_with("nvidia-container-runtime") => "runc",
        // `runc-1.3`, `runc.amd64`, `crun-wasm`.
        named => {
            let base = named.split(['-', '.', '_']).next().unwrap_or(named);
            if ["runc", "crun", "youki", "runsc"].contains(&base) { base } else { named }
        }
    }
}

/// The runtime that a state directory belongs to, by the directory's name. Those of engines are taken for runc's.
pub(crate) fn runtime_of(root: &Path) -> String {
    let name = root.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if RUNTIMES.contains(&name) { name.to_owned() } else { "runc".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_runtime_has_state_directory_compiled_into_it() {
        for (runtime, root) in [
            ("runc", "/run/runc"),
            ("runc.amd64", "/run/runc"),
            ("runc-1.3", "/run/runc"),
            ("nvidia-container-runtime", "/run/runc"),
            ("nvidia-container-runtime.cdi", "/run/runc"),
            ("docker-runc", "/run/runc"),
            ("buildkit-runc", "/run/runc"),
            ("krun", "/run/crun"),
            ("crun-krun", "/run/crun"),
            ("crun-wasm", "/run/crun"),
            ("sysbox-runc", "/run/sysbox-runc"),
            ("urunc", "/run/urunc"),
            ("my-own", "/run/my-own"),
        ] {
            assert_eq!(state_root(runtime), Path::new(root), "{runtime}");
        }
        assert_eq!(state_root_of_user("crun", &runtime_directory(1000)), Path::new("/run/user/1000/crun"));
    }

    #[test]
    fn engines_state_directory_is_runcs() {
        for (root, runtime) in [
            ("/run/crun", "crun"),
            ("/run/sysbox-runc", "sysbox-runc"),
            ("/run/containerd/runc/k8s.io", "runc"),
            ("/snap/x/run/moby", "runc"),
        ] {
            assert_eq!(runtime_of(Path::new(root)), runtime);
        }
    }
}
