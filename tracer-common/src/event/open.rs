//! open, openat, openat2 and creat.

use super::Header;
use crate::assert_layout;

/// Bytes of a path that a record holds at the most: `PATH_MAX` (include/uapi/linux/limits.h) without its NUL.
pub const OPEN_PATH_MAX: usize = 4095;

/// One call to open a file, as the process made it; `path_len` bytes of path follow.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// What all events share.
    pub header: Header,
    /// `O_*` as given; for creat what it stands for.
    pub flags: u64,
    /// The file descriptor, or a negated errno.
    pub ret: i32,
    /// The directory that a relative path starts from; `AT_FDCWD` for open and creat.
    pub dirfd: i32,
    /// File mode as given; 0 where the flags leave it unused.
    pub mode: u32,
    /// Bytes of the path, without a NUL.
    pub path_len: u16,
    /// `PATH_*` bits.
    pub marks: u8,
    /// 0.
    pub reserved: u8,
}
assert_layout!(Open, size 88, header @ 0, flags @ 64, ret @ 72, dirfd @ 76, mode @ 80, path_len @ 84, marks @ 86,
    reserved @ 87);
