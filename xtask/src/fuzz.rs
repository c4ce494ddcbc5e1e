//! `cargo xtask fuzz`: cargo-fuzz builds the targets in `tracer/fuzz`, [`SCRIPT`] runs each of them.

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Result, ensure};
use xshell::{Shell, cmd};

use crate::{
    pins::NIGHTLY,
    process::{exit_code, root, target_dir},
    setup::{self, Scope},
};

const SCRIPT: &str = include_str!("fuzz.sh");

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these targets: the files in `tracer/fuzz/fuzz_targets`
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Run each target for this long
    #[arg(long, value_name = "N", default_value_t = 1800, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Run this many targets at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
}

/// Fuzzes and prints a table. Findings are failures.
pub(crate) fn run(sh: &Shell, options: &Options) -> Result<ExitCode> {
    let package = root().join("tracer/fuzz");
    let files = sh.read_dir(package.join("fuzz_targets"))?;
    let names = files.iter().filter_map(|file| file.file_name()?.to_str()?.strip_suffix(".rs"));
    let available: Vec<String> = names.map(str::to_owned).collect();
    for name in &options.targets {
        let all = available.join(", ");
        ensure!(available.contains(name), "unknown fuzz target {name:?}; expected one of: {all}");
    }
    let targets = if options.targets.is_empty() { &available } else { &options.targets };
    setup::ensure(sh, Scope::Fuzz)?;

    // The targets are a workspace of their own. They get the versions that tracer is built with.
    let (lock, own) = (root().join("Cargo.lock"), package.join("Cargo.lock"));
    let changed = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    if changed(&lock) > changed(&own) {
        fs::copy(&lock, &own)?;
    }
    let data = target_dir().join("fuzz");
    let triple = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let build = data.join("build");
    let _inside = sh.push_dir(root().join("tracer"));
    let command = cmd!(sh, "rustup run {NIGHTLY} cargo fuzz build --target {triple} --target-dir {build}");
    // See `cargo::cargo`: cargo-fuzz takes no `--config`.
    command.env("CARGO_TERM_QUIET", "true").quiet().run()?;

    sh.change_dir(&package);
    let programs = build.join(triple).join("release");
    let [seconds, jobs] = [options.seconds.to_string(), options.jobs.to_string()];
    let script = cmd!(sh, "sh -c {SCRIPT} fuzz {programs} {data} {seconds} {jobs} {targets...}").quiet();
    Ok(exit_code(Command::from(script).status()?))
}

/// cargo-fuzz builds what the manifest lists, not what is in the directory.
#[test]
fn every_target_is_in_the_manifest() {
    let package = root().join("tracer/fuzz");
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    for target in crate::process::shell().unwrap().read_dir(package.join("fuzz_targets")).unwrap() {
        let name = target.file_name().unwrap().to_str().unwrap();
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}\"")), "{name}");
    }
}
