//! Checks the stack use of the programs, which the kernel under test may not refuse: older kernels are stricter.

use std::collections::BTreeMap;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind, SymbolKind};

use crate::bpf::load::OBJECT;

/// Stack that a program and the functions that it calls may use together, in bytes (`MAX_BPF_STACK`,
/// <https://github.com/torvalds/linux/blob/v5.10/include/linux/filter.h>).
const STACK_MAX: u32 = 512;
/// Up to Linux 6.5 the verifier rounds the stack of each function up to a multiple of this (`check_max_stack_depth`,
/// <https://github.com/torvalds/linux/blob/v5.10/kernel/bpf/verifier.c>), newer ones to 16 if the program is
/// JIT-compiled.
const STACK_ALIGNMENT: u32 = 32;

/// An instruction (<https://www.rfc-editor.org/rfc/rfc9669>, section 3), decoded as far as stack use requires.
struct Instruction {
    opcode: u8,
    destination: usize,
    source: usize,
    offset: i32,
    immediate: i32,
}

impl Instruction {
    const SIZE: usize = 8;

    fn decode(bytes: [u8; Self::SIZE]) -> Self {
        let [opcode, registers, low, high, immediate @ ..] = bytes;
        Self {
            opcode,
            destination: usize::from(registers & 15),
            source: usize::from(registers >> 4),
            offset: i32::from(i16::from_le_bytes([low, high])),
            immediate: i32::from_le_bytes(immediate),
        }
    }
}

/// A function of the object.
#[derive(Default)]
struct Function {
    /// Deepest access below the top of its stack frame, in bytes.
    stack: u32,
    /// Names of the functions that it calls.
    calls: Vec<String>,
    is_program: bool,
}

impl Function {
    /// Total stack depth of this function and the deepest of its callees, with the call chain.
    fn depth(&self, name: &str, all: &BTreeMap<String, Self>) -> (u32, String) {
        let deepest =
            self.calls.iter().map(|callee| all[callee].depth(callee, all)).max().unwrap_or_default();
        let own = self.stack.max(1).next_multiple_of(STACK_ALIGNMENT);
        (own + deepest.0, format!("{name} {own}, {}", deepest.1))
    }
}

/// Depth of the lowest stack address that the instructions use, directly or through a copy of the frame pointer.
fn stack(code: &[u8]) -> u32 {
    const FRAME_POINTER: usize = 10;
    const LOAD: u8 = 1;
    const STORE: u8 = 2;
    const STORE_REGISTER: u8 = 3;
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    let (mut copies, mut lowest) = ([None; 11], 0);
    copies[FRAME_POINTER] = Some(0);
    for bytes in code.as_chunks().0 {
        let Instruction { opcode, destination, source, offset, immediate } = Instruction::decode(*bytes);
        let base: Option<i32> = match opcode & 7 {
            LOAD => copies[source],
            STORE | STORE_REGISTER => copies[destination],
            _ => None,
        };
        lowest = base.map_or(lowest, |base| lowest.min(base + offset));
        let writes = !matches!(opcode & 7, STORE | STORE_REGISTER | 5 | 6);
        if writes && destination != FRAME_POINTER {
            copies[destination] = match opcode {
                MOVE => copies[source],
                ADD => copies[destination].map(|copy| copy + immediate),
                _ => None,
            };
            lowest = copies[destination].map_or(lowest, |copy| lowest.min(copy));
        }
    }
    lowest.unsigned_abs()
}

fn functions() -> BTreeMap<String, Function> {
    const CALL: u8 = 0x85;
    let object = object::File::parse(OBJECT).unwrap();
    let mut functions = BTreeMap::new();
    for section in object.sections().filter(|section| section.kind() == SectionKind::Text) {
        let (index, data) = (section.index(), section.data().unwrap());
        let within: Vec<_> = object
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.section_index() == Some(index))
            .collect();
        let name_at = |address: u64| {
            let found = within
                .iter()
                .find(|symbol| (symbol.address()..symbol.address() + symbol.size()).contains(&address));
            found.unwrap().name().unwrap().to_owned()
        };
        let relocations: BTreeMap<u64, _> = section.relocations().collect();
        for symbol in &within {
            let (start, size) = (symbol.address(), symbol.size());
            let code = &data[usize::try_from(start).unwrap()..usize::try_from(start + size).unwrap()];
            let mut calls = Vec::new();
            for (at, bytes) in (start..).step_by(Instruction::SIZE).zip(code.as_chunks().0) {
                let Instruction { opcode, source: 1, immediate, .. } = Instruction::decode(*bytes) else {
                    continue;
                };
                if opcode != CALL {
                    continue;
                }
                calls.push(match relocations.get(&at).map(object::Relocation::target) {
                    Some(RelocationTarget::Symbol(called)) => {
                        object.symbol_by_index(called).unwrap().name().unwrap().to_owned()
                    }
                    _ => name_at(at.checked_add_signed((i64::from(immediate) + 1) * 8).unwrap()),
                });
            }
            let is_program = section.name() != Ok(".text");
            let name = symbol.name().unwrap().to_owned();
            functions.insert(name, Function { stack: stack(code), calls, is_program });
        }
    }
    functions
}

#[test]
fn stack_use_fits_the_oldest_kernel() {
    let functions = functions();
    let programs: Vec<_> = functions.iter().filter(|(_, function)| function.is_program).collect();
    assert!(programs.len() > 10 && functions.contains_key("adopt"), "{:?}", functions.keys());
    let depths = programs.iter().map(|(name, function)| function.depth(name, &functions));
    let too_deep: Vec<_> = depths.filter(|(depth, _)| *depth > STACK_MAX).collect();
    assert!(too_deep.is_empty(), "{too_deep:#?}");
}
