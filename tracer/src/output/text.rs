//! Bytes that ought to be text.

use std::{fmt, io::Write as _};

use serde::{Serialize, Serializer};

use crate::sanitize;

/// Bytes shown as text: what is not UTF-8 becomes U+FFFD.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl Text<'_> {
    /// Appends what JSON has of it. Returns whether all of it is UTF-8.
    pub(crate) fn write_json(self, out: &mut Vec<u8>) -> bool {
        sanitize::write_json(self.0, out)
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(self.0))
    }
}

/// Bytes shown as hexadecimal digits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl Hex<'_> {
    /// Whether the bytes are UTF-8, so that [`Text`] tells what they are.
    #[must_use]
    pub(crate) fn is_of_text(&self) -> bool {
        std::str::from_utf8(self.0).is_ok()
    }

    /// Appends what JSON has of it.
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

impl Serialize for Hex<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
