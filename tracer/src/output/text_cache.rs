//! Texts that are written again and again, kept by what they tell of.

use std::io;

use crate::output::Kept;

/// How many texts are kept.
const ENTRIES: usize = 64;
/// Room that a text is given at first: enough for most.
const CAPACITY: usize = 256;

/// What a text tells of.
pub(crate) trait Key: Copy + PartialEq {
    /// A number that differs between most keys.
    fn number(&self) -> u64;
}

/// For each of many places the text of the key that came there last.
#[derive(Debug)]
pub(crate) struct Memo<K> {
    entries: Box<[Entry<K>; ENTRIES]>,
}

#[derive(Debug)]
struct Entry<K> {
    /// None before the first, and where its text could not be written.
    key: Option<K>,
    text: Vec<u8>,
}

impl<K: Key> Memo<K> {
    pub(crate) fn new() -> Self {
        let empty = |_| Entry { key: None, text: Vec::new() };
        Self { entries: Box::new(std::array::from_fn(empty)) }
    }

    /// Appends the text of `key`, which `write` writes where it is not kept.
    pub(crate) fn append(
        &mut self,
        key: K,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        /// Multiplied by it, the upper bits of a number depend on all of it (Knuth, The Art of Computer Programming
        /// 6.4: 2^64 divided by the golden ratio).
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let place = key.number().wrapping_mul(SPREAD) >> (u64::BITS - ENTRIES.ilog2());
        let entry = &mut self.entries[usize::try_from(place).unwrap_or(0)];
        if entry.key != Some(key) {
            entry.renew(key, write)?;
        }
        out.extend_from_slice(&entry.text);
        Ok(())
    }
}

impl<K> Entry<K> {
    #[cold]
    fn renew(&mut self, key: K, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        self.key = None;
        self.text.clear();
        self.text.reserve(CAPACITY);
        write(&mut self.text)?;
        self.key = Some(key);
        Ok(())
    }
}

impl Kept {
    /// Appends the text at `index`, which `write` writes the first time. Texts are asked for in their order.
    pub(crate) fn append(
        &mut self,
        index: usize,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        if let Some(text) = self.texts.get(index) {
            out.extend_from_slice(text);
            return Ok(());
        }
        let start = out.len();
        write(out)?;
        self.texts.push(out[start..].into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Key for u64 {
        fn number(&self) -> u64 {
            *self
        }
    }

    fn append(memo: &mut Memo<u64>, key: u64, text: &str) -> String {
        let mut out = b"> ".to_vec();
        memo.append(key, &mut out, |out| {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        })
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_text_is_written_once_and_never_taken_for_anothers() {
        let mut memo = Memo::new();
        assert_eq!(append(&mut memo, 1, "one"), "> one");
        assert_eq!(append(&mut memo, 1, "not asked for"), "> one");
        for key in 2..1000 {
            assert_eq!(append(&mut memo, key, &key.to_string()), format!("> {key}"));
        }
    }

    #[test]
    fn a_text_that_could_not_be_written_is_not_kept() {
        let mut memo = Memo::<u64>::new();
        let failing = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"half");
            Err(io::ErrorKind::Other.into())
        };
        assert!(memo.append(1, &mut Vec::new(), failing).is_err());
        assert_eq!(append(&mut memo, 1, "whole"), "> whole");
    }
}
