//! The kernels: those of Debian's suites, as apt fetches them, kept in the cache.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::arch::Arch;
use crate::{
    cache,
    setup::suite::{self, Suite},
};

/// Which cgroups a guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cgroups {
    /// A hierarchy for each controller.
    V1,
    /// One tree.
    V2,
}

impl Cgroups {
    /// As the guest is told.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// A kernel of a Debian suite, the newest that it has.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    suite: &'static str,
    /// Which of the suite's kernels: the newest whose version starts so; the newest of all where that is empty.
    series: &'static str,
    /// As Rust names it.
    arch: &'static str,
    pub(crate) cgroups: Cgroups,
    /// Has the guest's clock count instructions ([`super::guest::Guest::icount`]), for kernels that preempt tasks in the
    /// kernel. By this machine's clock a guest that had to wait for its turn sees several ticks pass within a few
    /// instructions, and a task preempted for its slice being over that has hardly run. No hardware does that to it.
    pub(crate) icount: Option<u32>,
    /// Hooks of opens that it does not have.
    pub(crate) lacks: &'static [&'static str],
    /// What its command line has besides.
    pub(crate) command_line: &'static str,
}

/// Debian's default, and that of many others: perf events take CAP_SYS_ADMIN.
const NO_PERF_EVENTS: &str = "sysctl.kernel.perf_event_paranoid=3";

/// One without peculiarities.
const PLAIN: Kernel = Kernel {
    name: "",
    suite: "",
    series: "",
    arch: "x86_64",
    cgroups: Cgroups::V2,
    icount: None,
    lacks: &[],
    command_line: "",
};

/// What `cargo xtask vm` runs unless told.
pub(crate) const KERNELS: [Kernel; 7] = [
    // `fexit` takes what came with 5.15.
    Kernel { name: "5.10", suite: "bullseye", cgroups: Cgroups::V1, lacks: &["fexit"], ..PLAIN },
    Kernel { name: "6.1", suite: "bookworm", ..PLAIN },
    Kernel { name: "6.12", suite: "trixie", ..PLAIN },
    // The last one on which tracepoints keep programs from being preempted, and the first on which they do not.
    Kernel { name: "6.19", suite: "trixie-backports", series: "6.19.", icount: Some(1), ..PLAIN },
    Kernel {
        name: "7.0",
        suite: "trixie-backports",
        series: "7.0.",
        icount: Some(1),
        command_line: NO_PERF_EVENTS,
        ..PLAIN
    },
    Kernel { name: "7", suite: "trixie-backports", icount: Some(1), command_line: NO_PERF_EVENTS, ..PLAIN },
    Kernel { name: "6.12-aarch64", suite: "trixie", arch: "aarch64", ..PLAIN },
];

impl Kernel {
    /// The kernel of that name.
    pub(crate) fn of(name: &str) -> Result<&'static Self> {
        KERNELS.iter().find(|kernel| kernel.name == name).with_context(|| {
            let names: Vec<&str> = KERNELS.iter().map(|kernel| kernel.name).collect();
            format!("there is no kernel {name}: there are {} (--kernel takes a file)", names.join(", "))
        })
    }

    pub(crate) fn arch(&self) -> Result<&'static Arch> {
        Arch::of(self.arch)
    }

    /// The file to boot. Fetched unless it is in the cache; `anew` fetches in any case.
    pub(crate) fn file(&self, anew: bool) -> Result<PathBuf> {
        let cache = cache::dir().context("neither XDG_CACHE_HOME nor HOME says where to keep kernels")?;
        let file = cache.join(format!("vmlinuz-{}", self.name));
        if file.is_file() && !anew {
            return Ok(file);
        }
        fs::create_dir_all(&cache).with_context(|| format!("making {}", cache.display()))?;
        eprintln!("xtask: fetching the kernel of Debian {} to {} (30 MB)", self.suite, file.display());
        let scratch = tempfile::tempdir_in(&cache)?;
        let debian = self.arch()?.debian;
        let suite = Suite::open(&suite::mirror()?, self.suite, Some(debian), &scratch.path().join("apt"))?;
        // It depends on the suite's newest kernel: that for virtual machines, without the drivers of others.
        let mut package = if self.series.is_empty() {
            format!("linux-image-cloud-{debian}")
        } else {
            let prefix = format!("linux-image-{}", self.series);
            let newest = newest(&suite.names(&prefix)?, &prefix, &format!("-cloud-{debian}"));
            newest.with_context(|| format!("Debian {} has no kernel {}", self.suite, self.name))?
        };
        while let Some(next) = next_package(&suite.show(&package)?) {
            package = next;
        }
        let tree = scratch.path().join("tree");
        suite::unpack(&suite.download(&package)?, &tree)?;
        let found = find_image(&tree).with_context(|| format!("the package {package} has no vmlinuz"))?;
        fs::rename(&found, &file).with_context(|| format!("making {}", file.display()))?;
        Ok(file)
    }
}

