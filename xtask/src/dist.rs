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

use anyhow::{Context as _, Result, bail, ensure};
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
                println!("{}  {} kB", file.display(), fs::metadata(&file)?.len() / 1000);
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
        if let Some(image) = env::var_os("TRACER_IMAGE").filter(|_| name == KUBECTL_TRACER.name) {
            let objects = quietly(cmd!(sh, "{built} deploy --dry-run --output yaml"))?;
            let image = image.to_string_lossy();
            ensure!(objects.contains(&*image), "{} does not deploy {image}", built.display());
        }
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

/// The template of the manifest for krew: what stands between @ is filled in.
const KREW_TEMPLATE: &str = "deploy/krew/tracer.yaml";

/// `cargo xtask krew`: the manifest of this version, with the check sums of the archives.
pub(crate) fn krew_manifest() -> Result<String> {
    let template = fs::read_to_string(root().join(KREW_TEMPLATE))
        .with_context(|| format!("cannot read {KREW_TEMPLATE}"))?;
    let file = directory().join(SUMS);
    let sums = fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}: `cargo xtask dist` writes it", file.display()))?;
    fill_in(&template, VERSION, &sums)
}

/// Fills in the version and the check sums, which are lines as sha256sum writes them. The comment, which says that this
/// is a template, is removed.
fn fill_in(template: &str, version: &str, sums: &str) -> Result<String> {
    let mut manifest: String =
        template.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    manifest = manifest.replace("@VERSION@", version);
    for target in &TARGETS {
        let archive = archive_name("kubectl-tracer", version, target);
        let sum = sums.lines().find_map(|line| line.strip_suffix(&format!("  {archive}")));
        let sum = sum.with_context(|| format!("no check sum of {archive}: `cargo xtask dist` makes it"))?;
        ensure!(sum.len() == 64, "{sum} is not a SHA-256 check sum");
        manifest = manifest.replace(&format!("@SHA256_{}@", target.platform.to_uppercase()), sum);
    }
    if let Some(line) = manifest.lines().find(|line| line.contains('@')) {
        bail!("{KREW_TEMPLATE} has a placeholder that is not filled in: {}", line.trim());
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use serde_yaml_ng::Value;

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

    #[test]
    fn filled_in_it_is_what_krew_accepts() {
        let sum = |digit: &str, platform| {
            format!("{}  kubectl-tracer-1.2.3-linux-{platform}.tar.gz\n", digit.repeat(64))
        };
        let sums = sum("a", "amd64") + &sum("b", "arm64");
        let template = include_str!("../../deploy/krew/tracer.yaml");
        let manifest = fill_in(template, "1.2.3", &sums).unwrap();
        let spec = &serde_yaml_ng::from_str::<Value>(&manifest).unwrap()["spec"];
        assert!(spec["shortDescription"].as_str().unwrap().len() <= 50, "krew's index refuses more");
        let platforms = spec["platforms"].as_sequence().unwrap();
        assert_eq!(platforms.len(), TARGETS.len());
        for ((platform, target), digit) in platforms.iter().zip(&TARGETS).zip(["a", "b"]) {
            assert_eq!(platform["selector"]["matchLabels"]["arch"], target.platform);
            assert_eq!(platform["sha256"], digit.repeat(64).as_str());
            let archive = archive_name("kubectl-tracer", "1.2.3", target);
            assert!(platform["uri"].as_str().unwrap().ends_with(&format!("/v1.2.3/{archive}")));
            let files = platform["files"].as_sequence().unwrap();
            let files: Vec<_> = files.iter().map(|file| file["from"].as_str().unwrap()).collect();
            assert_eq!(files[0], platform["bin"].as_str().unwrap());
            assert_eq!(files[1..], [&[COMPLETION][..], &LICENCES].concat());
        }
        assert!(fill_in(template, "1.2.4", &sums).is_err(), "no archive of that version");
        assert!(fill_in("a: \"@OTHER@\"", "1.2.3", &sums).is_err());
    }
}
