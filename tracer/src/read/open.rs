//! An open as JSON has it.

use std::borrow::Cow;

use serde::Deserialize;
use tracer_common::event::{
    Header, OPEN_FIXED_FILE, OPEN_UNREPORTED, Open as Record, OpenCall, OpenExtra, PATH_FAULT, PATH_TRUNCATED,
};

use crate::{
    bpf::wire,
    kinds::{ACCESS_MODES, FLAGS, RESOLVE, Seccomp},
    read::{Malformed, bytes_of, of_hex, ret},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "as the fields of JSON")]
pub(super) struct Open<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    path_hex: Option<&'a str>,
    #[serde(borrow)]
    flags: Vec<&'a str>,
    mode: u32,
    dirfd: i32,
    call: Option<&'a str>,
    #[serde(borrow)]
    resolve: Option<Vec<&'a str>>,
    #[serde(borrow)]
    handle: Option<Handle<'a>>,
    fd: i32,
    errno: u32,
    truncated: bool,
    #[serde(default)]
    fault: bool,
    seccomp: Option<Seccomp>,
    #[serde(default)]
    fixed: bool,
    #[serde(default)]
    unreported: bool,
}

#[derive(Deserialize)]
struct Handle<'a> {
    #[serde(rename = "type")]
    kind: i32,
    bytes: &'a str,
}

impl Open<'_> {
    /// Appends the record.
    pub(super) fn append(&self, header: Header, records: &mut Vec<u8>) -> Result<(), Malformed> {
        let (call, extra) = self.call()?;
        let path = match &self.handle {
            Some(handle) => Cow::Owned(of_hex(handle.bytes).ok_or("its handle is none")?),
            None => bytes_of(&self.path, self.path_hex)?,
        };
        let record = Record {
            header,
            flags: flags(&self.flags)?,
            ret: ret(self.fd, self.errno)?,
            dirfd: self.dirfd,
            mode: self.mode,
            path_len: u16::try_from(path.len()).map_err(|_| "its path is too long")?,
            marks: if self.truncated { PATH_TRUNCATED } else { 0 }
                | if self.fault { PATH_FAULT } else { 0 }
                | if self.fixed { OPEN_FIXED_FILE } else { 0 }
                | if self.unreported { OPEN_UNREPORTED } else { 0 }
                | self.seccomp.map_or(0, Seccomp::mark),
            call: call.map_or(0, |call| call as u8),
        };
        records.extend_from_slice(wire::bytes(&record));
        if let Some(extra) = extra {
            records.extend_from_slice(wire::bytes(&extra));
        }
        records.extend_from_slice(&path);
        Ok(())
    }

    /// Which call it is, and what that has besides.
    fn call(&self) -> Result<(Option<OpenCall>, Option<OpenExtra>), Malformed> {
        let Some(name) = self.call else {
            return match (&self.resolve, &self.handle) {
                (None, None) => Ok((None, None)),
                _ => Err("it is of no call that has what it has".into()),
            };
        };
        let call = OpenCall::ALL.into_iter().find(|call| call.name() == name).ok_or("its call is none")?;
        let extra = match (call.has_extra(), &self.resolve, &self.handle) {
            (false, None, None) => None,
            (true, Some(names), None) if call != OpenCall::OpenByHandleAt => {
                Some(OpenExtra(bits(names, RESOLVE).ok_or("it has resolve flags that are none")?))
            }
            (true, None, Some(handle)) if call == OpenCall::OpenByHandleAt => {
                Some(OpenExtra(u64::from(handle.kind.cast_unsigned()) << 32))
            }
            _ => return Err("it is of no call that has what it has".into()),
        };
        Ok((Some(call), extra))
    }
}

/// The bits that have these names, or are numbers.
fn bits(names: &[&str], table: &[(u64, &str)]) -> Option<u64> {
    let bits = |name: &&str| {
        let named = || table.iter().find(|(_, flag)| flag == name).map(|(bits, _)| *bits);
        let number = || u64::from_str_radix(name.strip_prefix("0x")?, 16).ok();
        named().or_else(number)
    };
    names.iter().map(bits).try_fold(0, |all, bits| Some(all | bits?))
}

/// The bits of flags, by the table that names them: another architecture's node may have other bits for some.
fn flags(names: &[&str]) -> Result<u64, Malformed> {
    let (access, rest) = match names.split_first() {
        Some((first, rest)) => match ACCESS_MODES.iter().position(|mode| mode == first) {
            Some(mode) => (u64::try_from(mode).unwrap_or(0), rest),
            None => (0, names),
        },
        None => (0, names),
    };
    bits(rest, FLAGS).map(|bits| access | bits).ok_or_else(|| "it has flags that are none".into())
}
