//! A containerd of the tests' own, one per test binary, spoken to through its CRI.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

use crate::wait::{self, LIMIT};
use crate::{bundle, cri, need, scratch};

/// The name under which the workload's image is known.
pub const IMAGE: &str = "localhost/tracer-test:1";
/// The runtime handler of a runc with another file name.
pub const RENAMED: &str = "renamed";
const PAUSE: &str = "localhost/tracer-pause:1";
/// What the pause container opens before it sleeps: as every event of a pod, it must have a name.
pub const PAUSE_OPENS: &str = "/opened/by/pause";
const PAUSE_SCRIPT: &str = "true < /opened/by/pause; exec sleep 100000";

/// The one of this process.
static SHARED: Mutex<Option<Containerd>> = Mutex::new(None);

/// The containerd of this process, started by whoever asks first. Held while used: its client
/// makes one call at a time.
#[track_caller]
pub fn shared() -> Shared {
    let mut guard = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if guard.is_none() {
        *guard = Some(Containerd::start());
    }
    Shared(guard)
}

/// Ends it, if it was ever started.
pub(crate) fn stop_shared() {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// Exclusive use of the containerd of this process.
pub struct Shared(MutexGuard<'static, Option<Containerd>>);

impl std::ops::Deref for Shared {
    type Target = Containerd;

    fn deref(&self) -> &Containerd {
        self.0.as_ref().expect("made by `shared`")
    }
}

/// A running containerd. When dropped, its pods, its process, its mounts and its cgroups go.
pub struct Containerd {
    child: Mutex<Child>,
    runtime: tokio::runtime::Runtime,
    channel: Channel,
    /// Dropped last.
    dir: scratch::Dir,
}

impl Containerd {
    #[track_caller]
    fn start() -> Self {
        let dir = scratch::Dir::new("c");
        let runc = need::find("runc").expect("Need::Runc");
        fs::copy(runc, dir.path().join("oci-runtime-1.3")).expect("our own directory");
        fs::write(dir.path().join("config.toml"), configuration(dir.path())).expect("our own directory");
        let child = Mutex::new(spawn(dir.path()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let channel = {
            let _inside = runtime.enter();
            Endpoint::from_shared(format!("unix://{}/c.sock", dir.path().display()))
                .expect("a unix socket's address")
                .connect_lazy()
        };
        let containerd = Self { child, runtime, channel, dir };
        containerd.wait_answer();
        containerd.import();
        containerd
    }

    #[track_caller]
    fn wait_answer(&self) {
        wait::until(&format!("an answer of containerd: see {}", dir_log(self)), || {
            self.try_call::<_, cri::StatusResponse>("Status", cri::Nothing {}).ok()
        });
    }

    /// Ends it and starts it anew. Its containers go on meanwhile.
    #[track_caller]
    pub fn restart(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        end(&mut child);
        *child = spawn(self.dir.path());
        drop(child);
        self.wait_answer();
    }

    /// Takes the CPU from it until that is dropped.
    #[track_caller]
    pub fn stopped(&self) -> Stopped<'_> {
        self.signal(Signal::STOP);
        Stopped(self)
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // Ours and not reaped.
        kill_process(Pid::from_child(&child), signal).expect("our own child");
    }

    /// A container's bundle.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.dir.path().join("state/io.containerd.runtime.v2.task/k8s.io").join(id)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("c.sock")
    }

    /// The pid of a container's first process: as the runtime wrote it into its bundle.
    #[track_caller]
    pub fn init_pid(&self, id: &str) -> u32 {
        let pid = fs::read_to_string(self.bundle(id).join("init.pid")).expect("a container that was started");
        pid.trim().parse().expect("a pid")
    }

    /// Puts the image into containerd's store and waits until its CRI knows it.
    #[track_caller]
    fn import(&self) {
        let dir = self.dir.path().join("image");
        fs::create_dir_all(&dir).expect("our own directory");
        let layer = dir.join("layer.tar");
        bundle::make_layer(&dir, &layer);
        // Two images, lest containerd calls one by the other's name: it tells them apart by their configs.
        let images = [(PAUSE, &["/bin/sh", "-c", PAUSE_SCRIPT][..]), (IMAGE, &["/bin/false"])];
        self.import_images(&archive(&dir, &layer, &images), &[IMAGE, PAUSE]);
    }

    /// Puts an image into containerd's store that is a root file system and nothing else.
    #[track_caller]
    pub fn add_image(&self, name: &str, rootfs: &Path) {
        let dir = self.dir.path().join(scratch::unique("image"));
        fs::create_dir_all(&dir).expect("our own directory");
        let layer = dir.join("layer.tar");
        bundle::tar(rootfs, &layer);
        self.import_images(&archive(&dir, &layer, &[(name, &["/none"])]), &[name]);
    }

    #[track_caller]
    fn import_images(&self, archive: &Path, names: &[&str]) {
        wait::output(self.ctr().args(["images", "import"]).arg(archive), LIMIT).success();
        for name in names {
            // The CRI learns of images by containerd's events, a moment later.
            wait::until(&format!("image {name}"), || {
                let request =
                    cri::ImageStatusRequest { image: Some(cri::ImageSpec { image: (*name).to_owned() }) };
                self.try_call_on::<_, cri::ImageStatusResponse>("ImageService", "ImageStatus", request)
                    .ok()?
                    .image
            });
        }
    }

    /// `ctr`, in the namespace that the CRI has its containers in.
    pub fn ctr(&self) -> Command {
        let mut ctr = Command::new(need::find("ctr").expect("Need::Containerd"));
        ctr.arg("--address").arg(self.dir.path().join("c.sock")).args(["--namespace", "k8s.io"]);
        ctr
    }

    /// `ctr run --detach`: a container that the CRI knows nothing of.
    #[track_caller]
    pub fn ctr_run(&self, id: &str, args: &[&str]) -> Task<'_> {
        let mut run = self.ctr();
        run.args(["run", "--detach", "--null-io", "--net-host", "--snapshotter", "native"]);
        run.arg("--runc-root").arg(self.dir.path().join("runc"));
        run.arg("--cgroup").arg(format!("/{}/{id}", self.cgroup_parent()));
        run.arg(IMAGE).arg(id).args(args);
        let task = Task { containerd: self, id: id.to_owned() };
        wait::output(&mut run, LIMIT).success();
        task
    }

    /// `RunPodSandbox`, in the node's network namespace.
    #[track_caller]
    pub fn pod(&self, namespace: &str, name: &str) -> PodSandbox<'_> {
        self.pod_by("", namespace, name)
    }

    /// A pod whose containers are run by the runtime that is configured under this name.
    #[track_caller]
    pub fn pod_by(&self, runtime_handler: &str, namespace: &str, name: &str) -> PodSandbox<'_> {
        let uid = scratch::unique("uid");
        let config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.into(),
                uid: uid.clone(),
                namespace: namespace.into(),
                attempt: 0,
            }),
            log_directory: self.dir.path().join("logs").join(&uid).display().to_string(),
            // The second to fourth are those that kubelets add to the pod's own.
            labels: [
                ("app", name),
                ("io.kubernetes.pod.name", name),
                ("io.kubernetes.pod.namespace", namespace),
                ("io.kubernetes.pod.uid", &uid),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}", self.cgroup_parent()),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                }),
            }),
        };
        let request = cri::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: runtime_handler.into(),
        };
        let id = self.call::<_, cri::Id>("RunPodSandbox", request).id;
        PodSandbox { containerd: self, id, uid, config }
    }

    /// The cgroup above all containers of this containerd; its name is our directory's.
    fn cgroup_parent(&self) -> String {
        format!("tracer-test-{}", self.dir.path().file_name().expect("a name").display())
    }

    #[track_caller]
    fn call<Request, Response>(&self, method: &str, request: Request) -> Response
    where
        Request: Message + 'static,
        Response: Message + Default + 'static,
    {
        self.try_call(method, request).unwrap_or_else(|status| {
            panic!("{method}: {status}\ncontainerd said:\n{}", dir_log(self));
        })
    }

    fn try_call<Request, Response>(&self, method: &str, request: Request) -> Result<Response, String>
    where
        Request: Message + 'static,
        Response: Message + Default + 'static,
    {
        self.try_call_on("RuntimeService", method, request)
    }

    fn try_call_on<Request, Response>(
        &self,
        service: &str,
        method: &str,
        request: Request,
    ) -> Result<Response, String>
    where
        Request: Message + 'static,
        Response: Message + Default + 'static,
    {
        let path = format!("/runtime.v1.{service}/{method}").parse().expect("a path");
        self.runtime.block_on(async {
            let mut client = tonic::client::Grpc::new(self.channel.clone());
            let answer = async {
                client.ready().await.map_err(|error| error.to_string())?;
                let codec = tonic_prost::ProstCodec::<Request, Response>::default();
                let response = client
                    .unary(tonic::Request::new(request), path, codec)
                    .await
                    .map_err(|status| status.to_string())?;
                Ok(response.into_inner())
            };
            tokio::time::timeout(LIMIT, answer).await.unwrap_or_else(|_| Err(format!("over {LIMIT:?}")))
        })
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        end(self.child.get_mut().unwrap_or_else(PoisonError::into_inner));
        // Rootfs, sandboxes' shm: normally gone with the pods. The deepest first.
        for mount in scratch::mounts_below(self.dir.path()).iter().rev() {
            let _ = Command::new("umount").arg("--lazy").arg(mount).status();
        }
        scratch::remove_cgroup(&self.cgroup_parent());
    }
}

