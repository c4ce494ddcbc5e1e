//! Where the programs of a BPF object call what only user space can put in.

use anyhow::Context as _;
use object::{
    LittleEndian, Object as _, ObjectSection as _, SectionKind, elf::FileHeader64, read::elf::ElfFile,
};

/// `BPF_JMP | BPF_CALL`, include/uapi/linux/bpf.h.
const CALL: u8 = 0x85;
/// `BPF_LD | BPF_IMM | BPF_DW`: the one instruction of two words.
const LOAD_DOUBLE: u8 = 0x18;
const INSTRUCTION: usize = 8;

/// The offsets in the file of all calls of helpers with these numbers, each with its number's index. Instructions of
/// programs only: what looks like one in data, or is half of another, is none.
pub fn call_sites(object: &[u8], numbers: &[u32]) -> anyhow::Result<Vec<(usize, usize)>> {
    let file = ElfFile::<FileHeader64<LittleEndian>>::parse(object)?;
    let mut sites = Vec::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let (start, _) = section.file_range().context("a section of programs is not in the file")?;
        let start = usize::try_from(start)?;
        let data = section.data()?;
        let mut at = 0;
        while let Some(instruction) = data.get(at..at + INSTRUCTION) {
            if let [CALL, 0, 0, 0, number @ ..] = instruction
                && let Ok(number) = <[u8; 4]>::try_from(number)
                && let Some(index) = numbers.iter().position(|known| *known == u32::from_le_bytes(number))
            {
                sites.push((start + at, index));
            }
            at += if instruction[0] == LOAD_DOUBLE { 2 * INSTRUCTION } else { INSTRUCTION };
        }
    }
    Ok(sites)
}
