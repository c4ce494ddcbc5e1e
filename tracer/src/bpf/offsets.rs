//! Offsets of fields in this kernel's structures, from its BTF.

use tracer_common::offsets::{FIELDS, UNKNOWN};

use crate::{
    bpf::btf::{KERNEL_BTF, KernelTypes},
    error::Unsupported,
};

/// The offset in bytes of each of [`FIELDS`], in that order; [`UNKNOWN`] for an optional field that this kernel does
/// not have.
pub(crate) fn resolve(types: &KernelTypes) -> anyhow::Result<Vec<u32>> {
    FIELDS
        .iter()
        .map(|field| match types.offset_of(field.structure, field.member) {
            Some(offset) => Ok(offset),
            None if !field.required => Ok(UNKNOWN),
            None => {
                let incomplete = types.unknown_kind().map_or_else(String::new, |kind| {
                    format!(", which tracer can read only up to a type of the unknown kind {kind}")
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
    fn running_kernel_has_every_required_field() {
        let offsets = resolve(&KernelTypes::read(Path::new(KERNEL_BTF)).unwrap()).unwrap();
        assert_eq!(offsets.len(), FIELDS.len());
        for (field, offset) in FIELDS.iter().zip(offsets) {
            assert!(offset != UNKNOWN || !field.required, "{field:?}");
        }
    }
}
