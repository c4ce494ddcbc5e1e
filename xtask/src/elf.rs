//! What an ELF program says of itself: whether it needs a dynamic loader, and what machine it is for.

const MAGIC_64: &[u8] = b"\x7fELF\x02";

/// Whether these bytes are an ELF program without an interpreter (64 bits, this machine's byte order).
pub(crate) fn is_static(bytes: &[u8]) -> bool {
    const PROGRAM_HEADERS: usize = 0x20;
    const HEADER_SIZE: usize = 0x36;
    const HEADER_COUNT: usize = 0x38;
    const PT_INTERP: u32 = 3;

    let has_interpreter = || {
        let start = usize::try_from(u64::from_ne_bytes(field(bytes, PROGRAM_HEADERS)?)).ok()?;
        let size = usize::from(u16::from_ne_bytes(field(bytes, HEADER_SIZE)?));
        let count = usize::from(u16::from_ne_bytes(field(bytes, HEADER_COUNT)?));
        for index in 0..count {
            let at = start.checked_add(index.checked_mul(size)?)?;
            if u32::from_ne_bytes(field(bytes, at)?) == PT_INTERP {
                return Some(true);
            }
        }
        Some(false)
    };
    bytes.starts_with(MAGIC_64) && has_interpreter() == Some(false)
}

/// The architecture that it is for, as Rust names it; none where it is no ELF program, or one for something else.
pub(crate) fn architecture(bytes: &[u8]) -> Option<&'static str> {
    const MACHINE: usize = 0x12;
    const EM_X86_64: u16 = 62;
    const EM_AARCH64: u16 = 183;

    let machine = u16::from_ne_bytes(field(bytes, MACHINE)?);
    match machine {
        _ if !bytes.starts_with(MAGIC_64) => None,
        EM_X86_64 => Some("x86_64"),
        EM_AARCH64 => Some("aarch64"),
        _ => None,
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A header of 64 bytes and one program header of that type.
    fn elf(program_header: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..5].copy_from_slice(b"\x7fELF\x02");
        bytes[0x20..0x28].copy_from_slice(&64u64.to_ne_bytes());
        bytes[0x36..0x38].copy_from_slice(&56u16.to_ne_bytes());
        bytes[0x38..0x3a].copy_from_slice(&1u16.to_ne_bytes());
        bytes[64..68].copy_from_slice(&program_header.to_ne_bytes());
        bytes
    }

    #[test]
    fn static_means_no_interpreter() {
        assert!(is_static(&elf(1)));
        assert!(!is_static(&elf(3)));
    }

    #[test]
    fn broken_files_are_not_static() {
        assert!(!is_static(b""));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(&elf(1)[..66]));
        let mut far = elf(1);
        far[0x20..0x28].copy_from_slice(&u64::MAX.to_ne_bytes());
        assert!(!is_static(&far));
    }

    #[test]
    fn tests_themselves_are_not_static() {
        // Built for the host's libc, which is a shared library wherever these tests run in CI.
        if cfg!(target_env = "gnu") {
            let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
            assert!(!is_static(&bytes));
        }
    }

    #[test]
    fn architecture_is_what_the_header_says() {
        let mut bytes = elf(1);
        for (machine, name) in [(62u16, Some("x86_64")), (183, Some("aarch64")), (243, None)] {
            bytes[0x12..0x14].copy_from_slice(&machine.to_ne_bytes());
            assert_eq!(architecture(&bytes), name, "{machine}");
        }
        assert_eq!(architecture(b"#!/bin/sh, and more of that"), None);
        assert_eq!(
            architecture(&fs::read(std::env::current_exe().unwrap()).unwrap()),
            Some(std::env::consts::ARCH)
        );
    }
}
