//! Whether the programs keep the processor while they have something to do, and how they come to.

use std::{fs, ops::Range};

use anyhow::ensure;
use tracer_common::preemption::FUNCTIONS;
use tracing::debug;

use super::{btf::KernelTypes, features};

/// Since then tracepoints run programs preemptibly, and there are no kernels any more that never preempt a task in the
/// kernel. Before, it would cost more than the little that gets lost at `fexit` where the kernel is preemptible.
const PREEMPTIBLE_SINCE: (u32, u32) = (7, 0);

/// Whether this kernel may preempt the programs of tracepoints.
pub(super) fn of_programs() -> bool {
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
pub(super) struct Functions([u32; FUNCTIONS.len()]);

impl Functions {
    /// What the running kernel has; none where it takes none.
    pub(super) fn of_kernel(types: &KernelTypes) -> Option<Self> {
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

/// A copy of an object, aligned for the loader, whose calls are those of `functions`, or left out.
#[derive(Debug)]
pub(super) struct Object {
    buffer: Vec<u8>,
    /// Where the object is in it.
    place: Range<usize>,
}

impl Object {
    pub(super) fn new(original: &[u8], functions: Option<&Functions>) -> anyhow::Result<Self> {
        const ALIGNMENT: usize = size_of::<Instruction>();
        let mut buffer = vec![0; original.len() + ALIGNMENT];
        let start = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let place = start..start + original.len();
        let copy = &mut buffer[place.clone()];
        copy.copy_from_slice(original);
        // Instructions are aligned in the file as they are in memory.
        let calls: usize =
            copy.as_chunks_mut().0.iter_mut().map(|word| usize::from(put_in(word, functions))).sum();
        ensure!(calls > 0, "the BPF object has no call to keep the processor");
        Ok(Self { buffer, place })
    }

    /// What the loader takes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.place.clone()]
    }
}

/// Makes a place for a call that call, or none. Returns whether it was one.
fn put_in(word: &mut Instruction, functions: Option<&Functions>) -> bool {
    let [CALL, 0, 0, 0, number @ ..] = *word else { return false };
    let number = u32::from_le_bytes(number);
    let Some(index) = FUNCTIONS.iter().position(|(place, _)| *place == number) else { return false };
    *word = match functions {
        Some(Functions(ids)) => {
            let [a, b, c, d] = ids[index].to_le_bytes();
            [CALL, KERNEL_FUNCTION, 0, 0, a, b, c, d]
        }
        None => NOTHING,
    };
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::preemption::{IRQ_RESTORE, PREEMPT_DISABLE};

    fn call(number: u32) -> Instruction {
        let [a, b, c, d] = number.to_le_bytes();
        [CALL, 0, 0, 0, a, b, c, d]
    }

    fn object(functions: Option<&Functions>) -> Vec<Instruction> {
        let helper = call(14);
        let original = [call(PREEMPT_DISABLE), helper, call(IRQ_RESTORE)].concat();
        let object = Object::new(&original, functions).unwrap();
        assert_eq!(object.bytes().as_ptr().align_offset(8), 0);
        object.bytes().as_chunks().0.to_vec()
    }

    #[test]
    fn places_become_calls_of_the_kernel_or_nothing() {
        let functions = Functions([0x0102_0304, 2, 3, 40]);
        let [first, helper, last] = object(Some(&functions))[..3] else { panic!("three instructions") };
        assert_eq!(first, [0x85, 0x20, 0, 0, 4, 3, 2, 1]);
        assert_eq!(helper, call(14));
        assert_eq!(last, [0x85, 0x20, 0, 0, 40, 0, 0, 0]);
        assert_eq!(object(None)[..3], [NOTHING, call(14), NOTHING]);
    }

    #[test]
    fn object_without_places_is_not_ours() {
        assert!(Object::new(&call(14), None).is_err());
    }
}