/// A containerd that does not get the CPU.
pub struct Stopped<'a>(&'a Containerd);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.signal(Signal::CONT);
    }
}

/// containerd itself, from the configuration in its directory.
#[track_caller]
fn spawn(dir: &Path) -> Child {
    let log = File::options().append(true).create(true).open(dir.join("log")).expect("our own directory");
    Command::new(need::find("containerd").expect("Need::Containerd"))
        .arg("--config")
        .arg(dir.join("config.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a duplicate"))
        .stderr(log)
        .spawn()
        .expect("containerd starts")
}

fn end(child: &mut Child) {
    // Ours and not reaped.
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    if wait::exit_of(child, Duration::from_secs(10)).is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A pod, stopped and removed with its containers when dropped.
pub struct PodSandbox<'a> {
    containerd: &'a Containerd,
    /// The sandbox's id, which is its container's.
    pub id: String,
    /// The pod's uid.
    pub uid: String,
    config: cri::PodSandboxConfig,
}

impl PodSandbox<'_> {
    /// `CreateContainer` and `StartContainer`; returns the container's id.
    #[track_caller]
    pub fn container(&self, name: &str, command: &[&str]) -> String {
        let id = self.create(name, command);
        self.start(&id);
        id
    }

    /// `CreateContainer`.
    #[track_caller]
    pub fn create(&self, name: &str, command: &[&str]) -> String {
        let context = cri::LinuxContainerSecurityContext {
            namespace_options: Some(namespaces()),
            ..Default::default()
        };
        self.create_with(name, IMAGE, command, context)
    }

    /// `CreateContainer` and `StartContainer` as a kubelet asks for the container of a manifest, of this image; its volumes
    /// are left out.
    #[track_caller]
    pub fn container_of(&self, image: &str, container: &Value) -> String {
        let context = &container["securityContext"];
        let texts = |list: &Value| -> Vec<String> {
            list.as_array()
                .into_iter()
                .flatten()
                .map(|text| text.as_str().expect("a text").to_owned())
                .collect()
        };
        let number = |name: &str| context[name].as_i64().map(|value| cri::Int64Value { value });
        let security = cri::LinuxContainerSecurityContext {
            capabilities: Some(cri::Capability {
                add_capabilities: texts(&context["capabilities"]["add"]),
                drop_capabilities: texts(&context["capabilities"]["drop"]),
            }),
            namespace_options: Some(cri::NamespaceOption { pid: cri::NODE, ..namespaces() }),
            run_as_user: number("runAsUser"),
            readonly_rootfs: context["readOnlyRootFilesystem"] == json!(true),
            no_new_privs: context["allowPrivilegeEscalation"] == json!(false),
            run_as_group: number("runAsGroup"),
        };
        let command = texts(&container["command"]);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let id = self.create_with(container["name"].as_str().expect("a name"), image, &command, security);
        self.start(&id);
        id
    }

    #[track_caller]
    fn create_with(
        &self,
        name: &str,
        image: &str,
        command: &[&str],
        context: cri::LinuxContainerSecurityContext,
    ) -> String {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(cri::ContainerConfig {
                metadata: Some(cri::ContainerMetadata { name: name.into(), attempt: 0 }),
                image: Some(cri::ImageSpec { image: image.into() }),
                command: command.iter().map(|word| (*word).to_owned()).collect(),
                log_path: format!("{name}.log"),
                linux: Some(cri::LinuxContainerConfig { security_context: Some(context) }),
            }),
            sandbox_config: Some(self.config.clone()),
        };
        self.containerd.call::<_, cri::Id>("CreateContainer", request).id
    }

    /// `StartContainer`.
    #[track_caller]
    pub fn start(&self, id: &str) {
        let _: cri::Nothing = self.containerd.call("StartContainer", cri::Id { id: id.to_owned() });
    }

    /// `ExecSync`: its exit code and standard output.
    #[track_caller]
    pub fn exec(&self, id: &str, command: &[&str]) -> (i32, String) {
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout: 20,
        };
        let response: cri::ExecSyncResponse = self.containerd.call("ExecSync", request);
        (response.exit_code, String::from_utf8_lossy(&response.stdout).into_owned())
    }
}

