//! Release binaries that run on any Linux of their architecture: linked statically with musl, stripped.
//!
//! In `target/dist` each platform has a directory with its binaries, and each binary an archive; check sums of the
//! archives are beside them. `tracer` is all Rust, so that the linker and the C library that rustup brings suffice for
//! other architectures, too. The cryptography of `kubectl-tracer` has C code, which takes a compiler, but no C library.

use std::{
    env::{self, consts::ARCH},
    fs,
    path::PathBuf,
};

use anyhow::{Context as _, Result, ensure};
use xshell::{Cmd, Shell, cmd};

use crate::{
    archive, cargo, elf,
    process::{quietly, root, target_dir},
    setup::{self, Scope},
};

/// Version of the workspace.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A binary of the package `tracer` that is distributed. Each is built by itself, without the other's features.
struct Binary {
    name: &'static str,
    features: &'static str,
    /// Files of `deploy/` beside it in its archive.
    beside: &'static [&'static str],
}

const TRACER: Binary = Binary { name: "tracer", features: "", beside: &[] };
const KUBECTL_TRACER: Binary = Binary { name: "kubectl-tracer", features: "kubectl", beside: &[COMPLETION] };

/// The program that kubectl runs to complete `kubectl tracer`.
pub(crate) const COMPLETION: &str = "kubectl_complete-tracer";
/// Part of each archive.
pub(crate) const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];
/// The file with the check sums.
pub(crate) const SUMS: &str = "SHA256SUMS";

/// What is built for, as Rust names it.
pub(crate) const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];
pub(crate) const TARGETS: [Target; 2] = [
    Target { arch: ARCHITECTURES[0], triple: "x86_64-unknown-linux-musl", platform: "amd64" },
    Target { arch: ARCHITECTURES[1], triple: "aarch64-unknown-linux-musl", platform: "arm64" },
];

/// One target of the compiler.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) arch: &'static str,
    pub(crate) triple: &'static str,
    /// The architecture as Debian, Kubernetes and container images name it.
    pub(crate) platform: &'static str,
}

impl Target {
    pub(crate) fn of(arch: &str) -> Result<&'static Self> {
        let found = TARGETS.iter().find(|target| target.arch == arch);
        found.with_context(|| {
            format!("nothing is built for {arch}; expected one of: {}", ARCHITECTURES.join(", "))
        })
    }

    pub(crate) fn here() -> Result<&'static Self> {
        Self::of(ARCH)
    }

    /// Makes `cargo` build for this target.
    ///
    /// The machine's own linker links for itself alone, the toolchain's for others. C is compiled by GNU's compiler with
    /// the headers of another C library, so it may use the standard's functions only: not those that check lengths,
    /// which musl lacks. A compiler for musl can be named by the usual variables.
    pub(crate) fn select<'a>(&self, mut cargo: Cmd<'a>) -> Cmd<'a> {
        let (triple, arch) = (self.triple.replace('-', "_"), self.arch);
        let prefix = if arch == ARCH { String::new() } else { format!("{arch}-linux-gnu-") };
        let mut variables = vec![
            (format!("CC_{triple}"), format!("{prefix}gcc")),
            (format!("AR_{triple}"), format!("{prefix}ar")),
            (format!("CFLAGS_{triple}"), "-U_FORTIFY_SOURCE".to_owned()),
        ];
        if arch != ARCH {
            let name = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase());
            variables.push((name, "rust-lld".to_owned()));
        }
        for (name, value) in variables {
            if env::var_os(&name).is_none() {
                cargo = cargo.env(name, value);
            }
        }
        cargo.args(["--target", self.triple])
    }

    /// The directory with the binaries. `deploy/Dockerfile` copies from there.
    fn directory(&self) -> String {
        format!("linux-{}", self.platform)
    }
}

/// `cargo xtask dist`: builds for each of these architectures, and lists what was made.
pub(crate) fn run(sh: &Shell, architectures: &[String]) -> Result<()> {
    setup::ensure(sh, Scope::Dist)?;
    let dist = directory();
    let mut archives = Vec::new();
    for arch in architectures {
        let target = Target::of(arch)?;
        for binary in [TRACER, KUBECTL_TRACER] {
            let path = build(sh, &binary, target)?;
            let archive = archive_name(binary.name, VERSION, target);
            let mut files = vec![path.clone()];
            files.extend(binary.beside.iter().map(|name| root().join("deploy").join(name)));
            files.extend(LICENCES.map(|name| root().join(name)));
            archive::write(&dist.join(&archive), &files, archive::commit_time(sh))?;
            for file in [path, dist.join(&archive)] {
                #[expect(clippy::cast_precision_loss, reason = "a size to look at")]
                let megabytes = fs::metadata(&file)?.len() as f64 / 1e6;
                println!("{}  {megabytes:.1} MB", file.display());
            }
            archives.push(archive);
        }
    }
    let _inside = sh.push_dir(&dist);
    fs::write(dist.join(SUMS), quietly(cmd!(sh, "sha256sum {archives...}"))?)?;
    Ok(())
}

/// The directory of everything that is distributed.
pub(crate) fn directory() -> PathBuf {
    target_dir().join("dist")
}

/// Builds all binaries for that target into its directory.
pub(crate) fn build_all(sh: &Shell, target: &Target) -> Result<Vec<PathBuf>> {
    [TRACER, KUBECTL_TRACER].iter().map(|binary| build(sh, binary, target)).collect()
}

/// The static tracer for that target, as distributed.
pub(crate) fn tracer(sh: &Shell, target: &Target) -> Result<PathBuf> {
    build(sh, &TRACER, target)
}

/// Builds a binary, checks that it is what it should be, and copies it into the target's directory.
fn build(sh: &Shell, binary: &Binary, target: &Target) -> Result<PathBuf> {
    let Binary { name, features, .. } = *binary;
    let arguments = ["--release", "--package", "tracer", "--bin", name, "--features", features];
    let command = target.select(cargo::building(sh, "build").args(arguments));
    let built = cargo::program(&cargo::executables(command)?, name)?;

    let bytes = fs::read(&built)?;
    ensure!(elf::is_static(&bytes), "{} needs a dynamic loader", built.display());
    ensure!(elf::architecture(&bytes) == Some(target.arch), "{} is not for {}", built.display(), target.arch);
    if target.arch == ARCH {
        let version = quietly(cmd!(sh, "{built} --version"))?;
        ensure!(version.contains(VERSION), "{} reports version {}", built.display(), version.trim());
    }

    let directory = directory().join(target.directory());
    fs::create_dir_all(&directory)?;
    let file = directory.join(name);
    fs::copy(&built, &file).with_context(|| format!("cannot write {}", file.display()))?;
    if name == TRACER.name {
        let layer = directory.join(archive::IMAGE_LAYER);
        archive::write_image_layer(&file, &layer, archive::commit_time(sh))?;
    }
    Ok(file)
}

/// Name of the archive of a binary.
pub(crate) fn archive_name(binary: &str, version: &str, target: &Target) -> String {
    format!("{binary}-{version}-{}.tar.gz", target.directory())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_archives_are_there() {
        use std::os::unix::fs::PermissionsExt as _;
        for name in LICENCES {
            assert!(root().join(name).is_file(), "{name}");
        }
        let completion = fs::metadata(root().join("deploy").join(COMPLETION)).unwrap();
        assert_eq!(completion.permissions().mode() & 0o111, 0o111, "kubectl executes it");
    }
}
