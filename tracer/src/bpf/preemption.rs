//! Whether the programs disable preemption while they run, and how: user space replaces placeholder calls in the
//! object with calls of kernel functions, or removes them.

use std::{fs, ops::Range};

use anyhow::bail;
use tracer_common::preemption::FUNCTIONS;
use tracing::debug;

use crate::bpf::{btf::KernelTypes, features};

/// Since this release, tracepoints run programs preemptibly, and every kernel may preempt tasks in the kernel. Before,
/// disabling preemption would cost more than the few events are worth that are lost at `fexit` on preemptible kernels.
const PREEMPTIBLE_SINCE: (u32, u32) = (7, 0);

/// Whether this kernel may preempt programs at tracepoints.
pub(crate) fn programs_are_preemptible() -> bool {
    features::kernel_release().is_some_and(|release| release >= PREEMPTIBLE_SINCE)
}

/// `BPF_JMP | BPF_CALL`, include/uapi/linux/bpf.h.
const CALL: u8 = 0x85;
/// `src_reg` of a call of a kernel function (`BPF_PSEUDO_KFUNC_CALL`), in the upper half of its byte.
const PSEUDO_KFUNC_CALL: u8 = 2 << 4;
/// `goto +0`, which the verifier removes.
const NOP: Instruction = [0x05, 0, 0, 0, 0, 0, 0, 0];

/// `struct bpf_insn`: operation, registers, offset (2), number (4).
type Instruction = [u8; 8];

/// BTF ids of the kernel functions, in the order of [`FUNCTIONS`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Functions([u32; FUNCTIONS.len()]);

impl Functions {
    /// The ids in the running kernel; None if it lacks a function or the programs do not need them.
    pub(crate) fn of_kernel(types: &KernelTypes) -> Option<Self> {
        // Only JIT-compiled programs may call kernel functions. The file is not readable within a container.
        let is_compiled =
            !fs::read("/proc/sys/net/core/bpf_jit_enable").is_ok_and(|text| text.starts_with(b"0"));
        if !programs_are_preemptible() || !is_compiled {
            return None;
        }
        let mut ids = [0; FUNCTIONS.len()];
        for (id, (_, name)) in ids.iter_mut().zip(FUNCTIONS) {
            let Some(found) = types.function(name) else {
                debug!(
                    "this kernel has no {name}: programs can be preempted, and others are skipped meanwhile"
                );
                return None;
            };
            *id = found;
        }
        Some(Self(ids))
    }
}

/// Offsets in the object of the placeholder calls, each with the index of its function, as found by `build.rs`.
#[expect(clippy::unreadable_literal, reason = "generated")]
const CALL_SITES: &[(usize, usize)] = &include!(concat!(env!("OUT_DIR"), "/call_sites.rs"));

/// A copy of the object, aligned for the loader, with the placeholder calls replaced by calls of `functions`, or by
/// nothing.
#[derive(Debug)]
pub(crate) struct Object {
    buffer: Vec<u8>,
    /// Position of the object in the buffer.
    range: Range<usize>,
}

impl Object {
    /// A copy of the object that contains the programs.
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
        let range = start..start + original.len();
        let copy = &mut buffer[range.clone()];
        copy.copy_from_slice(original);
        for &(offset, index) in sites {
            let instruction = copy.get_mut(offset..).and_then(<[u8]>::first_chunk_mut);
            let Some(instruction) = instruction.filter(|found| **found == placeholder(index)) else {
                bail!("the BPF object has no placeholder call at offset {offset}");
            };
            *instruction = replacement(index, functions);
        }
        Ok(Self { buffer, range })
    }

    /// The object, for the loader.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.range.clone()]
    }
}

/// The instruction that the compiler has emitted for a function: a call of a helper that does not exist.
fn placeholder(index: usize) -> Instruction {
    let [a, b, c, d] = FUNCTIONS[index].0.to_le_bytes();
    [CALL, 0, 0, 0, a, b, c, d]
}

/// The instruction that replaces it: the call, or nothing.
fn replacement(index: usize, functions: Option<&Functions>) -> Instruction {
    let Some(Functions(ids)) = functions else { return NOP };
    let [a, b, c, d] = ids[index].to_le_bytes();
    [CALL, PSEUDO_KFUNC_CALL, 0, 0, a, b, c, d]
}

#[cfg(test)]
#[path = "../../build/call_sites.rs"]
mod call_sites;

#[cfg(test)]
mod tests {
    use object::{Architecture, BinaryFormat, Endianness, SectionKind, write};

    use super::{call_sites::call_sites, *};

    const HELPER: Instruction = [CALL, 0, 0, 0, 14, 0, 0, 0];

    /// An object with a text and a data section of these words.
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
    fn placeholders_become_kernel_function_calls_or_nothing() {
        let functions = Functions([0x0102_0304, 2, 3, 40]);
        let original = file(&[placeholder(0), HELPER, placeholder(3)], &[]);
        let of_kernel = [[0x85, 0x20, 0, 0, 4, 3, 2, 1], HELPER, [0x85, 0x20, 0, 0, 40, 0, 0, 0]];
        assert_eq!(patched(&original, Some(&functions)), file(&of_kernel, &[]));
        assert_eq!(patched(&original, None), file(&[NOP, HELPER, NOP], &[]));
    }

    #[test]
    fn data_that_looks_like_a_placeholder_is_not_changed() {
        /// `r1 = CONSTANT ll`: its second word is not an instruction.
        const LOAD: Instruction = [0x18, 1, 0, 0, 0, 0, 0, 0];
        let original = file(&[LOAD, placeholder(1), placeholder(2)], &[placeholder(0)]);
        assert_eq!(patched(&original, None), file(&[LOAD, placeholder(1), NOP], &[placeholder(0)]));
    }

    #[test]
    fn object_without_its_placeholders_is_refused() {
        assert!(Object::with_calls(&HELPER, &[(0, 0)], None).is_err());
        assert!(Object::with_calls(&HELPER, &[(4, 0)], None).is_err());
    }
}