impl Drop for PodSandbox<'_> {
    fn drop(&mut self) {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            let request = cri::Id { id: self.id.clone() };
            if let Err(error) = self.containerd.try_call::<_, cri::Nothing>(method, request) {
                eprintln!("harness: {method} of {}: {error}", self.id);
            }
        }
    }
}

/// A container of `ctr`, ended and removed when dropped.
pub struct Task<'a> {
    containerd: &'a Containerd,
    id: String,
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        for words in [
            ["tasks", "rm", "--force"].as_slice(),
            &["containers", "rm"],
            &["snapshots", "--snapshotter=native", "rm"],
        ] {
            let mut command = self.containerd.ctr();
            command
                .args(words)
                .arg(&self.id)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            // `containers rm` removes the snapshot, as a rule.
            let _ = command.status();
        }
    }
}

fn namespaces() -> cri::NamespaceOption {
    // The node's network: no CNI plugin is needed.
    cri::NamespaceOption { network: cri::NODE, pid: cri::CONTAINER, ipc: 0 }
}

fn dir_log(containerd: &Containerd) -> String {
    let log = fs::read_to_string(containerd.dir.path().join("log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    // Nothing outside of our directory, no network, no AppArmor; `native` copies the image's one
    // layer, which works wherever `dir` lies.
    format!(
        r#"
version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
  address = "{dir}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_tcp_service = true
  enable_selinux = false
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{dir}/cni/bin"
    conf_dir = "{dir}/cni/conf"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "{dir}/runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{RENAMED}]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{RENAMED}.options]
        SystemdCgroup = false
        Root = "{dir}/renamed"
        BinaryName = "{dir}/oci-runtime-1.3"
"#
    )
}

/// Makes a docker-archive by hand: images of one layer, each with its name and entrypoint.
#[track_caller]
fn archive(dir: &Path, layer: &Path, images: &[(&str, &[&str])]) -> PathBuf {
    let archive = dir.join("archive");
    fs::create_dir_all(&archive).expect("our own directory");
    fs::rename(layer, archive.join("layer.tar")).expect("our own directory");
    let sum = wait::output(Command::new("sha256sum").arg(archive.join("layer.tar")), LIMIT).success().stdout;
    let digest = sum.split(' ').next().expect("sha256sum prints the sum first");
    let write = |name: &str, value: &Value| {
        fs::write(archive.join(name), value.to_string()).expect("our own directory");
    };
    let mut manifest = Vec::new();
    for (index, (name, entrypoint)) in images.iter().enumerate() {
        let config = format!("{index}.json");
        write(
            &config,
            &json!({
                "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
                "os": "linux",
                "config": {"Entrypoint": entrypoint, "Env": ["PATH=/bin"], "WorkingDir": "/"},
                "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
            }),
        );
        manifest.push(json!({"Config": config, "RepoTags": [name], "Layers": ["layer.tar"]}));
    }
    write("manifest.json", &manifest.into());
    let target = dir.join("image.tar");
    bundle::tar(&archive, &target);
    target
}
