//! Texts that are written again and again, cached by what they depend on.

use std::io;

/// How many texts are cached.
const ENTRIES: usize = 64;
/// Room that a text is given at first: enough for most.
const CAPACITY: usize = 256;

/// What a text depends on.
pub(crate) trait Key: Copy + PartialEq {
    /// A number that differs between most keys.
    fn number(&self) -> u64;
}

/// Caches the last text of each of [`ENTRIES`] places; a key has one place.
#[derive(Debug)]
pub(crate) struct TextCache<K> {
    entries: Box<[Entry<K>; ENTRIES]>,
}

#[derive(Debug)]
struct Entry<K> {
    /// `None` before the first text, and after one that could not be written.
    key: Option<K>,
    text: Vec<u8>,
}

impl<K: Key> TextCache<K> {
    pub(crate) fn new() -> Self {
        let empty = |_| Entry { key: None, text: Vec::new() };
        Self { entries: Box::new(std::array::from_fn(empty)) }
    }

    /// Appends the text of `key`, which `write` writes if it is not cached.
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

#[cfg(test)]
mod tests {
    use super::*;

    impl Key for u64 {
        fn number(&self) -> u64 {
            *self
        }
    }

    fn append(cache: &mut TextCache<u64>, key: u64, text: &str) -> String {
        let mut out = b"> ".to_vec();
        cache
            .append(key, &mut out, |out| {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            })
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_written_once_and_belongs_to_its_key() {
        let mut cache = TextCache::new();
        assert_eq!(append(&mut cache, 1, "one"), "> one");
        assert_eq!(append(&mut cache, 1, "not written"), "> one");
        for key in 2..1000 {
            assert_eq!(append(&mut cache, key, &key.to_string()), format!("> {key}"));
        }
    }

    #[test]
    fn text_that_could_not_be_written_is_not_cached() {
        let mut cache = TextCache::<u64>::new();
        let failing = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"half");
            Err(io::ErrorKind::Other.into())
        };
        assert!(cache.append(1, &mut Vec::new(), failing).is_err());
        assert_eq!(append(&mut cache, 1, "whole"), "> whole");
    }
}
