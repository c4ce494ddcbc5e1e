//! execve, execveat.

use std::io;

use serde::{Serialize, ser::SerializeSeq as _};
use tracer_common::event::{
    ARGS_FAULT, ARGS_TRUNCATED, EXEC_AT, EXEC_CHECK, Exec as Record, Kind, PATH_FAULT, PATH_TRUNCATED,
};

use crate::{
    bpf::wire,
    kinds::{Payload, Seccomp, Tracer, errno, write_marks},
    output::{Column, Hex, Text, write_number},
};

/// `trace exec`.
#[derive(Debug)]
pub(crate) struct ExecTracer;

/// One execution.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exec<'a> {
    args: Args<'a>,
    #[serde(skip_serializing_if = "ArgsHex::is_of_text")]
    args_hex: ArgsHex<'a>,
    path: Text<'a>,
    #[serde(skip_serializing_if = "Hex::is_of_text")]
    path_hex: Hex<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dirfd: Option<i32>,
    errno: u32,
    truncated: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fault: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    seccomp: Option<Seccomp>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    check: bool,
}

impl Exec<'_> {
    /// Appends what serde makes of it.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(br#"{"args":["#);
        let mut is_text = true;
        self.args.write_list(out, |arg, out| is_text &= Text(arg).write_json(out));
        if !is_text {
            out.extend_from_slice(br#"],"argsHex":["#);
            self.args_hex.0.write_list(out, |arg, out| Hex(arg).write_json(out));
        }
        out.extend_from_slice(br#"],"path":"#);
        if !self.path.write_json(out) {
            out.extend_from_slice(br#","pathHex":"#);
            self.path_hex.write_json(out);
        }
        if let Some(dirfd) = self.dirfd {
            out.extend_from_slice(br#","dirfd":"#);
            write_number(dirfd, out)?;
        }
        out.extend_from_slice(br#","errno":"#);
        write_number(self.errno, out)?;
        write_marks(self.truncated, self.fault, out);
        Seccomp::write_json(self.seccomp, out);
        if self.check {
            out.extend_from_slice(br#","check":true"#);
        }
        out.push(b'}');
        Ok(())
    }

    /// The arguments in one line. Where there are none, the path: it may be all that is known.
    fn write_line(&self, out: &mut Vec<u8>) {
        if self.args.0.is_empty() {
            return write_word(self.path.0, out);
        }
        for (index, arg) in self.args.iter().enumerate() {
            if index > 0 {
                out.push(b' ');
            }
            write_word(arg, out);
        }
    }
}

/// Appends an argument or path, in quotes what could be taken for something else: an empty one, one with blanks.
fn write_word(word: &[u8], out: &mut Vec<u8>) {
    let quote = word.is_empty() || word.contains(&b' ') || word.contains(&b'"');
    if !quote {
        out.extend_from_slice(word);
        return;
    }
    out.push(b'"');
    for byte in word {
        // Doubled, since a backslash gets one more when the line is made safe to show.
        out.extend_from_slice(if *byte == b'"' { b"\"\"" } else { std::slice::from_ref(byte) });
    }
    out.push(b'"');
}

const PPID: Column = Column::of_process("PPID", 7, |row, out| write_number(row.event.header.ppid, out));
const RET: Column = Column::new("RET", 4, |row, out| {
    if let Payload::Exec(exec) = &row.event.payload {
        write_number(-i64::from(exec.errno), out)?;
    }
    Ok(())
});
const ARGS: Column = Column::new("ARGS", 32, |row, out| {
    if let Payload::Exec(exec) = &row.event.payload {
        exec.write_line(out);
    }
    Ok(())
});

impl Tracer for ExecTracer {
    fn kind(&self) -> Kind {
        Kind::Exec
    }

    fn name(&self) -> &'static str {
        "exec"
    }

    fn about(&self) -> &'static str {
        "Programs executed: execve, execveat"
    }

    fn columns(&self) -> &'static [Column] {
        &[PPID, RET, ARGS]
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Option<Payload<'a>> {
        let record: Record = wire::read(bytes)?;
        let tail = bytes.get(size_of::<Record>()..)?;
        let (path, tail) = tail.split_at_checked(usize::from(record.path_len))?;
        let args = Args(tail.get(..usize::from(record.args_len))?);
        Some(Payload::Exec(Exec {
            args,
            args_hex: ArgsHex(args),
            path: Text(path),
            path_hex: Hex(path),
            dirfd: (record.marks & EXEC_AT != 0).then_some(record.dirfd),
            errno: errno(record.ret),
            truncated: record.marks & (PATH_TRUNCATED | ARGS_TRUNCATED) != 0,
            fault: record.marks & (PATH_FAULT | ARGS_FAULT) != 0,
            seccomp: Seccomp::of(record.marks),
            check: record.marks & EXEC_CHECK != 0,
        }))
    }
}

/// Arguments, each with its NUL, but for the last where it was cut off.
#[derive(Clone, Copy, Debug)]
struct Args<'a>(&'a [u8]);

