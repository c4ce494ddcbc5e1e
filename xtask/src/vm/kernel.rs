//! The kernels: those of Debian's suites, downloaded by apt and kept in the cache.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use xshell::Shell;

use super::{
    HOOKS,
    guest::{AARCH64, Arch, X86_64},
};
use crate::{debian, setup};

/// A kernel to boot.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    /// The Debian suite that has it.
    suite: &'static str,
    /// Which of the suite's kernels: the newest whose version starts so, or the newest of all.
    series: &'static str,
    /// The file of a kernel that is not Debian's.
    file: Option<PathBuf>,
    pub(crate) arch: &'static Arch,
    /// `v1` or `v2`.
    pub(crate) cgroups: &'static str,
    /// Makes the guest's clock count instructions, for kernels that preempt tasks in the kernel. By this machine's clock,
    /// a guest that had to wait for its turn sees several ticks within a few instructions, and preempts a task that has
    /// hardly run. That happens on no hardware.
    pub(crate) icount: Option<u32>,
    /// The hooks of opens that it lacks.
    pub(crate) lacks: &'static [&'static str],
    /// Further words of its command line.
    pub(crate) command_line: &'static str,
}

/// The default of Debian and many others: perf events require CAP_SYS_ADMIN.
const NO_PERF_EVENTS: &str = "sysctl.kernel.perf_event_paranoid=3";

/// What `cargo xtask vm` runs by default.
pub(crate) fn kernels() -> Vec<Kernel> {
    let debian = |name: &str, suite| Kernel {
        name: name.to_owned(),
        suite,
        series: "",
        file: None,
        arch: &X86_64,
        cgroups: "v2",
        icount: None,
        lacks: &[],
        command_line: "",
    };
    let backport = |name, series| Kernel { series, icount: Some(1), ..debian(name, "trixie-backports") };
    vec![
        // `fexit` requires 5.15.
        Kernel { cgroups: "v1", lacks: &["fexit"], ..debian("5.10", "bullseye") },
        debian("6.1", "bookworm"),
        debian("6.12", "trixie"),
        // The last one whose tracepoints keep programs from being preempted, and the first whose do not.
        backport("6.19", "6.19."),
        Kernel { command_line: NO_PERF_EVENTS, ..backport("7.0", "7.0.") },
        Kernel { command_line: NO_PERF_EVENTS, ..backport("7", "") },
        Kernel { arch: &AARCH64, ..debian("6.12-aarch64", "trixie") },
    ]
}

impl Kernel {
    /// The kernel of that name.
    pub(crate) fn of(name: &str) -> Result<Self> {
        let all = kernels();
        let found = all.iter().find(|kernel| kernel.name == name).cloned();
        found.with_context(|| {
            let names: Vec<&str> = all.iter().map(|kernel| kernel.name.as_str()).collect();
            format!("unknown kernel {name:?}; expected one of: {} (--kernel takes a file)", names.join(", "))
        })
    }

    /// A kernel of this architecture about which nothing is known.
    pub(crate) fn of_file(file: &Path) -> Result<Self> {
        ensure!(file.is_file(), "there is no kernel {}", file.display());
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = Some(file.to_owned());
        Ok(Self { name, file, arch: Arch::here(), lacks: &HOOKS, ..Self::of("6.1")? })
    }

    /// The file to boot. Downloaded unless it is in the cache: remove it there for a newer one.
    pub(crate) fn fetch(&self, sh: &Shell) -> Result<PathBuf> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let cache = setup::cache_dir()?;
        let file = cache.join(format!("vmlinuz-{}", self.name));
        if file.is_file() {
            return Ok(file);
        }
        eprintln!("xtask: fetching the kernel of Debian {} to {} (30 MB)", self.suite, file.display());
        let scratch = tempfile::tempdir_in(&cache)?;
        let [path, scratch] = [file.as_path(), scratch.path()].map(Path::to_string_lossy);
        let arguments = [self.suite, self.series, self.arch.debian, &path, &scratch];
        debian::run(sh, include_str!("kernel.sh"), &arguments)?;
        Ok(file)
    }
}
