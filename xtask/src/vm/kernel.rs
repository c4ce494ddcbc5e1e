//! The kernels: those of Debian's suites, downloaded by apt and kept in the cache.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use xshell::Shell;

use super::{
    HOOKS,
    guest::{AARCH64, Arch, X86_64},
};
use crate::{
    debian::{self, Suite},
    setup,
};

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

    /// The file to boot. Downloaded unless it is in the cache, or if `update` is set.
    pub(crate) fn fetch(&self, sh: &Shell, update: bool) -> Result<PathBuf> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let cache = setup::cache_dir()?;
        let file = cache.join(format!("vmlinuz-{}", self.name));
        if file.is_file() && !update {
            return Ok(file);
        }
        eprintln!("xtask: fetching the kernel of Debian {} to {} (30 MB)", self.suite, file.display());
        let scratch = tempfile::tempdir_in(&cache)?;
        let debian = self.arch.debian;
        let suite = Suite::open(sh, self.suite, Some(debian), &scratch.path().join("apt"))?;
        // The suite's kernel for virtual machines, without the drivers of others.
        let mut package = format!("linux-image-cloud-{debian}");
        if !self.series.is_empty() {
            let prefix = format!("linux-image-{}", self.series);
            let names = suite.query(sh, &["pkgnames", &prefix])?;
            package = newest(&names, &prefix, &format!("-cloud-{debian}"))
                .with_context(|| format!("Debian {} has no kernel {}", self.suite, self.name))?;
        }
        // It depends on the package that has the kernel, directly or not.
        while let Some(next) = next_package(&suite.query(sh, &["show", "--no-all-versions", &package])?) {
            package = next;
        }
        let tree = scratch.path().join("tree");
        debian::unpack(sh, &suite.download(sh, &package)?, &tree)?;
        let found = find_image(&tree).with_context(|| format!("the package {package} has no vmlinuz"))?;
        fs::rename(&found, &file).with_context(|| format!("cannot make {}", file.display()))?;
        Ok(file)
    }
}

/// The package of the newest version between a prefix and a suffix; the version's next part is a number.
fn newest(names: &str, prefix: &str, suffix: &str) -> Option<String> {
    let part = |name: &str| {
        let version = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        version.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
    };
    let newest = names.lines().filter_map(|name| Some((part(name)?, name))).max();
    newest.map(|(_, name)| name.to_owned())
}

/// Of the packages that a package depends on, by its description, the one that has the kernel or depends on it.
fn next_package(description: &str) -> Option<String> {
    let field = |name: &str| description.lines().find_map(|line| line.strip_prefix(name));
    let own = field("Package: ")?;
    let depends = field("Depends: ")?.split(',').filter_map(|one| one.split_whitespace().next());
    // Since 7, the kernel is not in the package of the image, but in a part of it.
    let found = |prefix| depends.clone().find(|name| name.starts_with(prefix) && *name != own);
    ["linux-binary-", "linux-image-"].into_iter().find_map(found).map(str::to_owned)
}

/// `boot/vmlinuz-VERSION` or, since 7, `usr/lib/modules/VERSION/vmlinuz`.
fn find_image(tree: &Path) -> Option<PathBuf> {
    let entries =
        |dir: &str| fs::read_dir(tree.join(dir)).into_iter().flatten().flatten().map(|entry| entry.path());
    let in_boot = entries("boot")
        .find(|file| file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz-")));
    in_boot.or_else(|| entries("usr/lib/modules").map(|dir| dir.join("vmlinuz")).find(|file| file.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_lead_to_the_kernel() {
        let next = |package: &str, depends: &str| {
            next_package(&format!("Package: {package}\nVersion: 1\nDepends: {depends}\nSize: 3\n"))
        };
        let image = "linux-image-6.1.0-50-cloud-amd64";
        let depends = format!("{image} (= 6.1.176-1)");
        assert_eq!(next("linux-image-cloud-amd64", &depends).as_deref(), Some(image));
        assert_eq!(next(image, "kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool"), None);
        let (image, binary) = ("linux-image-7.3.4-cloud-amd64", "linux-binary-7.3.4-cloud-amd64");
        let depends = format!("dracut | initramfs-tools, {binary} (= 7)");
        assert_eq!(next(image, &depends).as_deref(), Some(binary));
        assert_eq!(next(binary, "linux-base-7.3.4-cloud-amd64 (= 7)"), None);
    }

    #[test]
    fn versions_are_compared_by_number() {
        let names = "linux-image-7.0.9+deb13-cloud-amd64\nlinux-image-7.0.13+deb13-rt-amd64\n\
                     linux-image-7.0.12+deb13-cloud-amd64\nlinux-image-7.0.13+deb13-cloud-amd64-unsigned\n";
        let newest = |prefix| newest(names, prefix, "-cloud-amd64");
        assert_eq!(newest("linux-image-7.0.").as_deref(), Some("linux-image-7.0.12+deb13-cloud-amd64"));
        assert_eq!(newest("linux-image-6.19."), None);
    }

    #[test]
    fn kernels_of_files_may_lack_any_hook() {
        assert!(Kernel::of("2.4").is_err() && Kernel::of_file(Path::new("/no/such/file")).is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Kernel::of_file(file.path()).unwrap().lacks, HOOKS);
    }
}