impl<'a> Args<'a> {
    fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let block = self.0.strip_suffix(&[0]).unwrap_or(self.0);
        // An empty block is no argument, a lone NUL an empty one.
        (!self.0.is_empty()).then(|| block.split(|byte| *byte == 0)).into_iter().flatten()
    }

    /// Appends what `write` makes of each, with commas between.
    fn write_list(self, out: &mut Vec<u8>, mut write: impl FnMut(&[u8], &mut Vec<u8>)) {
        for (index, arg) in self.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write(arg, out);
        }
    }
}

impl Serialize for Args<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        for arg in self.iter() {
            seq.serialize_element(&Text(arg))?;
        }
        seq.end()
    }
}

/// The arguments' bytes, where not all of them are UTF-8.
#[derive(Clone, Copy, Debug)]
struct ArgsHex<'a>(Args<'a>);

impl ArgsHex<'_> {
    /// Whether all arguments are UTF-8, so that [`Args`] tells what they are.
    fn is_of_text(&self) -> bool {
        // The NULs between them are, and belong to no other character.
        std::str::from_utf8(self.0.0).is_ok()
    }
}

impl Serialize for ArgsHex<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        for arg in self.0.iter() {
            seq.serialize_element(&Hex(arg))?;
        }
        seq.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(block: &[u8]) -> String {
        serde_json::to_string(&Args(block)).unwrap()
    }

    fn line_of(path: &[u8], block: &[u8]) -> String {
        let exec = Exec {
            args: Args(block),
            args_hex: ArgsHex(Args(block)),
            path: Text(path),
            path_hex: Hex(path),
            dirfd: None,
            errno: 0,
            truncated: false,
            fault: false,
            seccomp: None,
            check: false,
        };
        let mut out = Vec::new();
        exec.write_line(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn line(block: &[u8]) -> String {
        line_of(b"/bin/sh", block)
    }

    #[test]
    fn path_stands_for_arguments_that_are_not_known() {
        assert_eq!(line_of(b"/bin/true", b""), "/bin/true");
        assert_eq!(line_of(b"/my files/true", b""), "\"/my files/true\"");
        // One argument, which is empty.
        assert_eq!(line_of(b"/bin/true", b"\0"), "\"\"");
    }

    #[test]
    fn every_argument_is_kept_the_empty_ones_too() {
        assert_eq!(json(b""), "[]");
        assert_eq!(json(b"\0"), r#"[""]"#);
        assert_eq!(json(b"a\0\0b c\0"), r#"["a","","b c"]"#);
        assert_eq!(json(b"a\0cut of"), r#"["a","cut of"]"#);
    }

    #[test]
    fn a_line_tells_one_argument_from_two() {
        assert_eq!(line(b"sh\0-c\0echo hi\0\0"), r#"sh -c "echo hi" """#);
        assert_eq!(line(b"a\"b\0"), r#""a""b""#);
    }

    #[test]
    fn a_record_that_ends_before_its_arguments_is_refused() {
        assert!(ExecTracer.decode(&[0xff; size_of::<Record>() + 100]).is_none());
    }
}
