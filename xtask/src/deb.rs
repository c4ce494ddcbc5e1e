//! The Debian package, of the static binaries, and the manual pages. `tracer/Cargo.toml` lists the package's content for
//! cargo-deb; [`SCRIPT`] puts generated files beside the binaries, where cargo-deb finds them by paths below
//! `target/release`.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::{
    archive, cargo,
    dist::{self, Target, VERSION},
    pins::STABLE,
    process::{quietly, root, target_dir},
    setup::{self, Scope},
};

const SCRIPT: &str = include_str!("deb.sh");

/// `cargo xtask man`: writes the manual pages into `target/man`.
pub(crate) fn man(sh: &Shell) -> Result<()> {
    setup::ensure(sh, Scope::Man)?;
    let build = cargo::building(sh, "build").args(["--package", "tracer", "--features", "kubectl", "--bins"]);
    let built = cargo::executables(build)?;
    let binaries = [cargo::program(&built, "tracer")?, cargo::program(&built, "kubectl-tracer")?];
    let directory = target_dir().join("man");
    generate(sh, &["man".into(), directory.clone().into()], &binaries)?;
    println!("{}", directory.display());
    Ok(())
}

/// `cargo xtask deb`: builds the package for an architecture into `target/dist`. Pages and completions are the same for all.
pub(crate) fn run(sh: &Shell, arch: &str) -> Result<()> {
    setup::ensure(sh, Scope::Deb)?;
    let (target, here) = (Target::of(arch)?, Target::here()?);
    if target.arch != here.arch {
        setup::ensure(sh, Scope::Dist)?;
        dist::build_all(sh, target)?;
    }
    let binaries = dist::build_all(sh, here)?;
    let generated = target_dir().join(target.triple).join("release/package");
    let manifest = fs::read_to_string(root().join("tracer/Cargo.toml"))?;
    let maintainer = maintainer(&manifest).context("tracer/Cargo.toml names no maintainer of the package")?;
    let time = archive::commit_time(sh).to_string();
    let arguments =
        ["package".into(), generated.into(), VERSION.into(), maintainer.into(), time.clone().into()];
    generate(sh, &arguments, &binaries)?;

    let (triple, output) = (target.triple, dist::directory().join(""));
    let deb = cmd!(
        sh,
        "rustup run {STABLE} cargo deb --quiet --package tracer --no-build --no-strip --target {triple} --output {output}"
    );
    print!("{}", quietly(deb.env("SOURCE_DATE_EPOCH", time))?);
    Ok(())
}

fn generate(sh: &Shell, arguments: &[OsString], binaries: &[PathBuf]) -> Result<()> {
    let scratch = tempfile::NamedTempFile::new()?;
    fs::write(&scratch, SCRIPT)?;
    let script: &Path = scratch.path();
    quietly(cmd!(sh, "sh {script} {arguments...} -- {binaries...}")).map(drop)
}

fn maintainer(manifest: &str) -> Option<&str> {
    manifest.lines().find_map(|line| line.strip_prefix("maintainer = \"")?.strip_suffix('"'))
}

/// cargo-deb looks in the directory of the target only for paths that begin with `target/release`.
#[test]
fn every_source_of_the_package_is_where_it_is_looked_for() {
    let manifest = include_str!("../../tracer/Cargo.toml");
    assert!(maintainer(manifest).unwrap().ends_with('>'));
    let sources = manifest.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next());
    for source in sources {
        let is_file = source.starts_with("../") && root().join("tracer").join(source).is_file();
        assert!(is_file || source.starts_with("target/release/"), "{source}");
    }
}
