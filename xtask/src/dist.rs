//! Release binaries that run on any Linux of their architecture: linked statically with musl, stripped. In `target/dist`
//! each platform has a directory of them, which the container image is made of, and each binary an archive, with the
//! archives' check sums beside them.
//!
//! `tracer` is all Rust, so that the linker and the C library that rustup brings suffice for other architectures, too.
//! `kubectl-tracer` has C code in its cryptography, for which a compiler is needed, but no C library.

use std::{
    env::{self, consts::ARCH},
    ffi::OsStr,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    archive, artifact, elf, layer,
    process::{self, cargo_stable, clean, quietly, root},
};

/// A binary that is distributed, of the package of that name.
struct Binary {
    package: &'static str,
    name: &'static str,
    /// Of the package, as cargo takes them.
    features: &'static str,
    /// Whether some of it is written in C.
    with_c: bool,
    /// Files of `deploy/` that stand beside it in its archive.
    with: &'static [&'static str],
}

const TRACER: Binary = Binary { package: "tracer", name: "tracer", features: "", with_c: false, with: &[] };
const KUBECTL_TRACER: Binary = Binary {
    package: "tracer",
    name: "kubectl-tracer",
    features: "kubectl",
    with_c: true,
    with: &[COMPLETION],
};

/// What kubectl runs to complete `kubectl tracer`.
pub(crate) const COMPLETION: &str = "kubectl_complete-tracer";

/// What is distributed. Each is built by itself: none has features for another's sake.
const BINARIES: [Binary; 2] = [TRACER, KUBECTL_TRACER];

/// What stands beside the binary in each archive.
pub(crate) const LICENCES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

/// The file with the archives' check sums.
pub(crate) const SUMS: &str = "SHA256SUMS";

/// What it is built for.
pub(crate) const TARGETS: [Target; 2] = [
    Target {
        arch: ARCHITECTURES[0],
        platform: "amd64",
        triple: "x86_64-unknown-linux-musl",
        linker: "CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER",
        gnu: "x86_64-linux-gnu",
    },
    Target {
        arch: ARCHITECTURES[1],
        platform: "arm64",
        triple: "aarch64-unknown-linux-musl",
        linker: "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER",
        gnu: "aarch64-linux-gnu",
    },
];

/// The architectures of [`TARGETS`], as Rust names them.
pub(crate) const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// One target of the compiler.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) arch: &'static str,
    /// The architecture as Debian, Kubernetes and container images name it, and so the files that are distributed.
    pub(crate) platform: &'static str,
    pub(crate) triple: &'static str,
    /// The variable that tells cargo its linker.
    linker: &'static str,
    /// What names of GNU's tools for it begin with.
    gnu: &'static str,
}

impl Target {
    /// The target for that architecture.
    pub(crate) fn of(arch: &str) -> Result<&'static Self> {
        TARGETS.iter().find(|target| target.arch == arch).with_context(|| {
            format!("nothing is built for {arch}: --arch takes {}", ARCHITECTURES.join(" and "))
        })
    }

    /// That of this machine.
    pub(crate) fn here() -> Result<&'static Self> {
        Self::of(ARCH)
    }

    /// Has `cargo` build for it. The machine's own linker links for itself alone, that of the toolchain for others.
    pub(crate) fn select<'a>(&self, cargo: &'a mut Command) -> &'a mut Command {
        if self.arch != ARCH {
            cargo.env(self.linker, "rust-lld");
        }
        cargo.args(["--target", self.triple])
    }

    /// Has `cargo` compile C for it with GNU's compiler for another C library. So nothing may be made of that library's
    /// headers but the standard's own functions: not those that check lengths, which musl does not have.
    pub(crate) fn compile_c(&self, cargo: &mut Command) {
        for (name, value) in self.c_variables() {
            // Whoever has a compiler for musl may name it.
            if env::var_os(&name).is_none() {
                cargo.env(name, value);
            }
        }
    }

    fn c_variables(&self) -> [(String, String); 3] {
        let triple = self.triple.replace('-', "_");
        let tool = |name: &str| {
            if self.arch == ARCH { name.to_owned() } else { format!("{}-{name}", self.gnu) }
        };
        [
            (format!("CC_{triple}"), tool("gcc")),
            (format!("AR_{triple}"), tool("ar")),
            (format!("CFLAGS_{triple}"), "-U_FORTIFY_SOURCE".to_owned()),
        ]
    }

    /// Of what is distributed, the directory with the binaries for it. `deploy/Dockerfile` copies from there.
    pub(crate) fn directory(&self) -> String {
        format!("linux-{}", self.platform)
    }
}

