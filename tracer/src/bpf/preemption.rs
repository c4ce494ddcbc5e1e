//! Whether the programs keep the processor while they have something to do, and how they come to.

use std::{fs, ops::Range};

use anyhow::bail;
use tracer_common::preemption::FUNCTIONS;
use tracing::debug;

use crate::bpf::{btf::KernelTypes, features};

/// Since then tracepoints run programs preemptibly, and there are no kernels any more that never preempt a task in the
/// kernel. Before, it would cost more than the little that gets lost at `fexit` where the kernel is preemptible.
const PREEMPTIBLE_SINCE: (u32, u32) = (7, 0);

/// Whether this kernel may preempt the programs of tracepoints.
pub(crate) fn of_programs() -> bool {
    features::kernel_release().is_some_and(|release| release >= PREEMPTIBLE_SINCE)
}

/// `BPF_JMP | BPF_CALL`, include/uapi/linux/bpf.h.
const CALL: u8 = 0x85;
/// What `src_reg` has for a function of the kernel (`BPF_PSEUDO_KFUNC_CALL`), in the upper half of its byte.
const KERNEL_FUNCTION: u8 = 2 << 4;
/// `goto +0`: the verifier takes it out.
const NOTHING: Instruction = [0x05, 0, 0, 0, 0, 0, 0, 0];

/// `struct bpf_insn`: operation, registers, offset (2), number (4).
type Instruction = [u8; 8];

/// The kernel's functions for it, by their numbers in its BTF.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Functions([u32; FUNCTIONS.len()]);

impl Functions {
    /// What the running kernel has; none where it takes none.
    pub(crate) fn of_kernel(types: &KernelTypes) -> Option<Self> {
        // Only compiled programs may call them. Unreadable within a container.
        let is_compiled =
            !fs::read("/proc/sys/net/core/bpf_jit_enable").is_ok_and(|text| text.starts_with(b"0"));
        if !of_programs() || !is_compiled {
            return None;
        }
        let mut ids = [0; FUNCTIONS.len()];
        for (id, (_, name)) in ids.iter_mut().zip(FUNCTIONS) {
            let Some(found) = types.function(name) else {
                debug!(
                    "this kernel has no {name}: what programs do can be preempted, and others skipped meanwhile"
                );
                return None;
            };
            *id = found;
        }
        Some(Self(ids))
    }
}

/// The offsets in the object of what stands for calls, each with the index of its function, as `build.rs` has found them.
#[expect(clippy::unreadable_literal, reason = "written by a program")]
const CALL_SITES: &[(usize, usize)] = &include!(concat!(env!("OUT_DIR"), "/call_sites.rs"));

/// A copy of an object, aligned for the loader, whose calls are those of `functions`, or left out.
#[derive(Debug)]
pub(crate) struct Object {
    buffer: Vec<u8>,
    /// Where the object is in it.
    place: Range<usize>,
}

impl Object {
    /// Of the object that the programs were built to.
    pub(crate) fn new(original: &[u8], functions: Option<&Functions>) -> anyhow::Result<Self> {
        Self::with_calls(original, CALL_SITES, functions)
    }

    fn with_calls(
        original: &[u8],
        sites: &[(usize, usize)],
        functions: Option<&Functions>,
    ) -> anyhow::Result<Self> {
        const ALIGNMENT: usize = size_of::<Instruction>();
        let mut buffer = vec![0; original.len() + ALIGNMENT];
        let start = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let place = start..start + original.len();
        let copy = &mut buffer[place.clone()];
        copy.copy_from_slice(original);
        for &(offset, index) in sites {
            let instruction = copy.get_mut(offset..).and_then(<[u8]>::first_chunk_mut);
            let Some(instruction) = instruction.filter(|found| **found == stand_in(index)) else {
                bail!("the BPF object has no call at {offset}");
            };
            *instruction = call(index, functions);
        }
        Ok(Self { buffer, place })
    }

    /// What the loader takes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.place.clone()]
    }
}

/// What the compiler has written for a function: a call of a helper that there is not.
fn stand_in(index: usize) -> Instruction {
    let [a, b, c, d] = FUNCTIONS[index].0.to_le_bytes();
    [CALL, 0, 0, 0, a, b, c, d]
}

/// The call itself, or nothing.
fn call(index: usize, functions: Option<&Functions>) -> Instruction {
    let Some(Functions(ids)) = functions else { return NOTHING };
    let [a, b, c, d] = ids[index].to_le_bytes();
    [CALL, KERNEL_FUNCTION, 0, 0, a, b, c, d]
}

#[cfg(test)]
#[path = "../../build/call_sites.rs"]
mod call_sites;

#[cfg(test)]
mod tests {
    use object::{Architecture, BinaryFormat, Endianness, SectionKind, write};

    use super::{call_sites::call_sites, *};

    const HELPER: Instruction = [CALL, 0, 0, 0, 14, 0, 0, 0];

    /// An object of one section of each kind, with these words.
    fn file(text: &[Instruction], data: &[Instruction]) -> Vec<u8> {
        let mut file = write::Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
        for (name, kind, words) in
            [("tp_btf/x", SectionKind::Text, text), (".rodata", SectionKind::ReadOnlyData, data)]
        {
            let section = file.add_section(Vec::new(), name.into(), kind);
            file.append_section_data(section, &words.concat(), 8);
        }
        file.write().unwrap()
    }

    fn patched(original: &[u8], functions: Option<&Functions>) -> Vec<u8> {
        let sites = call_sites(original, &FUNCTIONS.map(|(number, _)| number)).unwrap();
        let object = Object::with_calls(original, &sites, functions).unwrap();
        assert_eq!(object.bytes().as_ptr().align_offset(8), 0);
        object.bytes().to_vec()
    }

    #[test]
    fn stand_ins_become_calls_of_the_kernel_or_nothing() {
        let functions = Functions([0x0102_0304, 2, 3, 40]);
        let original = file(&[stand_in(0), HELPER, stand_in(3)], &[]);
        let of_kernel = [[0x85, 0x20, 0, 0, 4, 3, 2, 1], HELPER, [0x85, 0x20, 0, 0, 40, 0, 0, 0]];
        assert_eq!(patched(&original, Some(&functions)), file(&of_kernel, &[]));
        assert_eq!(patched(&original, None), file(&[NOTHING, HELPER, NOTHING], &[]));
    }

    #[test]
    fn what_looks_like_a_stand_in_and_is_no_instruction_stays() {
        /// `r1 = CONSTANT ll`: its second word is not an instruction.
        const LOAD: Instruction = [0x18, 1, 0, 0, 0, 0, 0, 0];
        let original = file(&[LOAD, stand_in(1), stand_in(2)], &[stand_in(0)]);
        assert_eq!(patched(&original, None), file(&[LOAD, stand_in(1), NOTHING], &[stand_in(0)]));
    }

    #[test]
    fn object_without_its_stand_ins_is_refused() {
        assert!(Object::with_calls(&HELPER, &[(0, 0)], None).is_err());
        assert!(Object::with_calls(&HELPER, &[(4, 0)], None).is_err());
    }
}
