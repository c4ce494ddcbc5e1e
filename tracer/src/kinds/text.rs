//! Bytes and numbers as text.

use std::{
    fmt,
    io::{self, Write as _},
};

use crate::sanitize;

/// Bytes shown as text: what is not UTF-8 becomes U+FFFD.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl Text<'_> {
    /// Appends the JSON string; returns whether all of it is UTF-8.
    pub(crate) fn write_json(self, out: &mut Vec<u8>) -> bool {
        sanitize::write_json(self.0, out)
    }
}

/// Bytes shown as hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl Hex<'_> {
    /// Appends the JSON string.
    pub(crate) fn write_json(self, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        let _ = write!(out, "\"{self}\"");
    }
}

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Appends a number in decimal.
#[expect(clippy::unnecessary_wraps, reason = "values of columns may fail")]
pub(crate) fn write_number(number: impl itoa::Integer, out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    Ok(())
}
