//! How a process has exited.

/// How a process has exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// With this exit code.
    Code(u8),
    /// A signal with this number killed it.
    Signal(u8),
}

impl ExitStatus {
    /// From the status that wait(2) gives: the signal in the lowest 7 bits, a bit for a core dump, the exit code.
    pub(crate) const fn of_wait(status: u32) -> Self {
        let [low, code, ..] = status.to_le_bytes();
        match low & 0x7f {
            0 => Self::Code(code),
            signal => Self::Signal(signal),
        }
    }

    /// The exit code; none if a signal killed it.
    pub(crate) const fn code(self) -> Option<u8> {
        if let Self::Code(code) = self { Some(code) } else { None }
    }

    /// The number of the signal that killed it.
    pub(crate) const fn signal(self) -> Option<u8> {
        if let Self::Signal(signal) = self { Some(signal) } else { None }
    }

    /// Whether it is anything but an exit code of 0.
    pub(crate) const fn is_failure(self) -> bool {
        !matches!(self, Self::Code(0))
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process};

    use super::*;

    #[test]
    fn status_is_read_as_wait_gives_it() {
        for script in ["exit 0", "exit 7", "exit 255", "kill -KILL $$", "kill -TERM $$"] {
            let status = process::Command::new("sh").args(["-c", script]).status().unwrap();
            let read = ExitStatus::of_wait(status.into_raw().cast_unsigned());
            let expected = match (status.code(), status.signal()) {
                (Some(code), _) => ExitStatus::Code(code.try_into().unwrap()),
                (None, signal) => ExitStatus::Signal(signal.unwrap().try_into().unwrap()),
            };
            assert_eq!((read, read.is_failure()), (expected, script != "exit 0"), "{script}");
        }
        assert_eq!(ExitStatus::of_wait(0x8b), ExitStatus::Signal(11), "with a core dump");
    }
}