/// Builds for each of `architectures`, and says what was made.
pub(crate) fn run(architectures: &[String]) -> Result<String> {
    let targets = architectures.iter().map(|arch| Target::of(arch)).collect::<Result<Vec<_>>>()?;
    let dist = directory();
    let mut said = String::new();
    let mut archives = Vec::new();
    for target in targets {
        for binary in &BINARIES {
            let path = put(binary, target, &dist)?;
            let archive = archive_name(binary.name, VERSION, target);
            let beside = binary.with.iter().map(|name| root().join("deploy").join(name));
            let licences = LICENCES.iter().map(|name| root().join(name));
            let files: Vec<PathBuf> = [path.clone()].into_iter().chain(beside).chain(licences).collect();
            archive::write(&dist.join(&archive), &files.iter().collect::<Vec<_>>())?;
            for file in [&path, &dist.join(&archive)] {
                writeln!(said, "{}  {}", file.display(), megabytes(fs::metadata(file)?.len()))?;
            }
            archives.push(archive);
        }
    }
    let sums = quietly(clean(OsStr::new("sha256sum")).args(&archives).current_dir(&dist))?;
    fs::write(dist.join(SUMS), sums).with_context(|| format!("writing to {}", dist.display()))?;
    Ok(said)
}

/// Where everything is that is distributed.
pub(crate) fn directory() -> PathBuf {
    process::target_dir().join("dist")
}

/// Builds a binary, looks whether it is what it should be, and puts it into the target's directory.
fn put(binary: &Binary, target: &Target, dist: &Path) -> Result<PathBuf> {
    let path = build(binary, target)?;
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(elf::is_static(&bytes), "{} needs a dynamic loader", path.display());
    ensure!(elf::architecture(&bytes) == Some(target.arch), "{} is not for {}", path.display(), target.arch);
    if target.arch == ARCH {
        let version = quietly(clean(path.as_os_str()).arg("--version"))?;
        ensure!(version.contains(VERSION), "{} says that it is {}", path.display(), version.trim());
    }
    let directory = dist.join(target.directory());
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let file = directory.join(binary.name);
    fs::copy(&path, &file).with_context(|| format!("writing {}", file.display()))?;
    if binary.name == TRACER.name {
        layer::write(&file, &directory.join(layer::NAME))?;
    }
    Ok(file)
}

/// Builds one binary for one target: its file.
fn build(binary: &Binary, target: &Target) -> Result<PathBuf> {
    let mut command = cargo_stable("build");
    command.args(["--release", "--package", binary.package, "--bin", binary.name]);
    command.args(["--features", binary.features]);
    if binary.with_c {
        target.compile_c(&mut command);
    }
    artifact::named(artifact::executables(target.select(&mut command))?, binary.name)
}

/// The static tracer for that architecture, as distributed.
pub(crate) fn tracer(arch: &str) -> Result<PathBuf> {
    let path = build(&TRACER, Target::of(arch)?)?;
    ensure!(elf::is_static(&fs::read(Path::new(&path))?), "{} needs a dynamic loader", path.display());
    Ok(path)
}

/// Puts tracer alone, without its archive, where the image takes it from: that directory.
pub(crate) fn for_image(target: &Target) -> Result<PathBuf> {
    let dist = directory();
    put(&TRACER, target, &dist)?;
    Ok(dist)
}

/// Builds everything for that target: the binaries.
pub(crate) fn for_package(target: &Target) -> Result<Vec<PathBuf>> {
    BINARIES.iter().map(|binary| put(binary, target, &directory())).collect()
}

/// The version of the workspace.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The archive of a binary.
pub(crate) fn archive_name(binary: &str, version: &str, target: &Target) -> String {
    format!("{binary}-{version}-{}.tar.gz", target.directory())
}

fn megabytes(bytes: u64) -> String {
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
            let variable = target.triple.to_uppercase().replace('-', "_");
            assert_eq!(target.linker, format!("CARGO_TARGET_{variable}_LINKER"));
            assert_eq!(target.gnu, format!("{}-linux-gnu", target.arch));
        }
    }

    #[test]
    fn another_architecture_has_tools_of_its_own_for_c() {
        for target in &TARGETS {
            let [(cc, compiler), (ar, archiver), (_, flags)] = target.c_variables();
            assert_eq!(cc, format!("CC_{}_unknown_linux_musl", target.arch));
            assert_eq!(ar, format!("AR_{}_unknown_linux_musl", target.arch));
            let prefix =
                if target.arch == ARCH { String::new() } else { format!("{}-linux-gnu-", target.arch) };
            assert_eq!((compiler, archiver), (format!("{prefix}gcc"), format!("{prefix}ar")));
            assert_eq!(flags, "-U_FORTIFY_SOURCE");
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
        assert_eq!(
            archive_name("kubectl-tracer", "1.2.3", &TARGETS[1]),
            "kubectl-tracer-1.2.3-linux-arm64.tar.gz"
        );
    }

    #[test]
    fn licences_are_there() {
        for name in LICENCES {
            assert!(root().join(name).is_file(), "{name}");
        }
    }

    #[test]
    fn what_kubectl_runs_to_complete_can_be_executed() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = root().join("deploy").join(COMPLETION);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o111, 0o111);
    }
}
