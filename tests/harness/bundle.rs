//! OCI bundles: what containerd or CRI-O would have written for a pod, or plain ones.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::wait::{self, LIMIT};
use crate::{NOBODY, need, program, scratch};

/// The applets that tests call. `/bin/busybox` has more.
const APPLETS: &[&str] =
    &["cat", "echo", "false", "head", "ls", "mkdir", "readlink", "sh", "sleep", "true", "unshare"];

/// The pod that a bundle's annotations name.
#[derive(Debug, Clone)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// The container's name in the pod.
    pub container: String,
    /// The id of the pod's sandbox.
    pub sandbox: String,
    /// The image as the engine names it.
    pub image: String,
}

impl Pod {
    /// A pod in a namespace of its own, which no other test has.
    pub fn new(name: &str, container: &str) -> Self {
        Self::inside(&scratch::unique("t"), name, container)
    }

    /// A pod in `namespace`.
    pub fn inside(namespace: &str, name: &str, container: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            uid: format!("uid-of-{name}"),
            container: container.into(),
            // Unique as the namespace is: labels are those of a sandbox.
            sandbox: format!("sandbox-of-{name}-in-{namespace}"),
            image: format!("registry.example/{container}:1"),
        }
    }
}

/// Whose annotations a bundle carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As containerd's CRI plugin writes them.
    Containerd,
    /// As CRI-O writes them.
    CriO,
}

impl Dialect {
    /// What `container.runtime` says of a container whose bundle is written in this dialect.
    pub fn runtime(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
        }
    }

    fn annotations(self, pod: &Pod, kind: &str) -> Value {
        match self {
            Self::Containerd => json!({
                "io.kubernetes.cri.container-name": pod.container,
                "io.kubernetes.cri.container-type": kind,
                "io.kubernetes.cri.image-name": pod.image,
                "io.kubernetes.cri.sandbox-id": pod.sandbox,
                "io.kubernetes.cri.sandbox-name": pod.name,
                "io.kubernetes.cri.sandbox-namespace": pod.namespace,
                "io.kubernetes.cri.sandbox-uid": pod.uid,
            }),
            Self::CriO => json!({
                "io.container.manager": "cri-o",
                "io.kubernetes.container.name": pod.container,
                "io.kubernetes.cri-o.ContainerType": kind,
                "io.kubernetes.cri-o.ImageName": pod.image,
                "io.kubernetes.cri-o.SandboxID": pod.sandbox,
                "io.kubernetes.pod.name": pod.name,
                "io.kubernetes.pod.namespace": pod.namespace,
                "io.kubernetes.pod.uid": pod.uid,
            }),
        }
    }
}

/// A bundle on disk, with the id its container will have. Removed when dropped.
#[derive(Debug)]
pub struct Bundle {
    /// The container's id.
    pub id: String,
    /// What `config.json` says; [`Bundle::write`] puts it on disk.
    pub config: Value,
    /// The pod that the annotations name.
    pub pod: Option<Pod>,
    /// In whose words.
    pub dialect: Option<Dialect>,
    dir: scratch::Dir,
    rootfs: PathBuf,
}

impl Bundle {
    /// A bundle without annotations, as `ctr run` or docker make them, that runs `args`.
    pub fn plain<S: AsRef<str>>(args: &[S]) -> Self {
        // The id is the cgroup's name too, as it is with every engine: `tracer` may fall back on it.
        let id = scratch::unique("tracer-test");
        let dir = scratch::Dir::new("bundle");
        let rootfs = dir.path().join("rootfs");
        make_rootfs(&rootfs, install);
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let config = config(&id, &args);
        let bundle = Self { id, config, pod: None, dialect: None, dir, rootfs };
        bundle.write();
        bundle
    }

    /// A bundle of a pod's container.
    pub fn pod<S: AsRef<str>>(dialect: Dialect, pod: &Pod, args: &[S]) -> Self {
        let mut bundle = Self::plain(args);
        bundle.pod = Some(pod.clone());
        bundle.dialect = Some(dialect);
        bundle.config["annotations"] = dialect.annotations(pod, "container");
        bundle.write();
        bundle
    }