/// Of packages, that of the newest version between a prefix and what comes behind it; the version's next part is a number.
fn newest(names: &str, prefix: &str, suffix: &str) -> Option<String> {
    let part = |name: &str| {
        let version = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        version.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok()
    };
    let newest = names.lines().filter_map(|name| Some((part(name)?, name))).max();
    newest.map(|(_, name)| name.to_owned())
}

/// Of what a package depends on, by its description, that which has the kernel or depends on it.
fn next_package(description: &str) -> Option<String> {
    let field = |name: &str| description.lines().find_map(|line| line.strip_prefix(name));
    let own = field("Package: ")?;
    let names: Vec<&str> =
        field("Depends: ")?.split(',').filter_map(|one| one.split_whitespace().next()).collect();
    // Since 7, the image's package is for its parts, of which this has the kernel.
    ["linux-binary-", "linux-image-"]
        .iter()
        .find_map(|prefix| names.iter().find(|name| name.starts_with(prefix) && **name != own))
        .map(ToString::to_string)
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
    fn follows_dependencies_to_the_kernel() {
        let next = |package: &str, depends: &str| {
            next_package(&format!("Package: {package}\nVersion: 1\nDepends: {depends}\nSize: 3\n"))
        };
        let image = "linux-image-6.1.0-50-cloud-amd64";
        assert_eq!(
            next("linux-image-cloud-amd64", &format!("{image} (= 6.1.176-1)")).as_deref(),
            Some(image)
        );
        assert_eq!(next(image, "kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool"), None);
        let (image, binary) = ("linux-image-7.3.4-cloud-amd64", "linux-binary-7.3.4-cloud-amd64");
        assert_eq!(
            next("linux-image-cloud-amd64", &format!("linux-base-cloud-amd64 (= 7), {image} (= 7)"))
                .as_deref(),
            Some(image)
        );
        assert_eq!(
            next(image, &format!("dracut | initramfs-tools, {binary} (= 7)")).as_deref(),
            Some(binary)
        );
        assert_eq!(next(binary, "linux-base-7.3.4-cloud-amd64 (= 7)"), None);
        assert_eq!(next_package("Package: linux-image-1\nVersion: 1\n"), None);
    }

    #[test]
    fn newest_of_a_series_is_found_by_number() {
        let names = "linux-image-7.0.9+deb13-cloud-amd64\nlinux-image-7.0.13+deb13-rt-amd64\n\
                     linux-image-7.0.12+deb13-cloud-amd64\nlinux-image-7.0.13+deb13-cloud-amd64-unsigned\n";
        let newest = |prefix| newest(names, prefix, "-cloud-amd64");
        assert_eq!(newest("linux-image-7.0.").as_deref(), Some("linux-image-7.0.12+deb13-cloud-amd64"));
        assert_eq!(newest("linux-image-6.19."), None);
    }

    #[test]
    fn image_is_found_in_old_and_new_packages() {
        for path in ["boot/vmlinuz-6.1", "usr/lib/modules/7.3/vmlinuz"] {
            let tree = tempfile::tempdir().unwrap();
            assert_eq!(find_image(tree.path()), None);
            let file = tree.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            fs::write(file.with_file_name("config"), "").unwrap();
            assert_eq!(find_image(tree.path()), Some(file));
        }
    }

    #[test]
    fn kernels_are_known_by_name() {
        for kernel in &KERNELS {
            assert_eq!(Kernel::of(kernel.name).unwrap().suite, kernel.suite);
        }
        let error = Kernel::of("2.4").unwrap_err().to_string();
        assert!(error.starts_with("there is no kernel 2.4: there are 5.10, 6.1,"), "{error}");
    }
}
