//! Starting other programs: with the right toolchain, as root where that is needed.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::pins;

/// Where root's programs are: an ordinary user's `PATH` often lacks them.
const SYSTEM_DIRS: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/bin"];

/// The top of the workspace that `cargo xtask` was started in. Not that of the build: clones that share a target
/// directory share the binary, too.
pub(crate) fn root() -> PathBuf {
    let mut here =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.pop();
    here
}

/// Where builds go, and what is made of them.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// `cargo` of that toolchain, run at the top of the workspace.
pub(crate) fn cargo(toolchain: &str) -> Command {
    let mut command = clean(OsStr::new("rustup"));
    command.args(["run", toolchain, "cargo"]).current_dir(root());
    command
}

/// `cargo COMMAND` of the stable toolchain, for what may build the BPF object on its way: the cargo that
/// `tracer/build.rs` starts then says only what is wrong. Without that, all it says comes back as warnings, at
/// every build anew.
pub(crate) fn cargo_stable(subcommand: &str) -> Command {
    let mut command = cargo(pins::STABLE);
    command.args([subcommand, "--config", "env.CARGO_TERM_QUIET=\"true\""]);
    command
}

/// A command without the variables by which `cargo xtask` would pin its own toolchain on it.
pub(crate) fn clean(program: &OsStr) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(pins_toolchain) {
            command.env_remove(name);
        }
    }
    command
}

/// Whether cargo or rustup set that variable for `xtask` itself. What people set (`CARGO_HOME`,
/// `CARGO_TARGET_DIR`, `RUSTFLAGS`, `RUSTC_WRAPPER`) stays.
fn pins_toolchain(name: &str) -> bool {
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

/// That program as root: itself, or through sudo, which may ask for a password. sudo drops the environment,
/// so what the program needs of it is named in `variables`.
pub(crate) fn as_root(program: &Path, variables: &[(&str, OsString)]) -> Result<Command> {
    if is_root() {
        let mut command = clean(program.as_os_str());
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        return Ok(command);
    }
    let Some(sudo) = find("sudo") else {
        bail!("{} needs root, and there is no sudo: run this as root", program.display());
    };
    let mut command = clean(sudo.as_os_str());
    command.arg("env");
    for (name, value) in variables {
        let mut assignment = OsString::from(name);
        assignment.push("=");
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    Ok(command)
}

/// Has the kernel kill the command when this process ends, however it does.
pub(crate) fn end_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    let parent = rustix::process::getpid();
    let bind = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have ended before.
        if rustix::process::getppid() == Some(parent) {
            Ok(())
        } else {
            Err(std::io::Error::other("too late"))
        }
    };
    // SAFETY: runs after the fork, and only makes system calls.
    unsafe { command.pre_exec(bind) };
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs it to its end; a failure names what it was.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {}", name(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", name(command));
    }
    Ok(())
}

/// Runs it to its end without showing what it says: its standard output, or an error that ends with the last it
/// said.
pub(crate) fn quietly(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("starting {}", name(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.is_empty()).unwrap_or("without a word");
        bail!("{} failed ({}): {last}", name(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as a person would type it.
pub(crate) fn name(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}

/// The program of that name in `PATH` or where root's programs are.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_DIRS.iter().map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_toolchain_is_dropped_and_settings_stay() {
        for name in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(pins_toolchain(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_TERM_COLOR", "RUSTUP_HOME", "RUSTFLAGS", "PATH"]
        {
            assert!(!pins_toolchain(name), "{name}");
        }
    }

    #[test]
    fn names_read_as_typed() {
        assert_eq!(name(Command::new("cargo").args(["build", "--release"])), "cargo build --release");
    }

    #[test]
    fn quiet_failure_says_the_last_line() {
        let shell = |script| quietly(Command::new("sh").args(["-c", script]));
        assert_eq!(shell("echo well; echo warning >&2").unwrap(), "well\n");
        let error = shell("echo first >&2; echo last >&2; echo >&2; exit 3").unwrap_err().to_string();
        assert!(error.ends_with("failed (exit status: 3): last"), "{error}");
    }

    /// A shell starts one that is to end with it, and is killed.
    #[test]
    fn what_is_bound_to_its_parent_ends_with_it() {
        if let Ok(file) = env::var("XTASK_TEST_PARENT") {
            let mut sleep = Command::new("sleep");
            end_with_parent(sleep.arg("1000"));
            let child = sleep.spawn().unwrap();
            std::fs::write(file, child.id().to_string()).unwrap();
            std::process::abort();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut this = Command::new(env::current_exe().unwrap());
        this.args(["--exact", "process::tests::what_is_bound_to_its_parent_ends_with_it"]);
        // Not through pipes, which its child would hold open.
        let this = this.env("XTASK_TEST_PARENT", file.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = this.status().unwrap();
        assert!(!status.success());
        let child = std::fs::read_to_string(file.path()).unwrap();
        // Nobody but init is left to reap it.
        let runs = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, state)| !state.trim_start().starts_with(['Z', 'X']))
        };
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while runs() {
            assert!(std::time::Instant::now() < end, "process {child} still runs");
            std::thread::yield_now();
        }
    }

    #[test]
    fn finds_programs_only() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
        assert!(!is_executable(Path::new("/usr")));
    }
}
