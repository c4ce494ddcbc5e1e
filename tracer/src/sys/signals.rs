//! The signals that this process was started to ignore.

use std::fs;

use crate::sys::proc_table::status_field;

/// Whether this process ignores a signal: `nohup` has SIGHUP ignored, and so it must stay.
pub(crate) fn is_ignored(signal: i32) -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| has_signal(&status, signal))
}

/// Whether the mask of ignored signals (`SigIgn` of proc_pid_status(5), in hexadecimal) has the signal.
fn has_signal(status: &str, signal: i32) -> bool {
    let mask = status_field(status, "SigIgn")
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    signal > 0 && mask.checked_shr(signal.unsigned_abs() - 1).unwrap_or(0) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        const STATUS: &str = "Name:\ttracer\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\n";
        assert!(has_signal(STATUS, libc::SIGHUP) && has_signal(STATUS, libc::SIGPIPE));
        assert!(!has_signal(STATUS, libc::SIGINT) && !has_signal("", libc::SIGHUP) && !has_signal(STATUS, 0));
    }
}
