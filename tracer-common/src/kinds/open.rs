//! Kind `open`: the calls that open files, and the same requests of io_uring.

use core::mem::offset_of;

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{
    FIRST_OWN_FLAG, Header, PATH_FAULT, PATH_TRUNCATED, SECCOMP,
    schema::{BitNames, Buffer, Column, Example, Fexit, Field, Function, Kind, Shows, SystemCall},
};

/// Bytes of a path that a record holds at the most: `PATH_MAX` (include/uapi/linux/limits.h) without its NUL.
pub const PATH_MAX: usize = 4095;
/// Bytes of a file handle that a record holds at the most (`MAX_HANDLE_SZ`, include/linux/exportfs.h).
pub const HANDLE_MAX: usize = 128;

/// `open`. These are the values of [`Open::call`].
pub const OPEN: u8 = 1;
/// `creat`.
pub const CREAT: u8 = 2;
/// `openat`.
pub const OPENAT: u8 = 3;
/// `openat2`.
pub const OPENAT2: u8 = 4;
/// `open_by_handle_at`.
pub const OPEN_BY_HANDLE_AT: u8 = 5;
/// `IORING_OP_OPENAT`.
pub const URING_OPENAT: u8 = 6;
/// `IORING_OP_OPENAT2`.
pub const URING_OPENAT2: u8 = 7;

/// The record has [`Open::resolve`].
pub const HAS_RESOLVE: u16 = FIRST_OWN_FLAG;
/// The file was named by a handle, not by a path.
pub const HAS_HANDLE: u16 = FIRST_OWN_FLAG << 1;
/// The file was installed in io_uring's table: the result is an index in that table, not a file descriptor.
pub const FIXED_FILE: u16 = FIRST_OWN_FLAG << 2;
/// The result was not reported: the request was to report failures only, or the report was missed.
pub const RESULT_UNREPORTED: u16 = FIRST_OWN_FLAG << 3;

/// One call to open a file, as the process made it. The path follows, then the handle; one of them is empty.
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// What all events share.
    pub header: Header,
    /// `O_*` as given; of creat the flags that it stands for.
    pub flags: u64,
    /// `RESOLVE_*` of openat2; 0 without [`HAS_RESOLVE`].
    pub resolve: u64,
    /// The file descriptor, or a negated errno, or [`UNREPORTED`](super::schema::UNREPORTED).
    pub ret: i32,
    /// The directory that a relative path starts from; `AT_FDCWD` for open and creat. Of open_by_handle_at a descriptor on
    /// the file system of the handle.
    pub dirfd: i32,
    /// File mode as given; 0 if the flags leave it unused.
    pub mode: u32,
    /// Type of the handle, the second field of `struct file_handle`; 0 without [`HAS_HANDLE`].
    pub handle_type: i32,
    /// Bytes of the path, without a NUL.
    pub path_len: u16,
    /// Bytes of the handle.
    pub handle_len: u16,
    /// `PATH_*`, `SECCOMP_*` and the kind's own flags.
    pub event_flags: u16,
    /// The call; another value if it is not known.
    pub call: u8,
    /// 0.
    pub reserved: u8,
}

/// [`Kind::number`].
pub const NUMBER: u32 = 1;

/// Letters for the flags that say what is done with the file.
const LETTERS: [(&str, &str); 8] = [
    ("O_RDONLY", "r"),
    ("O_WRONLY", "w"),
    ("O_RDWR", "rw"),
    ("O_CREAT", "c"),
    ("O_TRUNC", "t"),
    ("O_APPEND", "a"),
    ("O_DIRECTORY", "d"),
    ("O_PATH", "p"),
];

