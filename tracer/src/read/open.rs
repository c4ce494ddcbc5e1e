//! An open as JSON has it.

use std::borrow::Cow;

use serde::Deserialize;
use tracer_common::event::{Header, Open as Record, PATH_FAULT, PATH_TRUNCATED};

use super::{Malformed, bytes_of, ret};
use crate::{
    trace::{ACCESS_MODES, FLAGS},
    wire,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Open<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    path_hex: Option<&'a str>,
    #[serde(borrow)]
    flags: Vec<&'a str>,
    mode: u32,
    dirfd: i32,
    fd: i32,
    errno: u32,
    truncated: bool,
    #[serde(default)]
    fault: bool,
}

impl Open<'_> {
    /// Appends the record.
    pub(super) fn append(&self, header: Header, records: &mut Vec<u8>) -> Result<(), Malformed> {
        let path = bytes_of(&self.path, self.path_hex)?;
        let record = Record {
            header,
            flags: flags(&self.flags)?,
            ret: ret(self.fd, self.errno)?,
            dirfd: self.dirfd,
            mode: self.mode,
            path_len: u16::try_from(path.len()).map_err(|_| "its path is too long")?,
            marks: if self.truncated { PATH_TRUNCATED } else { 0 } | if self.fault { PATH_FAULT } else { 0 },
            reserved: 0,
        };
        records.extend_from_slice(wire::bytes(&record));
        records.extend_from_slice(&path);
        Ok(())
    }
}

/// The bits of flags, by the table that names them: another architecture's node may have other bits for some.
fn flags(names: &[&str]) -> Result<u64, Malformed> {
    let bits = |name: &&str| {
        let access =
            ACCESS_MODES.iter().position(|mode| mode == name).and_then(|mode| u64::try_from(mode).ok());
        let named = || FLAGS.iter().find(|(_, flag)| flag == name).map(|(bits, _)| *bits);
        let number = || u64::from_str_radix(name.strip_prefix("0x")?, 16).ok();
        access.or_else(named).or_else(number)
    };
    let all = names.iter().map(bits).try_fold(0, |all, bits| Some(all | bits?));
    all.ok_or_else(|| "it has flags that are none".into())
}
