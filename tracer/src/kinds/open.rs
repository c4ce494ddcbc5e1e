//! open, openat, openat2, creat, open_by_handle_at, and what io_uring opens.

use std::io;

use serde::Serialize;
use tracer_common::event::{
    Kind, OPEN_FIXED_FILE, OPEN_UNREPORTED, Open as Record, OpenCall, OpenExtra, PATH_FAULT, PATH_TRUNCATED,
};

use crate::{
    bpf::wire,
    kinds::{Payload, Seccomp, Tracer, errno, write_marks},
    output::{Call, Column, Hex, Memo, Text, write_number},
};

/// `trace open`.
#[derive(Debug)]
pub(crate) struct OpenTracer;

/// One call to open a file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "as the fields of JSON")]
pub(crate) struct Open<'a> {
    path: Text<'a>,
    #[serde(skip_serializing_if = "Hex::is_of_text")]
    path_hex: Hex<'a>,
    flags: Flags,
    mode: u32,
    dirfd: i32,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "call_name")]
    call: Option<OpenCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolve: Option<Resolve>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handle: Option<Handle<'a>>,
    fd: i32,
    errno: u32,
    truncated: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fault: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    seccomp: Option<Seccomp>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fixed: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unreported: bool,
}

/// A file by its handle, as open_by_handle_at takes it.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Handle<'a> {
    #[serde(rename = "type")]
    kind: i32,
    bytes: Hex<'a>,
    mount_fd: i32,
}