    /// [`Bundle::pod`] in containerd's words, running a shell script.
    pub fn script(pod: &Pod, script: &str) -> Self {
        Self::pod(Dialect::Containerd, pod, &["/bin/sh", "-c", script])
    }

    /// A bundle with the same root file system and an id of its own: for many containers in a row.
    pub fn sibling(&self, pod: &Pod, args: &[&str]) -> Self {
        let id = scratch::unique("tracer-test");
        let dir = scratch::Dir::new("bundle");
        let mut config = config(&id, args);
        config["annotations"] = Dialect::Containerd.annotations(pod, "container");
        config["root"]["path"] = json!(self.rootfs);
        let bundle = Self {
            id,
            config,
            pod: Some(pod.clone()),
            dialect: Some(Dialect::Containerd),
            dir,
            rootfs: self.rootfs.clone(),
        };
        bundle.write();
        bundle
    }

    /// Changes `config.json`.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self.write();
        self
    }

    /// Makes it one that [`NOBODY`] may run: with a user namespace of its own, and no cgroup.
    pub fn rootless(self) -> Self {
        let bundle = self.edit(|config| {
            let map = json!([{"containerID": 0, "hostID": NOBODY, "size": 1}]);
            let linux = &mut config["linux"];
            linux["namespaces"] =
                json!(["pid", "ipc", "uts", "mount", "user"].map(|kind| json!({"type": kind})));
            linux["uidMappings"] = map.clone();
            linux["gidMappings"] = map;
            linux.as_object_mut().unwrap().remove("cgroupsPath");
        });
        chown(bundle.config_path(), Some(NOBODY), Some(NOBODY)).expect("the file was just written");
        bundle
    }

    /// Adds capabilities to the usual ones of a container.
    pub fn with_capabilities(self, names: &[&str]) -> Self {
        self.edit(|config| {
            for set in ["bounding", "effective", "permitted"] {
                let list = config["process"]["capabilities"][set].as_array_mut().expect("a list of ours");
                list.extend(names.iter().map(|name| json!(name)));
            }
        })
    }

    /// Copies a program of the host to `/bin/<its name>` of the container.
    #[track_caller]
    pub fn with_program(self, program: &Path) -> Self {
        let name = program.file_name().expect("a program's path ends with a name");
        install(program, &self.rootfs.join("bin").join(name));
        self
    }

    /// [`Bundle::with_program`] for a dynamically linked one: brings its libraries and loader along.
    #[track_caller]
    pub fn with_dynamic_program(self, program: &Path) -> Self {
        for library in program::libraries(program) {
            let target = self.inside(&library);
            fs::create_dir_all(target.parent().expect("below the root")).expect("our own rootfs");
            install(&library, &target);
        }
        self.with_program(program)
    }

    /// Puts a file into the container's root file system.
    #[track_caller]
    pub fn with_file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let target = self.inside(Path::new(path));
        fs::create_dir_all(target.parent().expect("below the root")).expect("our own rootfs");
        fs::write(&target, content).expect("our own rootfs");
        self
    }

    /// Puts an executable file into the container's root file system.
    #[track_caller]
    pub fn with_executable(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let bundle = self.with_file(path, content);
        let target = bundle.inside(Path::new(path));
        fs::set_permissions(target, fs::Permissions::from_mode(0o755)).expect("our own file");
        bundle
    }

    /// Makes a FIFO in the container, for scripts that wait in `read x < PATH` until
    /// [`Bundle::release`].
    #[track_caller]
    pub fn with_fifo(self, path: &str) -> Self {
        make_fifo(&self.inside(Path::new(path)));
        self
    }

    /// Lets the container go on that waits at the FIFO `path`.
    #[track_caller]
    pub fn release(&self, path: &str) {
        wait::release(&self.inside(Path::new(path)));
    }

    /// Where the container's `path` is on the host.
    pub fn inside(&self, path: &Path) -> PathBuf {
        self.rootfs.join(path.strip_prefix("/").expect("an absolute path of the container"))
    }

    /// The bundle's directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of its `config.json`.
    pub fn config_path(&self) -> PathBuf {
        self.path().join("config.json")
    }

    /// Writes `config.json`.
    pub fn write(&self) {
        let text = serde_json::to_vec(&self.config).expect("a JSON value");
        fs::write(self.config_path(), text).expect("our own directory");
    }

    /// The `k8s` object that events of this container must carry.
    pub fn k8s(&self) -> Value {
        self.pod.as_ref().map_or(Value::Null, |pod| {
            json!({
                "namespace": pod.namespace,
                "pod": pod.name,
                "podUid": pod.uid,
                "container": pod.container,
                "labels": null,
            })
        })
    }

    /// Fails unless `event` is one of this container's, with all that its bundle says.
    #[track_caller]
    pub fn assert_names(&self, event: &Value) {
        assert_eq!(event["k8s"], self.k8s(), "in {event}");
        assert_eq!(event["container"]["id"], json!(self.id), "in {event}");
        assert_eq!(event["container"]["source"], json!("bundle"), "in {event}");
        if let (Some(pod), Some(dialect)) = (&self.pod, self.dialect) {
            assert_eq!(event["container"]["runtime"], json!(dialect.runtime()), "in {event}");
            assert_eq!(event["container"]["image"], json!(pod.image), "in {event}");
            assert_eq!(event["container"]["type"], json!("container"), "in {event}");
        }
    }

    /// Whether `event` says that it is of this container.
    pub fn owns(&self, event: &Value) -> bool {
        event["container"]["id"] == json!(self.id)
    }
}

