//! Kernel types from BTF. Only the types that are needed are decoded, since all of them are several megabytes.
//!
//! The format is documented in the kernel's Documentation/bpf/btf.rst.

use std::path::Path;

use anyhow::{Context as _, bail};
use aya::{Btf, Endianness};
use tracing::debug;

/// File with the kernel's BTF (`CONFIG_DEBUG_INFO_BTF`).
pub(crate) const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
/// Words of `struct btf_type`: name, info, size or type.
const TYPE_WORDS: usize = 3;
/// Words of `struct btf_member`: name, type, offset.
const MEMBER_WORDS: usize = 3;
/// Length of the header, in bytes, from which on it has the position of the layout section.
const LAYOUT_HEADER: usize = 32;
/// Nesting depth at which a look-up gives up; no structure of the kernel is nested as deep.
const DEPTH_MAX: u32 = 16;

/// `BTF_KIND_*`.
mod kind {
    pub(crate) const INT: u32 = 1;
    pub(crate) const PTR: u32 = 2;
    pub(crate) const ARRAY: u32 = 3;
    pub(crate) const STRUCT: u32 = 4;
    pub(crate) const UNION: u32 = 5;
    pub(crate) const ENUM: u32 = 6;
    pub(crate) const FORWARD: u32 = 7;
    pub(crate) const TYPEDEF: u32 = 8;
    pub(crate) const VOLATILE: u32 = 9;
    pub(crate) const CONST: u32 = 10;
    pub(crate) const RESTRICT: u32 = 11;
    pub(crate) const FUNC: u32 = 12;
    pub(crate) const FUNC_PROTO: u32 = 13;
    pub(crate) const VAR: u32 = 14;
    pub(crate) const DATASEC: u32 = 15;
    pub(crate) const DECL_TAG: u32 = 17;
    pub(crate) const TYPE_TAG: u32 = 18;
    pub(crate) const ENUM64: u32 = 19;
    pub(crate) const LAST: u32 = ENUM64;
}

/// All types of a kernel.
#[derive(Debug)]
pub(crate) struct KernelTypes {
    /// The type section, in words.
    words: Vec<u32>,
    /// Index in `words` of each type. Types are numbered from 1; 0 is void.
    starts: Vec<usize>,
    strings: Vec<u8>,
    /// The first kind of unknown length, at which decoding stops.
    unknown: Option<u32>,
}

/// The lengths of all kinds (`struct btf_layout`), on kernels that provide them: types of later kinds can then be
/// skipped.
#[derive(Debug, Default)]
struct Layout(Vec<[u8; 4]>);

impl Layout {
    /// Words of a type of this kind with `count` elements, without the words that all types have; None if the kind is
    /// not listed.
    fn further(&self, kind: u32, count: usize) -> Option<usize> {
        let &[fixed, each, ..] = self.0.get(kind as usize)?;
        let bytes = usize::from(fixed) + usize::from(each) * count;
        bytes.is_multiple_of(4).then_some(bytes / 4)
    }
}

/// A type.
#[derive(Clone, Copy)]
struct Type<'a> {
    /// The words of the type, followed by those of later types.
    words: &'a [u32],
}

/// A member of a structure or union.
struct Member {
    name: u32,
    type_id: u32,
    bit_offset: u32,
}

