//! An execution as JSON has it.

use std::borrow::Cow;

use serde::Deserialize;
use tracer_common::event::{EXEC_AT, EXEC_CHECK, Exec as Record, Header, PATH_FAULT, PATH_TRUNCATED};

use crate::{
    bpf::wire,
    kinds::Seccomp,
    read::{Malformed, bytes_of, ret},
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Exec<'a> {
    args: Vec<Cow<'a, str>>,
    #[serde(borrow)]
    args_hex: Option<Vec<&'a str>>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    path_hex: Option<&'a str>,
    dirfd: Option<i32>,
    errno: u32,
    truncated: bool,
    #[serde(default)]
    fault: bool,
    seccomp: Option<Seccomp>,
    #[serde(default)]
    check: bool,
}

impl Exec<'_> {
    /// Appends the record.
    pub(super) fn append(&self, header: Header, records: &mut Vec<u8>) -> Result<(), Malformed> {
        let path = bytes_of(&self.path, self.path_hex)?;
        let args = self.block()?;
        let record = Record {
            header,
            ret: ret(0, self.errno)?,
            path_len: u16::try_from(path.len()).map_err(|_| "its path is too long")?,
            args_len: u16::try_from(args.len()).map_err(|_| "its arguments are too long")?,
            dirfd: self.dirfd.unwrap_or(0),
            // Whether it is the path or the arguments is not told.
            marks: if self.truncated { PATH_TRUNCATED } else { 0 }
                | if self.fault { PATH_FAULT } else { 0 }
                | if self.dirfd.is_some() { EXEC_AT } else { 0 }
                | if self.check { EXEC_CHECK } else { 0 }
                | self.seccomp.map_or(0, Seccomp::mark),
            reserved: [0; 3],
        };
        records.extend_from_slice(wire::bytes(&record));
        records.extend_from_slice(&path);
        records.extend_from_slice(&args);
        Ok(())
    }

    /// All arguments, each with its NUL.
    fn block(&self) -> Result<Vec<u8>, Malformed> {
        let mut block = Vec::new();
        if let Some(hex) = &self.args_hex
            && hex.len() != self.args.len()
        {
            return Err("it has not as many arguments in hexadecimal digits".into());
        }
        for (index, text) in self.args.iter().enumerate() {
            let arg = bytes_of(text, self.args_hex.as_ref().map(|hex| hex[index]))?;
            if arg.contains(&0) {
                return Err("one of its arguments is none".into());
            }
            block.extend_from_slice(&arg);
            block.push(0);
        }
        Ok(block)
    }
}