/// The declaration.
pub const KIND: Kind = Kind {
    number: NUMBER,
    name: "open",
    help: "Files opened: open, openat, openat2, creat, open_by_handle_at, io_uring",
    doc: "One event for each call to open a file, when it returns: open, openat, openat2, creat and open_by_handle_at of \
          64-bit and 32-bit programs, and the requests IORING_OP_OPENAT and IORING_OP_OPENAT2 of io_uring (Linux 5.18). Paths \
          are as the process gave them. Failed calls are included, also those that a seccomp filter has answered where every \
          call is seen (`--hook sys-exit`).",
    examples: &[
        Example::new("Files that the pods of a namespace open", "-n kube-system"),
        Example::new("Files that a pod does not find or may not read", "-p shop/web-0 --failed"),
        Example::new(
            "Which pod opens a file",
            "-A -o custom-columns=namespace,pod,comm,path | grep /etc/resolv.conf",
        ),
        Example::new(
            "Who writes: the column FLAGS has w, c or t",
            "-n shop -o custom-columns=pod,comm,flags,path",
        ),
    ],
    since: (5, 8),
    failure: Some("calls that returned an error"),
    record_size: size_of::<Open>(),
    flags_at: offset_of!(Open, event_flags),
    parts: &[offset_of!(Open, path_len), offset_of!(Open, handle_len)],
    fields: &[
        Field::text("path", 0, "path as the process gave it; empty for open_by_handle_at"),
        Field::bits(
            "flags",
            offset_of!(Open, flags),
            &FLAGS,
            "`O_*` flags, the access mode first; letters in the column FLAGS: r, w, rw, c (O_CREAT), t (O_TRUNC), \
             a (O_APPEND), d (O_DIRECTORY), p (O_PATH)",
        )
        .steady(),
        Field::u32(
            "mode",
            offset_of!(Open, mode),
            "file mode for a new file; 0 if the flags leave it unused",
        )
        .steady(),
        Field::i32(
            "dirfd",
            offset_of!(Open, dirfd),
            "directory of a relative path; -100 (`AT_FDCWD`) for the working directory",
        )
        .steady(),
        Field::choice("call", offset_of!(Open, call), CALLS, "the call").steady(),
        Field::bits("resolve", offset_of!(Open, resolve), &RESOLVE, "`RESOLVE_*` flags of openat2")
            .when(HAS_RESOLVE),
        Field::object("handle", HANDLE, "the file handle of open_by_handle_at").when(HAS_HANDLE),
        Field::file_descriptor("fd", offset_of!(Open, ret), "new file descriptor; -1 if the call failed"),
        Field::errno("errno", offset_of!(Open, ret), "error number; 0 if the call succeeded"),
        Field::flag("truncated", PATH_TRUNCATED, "whether the path was longer than 4095 bytes"),
        Field::only_if(
            "fault",
            PATH_FAULT,
            "the path or the flags could not be read from the process's memory",
        ),
        Field::first_flag("seccomp", SECCOMP, "how a seccomp filter ended the call"),
        Field::only_if("fixed", FIXED_FILE, "the file went into io_uring's table: `fd` is an index in it"),
        Field::only_if("unreported", RESULT_UNREPORTED, "io_uring did not report the result"),
    ],
    columns: &[
        Column::field("FD", 4, "fd"),
        Column::new("ERR", 6, Shows::Error("errno")).alarm(),
        Column::new("FLAGS", 5, Shows::Letters("flags", &LETTERS)).wide(),
        Column::field("PATH", 32, "path"),
    ],
    calls: &[
        SystemCall { id: OPEN, x86_64: 2, i386: 5, aarch64: 0, arm: 5 },
        SystemCall { id: CREAT, x86_64: 85, i386: 8, aarch64: 0, arm: 8 },
        SystemCall { id: OPENAT, x86_64: 257, i386: 295, aarch64: 56, arm: 322 },
        SystemCall { id: OPENAT2, x86_64: 437, i386: 437, aarch64: 437, arm: 437 },
        SystemCall { id: OPEN_BY_HANDLE_AT, x86_64: 304, i386: 342, aarch64: 265, arm: 371 },
    ],
    call_buffer: Buffer::Short,
    fexit: &[
        Fexit {
            program: "open_return",
            buffer: Buffer::Short,
            x86_64: Function::Required("do_sys_openat2"),
            aarch64: Function::Required("do_sys_openat2"),
        },
        Fexit {
            program: "openat2_return",
            buffer: Buffer::Short,
            x86_64: Function::Required("__x64_sys_openat2"),
            aarch64: Function::Required("__arm64_sys_openat2"),
        },
        Fexit {
            program: "openat2_compat_return",
            buffer: Buffer::Short,
            // Of IA32_EMULATION, as the entry for openat2 is. On aarch64 32-bit programs have none of their own.
            x86_64: Function::With("__ia32_sys_openat2", "__ia32_compat_sys_open"),
            aarch64: Function::Absent,
        },
        Fexit {
            program: "handle_return",
            buffer: Buffer::Short,
            x86_64: Function::optional("__x64_sys_open_by_handle_at"),
            aarch64: Function::optional("__arm64_sys_open_by_handle_at"),
        },
        Fexit {
            program: "handle_compat_return",
            buffer: Buffer::Short,
            x86_64: Function::optional("__ia32_compat_sys_open_by_handle_at"),
            aarch64: Function::optional("__arm64_compat_sys_open_by_handle_at"),
        },
    ],
    tracepoints: &[],
};