impl KernelTypes {
    /// Reads the types from a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&bytes).with_context(|| format!("parsing the BTF in {}", path.display()))
    }

    fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let magic = bytes.first_chunk().map(|magic| u16::from_le_bytes(*magic));
        if magic != Some(MAGIC) {
            bail!("it does not start with the BTF magic number");
        }
        let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
        let section = |at: usize| {
            let start = word(4)?.checked_add(word(at)?)?;
            bytes.get(start..start.checked_add(word(at + 4)?)?)
        };
        let types = section(8).context("the type section exceeds the file")?;
        let strings = section(16).context("the string section exceeds the file")?;
        let has_layout = word(4).is_some_and(|header| header >= LAYOUT_HEADER);
        let layout = if has_layout { section(24).unwrap_or_default() } else { &[] };
        let layout = Layout(layout.as_chunks().0.to_vec());
        let words: Vec<u32> = types.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let mut starts = Vec::with_capacity(words.len() / 6);
        let (mut at, mut unknown) = (0, None);
        while at < words.len() {
            let Some(found) = words.get(at..).filter(|words| words.len() >= TYPE_WORDS) else {
                bail!("type {} exceeds the type section", starts.len() + 1)
            };
            let found = Type { words: found };
            let Some(len) = found.len(&layout) else {
                debug!("BTF type {} has the unknown kind {}", starts.len() + 1, found.kind());
                unknown = Some(found.kind());
                break;
            };
            starts.push(at);
            at += len;
        }
        if at > words.len() {
            bail!("the last type exceeds the type section");
        }
        Ok(Self { words, starts, strings: strings.to_vec(), unknown })
    }

    /// The unknown kind at which decoding stopped, if any: types after it are not found.
    #[must_use]
    pub(crate) const fn unknown_kind(&self) -> Option<u32> {
        self.unknown
    }

    /// BTF for the loader, which looks up attach points in it: functions and type definitions, with their ids
    /// unchanged. All other types are left out, because the loader knows fewer kinds and needs more memory to parse
    /// them all.
    pub(crate) fn for_loader(&self) -> anyhow::Result<Btf> {
        const HEADER: u32 = 24;
        let mut bytes = Vec::with_capacity(self.starts.len() * TYPE_WORDS * 4 + self.strings.len());
        let types_len = u32::try_from(self.starts.len() * TYPE_WORDS * 4)?;
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend([1, 0]);
        for word in [HEADER, 0, types_len, types_len, u32::try_from(self.strings.len())?] {
            bytes.extend(word.to_le_bytes());
        }
        for found in self.types() {
            let words = match (found.kind(), found.words) {
                (kind::FUNC | kind::TYPEDEF, &[name, info, of, ..]) => [name, info, of],
                _ => [0, kind::FORWARD << 24, 0],
            };
            bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
        bytes.extend(&self.strings);
        Ok(Btf::parse(&bytes, Endianness::Little)?)
    }

    /// Whether the kernel has a function of this name that programs can be attached to.
    #[must_use]
    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.function(name).is_some()
    }

    /// The BTF id of a function.
    #[must_use]
    pub(crate) fn function(&self, name: &str) -> Option<u32> {
        let is_it = |found: Type<'_>| found.kind() == kind::FUNC && self.is_called(found.words[0], name);
        let index = self.types().position(is_it)?;
        u32::try_from(index + 1).ok()
    }

    /// Whether the kernel has a type definition of this name.
    #[must_use]
    pub(crate) fn has_typedef(&self, name: &str) -> bool {
        self.find(kind::TYPEDEF, name).is_some()
    }

    /// Offset of a member of a structure, in bytes; None if there is none or it is a bit field. `member` is a dotted
    /// path through nested structures; unnamed structures and unions on the way are skipped.
    #[must_use]
    pub(crate) fn offset_of(&self, structure: &str, member: &str) -> Option<u32> {
        let mut within = self.find(kind::STRUCT, structure)?;
        let mut bits: u32 = 0;
        for name in member.split('.') {
            let (offset, type_id) = self.member(within, name, DEPTH_MAX)?;
            bits = bits.checked_add(offset)?;
            // The type of the last member does not matter.
            within = self.resolve(type_id, DEPTH_MAX).unwrap_or(within);
        }
        // A bit field has no byte offset.
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// What the arguments of a tracepoint point to, in order: the name of a structure, `void`, or an empty string for
    /// anything else.
    #[must_use]
    pub(crate) fn tracepoint_arguments(&self, tracepoint: &str) -> Option<Vec<&str>> {
        let definition = self.find(kind::TYPEDEF, &format!("btf_trace_{tracepoint}"))?;
        let prototype = self.by_number(self.by_number(definition.words[2])?.words[2])?;
        if prototype.kind() != kind::FUNC_PROTO {
            return None;
        }
        let parameters = prototype.words.get(TYPE_WORDS..)?.as_chunks::<2>().0.iter().take(prototype.count());
        // The first argument is the data that the probe was registered with.
        Some(parameters.skip(1).map(|[_, type_id]| self.pointed_to(*type_id).unwrap_or("")).collect())
    }

    /// The name of the structure that a pointer points to, or `void`.
    fn pointed_to(&self, type_id: u32) -> Option<&str> {
        let pointer = self.by_number(type_id).filter(|found| found.kind() == kind::PTR)?;
        if pointer.words[2] == 0 {
            return Some("void");
        }
        let structure = self.resolve(pointer.words[2], DEPTH_MAX)?;
        let name = self.strings.get(structure.words[0] as usize..)?.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(name).ok()
    }

    fn by_number(&self, type_id: u32) -> Option<Type<'_>> {
        let start = *self.starts.get((type_id as usize).checked_sub(1)?)?;
        Some(Type { words: self.words.get(start..)? })
    }

    fn find(&self, kind: u32, name: &str) -> Option<Type<'_>> {
        self.types().find(|found| found.kind() == kind && self.is_called(found.words[0], name))
    }

    /// All types, in the order of their ids.
    fn types(&self) -> impl Iterator<Item = Type<'_>> {
        // Parsing has found each start in `words`.
        self.starts.iter().map(|start| Type { words: self.words.get(*start..).unwrap_or_default() })
    }

    fn is_called(&self, offset: u32, name: &str) -> bool {
        let found = self.strings.get(offset as usize..).unwrap_or_default();
        found.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The structure or union that a type refers to, through type definitions and qualifiers.
    fn resolve(&self, type_id: u32, depth: u32) -> Option<Type<'_>> {
        let found = self.by_number(type_id)?;
        match found.kind() {
            kind::STRUCT | kind::UNION => Some(found),
            kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                self.resolve(found.words[2], depth.checked_sub(1)?)
            }
            _ => None,
        }
    }

    /// Offset in bits and type id of a member.
    fn member(&self, within: Type<'_>, name: &str, depth: u32) -> Option<(u32, u32)> {
        within.members().find_map(|member| {
            if self.is_called(member.name, name) {
                return Some((member.bit_offset, member.type_id));
            }
            if !self.is_called(member.name, "") {
                return None;
            }
            let nested = self.resolve(member.type_id, DEPTH_MAX)?;
            let (offset, type_id) = self.member(nested, name, depth.checked_sub(1)?)?;
            Some((member.bit_offset.checked_add(offset)?, type_id))
        })
    }
}

