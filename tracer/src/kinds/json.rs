//! The JSON object with a kind's own fields.

use std::io::{self, Write as _};

use tracer_common::kinds::schema::UNREPORTED;

use super::{Event, Field, Hex, Kind, Text, Value, errno, write_number};
use crate::text_cache::{Key, TextCache};

/// Texts of fields that have the same value in many events.
pub(crate) type FieldCache = TextCache<RawValues>;

/// The values of consecutive steady fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawValues([u64; STEADY_MAX]);

impl Key for RawValues {
    fn number(&self) -> u64 {
        let [first, second, third, fourth] = self.0;
        first ^ second.rotate_left(32) ^ third.rotate_left(16) ^ fourth.rotate_left(48)
    }
}

/// As many fields are written from one text at the most.
const STEADY_MAX: usize = 4;

/// One step in writing the object.
#[derive(Debug)]
pub(super) enum Step {
    /// A field.
    Field(Member),
    /// Fields whose text is cached, at this index of the caches.
    Cached(usize, Vec<Member>),
}

/// A field with the text before its value, which begins with a comma.
#[derive(Debug)]
pub(super) struct Member {
    prefix: Box<[u8]>,
    /// Likewise of what accompanies it: the bytes of what is no text, the name of an error.
    companion_prefix: Box<[u8]>,
    when: u16,
    value: Value,
    /// Of an object.
    members: Vec<Member>,
}

/// How an object with these fields is written; `caches` counts the texts that are cached.
pub(super) fn plan(fields: &[Field], caches: &mut usize) -> Vec<Step> {
    let mut steps = Vec::new();
    for field in fields {
        let member = Member::new(field);
        match steps.last_mut() {
            Some(Step::Cached(_, members)) if field.steady && members.len() < STEADY_MAX => {
                members.push(member);
            }
            _ if field.steady => {
                steps.push(Step::Cached(*caches, vec![member]));
                *caches += 1;
            }
            _ => steps.push(Step::Field(member)),
        }
    }
    steps
}

impl Kind {
    /// Appends the object. `caches` are the run's ([`Kinds::field_caches`](super::Kinds::field_caches)).
    pub(crate) fn write_json(
        &self,
        event: &Event<'_>,
        caches: &mut [FieldCache],
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let start = out.len();
        for step in &self.steps {
            match step {
                Step::Field(member) => member.write(event, out)?,
                Step::Cached(cache, members) => match caches.get_mut(*cache) {
                    Some(cache) => cache.append(raw_values(members, event), out, |out| {
                        members.iter().try_for_each(|member| member.write(event, out))
                    })?,
                    None => members.iter().try_for_each(|member| member.write(event, out))?,
                },
            }
        }
        close(start, out);
        Ok(())
    }
}

