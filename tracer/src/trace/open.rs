//! open, openat, openat2, creat.

use std::io;

use serde::Serialize;
use tracer_common::event::{Kind, Open as Record, PATH_FAULT, PATH_TRUNCATED};

use super::{Payload, Tracer, errno, write_marks};
use crate::{
    render::{Call, Column, Hex, Memo, Text, write_number},
    wire,
};

/// `trace open`.
#[derive(Debug)]
pub struct OpenTracer;

/// One call to open a file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Open<'a> {
    path: Text<'a>,
    #[serde(skip_serializing_if = "Hex::is_of_text")]
    path_hex: Hex<'a>,
    flags: Flags,
    mode: u32,
    dirfd: i32,
    fd: i32,
    errno: u32,
    truncated: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fault: bool,
}

impl Open<'_> {
    /// Appends what serde makes of it.
    pub(super) fn write_json(&self, calls: &mut Memo<Call>, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(br#"{"path":"#);
        if !self.path.write_json(out) {
            out.extend_from_slice(br#","pathHex":"#);
            self.path_hex.write_json(out);
        }
        // A negative directory keeps its bits.
        let place = u64::from(self.mode) << 32 | u64::from(self.dirfd.cast_unsigned());
        calls.append(Call([self.flags.0, place]), out, |out| {
            out.extend_from_slice(br#","flags":"#);
            serde_json::to_writer(&mut *out, &self.flags)?;
            out.extend_from_slice(br#","mode":"#);
            write_number(self.mode, out)?;
            out.extend_from_slice(br#","dirfd":"#);
            write_number(self.dirfd, out)?;
            out.extend_from_slice(br#","fd":"#);
            Ok(())
        })?;
        write_number(self.fd, out)?;
        out.extend_from_slice(br#","errno":"#);
        write_number(self.errno, out)?;
        write_marks(self.truncated, self.fault, out);
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
        "Files opened: open, openat, openat2, creat"
    }

    fn columns(&self) -> &'static [Column] {
        &[FD, ERR, PATH]
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Option<Payload<'a>> {
        let record: Record = wire::read(bytes)?;
        let path = bytes.get(size_of::<Record>()..)?.get(..usize::from(record.path_len))?;
        Some(Payload::Open(Open {
            path: Text(path),
            path_hex: Hex(path),
            flags: Flags(record.flags),
            mode: record.mode,
            dirfd: record.dirfd,
            fd: record.ret.max(-1),
            errno: errno(record.ret),
            truncated: record.marks & PATH_TRUNCATED != 0,
            fault: record.marks & PATH_FAULT != 0,
        }))
    }
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
];

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

impl Serialize for Flags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeSeq as _;
        let mut names = serializer.serialize_seq(None)?;
        let access = usize::try_from(self.0 & 3).unwrap_or(0);
        names.serialize_element(ACCESS_MODES[access])?;
        let mut rest = self.0 & !3;
        for (bits, name) in FLAGS {
            if rest & bits == *bits {
                names.serialize_element(name)?;
                rest &= !bits;
            }
        }
        if rest != 0 {
            names.serialize_element(&format_args!("{rest:#x}"))?;
        }
        names.end()
    }
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
    }

    #[test]
    fn a_record_that_ends_before_its_path_is_refused() {
        // A path length of 65535, and nothing behind.
        let bytes = [0xff; size_of::<Record>()];
        assert!(OpenTracer.decode(&bytes).is_none());
    }
}
