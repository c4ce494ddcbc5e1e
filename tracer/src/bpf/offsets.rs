//! Field offsets of this kernel, out of its BTF.

use tracer_common::offsets::UNKNOWN;

use crate::{
    bpf::btf::{KERNEL_BTF, KernelTypes},
    error::Unsupported,
};

/// A field whose offset the programs need: the global variable for the offset, the structure and the field (a path with dots
/// through nested structures) by their names in the kernel's BTF, and whether nothing works without it.
type Field = (&'static str, &'static str, &'static str, bool);

/// Every such field, from the BPF object (`build.rs`).
const FIELDS: &[Field] = include!(concat!(env!("OUT_DIR"), "/offsets.rs"));

/// The globals with their offsets in bytes; [`UNKNOWN`] where this kernel has no such field and the programs can do without.
pub(crate) fn resolve(types: &KernelTypes) -> anyhow::Result<Vec<(&'static str, u32)>> {
    let resolve = |(global, structure, member, required): &Field| match types.offset_of(structure, member) {
        Some(offset) => Ok((*global, offset)),
        None if !required => Ok((*global, UNKNOWN)),
        None => {
            let incomplete = types.unknown_kind().map_or_else(String::new, |kind| {
                format!(", whose types of kind {kind} end what tracer can read")
            });
            Err(Unsupported::new(
                format!("this kernel has no field {structure}.{member} (in {KERNEL_BTF}{incomplete})"),
                "please report it with the output of `tracer doctor`",
            )
            .into())
        }
    };
    FIELDS.iter().map(resolve).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn running_kernel_has_every_required_field() {
        let offsets = resolve(&KernelTypes::read(Path::new(KERNEL_BTF)).unwrap()).unwrap();
        assert_eq!(offsets.len(), FIELDS.len());
        for ((_, structure, member, required), (_, offset)) in FIELDS.iter().zip(offsets) {
            assert!(offset != UNKNOWN || !required, "{structure}.{member}");
        }
    }
}
