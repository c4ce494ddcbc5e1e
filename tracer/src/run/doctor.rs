//! `tracer doctor`, and the checks before a run: what this kernel and this user permit, and how to fix what they do
//! not.

use std::{
    fs,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use aya::maps::MapType;
use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    thread::CapabilitySet,
};
use tracer_common::kinds::{self, Kind};
use tracing::warn;

use crate::{
    bpf::{
        Bpf, EventFilter, Options, Taken,
        btf::{KERNEL_BTF, KernelTypes},
        features::{locked_down, parse_release, release},
        preemption, sys_exit_event,
    },
    cri,
    discovery::existing_state_roots,
    error::Unsupported,
    sys::{capabilities, host_root},
};

/// The oldest supported kernel, which introduced the BPF ring buffer.
const OLDEST_KERNEL: (u32, u32) = (5, 8);
/// Lockdown modes of the kernel, with the current one in brackets.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Remedy for an unexpected problem.
const REPORT: &str = "please report it with the output of `tracer doctor`";

/// A check of something that tracing requires or benefits from.
#[derive(Debug)]
pub(crate) struct Check {
    /// What is checked.
    pub(crate) name: &'static str,
    /// The result.
    pub(crate) outcome: Outcome,
}

/// The result of a [`Check`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should be.
    Fine(String),
    /// Noteworthy, but tracing works.
    Note(String),
    /// Tracing does not work: the problem and its remedy.
    Missing(String, String),
}

/// Runs all checks, in the order in which they are worth reading.
#[must_use]
pub(crate) fn check_all() -> Vec<Check> {
    let mut checks = check_prerequisites();
    let mut without_uring = Some("the programs are not loaded".to_owned());
    // The programs can only be tried if the prerequisites are met.
    if checks.iter().all(|check| !matches!(check.outcome, Outcome::Missing(..))) {
        checks.push(Check { name: "ring buffer", outcome: ring_buffer() });
        checks.push(Check { name: "hooks", outcome: hooks() });
        for kind in kinds::KINDS {
            let (outcome, without) = events(kind);
            checks.push(Check { name: kind.name, outcome });
            if kind.number == kinds::open::NUMBER {
                without_uring = without;
            }
        }
    }
    checks.push(Check { name: "processes", outcome: processes() });
    checks.push(Check { name: "pid namespace", outcome: pid_namespace() });
    checks.push(Check { name: "runtimes", outcome: runtimes(&existing_state_roots()) });
    checks.push(Check { name: "engines", outcome: engines() });
    checks.push(Check { name: "tracefs", outcome: tracefs() });
    checks.push(Check { name: "io_uring", outcome: io_uring(without_uring) });
    checks
}

/// Fast checks that explain most failures before they happen.
fn check_prerequisites() -> Vec<Check> {
    vec![
        Check { name: "kernel", outcome: kernel() },
        Check { name: "capabilities", outcome: capabilities() },
        Check { name: "BTF", outcome: btf(Path::new(KERNEL_BTF)) },
        Check { name: "lockdown", outcome: lockdown() },
    ]
}

/// Fails, with exit code 3, listing every prerequisite that is missing. Logs problems that tracing works with, but
/// not well.
pub(crate) fn require() -> Result<(), Unsupported> {
    let missing: Vec<(String, String)> = check_prerequisites()
        .into_iter()
        .filter_map(|check| match check.outcome {
            Outcome::Missing(problem, remedy) => Some((problem, remedy)),
            Outcome::Fine(_) | Outcome::Note(_) => None,
        })
        .collect();
    let Some(((first, remedy), rest)) = missing.split_first() else {
        if let Outcome::Note(problem) = processes() {
            warn!("{problem}");
        }
        if let Some(problem) = isolated_pid_namespace() {
            warn!("{problem}");
        }
        return Ok(());
    };
    let mut remedy = remedy.clone();
    for (problem, its_remedy) in rest {
        remedy = format!("{remedy}; also {problem}: {its_remedy}");
    }
    Err(Unsupported::new(first.clone(), remedy))
}

