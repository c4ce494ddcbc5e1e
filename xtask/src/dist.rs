//! Release binaries that run on any Linux of their architecture: linked statically with musl, stripped, with their
//! check sums in `target/dist`.
//!
//! All of it is Rust, so that the linker and the C library that rustup brings suffice for other architectures, too.

use std::{
    env::consts::ARCH,
    ffi::OsStr,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    artifact, elf,
    process::{self, cargo_stable, clean, quietly},
};

/// What is distributed: package and binary.
const BINARIES: [(&str, &str); 1] = [("tracer", "tracer")];

/// What it is built for.
pub(crate) const TARGETS: [Target; 2] = [
    Target {
        arch: ARCHITECTURES[0],
        triple: "x86_64-unknown-linux-musl",
        component: "rust-std-x86_64-unknown-linux-musl",
        linker: "CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER",
    },
    Target {
        arch: ARCHITECTURES[1],
        triple: "aarch64-unknown-linux-musl",
        component: "rust-std-aarch64-unknown-linux-musl",
        linker: "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER",
    },
];

/// The architectures of [`TARGETS`], as Rust names them.
pub(crate) const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// One target of the compiler.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) arch: &'static str,
    pub(crate) triple: &'static str,
    /// Rust's standard library for it, as rustup names it.
    pub(crate) component: &'static str,
    /// The variable that tells cargo its linker.
    linker: &'static str,
}

impl Target {
    /// The target for that architecture.
    pub(crate) fn of(arch: &str) -> Result<&'static Self> {
        TARGETS.iter().find(|target| target.arch == arch).with_context(|| {
            format!("nothing is built for {arch}: --arch takes {}", ARCHITECTURES.join(" and "))
        })
    }

    /// Has `cargo` build for it. The machine's own linker links for itself alone, that of the toolchain for others.
    pub(crate) fn select<'a>(&self, cargo: &'a mut Command) -> &'a mut Command {
        if self.arch != ARCH {
            cargo.env(self.linker, "rust-lld");
        }
        cargo.args(["--target", self.triple])
    }
}

/// Builds for each of `architectures`, and says what was made.
pub(crate) fn run(architectures: &[String]) -> Result<String> {
    let targets = architectures.iter().map(|arch| Target::of(arch)).collect::<Result<Vec<_>>>()?;
    let dist = process::target_dir().join("dist");
    fs::create_dir_all(&dist).with_context(|| format!("making {}", dist.display()))?;
    let mut said = String::new();
    let mut names = Vec::new();
    for target in targets {
        for (binary, path) in build(target)? {
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            ensure!(elf::is_static(&bytes), "{} needs a dynamic loader", path.display());
            ensure!(
                elf::architecture(&bytes) == Some(target.arch),
                "{} is not for {}",
                path.display(),
                target.arch
            );
            if target.arch == ARCH {
                let version = quietly(clean(path.as_os_str()).arg("--version"))?;
                ensure!(version.contains(VERSION), "{} says that it is {}", path.display(), version.trim());
            }
            let name = file_name(binary, target.arch);
            fs::copy(&path, dist.join(&name))
                .with_context(|| format!("writing {name} to {}", dist.display()))?;
            writeln!(said, "{}  {}", dist.join(&name).display(), megabytes(bytes.len()))?;
            names.push(name);
        }
    }
    let sums = quietly(clean(OsStr::new("sha256sum")).args(&names).current_dir(&dist))?;
    fs::write(dist.join("SHA256SUMS"), sums).with_context(|| format!("writing to {}", dist.display()))?;
    Ok(said)
}

/// Builds what is distributed for one target: names and files.
fn build(target: &Target) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut command = cargo_stable("build");
    command.arg("--release");
    for (package, binary) in BINARIES {
        command.args(["--package", package, "--bin", binary]);
    }
    let built = artifact::executables(target.select(&mut command))?;
    let path = |name: &str| built.iter().find(|found| found.name == name).map(|found| found.path.clone());
    BINARIES
        .iter()
        .map(|(_, name)| {
            Ok((*name, path(name).with_context(|| format!("cargo built no binary named {name}"))?))
        })
        .collect()
}

/// The static tracer for that architecture, as distributed.
pub(crate) fn tracer(arch: &str) -> Result<PathBuf> {
    let built = build(Target::of(arch)?)?;
    let (_, path) =
        built.into_iter().find(|(name, _)| *name == "tracer").context("tracer is not distributed")?;
    ensure!(elf::is_static(&fs::read(Path::new(&path))?), "{} needs a dynamic loader", path.display());
    Ok(path)
}

/// The version of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn file_name(binary: &str, arch: &str) -> String {
    format!("{binary}-{VERSION}-{arch}")
}

fn megabytes(bytes: usize) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a size to look at")]
    let megabytes = bytes as f64 / 1e6;
    format!("{megabytes:.1} MB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_named_alike() {
        for target in &TARGETS {
            assert_eq!(Target::of(target.arch).unwrap().triple, target.triple);
            assert_eq!(target.triple, format!("{}-unknown-linux-musl", target.arch));
            assert_eq!(target.component, format!("rust-std-{}", target.triple));
            let variable = target.triple.to_uppercase().replace('-', "_");
            assert_eq!(target.linker, format!("CARGO_TARGET_{variable}_LINKER"));
        }
    }

    #[test]
    fn other_architectures_are_refused() {
        let error = Target::of("riscv64").unwrap_err().to_string();
        assert_eq!(error, "nothing is built for riscv64: --arch takes x86_64 and aarch64");
    }

    #[test]
    fn sizes_are_rounded() {
        assert_eq!(megabytes(7_649_999), "7.6 MB");
        assert_eq!(file_name("tracer", "x86_64"), format!("tracer-{VERSION}-x86_64"));
    }
}