impl<'a> Type<'a> {
    /// Kind: seven bits, of which older kernels use five.
    fn kind(self) -> u32 {
        (self.words[1] >> 24) & 0x7f
    }

    /// Number of members, values or parameters: 24 bits, of which older kernels use 16.
    fn count(self) -> usize {
        (self.words[1] & 0x00ff_ffff) as usize
    }

    /// Length in words; None for a later kind that the layout does not list.
    fn len(self, layout: &Layout) -> Option<usize> {
        let further = match self.kind() {
            kind::INT | kind::VAR | kind::DECL_TAG => 1,
            kind::ARRAY => 3,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 3 * self.count(),
            kind::ENUM | kind::FUNC_PROTO => 2 * self.count(),
            1..=kind::LAST => 0,
            later => layout.further(later, self.count())?,
        };
        Some(TYPE_WORDS + further)
    }

    /// The members of a structure or union.
    fn members(self) -> impl Iterator<Item = Member> + 'a {
        /// The upper bits are the width of a bit field if the type's flag is set.
        const OFFSET: u32 = 0x00ff_ffff;
        let mask = if self.words[1] >> 31 == 1 { OFFSET } else { u32::MAX };
        let members = self.words.get(TYPE_WORDS..).unwrap_or_default();
        let members = members.as_chunks::<MEMBER_WORDS>().0.iter().take(self.count());
        members.map(move |&[name, type_id, offset]| Member { name, type_id, bit_offset: offset & mask })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STRINGS: &[u8] = b"\0outer\0a\0inner\0b\0f\0bits\0";

