//! Manual pages and completions. The binaries write them themselves, from the definitions of their command lines, which
//! this crate could not compile.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build,
    process::{clean, quietly, target_dir},
};

/// Shells with completions in packages: the name, and the file that it looks for, `{}` being the command.
const SHELLS: [(&str, &str); 3] = [("bash", "{}"), ("zsh", "_{}"), ("fish", "{}.fish")];

/// Builds the binaries and has them write their pages into `target/man`: that directory.
pub(crate) fn run() -> Result<PathBuf> {
    let directory = target_dir().join("man");
    pages(&[build::tracer_binary(false)?, build::kubectl_tracer(false)?], &directory)?;
    Ok(directory)
}

/// Has these binaries write their pages into a directory that is new, or replaced.
pub(crate) fn pages(binaries: &[PathBuf], directory: &Path) -> Result<()> {
    empty(directory)?;
    for binary in binaries {
        quietly(clean(binary.as_os_str()).arg("man").arg(directory))?;
    }
    Ok(())
}

/// Has these binaries write their completions into a directory that is new, or replaced: one below it for each shell.
pub(crate) fn completions(binaries: &[PathBuf], directory: &Path) -> Result<()> {
    empty(directory)?;
    for (shell, file) in SHELLS {
        let below = directory.join(shell);
        fs::create_dir(&below).with_context(|| format!("making {}", below.display()))?;
        for binary in binaries {
            let name = binary.file_name().and_then(|name| name.to_str()).context("a binary has a name")?;
            let script = quietly(clean(binary.as_os_str()).args(["completions", shell]))?;
            ensure!(!script.is_empty(), "{name} has no completions for {shell}");
            fs::write(below.join(file.replace("{}", name)), script)?;
        }
    }
    Ok(())
}

fn empty(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("removing {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))
}
