//! Manual pages and completions. The binaries write them, from the definitions of their command lines.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use xshell::{Shell, cmd};

use crate::{
    cargo,
    process::{quietly, target_dir},
    setup::{self, Scope},
};

/// Shells with completions in packages, and the name of the file that each looks for, `{}` being the command.
const SHELLS: [(&str, &str); 3] = [("bash", "{}"), ("zsh", "_{}"), ("fish", "{}.fish")];

/// `cargo xtask man`: writes the pages into `target/man`.
pub(crate) fn run(sh: &Shell) -> Result<()> {
    setup::ensure(sh, Scope::Man)?;
    let build = cargo::building(sh, "build").args(["--package", "tracer", "--features", "kubectl", "--bins"]);
    let built = cargo::executables(build)?;
    let directory = target_dir().join("man");
    pages(sh, &[cargo::program(&built, "tracer")?, cargo::program(&built, "kubectl-tracer")?], &directory)?;
    println!("{}", directory.display());
    Ok(())
}

/// Replaces `directory` with one that has the pages of these binaries.
pub(crate) fn pages(sh: &Shell, binaries: &[PathBuf], directory: &Path) -> Result<()> {
    sh.remove_path(directory)?;
    sh.create_dir(directory)?;
    binaries.iter().try_for_each(|binary| quietly(cmd!(sh, "{binary} man {directory}")).map(drop))
}

/// Replaces `directory` with one that has a directory for each shell, with the completions of these binaries.
pub(crate) fn completions(sh: &Shell, binaries: &[PathBuf], directory: &Path) -> Result<()> {
    sh.remove_path(directory)?;
    for (shell, file) in SHELLS {
        sh.create_dir(directory.join(shell))?;
        for binary in binaries {
            let name = binary.file_name().and_then(|name| name.to_str()).context("a binary has a name")?;
            let script = quietly(cmd!(sh, "{binary} completions {shell}"))?;
            ensure!(!script.is_empty(), "{name} has no completions for {shell}");
            fs::write(directory.join(shell).join(file.replace("{}", name)), script)?;
        }
    }
    Ok(())
}