const CALLS: &[(u8, &str)] = &[
    (OPEN, "open"),
    (CREAT, "creat"),
    (OPENAT, "openat"),
    (OPENAT2, "openat2"),
    (OPEN_BY_HANDLE_AT, "open_by_handle_at"),
    (URING_OPENAT, "io_uring openat"),
    (URING_OPENAT2, "io_uring openat2"),
];

const HANDLE: &[Field] = &[
    Field::i32("type", offset_of!(Open, handle_type), "type of the handle, which the file system defines"),
    Field::bytes("bytes", 1, "the handle, in hexadecimal digits"),
    Field::i32("mountFd", offset_of!(Open, dirfd), "descriptor of a file on the handle's file system"),
];

/// The access mode is a number, not bits; 3 requests neither (open(2), "O_ACCMODE"). The others are from
/// include/uapi/asm-generic/fcntl.h.
const FLAGS: BitNames = BitNames {
    low: &["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"],
    bits: &[
        (0o100, "O_CREAT"),
        (0o200, "O_EXCL"),
        (0o400, "O_NOCTTY"),
        (0o1000, "O_TRUNC"),
        (0o2000, "O_APPEND"),
        (0o4000, "O_NONBLOCK"),
        (0o4_010_000, "O_SYNC"),
        (0o10_000, "O_DSYNC"),
        (0o20_000, "O_ASYNC"),
        (arch::O_DIRECT, "O_DIRECT"),
        (arch::O_LARGEFILE, "O_LARGEFILE"),
        (0o20_000_000 | arch::O_DIRECTORY, "O_TMPFILE"),
        (arch::O_DIRECTORY, "O_DIRECTORY"),
        (arch::O_NOFOLLOW, "O_NOFOLLOW"),
        (0o1_000_000, "O_NOATIME"),
        (0o2_000_000, "O_CLOEXEC"),
        (0o10_000_000, "O_PATH"),
        // Linux 7.2: an empty path opens the directory itself; and, for openat2 only, nothing but a regular file is opened.
        (1 << 26, "O_EMPTYPATH"),
        (1 << 32, "OPENAT2_REGULAR"),
    ],
};

/// include/uapi/linux/openat2.h.
const RESOLVE: BitNames = BitNames {
    low: &[],
    bits: &[
        (0x01, "RESOLVE_NO_XDEV"),
        (0x02, "RESOLVE_NO_MAGICLINKS"),
        (0x04, "RESOLVE_NO_SYMLINKS"),
        (0x08, "RESOLVE_BENEATH"),
        (0x10, "RESOLVE_IN_ROOT"),
        (0x20, "RESOLVE_CACHED"),
    ],
};

/// Four flags have other values on arm (arch/arm64/include/uapi/asm/fcntl.h).
#[cfg(target_arch = "aarch64")]
mod arch {
    pub(super) const O_DIRECTORY: u64 = 0o40_000;
    pub(super) const O_NOFOLLOW: u64 = 0o100_000;
    pub(super) const O_DIRECT: u64 = 0o200_000;
    pub(super) const O_LARGEFILE: u64 = 0o400_000;
}
#[cfg(not(target_arch = "aarch64"))]
mod arch {
    pub(super) const O_DIRECT: u64 = 0o40_000;
    pub(super) const O_LARGEFILE: u64 = 0o100_000;
    pub(super) const O_DIRECTORY: u64 = 0o200_000;
    pub(super) const O_NOFOLLOW: u64 = 0o400_000;
}
