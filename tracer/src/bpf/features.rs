//! What this kernel and this user allow, and what to do about what they do not.

use std::{fs, path::Path};

use aya::maps::MapType;
use tracer_common::event::Kind;

use super::{
    Bpf, EventFilter, OpenHook, Options,
    btf::{KERNEL_BTF, KernelTypes},
};
use crate::error::Unsupported;

/// The oldest kernel that has what the programs need: the ring buffer.
const OLDEST_KERNEL: (u32, u32) = (5, 8);

/// Capabilities without which nothing works: number (include/uapi/linux/capability.h), name, what for.
const CAPABILITIES: [(u32, &str, &str); 4] = [
    (39, "CAP_BPF", "to load BPF programs"),
    (38, "CAP_PERFMON", "to attach them and to read kernel memory"),
    (19, "CAP_SYS_PTRACE", "to find the bundles of container runtimes through /proc"),
    (2, "CAP_DAC_READ_SEARCH", "to read them, unless the user is root"),
];
/// Before 5.8 it was the one for BPF, and it still includes CAP_BPF and CAP_PERFMON.
const CAP_SYS_ADMIN: u32 = 21;

/// What to do about what should not be.
const REPORT: &str = "please report it with the output of `tracer doctor`";

/// One thing that tracing needs or gains from.
#[derive(Debug)]
pub struct Check {
    /// What is looked at.
    pub name: &'static str,
    /// What was found.
    pub outcome: Outcome,
}

/// What a [`Check`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Fine(String),
    /// Worth knowing; tracing works.
    Note(String),
    /// Tracing does not work: the problem, and the remedy.
    Missing(String, String),
}

/// Looks at everything, in the order in which it is worth reading.
#[must_use]
pub fn check_all() -> Vec<Check> {
    let mut checks = check_prerequisites();
    // Only who may use BPF at all can find out more.
    if checks.iter().all(|check| !matches!(check.outcome, Outcome::Missing(..))) {
        checks.push(Check { name: "ring buffer", outcome: ring_buffer() });
        checks.push(Check { name: "hooks", outcome: hooks() });
        checks.push(Check { name: "opens", outcome: opens() });
    }
    checks.push(Check { name: "tracefs", outcome: tracefs() });
    checks.push(Check { name: "io_uring", outcome: io_uring() });
    checks
}

/// What is quickly looked at, and explains most failures before they happen.
fn check_prerequisites() -> Vec<Check> {
    vec![
        Check { name: "kernel", outcome: kernel() },
        Check { name: "capabilities", outcome: capabilities() },
        Check { name: "BTF", outcome: btf(Path::new(KERNEL_BTF)) },
        Check { name: "lockdown", outcome: lockdown() },
    ]
}

/// An error, for exit code 3, with every prerequisite that is missing.
pub fn require() -> Result<(), Unsupported> {
    let missing: Vec<(String, String)> = check_prerequisites()
        .into_iter()
        .filter_map(|check| match check.outcome {
            Outcome::Missing(problem, remedy) => Some((problem, remedy)),
            Outcome::Fine(_) | Outcome::Note(_) => None,
        })
        .collect();
    let Some(((first, remedy), rest)) = missing.split_first() else { return Ok(()) };
    let mut remedy = remedy.clone();
    for (problem, its_remedy) in rest {
        remedy = format!("{remedy}; also {problem}: {its_remedy}");
    }
    Err(Unsupported::new(first.clone(), remedy))
}

