//! Recognises runtimes that have executed a copy of themselves: crun from a memfd, youki through a file descriptor.
//! Before Linux 6.14 their comm is derived from the descriptor: `memfd:crun_clon` or a number.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

/// Bytes of a command line that are read; only its first two words are used.
const LINE_MAX: u64 = 4096;

/// The file name of a runtime that has executed a copy of itself; `directory` is the process's directory in /proc.
/// Any process can choose its command line, so the executable and the command line have to name the same runtime.
pub(crate) fn runtime_name(directory: &Path, comm: &str) -> Option<String> {
    if !may_be_copy(comm) {
        return None;
    }
    let file = fs::read_link(directory.join("exe")).ok()?;
    let mut line = Vec::new();
    File::open(directory.join("cmdline")).ok()?.take(LINE_MAX).read_to_end(&mut line).ok()?;
    named_by(file.as_os_str().as_bytes(), &line)
}

/// Whether the kernel sets such a comm for a program that is executed by a descriptor.
fn may_be_copy(comm: &str) -> bool {
    comm.starts_with("memfd:") || comm == "exe" || comm.bytes().all(|byte| byte.is_ascii_digit())
}

/// The runtime that both name. None for the process that waits as a container's first one (`runtime init`): a runtime
/// has started it.
fn named_by(file: &[u8], line: &[u8]) -> Option<String> {
    let mut words = line.split(|byte| *byte == 0);
    let name = words.next()?.rsplit(|byte| *byte == b'/').next().filter(|name| !name.is_empty())?;
    if words.next() == Some(b"init") {
        return None;
    }
    let file = file.rsplit(|byte| *byte == b'/');
    let is_it = |part: &[u8]| {
        let part = part.strip_suffix(b" (deleted)").unwrap_or(part);
        let rest = part.strip_prefix(b"memfd:").unwrap_or(part).strip_prefix(name);
        // `memfd:crun_cloned:/proc/self/exe (deleted)`, `/usr/bin/crun`
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"_clone") || rest.starts_with(b":"))
    };
    let mut parts = file.filter(|part| !part.is_empty());
    let is_named =
        parts.next().is_some_and(is_it) || parts.any(|part| part.starts_with(b"memfd:") && is_it(part));
    is_named.then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        os::{fd::AsRawFd as _, unix::process::CommandExt as _},
        process::{Command, Stdio},
    };

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use crate::sys::proc_table::Process;

    #[test]
    fn runtime_is_recognised_if_executable_and_command_line_agree() {
        let named = |file: &str, line: &str| named_by(file.as_bytes(), line.replace(' ', "\0").as_bytes());
        let crun = Some("crun".to_owned());
        assert_eq!(named("/memfd:crun_cloned:/proc/self/exe (deleted)", "crun run x"), crun);
        assert_eq!(
            named("/memfd:crun_cloned:/proc/self/exe (deleted)", "/usr/bin/crun --root /r run x"),
            crun
        );
        assert_eq!(named("/usr/bin/crun", "crun create x"), crun);
        assert_eq!(named("/memfd:youki_cloned_binary (deleted)", "youki run x").as_deref(), Some("youki"));
        assert_eq!(named("/memfd:crun_cloned:/proc/self/exe (deleted)", "runc run x"), None);
        assert_eq!(named("/memfd:crunchy (deleted)", "crun run x"), None);
        assert_eq!(named("/usr/bin/crun/sh", "crun run x"), None);
        assert_eq!(named("/memfd:runc_cloned:/proc/self/exe (deleted)", "runc init"), None);
        assert_eq!(named("/bin/sh", ""), None);
    }

    #[test]
    fn only_comms_of_programs_executed_by_descriptor_are_checked() {
        for comm in ["memfd:crun_clon", "4", "exe"] {
            assert!(may_be_copy(comm), "{comm}");
        }
        for comm in ["crun", "runc:[2:INIT]", "4a"] {
            assert!(!may_be_copy(comm), "{comm}");
        }
    }

    #[test]
    fn process_executing_a_copy_has_the_runtimes_name() {
        let copy = memfd_create("crun_cloned:/proc/self/exe", MemfdFlags::empty()).unwrap();
        File::from(copy.try_clone().unwrap()).write_all(&fs::read("/bin/sh").unwrap()).unwrap();
        let mut child = Command::new(format!("/proc/self/fd/{}", copy.as_raw_fd()))
            .arg0("/usr/bin/crun")
            .args(["-c", "echo; read x"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let process = Process::read(child.id()).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(process.comm, "crun");
    }
}
