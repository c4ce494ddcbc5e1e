//! The agent of `kubectl tracer` as a node runs it: a container with what `deploy/daemonset.yaml` grants, made by runc.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::wait::{self, LIMIT};
use crate::{Bundle, Launch, Runtime, program, tracer};

/// Where the manifest has the program.
const PROGRAM: &str = "/tracer";
/// What containerd 2.1 mounts into every container (`oci/mounts.go`), and hides of it from those that are not privileged
/// (`oci/spec.go`, the specification's defaults).
const MASKED: [&str; 9] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The pod that a `DaemonSet` or another workload makes.
#[derive(Debug, Clone)]
pub struct Manifest {
    spec: Value,
}

impl Manifest {
    /// The one in `deploy/`.
    ///
    /// # Panics
    /// If it is no workload with one container.
    pub fn of_node() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/daemonset.yaml");
        let text = fs::read_to_string(&path).expect("the manifest");
        let manifest: Value = serde_yaml_ng::from_str(&text).expect("YAML");
        let spec = manifest["spec"]["template"]["spec"].clone();
        assert_eq!(spec["containers"].as_array().map(Vec::len), Some(1), "{spec}");
        Self { spec }
    }

    /// The pod's specification.
    pub const fn spec(&self) -> &Value {
        &self.spec
    }

    /// Changes it: to show what it takes.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    /// The capabilities that it adds, as Linux calls them. It must drop all others.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn capabilities(&self) -> Vec<String> {
        let capabilities = &self.container()["securityContext"]["capabilities"];
        assert_eq!(capabilities["drop"], json!(["ALL"]));
        let added = capabilities["add"].as_array().expect("a list");
        added.iter().map(|name| format!("CAP_{}", name.as_str().expect("a name"))).collect()
    }

    /// What its container is made of.
    ///
    /// # Panics
    /// If the program under test cannot be copied.
    #[track_caller]
    pub fn bundle(&self) -> Bundle {
        let bundle = Bundle::plain(&[PROGRAM]).edit(|config| self.configure(config));
        // Nothing but the program, as in the image; its libraries where it is not static.
        fs::remove_dir_all(bundle.inside(Path::new("/bin"))).expect("our own rootfs");
        let binary = tracer::binary();
        let mut files = vec![(binary.clone(), PROGRAM.into())];
        files.extend(program::libraries(&binary).into_iter().map(|library| (library.clone(), library)));
        for (source, target) in files {
            let target = bundle.inside(&target);
            fs::create_dir_all(target.parent().expect("below the root")).expect("our own rootfs");
            fs::copy(&source, target).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
        }
        give_capabilities(&bundle.inside(Path::new(PROGRAM)));
        bundle
    }

    /// The container of the pod.
    pub fn container(&self) -> &Value {
        &self.spec["containers"][0]
    }

    /// What a container runtime is told of it.
    fn configure(&self, config: &mut Value) {
        let context = &self.container()["securityContext"];
        assert_eq!(context["privileged"], json!(false));
        let capabilities = self.capabilities();
        config["process"]["args"] = self.container()["command"].clone();
        config["process"]["user"] = json!({"uid": context["runAsUser"], "gid": context["runAsGroup"]});
        config["process"]["noNewPrivileges"] = json!(context["allowPrivilegeEscalation"] == json!(false));
        config["process"]["capabilities"] =
            json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
        config["root"]["readonly"] = context["readOnlyRootFilesystem"].clone();
        let namespaces = ["ipc", "uts", "mount", "network", "cgroup", "pid"].into_iter();
        let own = namespaces.filter(|kind| *kind != "pid" || self.spec["hostPID"] != json!(true));
        config["linux"]["namespaces"] = own.map(|kind| json!({"type": kind})).collect();
        if let Some(profile) = self.seccomp() {
            config["linux"]["seccomp"] = profile;
        }
        config["linux"]["maskedPaths"] = json!(MASKED);
        config["linux"]["readonlyPaths"] = json!(READ_ONLY);
        let mounts = config["mounts"].as_array_mut().expect("a list of ours");
        let options = ["nosuid", "noexec", "nodev", "ro"];
        mounts.push(json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": options}));
        mounts.push(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options,
        }));
        for mount in self.container()["volumeMounts"].as_array().into_iter().flatten() {
            mounts.push(self.volume(mount));
        }
    }

    /// What a container runtime is told of a seccomp profile of `deploy/seccomp/`, which on a node is among the kubelet's.
    fn seccomp(&self) -> Option<Value> {
        let name = self.container()["securityContext"]["seccompProfile"]["localhostProfile"].as_str()?;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/seccomp").join(name);
        let profile: Value = serde_json::from_slice(&fs::read(path).expect("the profile")).expect("JSON");
        let native = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_uppercase());
        let known = profile["archMap"].as_array().expect("a list");
        assert!(known.iter().any(|one| one["architecture"] == *native), "{native}");
        let mut calls = profile["syscalls"].clone();
        for call in calls.as_array_mut().expect("a list") {
            call.as_object_mut().expect("an object").remove("comment");
        }
        Some(json!({
            "defaultAction": profile["defaultAction"], "defaultErrnoRet": profile["defaultErrnoRet"],
            "architectures": [native], "syscalls": calls,
        }))
    }

    /// A volume of the node's.
    fn volume(&self, mount: &Value) -> Value {
        let volumes = self.spec["volumes"].as_array().expect("a list");
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("the volume");
        let read_only = if mount["readOnly"] == json!(true) { "ro" } else { "rw" };
        json!({
            "destination": mount["mountPath"], "type": "bind", "source": volume["hostPath"]["path"],
            "options": ["rbind", "rprivate", read_only],
        })
    }
}