fn kernel() -> Outcome {
    let release = release();
    match parse_release(&release) {
        Some(version) if version < OLDEST_KERNEL => Outcome::Missing(
            format!("Linux {release} is too old"),
            format!("Linux {}.{} or newer is required", OLDEST_KERNEL.0, OLDEST_KERNEL.1),
        ),
        _ => Outcome::Fine(format!("Linux {release}")),
    }
}

fn capabilities() -> Outcome {
    match capabilities::effective() {
        Ok(effective) => judge_capabilities(effective, rustix::process::geteuid().is_root()),
        Err(error) => Outcome::Missing(
            format!("cannot read this process's capabilities: {error}"),
            "permit capget(2), which a seccomp filter may forbid".into(),
        ),
    }
}

fn judge_capabilities(effective: CapabilitySet, root: bool) -> Outcome {
    let missing: Vec<String> = capabilities::missing(effective, root)
        .map(|needed| format!("{} ({})", needed.name, needed.purpose))
        .collect();
    if missing.is_empty() {
        let kept = |kept: bool| {
            let names = capabilities::REQUIRED.iter().filter(|needed| needed.kept == kept);
            names.map(|needed| needed.name).collect::<Vec<_>>().join(", ")
        };
        return Outcome::Fine(format!("{}; kept while tracing: {}", kept(false), kept(true)));
    }
    Outcome::Missing(
        format!("not permitted: this process lacks {}", missing.join(", ")),
        if root {
            "run tracer as root (sudo), or grant the missing capabilities".into()
        } else {
            "run tracer as root (sudo), or grant the missing capabilities; in a pod: add the capability, permit \
             allowPrivilegeEscalation, and use an image whose /tracer has it (a copy without extended \
             attributes lacks it)"
                .into()
        },
    )
}

