//! Field offsets of this kernel, out of its BTF.

use tracer_common::offsets::{FIELDS, UNKNOWN};

use crate::{
    bpf::btf::{KERNEL_BTF, KernelTypes},
    error::Unsupported,
};

/// The offset in bytes of each of [`FIELDS`], in that order; [`UNKNOWN`] where this kernel has no such field and
/// it can be done without.
pub(crate) fn resolve(types: &KernelTypes) -> anyhow::Result<Vec<u32>> {
    FIELDS
        .iter()
        .map(|field| match types.offset_of(field.structure, field.member) {
            Some(offset) => Ok(offset),
            None if !field.required => Ok(UNKNOWN),
            None => {
                let incomplete = types.unknown_kind().map_or_else(String::new, |kind| {
                    format!(", whose types of kind {kind} end what tracer can read")
                });
                Err(Unsupported::new(
                    format!(
                        "this kernel has no field {}.{} (in {KERNEL_BTF}{incomplete})",
                        field.structure, field.member
                    ),
                    "please report it with the output of `tracer doctor`",
                )
                .into())
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_running_kernel_has_every_required_field() {
        let offsets = resolve(&KernelTypes::read(Path::new(KERNEL_BTF)).unwrap()).unwrap();
        assert_eq!(offsets.len(), FIELDS.len());
        for (field, offset) in FIELDS.iter().zip(offsets) {
            assert!(offset != UNKNOWN || !field.required, "{field:?}");
        }
    }
}
