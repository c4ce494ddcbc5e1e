//! Names of signals (signal(7)); the same on x86_64 and aarch64.

use std::fmt;

const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];
/// `SIGRTMIN` of glibc, which keeps the kernel's first two real-time signals for itself (signal(7)).
const REAL_TIME: u8 = 34;

/// A signal, shown by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal(u8);

impl Signal {
    /// `None` for 0, which is no signal.
    pub(crate) fn of(number: u8) -> Option<Self> {
        (number != 0).then_some(Self(number))
    }

    /// The signal with this name.
    #[cfg(any(test, feature = "kubectl", feature = "testing"))]
    pub(crate) fn named(name: &str) -> Option<Self> {
        (1..=u8::MAX).map(Self).find(|signal| signal.to_string() == name)
    }

    /// Its number.
    #[cfg(any(test, feature = "kubectl", feature = "testing"))]
    pub(crate) const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0).wrapping_sub(1)) {
            Some(name) => f.write_str(name),
            None if self.0 < REAL_TIME => write!(f, "SIG{}", self.0),
            None => write!(f, "SIGRTMIN+{}", self.0 - REAL_TIME),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_names_of_the_c_library() {
        let name = |number: i32| Signal::of(number.try_into().unwrap()).unwrap().to_string();
        assert_eq!(name(libc::SIGKILL), "SIGKILL");
        assert_eq!(name(libc::SIGSYS), "SIGSYS");
        assert_eq!(name(libc::SIGSTKFLT), "SIGSTKFLT");
        assert_eq!(
            ["SIG32", "SIG33", "SIGRTMIN+0", "SIGRTMIN+30"].map(str::to_owned),
            [32, 33, 34, 64].map(name)
        );
        assert_eq!(name(255), "SIGRTMIN+221");
        assert_eq!(Signal::of(0), None);
    }
}