fn btf(path: &Path) -> Outcome {
    match fs::File::open(path) {
        Ok(_) => Outcome::Fine(path.display().to_string()),
        Err(error) => Outcome::Missing(
            format!("no kernel BTF: cannot open {}: {error}", path.display()),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (the distributions' are), and make /sys visible"
                .into(),
        ),
    }
}

fn ring_buffer() -> Outcome {
    let remedy = "use Linux 5.8 or newer with CONFIG_BPF_SYSCALL=y; see also `dmesg`";
    match aya::sys::is_map_supported(MapType::RingBuf) {
        Ok(true) => Outcome::Fine("BPF_MAP_TYPE_RINGBUF".into()),
        Ok(false) => Outcome::Missing("this kernel has no BPF ring buffer".into(), remedy.into()),
        Err(error) => Outcome::Missing(format!("cannot create a BPF ring buffer: {error}"), remedy.into()),
    }
}

fn hooks() -> Outcome {
    let hooks = ["sched_process_exec", "sched_process_fork", "sched_process_exit", "sys_exit"];
    let missing = KernelTypes::read(Path::new(KERNEL_BTF)).map(|types| {
        let is_missing = |name: &&&str| !types.has_typedef(&format!("btf_trace_{name}"));
        hooks.iter().filter(is_missing).copied().collect::<Vec<_>>()
    });
    match missing {
        Ok(missing) if missing.is_empty() => Outcome::Fine(format!("tp_btf: {}", hooks.join(", "))),
        Ok(missing) => Outcome::Missing(
            format!("this kernel has no tracepoint {}", missing.join(", ")),
            "use a kernel built with CONFIG_FTRACE_SYSCALLS=y".into(),
        ),
        Err(error) => Outcome::Missing(format!("{error:#}"), "use a kernel with valid BTF".into()),
    }
}

/// Checks how calls of a kind are traced, and why opens through io_uring are not (None if they are), by loading and
/// attaching the programs as tracing does.
fn events(kind: &'static Kind) -> (Outcome, Option<String>) {
    let trial = Options {
        kinds: vec![kind],
        buffer_size: 4096,
        host: false,
        failed: false,
        filter: &EventFilter::default(),
        hook: None,
        runtimes: &[],
        trust_rootless: false,
        log: false,
    };
    let tried = Bpf::load(&trial).and_then(|(mut bpf, _maps)| {
        let taken = bpf.attach();
        bpf.detach();
        taken
    });
    match tried {
        Ok(taken) => (judge_hooks(kind, &taken), taken.without_uring),
        Err(error) => (refused(error), Some("the programs cannot be loaded".to_owned())),
    }
}

fn judge_hooks(kind: &Kind, taken: &Taken) -> Outcome {
    let Taken { hook, refused, cost, .. } = taken;
    if let Some(cost) = cost {
        return Outcome::Note(cost.clone());
    }
    if kind.calls.is_empty() {
        return Outcome::Fine("traced".to_owned());
    }
    let found = format!("hooked at {hook}");
    if refused.is_empty() {
        return Outcome::Fine(found);
    }
    Outcome::Note(format!(
        "{found}: tracing works, and each system call of the node takes about 70 ns longer; hooks without that cost \
         cannot be used: {}",
        refused.join("; ")
    ))
}

/// Why the programs cannot be loaded or attached.
fn refused(error: anyhow::Error) -> Outcome {
    match error.downcast::<Unsupported>() {
        Ok(Unsupported { problem, remedy }) => Outcome::Missing(problem, remedy),
        Err(error) => {
            Outcome::Missing(format!("cannot load or attach the programs: {error:#}"), REPORT.into())
        }
    }
}

fn lockdown() -> Outcome {
    judge_lockdown(host_root::read(Path::new(LOCKDOWN)).ok().as_deref())
}

/// If securityfs is not mounted or the kernel has no lockdown, the mode is unknown; loading the programs shows then
/// whether reading kernel memory is forbidden.
fn judge_lockdown(modes: Option<&str>) -> Outcome {
    match modes {
        Some(modes) if modes.contains("[confidentiality]") => {
            let Unsupported { problem, remedy } = locked_down();
            Outcome::Missing(problem, remedy)
        }
        Some(modes) if modes.contains("[integrity]") => {
            Outcome::Fine("integrity, which permits all that tracer needs".into())
        }
        Some(modes) => Outcome::Fine(modes.trim().to_owned()),
        None => Outcome::Fine(format!("unknown: {LOCKDOWN} does not exist")),
    }
}

/// Whether the root directories of processes can be opened, which a security module may forbid in spite of the
/// capability. Tried with a process that is not confined.
fn processes() -> Outcome {
    const LABELS: [&str; 2] = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];
    judge_processes(host_root::root_process(), || {
        LABELS.iter().find_map(|path| fs::read_to_string(path).ok())
    })
}

fn judge_processes(root: std::io::Result<u32>, label: impl FnOnce() -> Option<String>) -> Outcome {
    let error = match root {
        Ok(1) => return Outcome::Fine("/proc/PID/root can be opened".into()),
        Ok(pid) => {
            return Outcome::Fine(format!(
                "/proc/1/root cannot be opened; using that of process {pid} for the node's root directory"
            ));
        }
        Err(error) => error,
    };
    let label = label();
    let cause = match label.as_deref().and_then(apparmor_profile) {
        Some(profile) => {
            format!("the AppArmor profile {profile}, which confines tracer; run tracer unconfined")
        }
        None => "a security module or a sandbox".to_owned(),
    };
    Outcome::Note(format!(
        "/proc/1/root cannot be opened ({error}): running containers are attributed to the host, and pods stay unknown \
         if their runtime runs in a container or names its bundle by a relative path. Denied by {cause}"
    ))
}

/// Runtimes outside of this process's pid namespace are not trusted.
fn pid_namespace() -> Outcome {
    if host_root::is_initial_pid_namespace() {
        return Outcome::Fine("the initial one".into());
    }
    Outcome::Note(isolated_pid_namespace().unwrap_or_else(|| {
            "not the initial one: only containers that are started in it are traced with their pods, as on a node of kind"
                .into()
    }))
}

