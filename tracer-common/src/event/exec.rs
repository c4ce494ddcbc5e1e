//! execve and execveat.

use super::Header;
use crate::assert_layout;

/// Bytes of the executed file's path that a record holds at the most.
pub const EXEC_PATH_MAX: usize = 4095;
/// Bytes of arguments that a record holds at the most.
pub const EXEC_ARGS_MAX: usize = 8192;

/// One execution; `path_len` bytes of path and `args_len` bytes of NUL-terminated arguments follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Exec {
    /// What all events share.
    pub header: Header,
    /// 0, or a negated errno.
    pub ret: i32,
    /// Bytes of the path, without a NUL.
    pub path_len: u16,
    /// Bytes of the arguments, each with its NUL.
    pub args_len: u16,
    /// The directory or file that execveat was given; 0 without [`EXEC_AT`](super::EXEC_AT).
    pub dirfd: i32,
    /// `PATH_*`, `ARGS_*`, `SECCOMP_*` and `EXEC_*` bits.
    pub marks: u8,
    /// 0.
    pub reserved: [u8; 3],
}
assert_layout!(Exec, size 80, header @ 0, ret @ 64, path_len @ 68, args_len @ 70, dirfd @ 72, marks @ 76,
    reserved @ 77);
