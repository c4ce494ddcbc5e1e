//! The calls that open files, and the same requests of io_uring.

use super::Header;
use crate::assert_layout;

/// Bytes of a path that a record holds at the most: `PATH_MAX` (include/uapi/linux/limits.h) without its NUL.
pub const OPEN_PATH_MAX: usize = 4095;

/// Bytes of a file handle that a record holds at the most (`MAX_HANDLE_SZ`, include/linux/exportfs.h).
pub const HANDLE_MAX: usize = 128;

/// A call that opens a file, or a request of io_uring. The value is stored in [`Open::call`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenCall {
    /// `open`.
    Open = 1,
    /// `creat`.
    Creat = 2,
    /// `openat`.
    Openat = 3,
    /// `openat2`.
    Openat2 = 4,
    /// `open_by_handle_at`.
    OpenByHandleAt = 5,
    /// `IORING_OP_OPENAT`.
    UringOpenat = 6,
    /// `IORING_OP_OPENAT2`.
    UringOpenat2 = 7,
}

impl OpenCall {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Open,
        Self::Creat,
        Self::Openat,
        Self::Openat2,
        Self::OpenByHandleAt,
        Self::UringOpenat,
        Self::UringOpenat2,
    ];

    /// The name that is shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Creat => "creat",
            Self::Openat => "openat",
            Self::Openat2 => "openat2",
            Self::OpenByHandleAt => "open_by_handle_at",
            Self::UringOpenat => "io_uring openat",
            Self::UringOpenat2 => "io_uring openat2",
        }
    }

    /// Whether an [`OpenExtra`] stands between the record and the path or handle.
    #[must_use]
    pub const fn has_extra(self) -> bool {
        matches!(self, Self::Openat2 | Self::UringOpenat2 | Self::OpenByHandleAt)
    }
}

impl TryFrom<u8> for OpenCall {
    type Error = u8;

    fn try_from(value: u8) -> Result<Self, u8> {
        Self::ALL.into_iter().find(|call| *call as u8 == value).ok_or(value)
    }
}

/// What some calls have besides: openat2 the `RESOLVE_*` flags, open_by_handle_at the length and type of the handle,
/// each as the caller has it in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct OpenExtra(pub u64);

impl OpenExtra {
    /// The type of a handle: the second field of `struct file_handle`.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the upper half")]
    pub const fn handle_type(self) -> i32 {
        (self.0 >> 32) as i32
    }

    /// The length of a handle as the caller has it: the first field.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the lower half")]
    pub const fn handle_bytes(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }
}

/// One call to open a file, as the process made it. An [`OpenExtra`] follows where the call has one, then `path_len`
/// bytes: the path, or of open_by_handle_at the handle.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// What all events share.
    pub header: Header,
    /// `O_*` as given; for creat what it stands for.
    pub flags: u64,
    /// The file descriptor, or a negated errno.
    pub ret: i32,
    /// The directory that a relative path starts from; `AT_FDCWD` for open and creat. Of open_by_handle_at the
    /// descriptor that tells the file system.
    pub dirfd: i32,
    /// File mode as given; 0 where the flags leave it unused.
    pub mode: u32,
    /// Bytes of the path, without a NUL, or of the handle.
    pub path_len: u16,
    /// `PATH_*`, `SECCOMP_*` and `OPEN_*` bits.
    pub marks: u8,
    /// An [`OpenCall`]; another value where it is not known.
    pub call: u8,
}
assert_layout!(Open, size 88, header @ 0, flags @ 64, ret @ 72, dirfd @ 76, mode @ 80, path_len @ 84, marks @ 86,
    call @ 87);

impl Open {
    /// Bytes from the start of the record to the path or handle.
    #[must_use]
    pub fn fixed_len(&self) -> usize {
        let has_extra = OpenCall::try_from(self.call).is_ok_and(OpenCall::has_extra);
        size_of::<Self>() + if has_extra { size_of::<OpenExtra>() } else { 0 }
    }
}