/// Makes a FIFO on the host.
#[track_caller]
pub fn make_fifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("our own directory");
}

/// Makes a container's file system in `dir`, and `layer`, a tar of it.
#[track_caller]
pub(crate) fn make_layer(dir: &Path, layer: &Path) {
    let rootfs = dir.join("rootfs");
    // A copy: tar takes it for a change when another test makes a hard link.
    make_rootfs(&rootfs, |from, to| {
        fs::copy(from, to).expect("a copy");
    });
    tar(&rootfs, layer);
}

/// Makes a tar of a directory.
#[track_caller]
pub(crate) fn tar(from: &Path, to: &Path) {
    let mut tar = Command::new("tar");
    // Capabilities of files are extended attributes.
    tar.args(["--create", "--xattrs", "--xattrs-include=security.capability"]);
    tar.arg("--file").arg(to).arg("--directory").arg(from).arg(".");
    wait::output(&mut tar, LIMIT).success();
}

/// Makes a root file system with busybox, which `install` puts there, and the applets that tests call.
fn make_rootfs(rootfs: &Path, install: impl Fn(&Path, &Path)) {
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(dir)).expect("our own directory");
    }
    install(&need::find("busybox").expect("Need::Busybox"), &rootfs.join("bin/busybox"));
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("our own directory");
    }
    fs::write(rootfs.join("etc/hostname"), "box\n").expect("our own directory");
}

fn install(from: &Path, to: &Path) {
    // A hard link where the file system is the same: hundreds of copies of busybox cost time. Never
    // of files of the host itself: a container that writes to one would change it for all.
    if from.starts_with(scratch::root()) && fs::hard_link(from, to).is_ok() {
        return;
    }
    let cached = cached(from);
    if fs::hard_link(&cached, to).is_err() {
        fs::copy(&cached, to).unwrap_or_else(|error| panic!("cannot copy {}: {error}", from.display()));
    }
}

/// One copy per process of a file of the host.
fn cached(from: &Path) -> PathBuf {
    use std::sync::Mutex;
    static COPYING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = COPYING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let name = from.as_os_str().to_string_lossy().replace('/', "-");
    let dir = scratch::root().join("copies");
    let copy = dir.join(OsStr::new(&name));
    if !copy.exists() {
        fs::create_dir_all(&dir).expect("our own directory");
        fs::copy(from, &copy).unwrap_or_else(|error| panic!("cannot copy {}: {error}", from.display()));
    }
    copy
}

fn config(id: &str, args: &[&str]) -> Value {
    let capabilities = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE"
    ]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities
            },
        },
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=1024k"]},
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": [
                {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}
            ],
        },
    })
}
