//! A runtime's name and command line, from what the kernel keeps of them: a comm, and a block of arguments.

use tracer_common::{comm_bytes, comm_of};

use crate::discovery::oci::{
    cmdline,
    cmdline::{CommandLine, CommandLineError},
};

/// Parses the command line of a process with this comm.
pub(crate) fn parse(block: &[u8], truncated: bool, comm: &str) -> Result<CommandLine, CommandLineError> {
    cmdline::parse(without_interpreter(block, comm.as_bytes()), truncated)
}

/// A runtime's name in full, if its command line has it: a comm has 15 bytes of it.
pub(crate) fn full_name(comm: &str, block: &[u8]) -> String {
    let word =
        without_interpreter(block, comm.as_bytes()).split(|byte| *byte == 0).next().unwrap_or_default();
    let name = word.rsplit(|byte| *byte == b'/').next().unwrap_or(word);
    match str::from_utf8(name) {
        Ok(name) if is_cut_to(name, comm) => name.to_owned(),
        _ => comm.to_owned(),
    }
}

/// Whether a comm is what the kernel keeps of a file's name.
pub(crate) fn is_cut_to(name: &str, comm: &str) -> bool {
    comm_bytes(&comm_of(name)) == comm.as_bytes()
}

/// The command line from the runtime's own name on: a script's begins with its interpreter's.
fn without_interpreter<'a>(block: &'a [u8], comm: &[u8]) -> &'a [u8] {
    /// An interpreter, its one argument, and one more: `env` has no argument.
    const WORDS: usize = 4;
    let mut start = 0;
    for word in block.split(|byte| *byte == 0).take(WORDS) {
        let name = word.rsplit(|byte| *byte == b'/').next().unwrap_or(word);
        if name.get(..comm.len().max(1)) == Some(comm) && (name.len() == comm.len() || comm.len() == 15) {
            return &block[start..];
        }
        start += word.len() + 1;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_named_like_runtime_is_runtime() {
        let strip = |block: &'static [u8]| without_interpreter(block, b"runc");
        assert_eq!(strip(b"/bin/sh\0/opt/runc\0run\0id\0"), b"/opt/runc\0run\0id\0");
        assert_eq!(strip(b"/usr/bin/runc\0run\0id\0"), b"/usr/bin/runc\0run\0id\0");
        assert_eq!(strip(b"something\0else\0"), b"something\0else\0");
        assert_eq!(strip(b""), b"");
    }

    #[test]
    fn name_longer_than_comm_is_read_from_command_line() {
        let name = |comm: &str, block: &[u8]| full_name(comm, block);
        assert_eq!(
            name("nvidia-containe", b"/usr/bin/nvidia-container-runtime\0run\0"),
            "nvidia-container-runtime"
        );
        assert_eq!(
            name("nvidia-containe", b"/bin/sh\0/opt/nvidia-container-runtime\0run\0"),
            "nvidia-container-runtime"
        );
        assert_eq!(name("nvidia-containe", b"nvidia-containe\0"), "nvidia-containe");
        assert_eq!(name("nvidia-containe", b"other\0"), "nvidia-containe");
        assert_eq!(name("runc", b"/usr/sbin/runc\0"), "runc");
        assert_eq!(name("runc", b"/x/runc-of-mine\0"), "runc");
        assert_eq!(name("runc", b""), "runc");
    }
}