/// Gives a file what `/tracer` has in the image (`xtask/src/archive.rs`).
fn give_capabilities(file: &Path) {
    /// `setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+p`.
    const CAPABILITIES: [u8; 20] = [0, 0, 0, 2, 4, 0, 8, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(file, "security.capability", &CAPABILITIES, rustix::fs::XattrFlags::empty())
        .expect("a file system with capabilities of files");
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    runtime: Runtime,
    bundle: Bundle,
}

impl Agent {
    /// As the manifest has it.
    pub fn start() -> Self {
        Self::of(&Manifest::of_node())
    }

    /// As this manifest has it.
    #[track_caller]
    pub fn of(manifest: &Manifest) -> Self {
        let (runtime, bundle) = (Runtime::runc(), manifest.bundle());
        runtime.run_detached(&bundle);
        Self { runtime, bundle }
    }

    /// The agent's own process.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.runtime.init_pid(&self.bundle).expect("the agent runs")
    }

    /// What it has printed.
    pub fn stdout(&self) -> String {
        Runtime::stdout_of(&self.bundle)
    }

    /// What executes a command in it, as `kubectl exec` does.
    pub fn exec(&self) -> Vec<OsString> {
        let mut exec = vec![self.runtime.program().into(), "--root".into(), self.runtime.root().into()];
        exec.extend(["exec", &self.bundle.id].map(OsString::from));
        exec
    }

    /// Puts a program into its root directory that is not in the image: to do there what somebody might.
    ///
    /// # Panics
    /// If the program cannot be copied.
    #[track_caller]
    pub fn smuggle(&self, program: &Path, name: &str) {
        let target = self.bundle.inside(Path::new(name));
        fs::copy(program, &target).unwrap_or_else(|error| panic!("{}: {error}", target.display()));
    }

    /// Has it read a setting of its administrator's, as from a ConfigMap.
    ///
    /// # Panics
    /// If that cannot be written.
    #[track_caller]
    pub fn set(&self, name: &str, value: &str) {
        let directory = self.bundle.inside(Path::new("/etc/tracer"));
        fs::create_dir_all(&directory).expect("our own rootfs");
        fs::write(directory.join(name), value).expect("our own rootfs");
    }

    /// What comes of a command that is executed in it, as by `kubectl exec`.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> wait::Output {
        let exec = self.exec();
        let mut command = std::process::Command::new(&exec[0]);
        wait::output(command.args(&exec[1..]).args(words), LIMIT)
    }

    /// How `tracer` is run in it.
    pub fn launch(&self, arguments: &[&str]) -> Launch {
        Launch::new(arguments).binary(PROGRAM.into()).wrapper(&self.exec())
    }

    /// The processes in it, its own included.
    ///
    /// # Panics
    /// If runc does not tell.
    #[track_caller]
    pub fn processes(&self) -> Vec<u32> {
        let mut ps = self.runtime.command();
        let told = wait::output(ps.args(["ps", "--format", "json", &self.bundle.id]), LIMIT).success();
        serde_json::from_str(&told.stdout).expect("a list of process ids")
    }

    /// Waits for the end of its process.
    #[track_caller]
    pub fn wait_stopped(&self) {
        self.runtime.wait_stopped(&self.bundle);
    }
}
