//! Starting other programs: in a clean environment, and as root where that is needed.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
    sync::{Arc, LazyLock, atomic::AtomicBool},
};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use xshell::{Cmd, Shell, cmd};

/// Where root's programs are: the `PATH` of other users often lacks them.
const SYSTEM_DIRS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/bin"];

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let package =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    package.parent().map_or_else(|| package.clone(), Path::to_path_buf)
});

/// The top of the workspace that `cargo xtask` was started in. Not the one that was built: clones that share a
/// target directory share the binary, too.
pub(crate) fn root() -> &'static Path {
    &ROOT
}

/// Where cargo builds, and where xtask writes its results.
pub(crate) fn target_dir() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// Removes the variables that would force this program's own toolchain on every other cargo, and adds the directories
/// of root's programs to `PATH`. Call it before there are threads.
pub(crate) fn clean_environment() {
    LazyLock::force(&ROOT);
    let mut path = env::var_os("PATH").unwrap_or_default();
    for dir in SYSTEM_DIRS {
        path.push(":");
        path.push(dir);
    }
    let names = env::vars_os().map(|(name, _)| name);
    let own: Vec<_> = names.filter(|name| name.to_str().is_some_and(names_own_toolchain)).collect();
    // SAFETY: this program has one thread, so nobody reads the environment meanwhile.
    unsafe {
        for name in own {
            env::remove_var(name);
        }
        env::set_var("PATH", path);
    }
}

/// Whether cargo or rustup set that variable for xtask itself. The user's own settings (`CARGO_HOME`, `RUSTFLAGS`,
/// `CARGO_TARGET_DIR`, …) stay.
fn names_own_toolchain(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "CARGO",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "RUSTC",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
        "RUSTUP_TOOLCHAIN_SOURCE",
    ];
    const PREFIXES: [&str; 4] = ["CARGO_BIN_", "CARGO_CFG_", "CARGO_MANIFEST_", "CARGO_PKG_"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A shell at the top of the workspace.
pub(crate) fn shell() -> Result<Shell> {
    let sh = Shell::new()?;
    sh.change_dir(root());
    Ok(sh)
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The program as root: directly, or through sudo, which may ask for a password. As sudo drops the environment,
/// `variables` holds what the program needs of it.
pub(crate) fn as_root<'a>(sh: &'a Shell, program: &Path, variables: &[(&str, OsString)]) -> Result<Cmd<'a>> {
    if is_root() {
        return Ok(sh.cmd(program).envs(variables.iter().cloned()).quiet());
    }
    if which::which("sudo").is_err() {
        bail!("{} needs root, and there is no sudo: run this as root", program.display());
    }
    let assignments = variables.iter().map(|(name, value)| {
        let mut assignment = OsString::from(name);
        assignment.push("=");
        assignment.push(value);
        assignment
    });
    Ok(cmd!(sh, "sudo env {assignments...} {program}").quiet())
}

/// Those of the named variables that are set.
pub(crate) fn inherited(names: &[&'static str]) -> Vec<(&'static str, OsString)> {
    names.iter().filter_map(|&name| Some((name, env::var_os(name)?))).collect()
}

/// Replaces this process, so that signals, standard streams and the exit code are those of the command.
pub(crate) fn replace_with(command: Cmd<'_>) -> Result<ExitCode> {
    let name = command.to_string();
    Err(Command::from(command).exec()).with_context(|| format!("cannot start {name}"))
}

/// Runs a command without showing its output: returns its stdout, or an error with the last line of its stderr.
pub(crate) fn quietly(command: Cmd<'_>) -> Result<String> {
    let name = command.to_string();
    let output = command.quiet().ignore_status().output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let last = stderr.lines().rfind(|line| !line.is_empty()).unwrap_or("no error message");
        bail!("{name} failed ({}): {last}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The exit code of another program as our own.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    ExitCode::from(code)
}

/// Survives Ctrl-C and the like, for a child that gets them as well and cleans up.
pub(crate) fn ignore_interrupts() -> Result<()> {
    let noted = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&noted))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quiet_failure_shows_the_last_line() {
        let sh = shell().unwrap();
        assert_eq!(quietly(cmd!(sh, "sh -c 'echo fine; echo warning >&2'")).unwrap(), "fine\n");
        let error = quietly(cmd!(sh, "sh -c 'echo first >&2; echo last >&2; echo >&2; exit 3'")).unwrap_err();
        assert!(error.to_string().ends_with("failed (exit status: 3): last"), "{error}");
    }
}