fn kernel() -> Outcome {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match parse_release(&release) {
        Some(version) if version < OLDEST_KERNEL => Outcome::Missing(
            format!("Linux {release} is too old"),
            format!("Linux {}.{} or newer is needed", OLDEST_KERNEL.0, OLDEST_KERNEL.1),
        ),
        _ => Outcome::Fine(format!("Linux {release}")),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn capabilities() -> Outcome {
    match fs::read_to_string("/proc/self/status") {
        Ok(status) => judge_capabilities(
            effective_capabilities(&status).unwrap_or(0),
            rustix::process::geteuid().is_root(),
        ),
        Err(error) => {
            Outcome::Missing(format!("cannot read /proc/self/status: {error}"), "mount /proc".into())
        }
    }
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

fn judge_capabilities(effective: u64, root: bool) -> Outcome {
    let has = |capability: u32| effective & (1 << capability) != 0;
    let implied = |name: &str| match name {
        "CAP_BPF" | "CAP_PERFMON" => has(CAP_SYS_ADMIN),
        // The files are root's.
        "CAP_DAC_READ_SEARCH" => root,
        _ => false,
    };
    let missing: Vec<String> = CAPABILITIES
        .iter()
        .filter(|(number, name, _)| !has(*number) && !implied(name))
        .map(|(_, name, purpose)| format!("{name} ({purpose})"))
        .collect();
    if missing.is_empty() {
        return Outcome::Fine(CAPABILITIES.map(|(_, name, _)| name).join(", "));
    }
    Outcome::Missing(
        format!("not permitted: this process lacks {}", missing.join(", ")),
        "run tracer as root (sudo), or grant it these capabilities".into(),
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
    let remedy = "use Linux 5.8 or newer with CONFIG_BPF_SYSCALL=y; `dmesg` may tell more";
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
        Err(error) => Outcome::Missing(format!("{error:#}"), "use a kernel whose BTF is intact".into()),
    }
}

/// Where opens would be hooked: found out by loading the programs, as tracing does.
fn opens() -> Outcome {
    let trial = Options {
        kind: Some(Kind::Open),
        buffer_size: 4096,
        host: false,
        failed: false,
        filter: &EventFilter::default(),
        hook: None,
        runtimes: &[],
        log: false,
    };
    match Bpf::load(&trial).map(|(bpf, _)| bpf.into_open_hook()) {
        Ok(Some(OpenHook { hook, instead_of: None })) => Outcome::Fine(format!("hooked at {hook}")),
        Ok(Some(OpenHook { hook, instead_of: Some(reason) })) => {
            Outcome::Note(format!("hooked at {hook}, which every system call passes: not at {reason}"))
        }
        Ok(None) => Outcome::Missing("opens are not hooked".into(), REPORT.into()),
        Err(error) => Outcome::Missing(format!("the programs cannot be loaded: {error:#}"), REPORT.into()),
    }
}

fn lockdown() -> Outcome {
    match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(modes) if modes.contains("[confidentiality]") => Outcome::Missing(
            "kernel lockdown is in confidentiality mode, which forbids BPF to read kernel memory".into(),
            "boot with lockdown=integrity or none".into(),
        ),
        Ok(modes) => Outcome::Fine(modes.trim().to_owned()),
        Err(_) => Outcome::Fine("none".into()),
    }
}

fn tracefs() -> Outcome {
    if Path::new("/sys/kernel/tracing/events").exists() {
        Outcome::Fine("/sys/kernel/tracing (not needed)".into())
    } else {
        Outcome::Note("not mounted; not needed".into())
    }
}

fn io_uring() -> Outcome {
    match fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
        Ok(value) if value.trim() == "2" => Outcome::Fine("disabled".into()),
        _ => {
            Outcome::Note("files opened through io_uring are not seen: they pass by the system calls".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        assert_eq!(parse_release("5.10.0-28-amd64"), Some((5, 10)));
        assert!(parse_release("5.7.19").unwrap() < OLDEST_KERNEL);
        assert!(parse_release("6.1").unwrap() > OLDEST_KERNEL);
        assert_eq!(parse_release("weird"), None);
    }

    #[test]
    fn the_missing_capability_is_named_and_only_that() {
        let all: u64 = CAPABILITIES.iter().map(|(number, ..)| 1 << number).sum();
        assert!(matches!(judge_capabilities(all, false), Outcome::Fine(_)));
        for (number, name, _) in CAPABILITIES {
            let Outcome::Missing(problem, _) = judge_capabilities(all & !(1 << number), false) else {
                panic!("{name} is not missed")
            };
            assert!(problem.contains(name), "{problem}");
            assert_eq!(problem.matches("CAP_").count(), 1, "{problem}");
        }
        assert!(matches!(judge_capabilities(1 << CAP_SYS_ADMIN | 1 << 19, true), Outcome::Fine(_)));
    }

    #[test]
    fn an_absent_btf_names_the_file_and_the_kernel_option() {
        let Outcome::Missing(problem, remedy) = btf(Path::new("/nonexistent/vmlinux")) else { panic!() };
        assert!(problem.contains("/nonexistent/vmlinux"), "{problem}");
        assert!(remedy.contains("CONFIG_DEBUG_INFO_BTF"), "{remedy}");
    }
}
