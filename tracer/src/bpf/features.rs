//! Kernel features and limits that loading the programs depends on.

use rustix::process::{Resource, getrlimit};

use crate::error::Unsupported;

/// First kernel on which BPF maps do not count against the limit of locked memory.
const UNLIMITED_KERNEL: (u32, u32) = (5, 11);

/// Release of the running kernel, such as `6.1.0-13-amd64`.
pub(crate) fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Major and minor version of the running kernel.
pub(crate) fn kernel_release() -> Option<(u32, u32)> {
    parse_release(&release())
}

/// Major and minor version at the start of a release.
pub(crate) fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The error for a kernel that forbids BPF programs to read kernel memory.
pub(crate) fn locked_down() -> Unsupported {
    Unsupported::new(
        "kernel lockdown is in confidentiality mode, which forbids BPF to read kernel memory",
        "boot with lockdown=integrity or none",
    )
}

/// Explains why the kernel may have refused memory for maps, if it counts them against a limit.
pub(crate) fn memory_limit() -> Option<String> {
    judge_memory_limit(kernel_release(), getrlimit(Resource::Memlock).current)
}

fn judge_memory_limit(version: Option<(u32, u32)>, limit: Option<u64>) -> Option<String> {
    let limit = limit.filter(|_| version.is_some_and(|version| version < UNLIMITED_KERNEL))?;
    Some(format!(
        "before Linux {}.{}, BPF maps count against the limit of locked memory, which is {limit} bytes: raise it \
         (`ulimit -l unlimited`), or grant CAP_SYS_RESOURCE, and tracer raises it itself",
        UNLIMITED_KERNEL.0, UNLIMITED_KERNEL.1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        assert_eq!(parse_release("5.10.0-28-amd64"), Some((5, 10)));
        assert!(parse_release("5.7.19").unwrap() < (5, 8));
        assert!(parse_release("6.1").unwrap() > (5, 8));
        assert_eq!(parse_release("weird"), None);
    }

    #[test]
    fn memory_limit_is_explained_on_old_kernels_only() {
        let text = judge_memory_limit(Some((5, 10)), Some(65_536)).unwrap();
        assert!(text.contains("65536 bytes") && text.contains("CAP_SYS_RESOURCE"), "{text}");
        for (version, limit) in [(Some((5, 10)), None), (Some((5, 11)), Some(1)), (None, Some(1))] {
            assert_eq!(judge_memory_limit(version, limit), None);
        }
    }
}
