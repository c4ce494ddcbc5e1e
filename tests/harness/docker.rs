//! A dockerd of the tests' own, with a containerd that it starts itself, one per test binary.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::engine::{Client, IMAGE};
use crate::wait::{self, LIMIT};
use crate::{bundle, need, scratch};

/// The one of this process.
static SHARED: Mutex<Option<Arc<Docker>>> = Mutex::new(None);

/// The dockerd of this process, started by whoever asks first.
#[track_caller]
pub fn shared() -> Arc<Docker> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(shared.get_or_insert_with(|| Arc::new(Docker::start())))
}

/// Ends it, if it was ever started.
pub(crate) fn stop_shared() {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// A running dockerd. When dropped, its process, its mounts and its cgroups go; containers remove
/// themselves.
#[derive(Debug)]
pub struct Docker {
    child: Child,
    client: Client,
    cgroup_parent: String,
    /// Dropped last.
    dir: scratch::Dir,
}

impl std::ops::Deref for Docker {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Docker {
    #[track_caller]
    fn start() -> Self {
        let dir = scratch::Dir::new("d");
        let socket = format!("unix://{}", dir.path().join("d.sock").display());
        let cgroup_parent = format!("tracer-test-{}", dir.path().file_name().expect("a name").display());
        // Not the machine's, which may say anything.
        fs::write(dir.path().join("daemon.json"), "{}").expect("our own directory");
        let log = File::create(dir.path().join("log")).expect("our own directory");
        let child = Command::new(need::find("dockerd").expect("Need::Docker"))
            .args(arguments(&dir.path().display().to_string()))
            .arg(format!("--cgroup-parent=/{cgroup_parent}"))
            // It writes a key and its client a configuration there.
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a duplicate"))
            .stderr(log)
            .spawn()
            .expect("dockerd starts");
        let globals =
            vec![format!("--config={}", dir.path().join("client").display()), format!("--host={socket}")];
        // Without a bridge, which would take iptables.
        let creating = vec!["--network=none".to_owned()];
        let client = Client::new(need::find("docker").expect("Need::Docker"), globals, creating);
        let docker = Self { child, client, cgroup_parent, dir };
        let log = docker.dir.path().join("log");
        wait::until(&format!("an answer of dockerd: see {}", log.display()), || {
            let mut version = docker.command();
            version.args(["version", "--format", "{{.Server.Version}}"]);
            wait::output(&mut version, LIMIT).status.success().then_some(())
        });
        docker.import();
        docker
    }

    #[track_caller]
    fn import(&self) {
        let tar = self.dir.path().join("image.tar");
        bundle::make_layer(self.dir.path(), &tar);
        wait::output(self.command().arg("import").arg(tar).arg(IMAGE), LIMIT).success();
    }
}

/// Options of a dockerd that keeps to `dir` and leaves the machine's network alone. There must be a
/// `daemon.json` in that directory.
pub fn arguments(dir: &str) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--iptables=false",
        "--ip6tables=false",
        "--bridge=none",
        "--ip-forward=false",
        "--ip-masq=false",
        "--userland-proxy=false",
        // Copies the image's one layer: works wherever `dir` lies.
        "--storage-driver=vfs",
    ]
    .map(ToOwned::to_owned)
    .into();
    arguments.extend([
        format!("--config-file={dir}/daemon.json"),
        format!("--data-root={dir}/data"),
        format!("--exec-root={dir}/exec"),
        format!("--pidfile={dir}/pid"),
        format!("--host=unix://{dir}/d.sock"),
    ]);
    arguments
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("not zero");
        // Ours and not reaped. It ends its containerd, too.
        let _ = kill_process(pid, Signal::TERM);
        if wait::exit_of(&mut self.child, Duration::from_secs(20)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for mount in scratch::mounts_below(self.dir.path()).iter().rev() {
            let _ = Command::new("umount").arg("--lazy").arg(mount).status();
        }
        scratch::remove_cgroup(&self.cgroup_parent);
    }
}