/// The problem if process 1 is `tracer` itself: then it is in a container that does not share the node's pid
/// namespace.
fn isolated_pid_namespace() -> Option<String> {
    let program = |pid: &str| fs::metadata(format!("/proc/{pid}/exe")).map(|file| (file.dev(), file.ino()));
    (program("1").ok()? == program("self").ok()?).then(|| {
        "process 1 is tracer itself: this pid namespace has no container runtimes, and pods stay unknown. \
         Share the node's pid namespace: hostPID in a pod, --pid=host with docker and podman"
            .into()
    })
}

/// The profile that confines a process, from `PROFILE (MODE)`; a profile in complain mode forbids nothing.
fn apparmor_profile(label: &str) -> Option<&str> {
    label.trim_end_matches(['\n', '\0']).strip_suffix(" (enforce)")
}

/// The directories that are scanned for running containers.
fn runtimes(state_roots: &[PathBuf]) -> Outcome {
    const OTHERS: &str = "--runtime-root adds directories";
    if state_roots.is_empty() {
        return Outcome::Fine(format!("the default state directories do not exist; {OTHERS}"));
    }
    let roots: Vec<String> = state_roots.iter().map(|root| root.display().to_string()).collect();
    Outcome::Fine(format!("scanning for state in {}; {OTHERS}", roots.join(", ")))
}

fn engines() -> Outcome {
    let sockets = cri::endpoints(None).unwrap_or_default();
    let refused = |path: &PathBuf| {
        let may_connect = host_root::look_at(path).and_then(|socket| {
            // Connecting requires write permission.
            let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
            Ok(accessat(CWD, link, Access::WRITE_OK, AtFlags::EACCESS)?)
        });
        may_connect.err().map(|error| (path.clone(), error))
    };
    let refused: Vec<_> = sockets.iter().filter_map(refused).collect();
    judge_engines(&sockets, &refused)
}

fn judge_engines(sockets: &[PathBuf], refused: &[(PathBuf, std::io::Error)]) -> Outcome {
    if sockets.is_empty() {
        return Outcome::Fine("none found (required for -l only)".into());
    }
    if refused.is_empty() {
        let paths: Vec<String> = sockets.iter().map(|path| path.display().to_string()).collect();
        return Outcome::Fine(paths.join(", "));
    }
    let refused: Vec<String> =
        refused.iter().map(|(path, error)| format!("{} ({error})", path.display())).collect();
    Outcome::Note(format!(
        "cannot connect to {}. Labels, and other data that only an engine has, stay unknown: run tracer as root, or in \
         the socket's group",
        refused.join(", ")
    ))
}

fn tracefs() -> Outcome {
    match (sys_exit_event::is_available(), preemption::programs_are_preemptible()) {
        (true, true) => Outcome::Fine("mounted".into()),
        (true, false) => Outcome::Fine("mounted (not needed)".into()),
        (false, true) => Outcome::Note(
            "not mounted on the node: events are lost while a program is preempted; `mount -t tracefs tracefs \
             /sys/kernel/tracing` prevents that"
                .into(),
        ),
        (false, false) => Outcome::Fine("not mounted (not needed)".into()),
    }
}

fn io_uring(without: Option<String>) -> Outcome {
    judge_io_uring(fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok().as_deref(), without)
}