/// Makes an object of the members that begin at `start`, each with a comma before it.
fn close(start: usize, out: &mut Vec<u8>) {
    match out.get_mut(start) {
        Some(comma) => *comma = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}

fn raw_values(members: &[Member], event: &Event<'_>) -> RawValues {
    let mut values = [0; STEADY_MAX];
    for (member, value) in members.iter().zip(&mut values) {
        *value = member.raw_value(event);
    }
    RawValues(values)
}

impl Member {
    fn new(field: &Field) -> Self {
        let Field { name, value, when, .. } = field;
        let members = match value {
            Value::Object { fields } => fields.iter().map(Self::new).collect(),
            _ => Vec::new(),
        };
        Self {
            prefix: format!(r#","{name}":"#).into_bytes().into(),
            companion_prefix: format!(r#","{}":"#, companion(field)).into_bytes().into(),
            when: *when,
            value: value.clone(),
            members,
        }
    }

    /// What decides the member's text, of a field in the structure.
    fn raw_value(&self, event: &Event<'_>) -> u64 {
        match self.value {
            Value::Unsigned { at, size } => event.unsigned_at(at, size),
            Value::Signed { at } | Value::FileDescriptor { at } | Value::Errno { at } => {
                event.i32_at(at).cast_unsigned().into()
            }
            Value::Bits { at, .. } | Value::Nanoseconds { at } => event.u64_at(at),
            Value::Choice { at, .. } | Value::Signal { at } => event.u8_at(at).into(),
            Value::Flag { .. } | Value::FirstFlag { .. } => event.flags.into(),
            Value::Text { .. } | Value::Texts { .. } | Value::Bytes { .. } | Value::Object { .. } => 0,
        }
    }

    /// Appends the member, unless it is absent.
    fn write(&self, event: &Event<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        if self.when != 0 && event.flags & self.when == 0 {
            return Ok(());
        }
        match &self.value {
            Value::Unsigned { at, size } => self.number(event.unsigned_at(*at, *size), out),
            Value::Signed { at } => self.number(event.i32_at(*at), out),
            Value::FileDescriptor { at } => self.number(file_descriptor(event.i32_at(*at)), out),
            Value::Errno { at } => {
                let number = error_number(event.i32_at(*at));
                self.number(number, out)?;
                if let Some(name) = errno::name(number) {
                    out.extend_from_slice(&self.companion_prefix);
                    write!(out, r#""{name}""#)?;
                }
                Ok(())
            }
            Value::Nanoseconds { at } => self.number(event.u64_at(*at), out),
            Value::Bits { at, low, bits } => {
                out.extend_from_slice(&self.prefix);
                let start = out.len();
                for_each_name(event.u64_at(*at), low, bits, |name| write!(out, r#","{name}""#))?;
                match out.get_mut(start) {
                    Some(comma) => *comma = b'[',
                    None => out.push(b'['),
                }
                out.push(b']');
                Ok(())
            }
            Value::Choice { at, names } => {
                let number = event.u8_at(*at);
                let name = names.iter().find(|(known, _)| *known == number);
                name.map_or(Ok(()), |(_, name)| self.name(name, out))
            }
            Value::Flag { mask, only_true } => {
                let is_set = event.flags & mask != 0;
                if is_set || !only_true {
                    out.extend_from_slice(&self.prefix);
                    out.extend_from_slice(if is_set { b"true" } else { b"false" });
                }
                Ok(())
            }
            Value::FirstFlag { names } => {
                let name = names.iter().find(|(flag, _)| event.flags & flag != 0);
                name.map_or(Ok(()), |(_, name)| self.name(name, out))
            }
            Value::Signal { at } => match event.signal_at(*at) {
                Some(name) => self.name(name, out),
                None => Ok(()),
            },
            Value::Text { part } => {
                self.text(event.part(*part), out);
                Ok(())
            }
            Value::Texts { part } => {
                self.texts(Texts(event.part(*part)), out);
                Ok(())
            }
            Value::Bytes { part } => {
                out.extend_from_slice(&self.prefix);
                Hex(event.part(*part)).write_json(out);
                Ok(())
            }
            Value::Object { .. } => {
                out.extend_from_slice(&self.prefix);
                let start = out.len();
                self.members.iter().try_for_each(|member| member.write(event, out))?;
                close(start, out);
                Ok(())
            }
        }
    }

    fn number(&self, number: impl itoa::Integer, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(&self.prefix);
        write_number(number, out)
    }

    /// Appends a name, which needs no escaping.
    fn name(&self, name: impl std::fmt::Display, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend_from_slice(&self.prefix);
        write!(out, r#""{name}""#)
    }

    fn text(&self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        if !Text(text).write_json(out) {
            out.extend_from_slice(&self.companion_prefix);
            Hex(text).write_json(out);
        }
    }

    fn texts(&self, texts: Texts<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prefix);
        let mut is_text = true;
        texts.write_list(out, |text, out| is_text &= Text(text).write_json(out));
        if !is_text {
            out.extend_from_slice(&self.companion_prefix);
            texts.write_list(out, |text, out| Hex(text).write_json(out));
        }
    }
}

/// The name of the member that accompanies a field's value where there is more to say.
pub(crate) fn companion(Field { name, value, .. }: &Field) -> String {
    match value {
        Value::Errno { .. } => format!("{name}Name"),
        _ => format!("{name}Hex"),
    }
}

/// The file descriptor in the result of a call.
pub(super) fn file_descriptor(ret: i32) -> i32 {
    ret.max(-1)
}

/// The error number in the result of a call, or 0. A call that a signal ends returns a code of the kernel's own (`ERESTARTSYS`
/// and its kin, 512 to 516, include/linux/errno.h), instead of which the process gets EINTR, or nothing if it is restarted.
pub(super) fn error_number(ret: i32) -> u32 {
    match ret {
        UNREPORTED | 0.. => 0,
        -516..=-512 => libc::EINTR.unsigned_abs(),
        _ => ret.unsigned_abs(),
    }
}

/// Calls `each` with the name of every bit that is set, and with the rest as one number.
pub(super) fn for_each_name(
    number: u64,
    low: &[String],
    bits: &[(u64, String)],
    mut each: impl FnMut(std::fmt::Arguments<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let low_bits = u64::try_from(low.len().saturating_sub(1)).unwrap_or(0);
    if let Some(name) = usize::try_from(number & low_bits).ok().and_then(|index| low.get(index)) {
        each(format_args!("{name}"))?;
    }
    let mut rest = number & !low_bits;
    for (bits, name) in bits {
        if *bits != 0 && rest & bits == *bits {
            each(format_args!("{name}"))?;
            rest &= !bits;
        }
    }
    if rest != 0 { each(format_args!("{rest:#x}")) } else { Ok(()) }
}

/// Texts, each with a NUL behind it, but for the last one if it was cut off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Texts<'a>(pub(super) &'a [u8]);

impl<'a> Texts<'a> {
    pub(super) fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let block = self.0.strip_suffix(&[0]).unwrap_or(self.0);
        // An empty block is no text, a lone NUL an empty one.
        (!self.0.is_empty()).then(|| block.split(|byte| *byte == 0)).into_iter().flatten()
    }

    /// Appends a JSON list of what `write` makes of each.
    fn write_list(self, out: &mut Vec<u8>, mut write: impl FnMut(&[u8], &mut Vec<u8>)) {
        out.push(b'[');
        for (index, text) in self.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write(text, out);
        }
        out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::kinds::KINDS;

    use super::{super::Schema, *};

    /// The names of the bits of a field of kind open.
    fn names(field: &str, number: u64) -> Vec<String> {
        let schema = Schema::from(&KINDS[0]);
        let field = schema.fields.iter().find(|known| known.name == field).unwrap();
        let Value::Bits { low, bits, .. } = &field.value else { panic!("{field:?}") };
        let mut names = Vec::new();
        for_each_name(number, low, bits, |name| {
            names.push(name.to_string());
            Ok(())
        })
        .unwrap();
        names
    }

    fn flags(flags: i32) -> Vec<String> {
        names("flags", flags.unsigned_abs().into())
    }

    #[test]
    fn open_flags_have_the_names_of_the_c_library() {
        assert_eq!(flags(0), ["O_RDONLY"]);
        assert_eq!(flags(libc::O_RDWR | libc::O_CLOEXEC), ["O_RDWR", "O_CLOEXEC"]);
        assert_eq!(flags(libc::O_SYNC), ["O_RDONLY", "O_SYNC"]);
        assert_eq!(flags(libc::O_DSYNC), ["O_RDONLY", "O_DSYNC"]);
        assert_eq!(flags(libc::O_TMPFILE | libc::O_WRONLY), ["O_WRONLY", "O_TMPFILE"]);
        assert_eq!(flags(libc::O_DIRECTORY | libc::O_NOFOLLOW), ["O_RDONLY", "O_DIRECTORY", "O_NOFOLLOW"]);
        assert_eq!(flags(libc::O_DIRECT | libc::O_PATH), ["O_RDONLY", "O_DIRECT", "O_PATH"]);
    }

    #[test]
    fn bits_without_a_name_are_one_number() {
        assert_eq!(flags(0x4000_0000), ["O_RDONLY", "0x40000000"]);
        assert_eq!(names("resolve", 0x108), ["RESOLVE_BENEATH", "0x100"]);
        assert_eq!(names("resolve", 0), [""; 0]);
        let above_32_bits = names("flags", 1 << 33 | 1 << 32 | 1 << 26 | 1);
        assert_eq!(above_32_bits, ["O_WRONLY", "O_EMPTYPATH", "OPENAT2_REGULAR", "0x200000000"]);
    }

    #[test]
    fn codes_of_the_kernels_own_are_not_shown() {
        assert_eq!([3, -2, -512, -514, UNREPORTED].map(error_number), [0, 2, 4, 4, 0]);
    }

    #[test]
    fn every_text_of_a_list_is_kept_also_empty_ones() {
        let list = |block: &[u8]| Texts(block).iter().map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(list(b""), [b""; 0]);
        assert_eq!(list(b"\0"), [b""]);
        assert_eq!(list(b"a\0\0b c\0"), [&b"a"[..], b"", b"b c"]);
        assert_eq!(list(b"a\0cut of"), [&b"a"[..], b"cut of"]);
    }
}