    fn name(name: &str) -> u32 {
        let with_nul = format!("\0{name}\0");
        let at = STRINGS.windows(with_nul.len()).position(|window| window == with_nul.as_bytes()).unwrap();
        u32::try_from(at + 1).unwrap()
    }

    fn info(kind: u32, count: u32) -> u32 {
        kind << 24 | count
    }

    fn file(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        let (types_len, strings_len) =
            (u32::try_from(types.len() * 4).unwrap(), u32::try_from(strings.len()).unwrap());
        for word in [24, 0, types_len, types_len, strings_len] {
            bytes.extend(u32::to_le_bytes(word));
        }
        bytes.extend(types.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(strings);
        bytes
    }

    /// The same file with a layout section: for each kind, the bytes of a type and the bytes of each of its elements.
    fn file_with_layout(types: &[u32], strings: &[u8], kinds: &[(u8, u8)]) -> Vec<u8> {
        let mut bytes = file(types, strings);
        let len = |len: usize| u32::try_from(len).unwrap().to_le_bytes();
        let sections = bytes.len() - 24;
        bytes[4..8].copy_from_slice(&len(LAYOUT_HEADER));
        let layout = [len(sections), len(kinds.len() * 4)].concat();
        bytes.splice(24..24, layout);
        bytes.extend(kinds.iter().flat_map(|(fixed, each)| [*fixed, *each, 0, 0]));
        bytes
    }

    /// `struct outer { int a; struct inner { int pad; union { int b; }; int bits : 3; } inner; };` and `f()`.
    fn types() -> Vec<u32> {
        vec![
            // 1: int
            0,
            info(kind::INT, 0),
            4,
            32,
            // 2: union { int b; }
            0,
            info(kind::UNION, 1),
            4,
            name("b"),
            1,
            0,
            // 3: struct inner
            name("inner"),
            info(kind::STRUCT, 2) | 1 << 31,
            8,
            0,
            2,
            32,
            name("bits"),
            1,
            3 << 24 | 0x41,
            // 4: const struct inner
            0,
            info(kind::CONST, 0),
            3,
            // 5: struct outer
            name("outer"),
            info(kind::STRUCT, 2),
            12,
            name("a"),
            1,
            0,
            name("inner"),
            4,
            32,
            // 6: f
            name("f"),
            info(kind::FUNC, 0),
            0,
        ]
    }

    #[test]
    fn members_are_found_through_nested_structures() {
        let types = KernelTypes::parse(&file(&types(), STRINGS)).unwrap();
        assert_eq!(types.offset_of("outer", "a"), Some(0));
        assert_eq!(types.offset_of("outer", "inner"), Some(4));
        assert_eq!(types.offset_of("outer", "inner.b"), Some(8));
        assert_eq!(types.offset_of("outer", "inner.bits"), None);
        assert_eq!(types.offset_of("outer", "b"), None);
        assert_eq!(types.offset_of("oute", "a"), None);
        assert!(types.has_function("f") && !types.has_function("outer"));
    }

    /// A type of an unknown kind, two words longer than others and one more for each of its two elements, before the
    /// types that are looked up.
    fn types_after_unknown() -> Vec<u32> {
        [vec![0, info(kind::LAST + 1, 2), 0, 7, 7, 7, 7], types()[4..].to_vec()].concat()
    }

    #[test]
    fn unknown_kind_with_layout_is_skipped() {
        let mut kinds = vec![(0, 0); kind::LAST as usize + 2];
        kinds[kind::LAST as usize + 1] = (8, 4);
        let types = KernelTypes::parse(&file_with_layout(&types_after_unknown(), STRINGS, &kinds)).unwrap();
        assert_eq!(types.unknown_kind(), None);
        assert_eq!(types.offset_of("outer", "inner.b"), Some(8));
        assert_eq!(types.function("f"), Some(6));
        // The loader does not know the kind and finds what it needs under the kernel's ids.
        let btf = types.for_loader().unwrap();
        assert_eq!(KernelTypes::parse(&btf.to_bytes()).unwrap().function("f"), Some(6));
    }

    #[test]
    fn unknown_kind_without_layout_keeps_what_comes_before() {
        let mut words = types();
        words.extend([0, info(kind::LAST + 1, 2), 0, 7, 7, 7, 7]);
        for bytes in [file(&words, STRINGS), file_with_layout(&words, STRINGS, &[(0, 0)])] {
            let types = KernelTypes::parse(&bytes).unwrap();
            assert_eq!(types.unknown_kind(), Some(kind::LAST + 1));
            assert_eq!(types.offset_of("outer", "inner.b"), Some(8));
        }
    }

    #[test]
    fn enum_with_more_than_16_bits_of_members_is_skipped() {
        const COUNT: u32 = 1 << 16;
        let mut words = vec![name("a"), info(kind::ENUM, COUNT), 4];
        words.extend((0..COUNT).flat_map(|value| [0, value]));
        words.extend(types());
        let types = KernelTypes::parse(&file(&words, STRINGS)).unwrap();
        assert_eq!(types.function("f"), Some(7));
    }

    #[test]
    fn btf_of_the_running_kernel_is_parsed() {
        let types = KernelTypes::read(Path::new(KERNEL_BTF)).unwrap();
        assert_eq!(types.unknown_kind(), None);
        // struct upid is an int and a pointer, struct list_head two pointers.
        assert_eq!(types.offset_of("upid", "ns"), Some(8));
        assert_eq!(types.offset_of("list_head", "prev"), Some(8));
        assert!(types.has_typedef("btf_trace_sys_exit"));
        assert!(!types.has_function("no_such_function"));
    }

    #[test]
    fn invalid_btf_is_an_error_that_names_the_file() {
        let error = format!("{:#}", KernelTypes::read(Path::new("/proc/self/status")).unwrap_err());
        assert!(error.contains("/proc/self/status"), "{error}");
        assert!(KernelTypes::parse(&file(&types()[..5], STRINGS)).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(words: Vec<u32>, strings: Vec<u8>, cut: prop::sample::Index) {
            let bytes = file(&words, &strings);
            let _ = KernelTypes::parse(&bytes[..cut.index(bytes.len())]);
            if let Ok(types) = KernelTypes::parse(&bytes) {
                let _ = types.offset_of("", "");
            }
        }

        #[test]
        fn types_of_known_kinds_in_any_order_do_not_panic(
            kinds in prop::collection::vec((1..=kind::LAST, 0..4_u32, any::<[u32; 12]>()), 0..20),
        ) {
            let words: Vec<u32> = kinds
                .iter()
                .flat_map(|(kind, count, rest)| {
                    // Small numbers, so that types refer to each other.
                    let mut words = vec![0, info(*kind, *count), rest[0] % 20];
                    let len = Type { words: &words }.len(&Layout::default()).unwrap();
                    words.extend(rest.iter().map(|word| word % 20));
                    words.truncate(len);
                    words
                })
                .collect();
            if let Ok(types) = KernelTypes::parse(&file(&words, b"\0")) {
                let _ = types.offset_of("", "");
                let _ = types.offset_of("", "x.y");
            }
        }
    }
}
