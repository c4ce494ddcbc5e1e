//! What an ELF file is for.

use object::{
    Architecture, Endianness, Object as _,
    read::elf::{ElfFile64, ProgramHeader as _},
};

fn parse(bytes: &[u8]) -> Option<ElfFile64<'_, Endianness>> {
    ElfFile64::parse(bytes).ok()
}

/// Whether this is an ELF program that needs no dynamic loader.
pub(crate) fn is_static(bytes: &[u8]) -> bool {
    parse(bytes).is_some_and(|elf| {
        let mut headers = elf.elf_program_headers().iter();
        headers.all(|header| header.p_type(elf.endian()) != object::elf::PT_INTERP)
    })
}

/// The architecture that it is for, as Rust names it; `None` if it is not an ELF file, or for another one.
pub(crate) fn architecture(bytes: &[u8]) -> Option<&'static str> {
    match parse(bytes)?.architecture() {
        Architecture::X86_64 => Some("x86_64"),
        Architecture::Aarch64 => Some("aarch64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_themselves_are_dynamic_programs_of_this_machine() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(cfg!(not(target_env = "gnu")) || !is_static(&bytes));
        assert_eq!(architecture(&bytes), Some(std::env::consts::ARCH));
        let script = b"#!/bin/sh\n";
        assert!(!is_static(script) && !is_static(b"") && !is_static(&bytes[..66]));
        assert_eq!(architecture(script), None);
    }
}
