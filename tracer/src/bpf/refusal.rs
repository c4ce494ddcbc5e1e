//! Why the kernel refuses maps and programs.

use anyhow::anyhow;
use aya::{EbpfError, programs::ProgramError};
use tracing::debug;

use crate::{bpf::features, error::Unsupported};

/// The maps were refused.
pub(crate) fn of_maps(error: EbpfError) -> anyhow::Error {
    let error = anyhow::Error::new(error);
    let is_eperm = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.raw_os_error() == Some(libc::EPERM))
    };
    if error.chain().any(is_eperm) {
        if let Some(reason) = features::memory_limit() {
            return Unsupported::new("not permitted: the kernel refuses BPF maps", reason).into();
        }
        return Unsupported::new(
            "not permitted: the kernel refuses BPF maps",
            "run tracer as root of the host: capabilities within a user namespace do not count, and a security \
             module or a seccomp filter may forbid bpf(2)",
        )
        .into();
    }
    error.context("loading the BPF maps")
}

/// A program was refused. The verifier's whole log is for `-v`; its end tells what it did not like.
pub(crate) fn of_program(error: ProgramError, program: &str, hook: &str) -> anyhow::Error {
    const LINES: usize = 12;
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow::Error::new(error).context(format!("loading the BPF program {program} for {hook}"));
    };
    if io_error.raw_os_error() == Some(libc::EPERM) {
        return Unsupported::new(
            format!("not permitted: the kernel refuses the BPF program {program} for {hook} ({io_error})"),
            "a security module or a seccomp filter forbids it, or a capability is missing",
        )
        .into();
    }
    let log = verifier_log.to_string();
    debug!("the verifier's log of {program}:\n{log}");
    if reads_of_kernel_are_forbidden(&log) {
        return features::locked_down().into();
    }
    let lines: Vec<&str> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
    anyhow!("loading the BPF program {program} for {hook}: {io_error}; the end of the verifier's log:\n{end}")
}

/// Whether a program was refused for reading the kernel's memory, in the verifier's words, old and new. The helpers for it
/// are there on all kernels, and withheld by lockdown alone where the capabilities suffice, which are looked at before.
/// The loader takes the older helper where it finds that the newer one is refused.
fn reads_of_kernel_are_forbidden(log: &str) -> bool {
    const REFUSALS: [&str; 2] = ["unknown func ", "cannot use helper "];
    let refused = |line: &str| {
        let helper = REFUSALS.iter().find_map(|words| Some(line.split_once(words)?.1))?;
        Some(helper.starts_with("bpf_probe_read") && !helper.starts_with("bpf_probe_read_user"))
    };
    log.lines().filter_map(refused).any(|is_read| is_read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helper_that_lockdown_withholds_is_recognised() {
        for line in [
            "unknown func bpf_probe_read_kernel#113",
            "program of this type cannot use helper bpf_probe_read_kernel#113",
            "program of this type cannot use helper bpf_probe_read_kernel_str#115",
            "program of this type cannot use helper bpf_probe_read#4",
        ] {
            assert!(reads_of_kernel_are_forbidden(&format!(
                "12: (85) call 113\n{line}\nprocessed 12 insns\n"
            )));
        }
        for line in [
            "85: (85) call bpf_probe_read_kernel#113",
            "unknown func bpf_task_pt_regs#175",
            "program of this type cannot use helper bpf_probe_read_user#112",
        ] {
            assert!(!reads_of_kernel_are_forbidden(line), "{line}");
        }
    }
}