impl Open<'_> {
    /// Appends what serde makes of it.
    pub(crate) fn write_json(&self, calls: &mut Memo<Call>, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(br#"{"path":"#);
        if !self.path.write_json(out) {
            out.extend_from_slice(br#","pathHex":"#);
            self.path_hex.write_json(out);
        }
        // A negative directory keeps its bits.
        let place = u64::from(self.mode) << 32 | u64::from(self.dirfd.cast_unsigned());
        let number = self.call.map_or(0, |call| call as u64);
        calls.append(Call([self.flags.0, place, number]), out, |out| {
            out.extend_from_slice(br#","flags":"#);
            serde_json::to_writer(&mut *out, &self.flags)?;
            out.extend_from_slice(br#","mode":"#);
            write_number(self.mode, out)?;
            out.extend_from_slice(br#","dirfd":"#);
            write_number(self.dirfd, out)?;
            if let Some(call) = self.call {
                out.extend_from_slice(br#","call":""#);
                out.extend_from_slice(call.name().as_bytes());
                out.push(b'"');
            }
            Ok(())
        })?;
        if let Some(resolve) = &self.resolve {
            out.extend_from_slice(br#","resolve":"#);
            serde_json::to_writer(&mut *out, resolve)?;
        }
        if let Some(handle) = &self.handle {
            out.extend_from_slice(br#","handle":"#);
            serde_json::to_writer(&mut *out, handle)?;
        }
        out.extend_from_slice(br#","fd":"#);
        write_number(self.fd, out)?;
        out.extend_from_slice(br#","errno":"#);
        write_number(self.errno, out)?;
        write_marks(self.truncated, self.fault, out);
        Seccomp::write_json(self.seccomp, out);
        if self.fixed {
            out.extend_from_slice(br#","fixed":true"#);
        }
        if self.unreported {
            out.extend_from_slice(br#","unreported":true"#);
        }
        out.push(b'}');
        Ok(())
    }
}

const FD: Column = Column::new("FD", 4, |row, out| {
    if let Payload::Open(open) = &row.event.payload {
        write_number(open.fd, out)?;
    }
    Ok(())
});
const ERR: Column = Column::new("ERR", 3, |row, out| {
    if let Payload::Open(open) = &row.event.payload {
        write_number(open.errno, out)?;
    }
    Ok(())
});
const PATH: Column = Column::new("PATH", 32, |row, out| {
    if let Payload::Open(open) = &row.event.payload {
        out.extend_from_slice(open.path.0);
    }
    Ok(())
});

impl Tracer for OpenTracer {
    fn kind(&self) -> Kind {
        Kind::Open
    }

    fn name(&self) -> &'static str {
        "open"
    }

    fn about(&self) -> &'static str {
        "Files opened: open, openat, openat2, creat, open_by_handle_at, io_uring"
    }

    fn columns(&self) -> &'static [Column] {
        &[FD, ERR, PATH]
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Option<Payload<'a>> {
        let record: Record = wire::read(bytes)?;
        let path = bytes.get(record.fixed_len()..)?.get(..usize::from(record.path_len))?;
        let call = OpenCall::try_from(record.call).ok();
        let extra = match call {
            Some(call) if call.has_extra() => Some(wire::read::<OpenExtra>(&bytes[size_of::<Record>()..])?),
            _ => None,
        };
        let is_unreported = record.marks & OPEN_UNREPORTED != 0;
        let (path, resolve, handle) = match (call, extra) {
            (Some(OpenCall::OpenByHandleAt), Some(extra)) => {
                let handle = Handle { kind: extra.handle_type(), bytes: Hex(path), mount_fd: record.dirfd };
                (&[][..], None, Some(handle))
            }
            (_, extra) => (path, extra.map(|OpenExtra(resolve)| Resolve(resolve)), None),
        };
        Some(Payload::Open(Open {
            path: Text(path),
            path_hex: Hex(path),
            flags: Flags(record.flags),
            mode: record.mode,
            dirfd: record.dirfd,
            call,
            resolve,
            handle,
            fd: if is_unreported { -1 } else { record.ret.max(-1) },
            errno: if is_unreported { 0 } else { errno(record.ret) },
            truncated: record.marks & PATH_TRUNCATED != 0,
            fault: record.marks & PATH_FAULT != 0,
            seccomp: Seccomp::of(record.marks),
            fixed: record.marks & OPEN_FIXED_FILE != 0,
            unreported: is_unreported,
        }))
    }
}

#[expect(
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference to the field"
)]
fn call_name<S: serde::Serializer>(call: &Option<OpenCall>, serializer: S) -> Result<S::Ok, S::Error> {
    call.map(OpenCall::name).serialize(serializer)
}

/// `O_*` bits, shown by name.
#[derive(Debug)]
struct Flags(u64);

/// The access mode is a number, not bits; 3 asks for neither (open(2), "O_ACCMODE").
pub(crate) const ACCESS_MODES: [&str; 4] = ["O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"];

/// include/uapi/asm-generic/fcntl.h. Of flags that include others' bits the larger ones come first.
pub(crate) const FLAGS: &[(u64, &str)] = &[
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
];

/// include/uapi/linux/openat2.h.
pub(crate) const RESOLVE: &[(u64, &str)] = &[
    (0x01, "RESOLVE_NO_XDEV"),
    (0x02, "RESOLVE_NO_MAGICLINKS"),
    (0x04, "RESOLVE_NO_SYMLINKS"),
    (0x08, "RESOLVE_BENEATH"),
    (0x10, "RESOLVE_IN_ROOT"),
    (0x20, "RESOLVE_CACHED"),
];

/// Four flags have other values on arm (arch/arm64/include/uapi/asm/fcntl.h).
#[cfg(target_arch = "aarch64")]
mod arch {
    pub(crate) const O_DIRECTORY: u64 = 0o40_000;
    pub(crate) const O_NOFOLLOW: u64 = 0o100_000;
    pub(crate) const O_DIRECT: u64 = 0o200_000;
    pub(crate) const O_LARGEFILE: u64 = 0o400_000;
}
#[cfg(not(target_arch = "aarch64"))]
mod arch {
    pub(crate) const O_DIRECT: u64 = 0o40_000;
    pub(crate) const O_LARGEFILE: u64 = 0o100_000;
    pub(crate) const O_DIRECTORY: u64 = 0o200_000;
    pub(crate) const O_NOFOLLOW: u64 = 0o400_000;
}

impl Serialize for Flags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq as _;
        let mut names = serializer.serialize_seq(None)?;
        let access = usize::try_from(self.0 & 3).unwrap_or(0);
        names.serialize_element(ACCESS_MODES[access])?;
        serialize_bits(self.0 & !3, FLAGS, &mut names)?;
        names.end()
    }
}

/// `RESOLVE_*` bits, shown by name.
#[derive(Clone, Copy, Debug)]
struct Resolve(u64);

impl Serialize for Resolve {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq as _;
        let mut names = serializer.serialize_seq(None)?;
        serialize_bits(self.0, RESOLVE, &mut names)?;
        names.end()
    }
}

/// The names of bits, and the rest as one number.
fn serialize_bits<S: serde::ser::SerializeSeq>(
    mut rest: u64,
    table: &[(u64, &'static str)],
    names: &mut S,
) -> Result<(), S::Error> {
    for (bits, name) in table {
        if rest & bits == *bits {
            names.serialize_element(name)?;
            rest &= !bits;
        }
    }
    if rest != 0 {
        names.serialize_element(&format_args!("{rest:#x}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(flags: i32) -> String {
        serde_json::to_string(&Flags(u64::from(flags.unsigned_abs()))).unwrap()
    }

    #[test]
    fn flags_are_named_as_the_c_library_names_them() {
        assert_eq!(names(0), r#"["O_RDONLY"]"#);
        assert_eq!(names(libc::O_RDWR | libc::O_CLOEXEC), r#"["O_RDWR","O_CLOEXEC"]"#);
        assert_eq!(names(libc::O_SYNC), r#"["O_RDONLY","O_SYNC"]"#);
        assert_eq!(names(libc::O_DSYNC), r#"["O_RDONLY","O_DSYNC"]"#);
        assert_eq!(names(libc::O_TMPFILE | libc::O_WRONLY), r#"["O_WRONLY","O_TMPFILE"]"#);
        assert_eq!(names(libc::O_DIRECTORY | libc::O_NOFOLLOW), r#"["O_RDONLY","O_DIRECTORY","O_NOFOLLOW"]"#);
        assert_eq!(names(libc::O_DIRECT | libc::O_PATH), r#"["O_RDONLY","O_DIRECT","O_PATH"]"#);
    }

    #[test]
    fn bits_without_a_name_are_shown_as_a_number() {
        assert_eq!(names(0x4000_0000), r#"["O_RDONLY","0x40000000"]"#);
        assert_eq!(serde_json::to_string(&Resolve(0x108)).unwrap(), r#"["RESOLVE_BENEATH","0x100"]"#);
        assert_eq!(serde_json::to_string(&Resolve(0)).unwrap(), "[]");
    }

    #[test]
    fn flags_above_32_bits_have_names() {
        let names = serde_json::to_string(&Flags(1 << 33 | 1 << 32 | 1 << 26 | 1)).unwrap();
        assert_eq!(names, r#"["O_WRONLY","O_EMPTYPATH","OPENAT2_REGULAR","0x200000000"]"#);
    }

    #[test]
    fn a_record_that_ends_before_its_path_is_refused() {
        // A path length of 65535, and nothing behind.
        let bytes = [0xff; size_of::<Record>()];
        assert!(OpenTracer.decode(&bytes).is_none());
    }
}
