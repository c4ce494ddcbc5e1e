//! Executables that a cargo command built, from what it says on stdout. Asking cargo is the one way that
//! holds with `CARGO_TARGET_DIR`, `build.target-dir`, `--target` and hashed test binaries alike.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process;

/// One executable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    /// The target's name, e.g. `tracer`.
    pub(crate) name: String,
    /// Whether it holds tests.
    pub(crate) test: bool,
    /// Where it is, absolute.
    pub(crate) path: PathBuf,
}

/// Runs `cargo`, which is a `build` or `test --no-run`, and collects the executables it made. Its diagnostics
/// appear on stderr as usual.
pub(crate) fn executables(cargo: &mut Command) -> Result<Vec<Executable>> {
    executables_with(cargo, &[])
}

/// As [`executables`] for a `cargo rustc`, with these flags for the compiler.
pub(crate) fn executables_with(cargo: &mut Command, flags: &[&str]) -> Result<Vec<Executable>> {
    let name = process::name(cargo);
    cargo.arg("--message-format=json-render-diagnostics");
    if !flags.is_empty() {
        cargo.arg("--").args(flags);
    }
    let mut child = cargo.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {name}"))?;
    let stdout = child.stdout.take().context("cargo's stdout is not a pipe")?;
    let mut found = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.with_context(|| format!("reading the output of {name}"))?;
        found.extend(parse(&line));
    }
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status})");
    }
    Ok(found)
}

/// Of what cargo built, the executable of this name.
pub(crate) fn named(built: Vec<Executable>, name: &str) -> Result<PathBuf> {
    let found = built.into_iter().find(|binary| binary.name == name);
    Ok(found.with_context(|| format!("cargo built no executable named {name}"))?.path)
}

/// The executable that one line of cargo's output announces.
fn parse(line: &str) -> Option<Executable> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    Some(Executable {
        name: message["target"]["name"].as_str()?.to_owned(),
        test: message["profile"]["test"].as_bool()?,
        path: PathBuf::from(message["executable"].as_str()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_executables_and_nothing_else() {
        let line = r#"{"reason":"compiler-artifact","target":{"kind":["bin"],"name":"tracer"},
            "profile":{"test":false},"executable":"/w/target/release/tracer"}"#;
        let path = PathBuf::from("/w/target/release/tracer");
        assert_eq!(parse(line), Some(Executable { name: "tracer".into(), test: false, path }));
        for line in [
            r#"{"reason":"compiler-artifact","target":{"name":"aya"},"profile":{"test":false},"executable":null}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "warning: not JSON",
            "",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
