//! What a test needs of the machine, and how to get it.

use std::env;
use std::path::{Path, PathBuf};

use crate::{cache, envtest, tracer};

/// Something without which a test cannot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Root, to run containers and load BPF.
    Root,
    /// A kernel with BTF.
    Btf,
    /// The built binary under test.
    Tracer,
    /// The built `kubectl-tracer`.
    KubectlTracer,
    /// A statically linked busybox, for the rootfs.
    Busybox,
    /// runc.
    Runc,
    /// crun.
    Crun,
    /// youki.
    Youki,
    /// containerd with its shim and `ctr`.
    Containerd,
    /// dockerd and its client.
    Docker,
    /// podman with conmon.
    Podman,
    /// A criu that works with this kernel, and runc.
    Criu,
    /// A C compiler and a static libc.
    Gcc,
    /// A kernel that answers `int $0x80`.
    Ia32,
    /// A kernel with Landlock.
    Landlock,
    /// A kernel with io_uring, which any process may use, and tracepoints that tell its requests apart.
    IoUring,
    /// bpftool.
    Bpftool,
    /// setpriv, of util-linux.
    Setpriv,
    /// kubectl.
    Kubectl,
    /// A real API server.
    RealApiServer,
}

/// What tracing a container of runc takes.
pub const RUNC: &[Need] = &[Need::Root, Need::Btf, Need::Tracer, Need::Busybox, Need::Runc];
/// What tracing a container of runc through an API server takes.
pub const KUBECTL_RUNC: &[Need] =
    &[Need::Root, Need::Btf, Need::Tracer, Need::KubectlTracer, Need::Busybox, Need::Runc];
/// What tracing a container of crun takes.
pub const CRUN: &[Need] = &[Need::Root, Need::Btf, Need::Tracer, Need::Busybox, Need::Crun];
/// [`RUNC`], with programs compiled at test time.
pub const RUNC_GCC: &[Need] = &[Need::Root, Need::Btf, Need::Tracer, Need::Busybox, Need::Runc, Need::Gcc];
/// What tracing pods of containerd takes.
pub const CONTAINERD: &[Need] =
    &[Need::Root, Need::Btf, Need::Tracer, Need::Busybox, Need::Runc, Need::Containerd];
/// What tracing a container of youki takes.
pub const YOUKI: &[Need] = &[Need::Root, Need::Btf, Need::Tracer, Need::Busybox, Need::Youki];
/// What tracing containers of docker takes.
pub const DOCKER: &[Need] =
    &[Need::Root, Need::Btf, Need::Tracer, Need::Busybox, Need::Runc, Need::Containerd, Need::Docker];
/// What tracing containers of podman takes.
pub const PODMAN: &[Need] = &[Need::Root, Need::Btf, Need::Tracer, Need::Busybox, Need::Runc, Need::Podman];

impl Need {
    /// Whether a machine on which everything can be installed must have it. No distribution promises a criu that
    /// knows its kernel, nor a kernel with Landlock or io_uring, nor has an API server.
    pub fn can_be_installed(self) -> bool {
        !matches!(self, Self::Criu | Self::Landlock | Self::IoUring | Self::RealApiServer)
    }

    /// Why it is missing here and what to do about it; `None` when it is there.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!rustix::process::geteuid().is_root()).then(|| "not root: run with sudo".into()),
            Self::Btf => (!Path::new("/sys/kernel/btf/vmlinux").exists())
                .then(|| "this kernel has no /sys/kernel/btf/vmlinux (CONFIG_DEBUG_INFO_BTF)".into()),
            Self::Tracer => {
                let path = tracer::binary();
                (!path.exists())
                    .then(|| format!("{} is missing: cargo xtask build --release", path.display()))
            }
            Self::KubectlTracer => {
                let path = tracer::kubectl_binary();
                (!path.exists()).then(|| {
                    format!(
                        "{} is missing: cargo xtask build --release -- --features kubectl",
                        path.display()
                    )
                })
            }
            Self::Busybox => tool("busybox", "busybox-static"),
            Self::Runc => tool("runc", "runc"),
            Self::Crun => tool("crun", "crun"),
            Self::Youki => find("youki").is_none().then(|| {
                "youki is missing: cargo install youki --no-default-features --features v1,v2".into()
            }),
            Self::Docker => tool("dockerd", "docker.io").or_else(|| tool("docker", "docker.io docker-cli")),
            Self::Podman => tool("podman", "podman").or_else(|| tool("conmon", "conmon")),
            Self::Criu => criu_problem(),
            Self::Containerd => tool("containerd", "containerd")
                .or_else(|| tool("ctr", "containerd"))
                .or_else(|| tool("containerd-shim-runc-v2", "containerd")),
            Self::Gcc if crate::program::compiled_before().is_some() => None,
            Self::Gcc => tool("gcc", "gcc libc6-dev"),
            Self::Ia32 => ia32(),
            Self::Landlock => landlock(),
            Self::IoUring => io_uring(),
            Self::Bpftool => tool("bpftool", "bpftool"),
            Self::Setpriv => tool("setpriv", "util-linux"),
            Self::Kubectl => tool("kubectl", "kubernetes-client"),
            Self::RealApiServer => envtest::missing(),
        }
    }
}

/// The major and minor version of the kernel that runs.
pub fn kernel_release() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux tells its release");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
    numbers.next().zip(numbers.next()).expect("a release begins with two numbers")
}

/// The file that `name` means on `PATH` and in the directories where Debian puts root's tools.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(
            ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"].map(Into::into),
        )
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

fn tool(name: &str, package: &str) -> Option<String> {
    find(name).is_none().then(|| format!("{name} is missing: apt-get install {package}"))
}

/// The criu to use: `TRACER_TEST_CRIU`, or the one that setup has prepared, or that on the `PATH`.
pub fn criu() -> Option<PathBuf> {
    env::var_os("TRACER_TEST_CRIU").map(PathBuf::from).or_else(cache::criu).or_else(|| find("criu"))
}

fn criu_problem() -> Option<String> {
    let Some(criu) = criu() else { return Some("criu is missing: cargo xtask setup".into()) };
    let check = std::process::Command::new(&criu).arg("check").output().ok()?;
    (!check.status.success()).then(|| {
        let said = String::from_utf8_lossy(&check.stderr);
        let first = said.lines().next().unwrap_or_default();
        format!("{} does not work with this kernel (TRACER_TEST_CRIU names another): {first}", criu.display())
    })
}

fn landlock() -> Option<String> {
    let status = std::process::Command::new(crate::program::compile("landlocked.c")).output().ok()?.status;
    (!status.success()).then(|| "this kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, lsm=landlock)".into())
}

fn io_uring() -> Option<String> {
    let output = std::process::Command::new(crate::program::compile("uring.c")).arg("chain").output().ok()?;
    if String::from_utf8_lossy(&output.stdout).contains("no-io_uring") {
        return Some("this kernel has no io_uring (CONFIG_IO_URING, kernel.io_uring_disabled=0)".into());
    }
    let (major, minor) = kernel_release();
    ((major, minor) < (5, 18))
        .then(|| format!("Linux {major}.{minor} does not tell io_uring's requests apart (5.18)"))
}

fn ia32() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("only x86_64 kernels answer int $0x80".into());
    }
    // There is no flag to ask for: the program's own first call says so, by SIGSEGV.
    let program = crate::program::compile_flags("compat.c", "compat64", crate::program::FREESTANDING);
    let status = std::process::Command::new(program).arg("probe").status().ok()?;
    (!status.success()).then(|| "this kernel refuses int $0x80 (CONFIG_IA32_EMULATION)".into())
}