/// Whether opens through io_uring are traced. Any user may use io_uring unless it is disabled.
fn judge_io_uring(disabled: Option<&str>, without: Option<String>) -> Outcome {
    match (disabled.map(str::trim), without) {
        (Some("2"), _) => Outcome::Fine("disabled".into()),
        (_, None) => Outcome::Fine("opens are traced".into()),
        (_, Some(reason)) => Outcome::Note(format!(
            "files opened through io_uring are not traced: {reason}. `sysctl kernel.io_uring_disabled=2` forbids \
             io_uring (Linux 6.6)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untraced_io_uring_is_a_note_unless_it_is_disabled() {
        let reason = || Some("too old".to_owned());
        assert_eq!(judge_io_uring(Some("2\n"), reason()), Outcome::Fine("disabled".into()));
        assert!(matches!(judge_io_uring(Some("0\n"), None), Outcome::Fine(_)));
        for disabled in [None, Some("0\n"), Some("1\n")] {
            let outcome = judge_io_uring(disabled, reason());
            assert!(matches!(outcome, Outcome::Note(note) if note.contains("not traced: too old")));
        }
    }

    #[test]
    fn only_the_missing_capability_is_named() {
        let all: CapabilitySet = capabilities::REQUIRED.iter().map(|needed| needed.set).collect();
        assert!(matches!(judge_capabilities(all, false), Outcome::Fine(_)));
        for needed in capabilities::REQUIRED {
            let Outcome::Missing(problem, remedy) = judge_capabilities(all - needed.set, false) else {
                panic!("{} is not reported", needed.name)
            };
            assert!(problem.contains(needed.name), "{problem}");
            assert_eq!((problem + &remedy).matches("CAP_").count(), 1);
        }
    }

    #[test]
    fn lockdown_mode_is_the_one_in_brackets() {
        let judged = |modes: &str| judge_lockdown(Some(modes));
        assert_eq!(
            judged("[none] integrity confidentiality\n"),
            Outcome::Fine("[none] integrity confidentiality".into())
        );
        let Outcome::Fine(integrity) = judged("none [integrity] confidentiality\n") else { panic!() };
        assert!(integrity.starts_with("integrity"), "{integrity}");
        let Outcome::Missing(problem, remedy) = judged("none integrity [confidentiality]\n") else {
            panic!()
        };
        assert!(problem.contains("confidentiality") && remedy.contains("lockdown=integrity"), "{problem}");
        assert!(matches!(judge_lockdown(None), Outcome::Fine(_)));
    }

    #[test]
    fn apparmor_profile_that_denies_access_to_processes_is_named() {
        let label = || Some("docker-default (enforce)".to_owned());
        assert!(matches!(judge_processes(Ok(1), label), Outcome::Fine(_)));
        let denied = |label: Option<&str>| {
            let error = std::io::Error::from_raw_os_error(libc::EACCES);
            let Outcome::Note(problem) = judge_processes(Err(error), || label.map(str::to_owned)) else {
                panic!("{label:?}")
            };
            assert!(problem.contains("/proc/1/root") && problem.contains("pods stay unknown"), "{problem}");
            problem
        };
        assert!(
            denied(Some("cri-containerd.apparmor.d (enforce)\n"))
                .contains("AppArmor profile cri-containerd.apparmor.d,")
        );
        for label in [None, Some("unconfined\n"), Some("x (complain)\n"), Some("system_u:system_r:t:s0\0")] {
            assert!(!denied(label).contains("AppArmor"), "{label:?}");
        }
    }

    #[test]
    fn inaccessible_engine_socket_is_named() {
        let sockets = [PathBuf::from("/run/a.sock"), PathBuf::from("/run/b.sock")];
        assert!(matches!(judge_engines(&[], &[]), Outcome::Fine(_)));
        assert_eq!(judge_engines(&sockets, &[]), Outcome::Fine("/run/a.sock, /run/b.sock".into()));
        let denied = std::io::Error::from_raw_os_error(libc::EACCES);
        let Outcome::Note(problem) = judge_engines(&sockets, &[(sockets[1].clone(), denied)]) else {
            panic!()
        };
        assert!(problem.contains("/run/b.sock (") && !problem.contains("/run/a.sock"), "{problem}");
    }

    #[test]
    fn missing_btf_names_the_file_and_the_kernel_option() {
        let Outcome::Missing(problem, remedy) = btf(Path::new("/nonexistent/vmlinux")) else { panic!() };
        assert!(problem.contains("/nonexistent/vmlinux"), "{problem}");
        assert!(remedy.contains("CONFIG_DEBUG_INFO_BTF"), "{remedy}");
    }
}
