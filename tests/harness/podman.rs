//! podman with storage of its own. There is no daemon: each container has a conmon.

use std::fs;
use std::process::Command;

use crate::engine::{Client, IMAGE};
use crate::wait::{self, LIMIT};
use crate::{bundle, need, scratch};

/// podman, with runc as its runtime. When dropped, its mounts and its cgroups go; containers remove
/// themselves and must be dropped before.
#[derive(Debug)]
pub struct Podman {
    client: Client,
    cgroup_parent: String,
    /// Dropped last.
    dir: scratch::Dir,
}

impl std::ops::Deref for Podman {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Podman {
    /// With the tests' image.
    #[track_caller]
    pub fn new() -> Self {
        let dir = scratch::Dir::new("p");
        let cgroup_parent = format!("tracer-test-{}", dir.path().file_name().expect("a name").display());
        let runc = need::find("runc").expect("Need::Podman");
        let below = |name: &str| dir.path().join(name).display().to_string();
        let globals = vec![
            format!("--root={}", below("root")),
            format!("--runroot={}", below("run")),
            format!("--tmpdir={}", below("tmp")),
            format!("--runtime={}", runc.display()),
            "--storage-driver=vfs".to_owned(),
            "--cgroup-manager=cgroupfs".to_owned(),
            "--events-backend=file".to_owned(),
        ];
        let creating = vec![
            "--network=host".to_owned(),
            // Its own are above what the tests may have.
            "--ulimit=nofile=1024:1024".to_owned(),
            "--ulimit=nproc=1000:1000".to_owned(),
            // Or removing a container takes ten seconds.
            "--stop-timeout=0".to_owned(),
            format!("--cgroup-parent=/{cgroup_parent}"),
        ];
        let client = Client::new(need::find("podman").expect("Need::Podman"), globals, creating);
        let podman = Self { client, cgroup_parent, dir };
        let tar = podman.dir.path().join("image.tar");
        bundle::make_layer(podman.dir.path(), &tar);
        wait::output(podman.command().arg("import").arg(tar).arg(IMAGE), LIMIT).success();
        podman
    }

    /// The cgroup that its containers' are in.
    pub fn cgroup_parent(&self) -> &str {
        &self.cgroup_parent
    }

    /// A pod of podman's, for containers with `--pod NAME`.
    #[track_caller]
    pub fn pod(&self) -> Pod<'_> {
        self.make_pod(&["--infra=false"])
    }

    /// A pod of podman's, whose namespaces a container holds that runs `command`.
    #[track_caller]
    pub fn pod_with_infra(&self, command: &str) -> Pod<'_> {
        let (image, command) = (format!("--infra-image={IMAGE}"), format!("--infra-command={command}"));
        self.make_pod(&[&image, &command, "--network=host"])
    }

    #[track_caller]
    fn make_pod(&self, options: &[&str]) -> Pod<'_> {
        let name = scratch::unique("pod");
        let mut create = self.command();
        create.args(["pod", "create", "--name", &name]).args(options);
        // The container that holds the namespaces takes no limits by options, and podman's own are too high here.
        let limits = self.dir.path().join("containers.conf");
        let text = "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n";
        fs::write(&limits, text).expect("our own directory");
        create.env("CONTAINERS_CONF", limits);
        // Not podman's own, which would stay.
        create.arg(format!("--cgroup-parent=/{}", self.cgroup_parent));
        wait::output(&mut create, LIMIT).success();
        Pod { podman: self, name }
    }
}

/// A pod, removed when dropped.
#[derive(Debug)]
pub struct Pod<'a> {
    podman: &'a Podman,
    /// Its name.
    pub name: String,
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let status = self.podman.command().args(["pod", "rm", "--force", &self.name]).output();
        if !matches!(&status, Ok(output) if output.status.success()) {
            eprintln!("harness: cannot remove pod {}: {status:?}", self.name);
        }
    }
}

impl Default for Podman {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // conmon and what it runs at a container's end are in there, and use our directory.
        scratch::remove_cgroup(&self.cgroup_parent);
        for mount in scratch::mounts_below(self.dir.path()).iter().rev() {
            let _ = Command::new("umount").arg("--lazy").arg(mount).status();
        }
    }
}
