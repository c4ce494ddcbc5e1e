//! Field offsets of this kernel, out of its BTF.

use std::path::Path;

use anyhow::Context as _;
use btfparse::{Offset, TypeInformation};
use tracer_common::offsets::{FIELDS, UNKNOWN};

use crate::error::Unsupported;

/// Where the kernel shows its BTF (`CONFIG_DEBUG_INFO_BTF`).
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// The offset in bytes of each of [`FIELDS`], in that order; [`UNKNOWN`] where this kernel has no such field and
/// it can be done without.
pub fn resolve(types: &TypeInformation) -> anyhow::Result<Vec<u32>> {
    FIELDS
        .iter()
        .map(|field| match byte_offset(types, field.structure, field.member) {
            Some(offset) => Ok(offset),
            None if !field.required => Ok(UNKNOWN),
            None => Err(Unsupported::new(
                format!("this kernel has no field {}.{} (in {KERNEL_BTF})", field.structure, field.member),
                "please report it with the output of `tracer doctor`",
            )
            .into()),
        })
        .collect()
}

/// Those of `tracepoints` that this kernel does not have for `tp_btf` programs.
pub fn missing_tracepoints<'a>(btf: &Path, tracepoints: &[&'a str]) -> anyhow::Result<Vec<&'a str>> {
    let types = parse(btf)?;
    let is_missing = |name: &&&str| types.id_of(&format!("btf_trace_{name}")).is_none();
    Ok(tracepoints.iter().filter(is_missing).copied().collect())
}

/// All types of a kernel.
pub fn parse(btf: &Path) -> anyhow::Result<TypeInformation> {
    let file = BtfFile(std::fs::read(btf).with_context(|| format!("reading {}", btf.display()))?);
    TypeInformation::new(&file)
        .map_err(|error| anyhow::anyhow!("{error:?}"))
        .with_context(|| format!("parsing the BTF in {}", btf.display()))
}

fn byte_offset(types: &TypeInformation, structure: &str, member: &str) -> Option<u32> {
    match types.offset_of(types.id_of(structure)?, member).ok()? {
        (_, Offset::ByteOffset(offset)) => Some(offset),
        (_, Offset::BitOffsetAndSize(..)) => None,
    }
}

/// A whole BTF file in memory, as the parser wants it.
struct BtfFile(Vec<u8>);

impl btfparse::Readable for BtfFile {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.0.get(start..start.checked_add(buffer.len())?))
            .ok_or_else(|| btfparse::Error::new(btfparse::ErrorKind::IOError, "the file ends too early"))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_required_field() {
        let offsets = resolve(&parse(Path::new(KERNEL_BTF)).unwrap()).unwrap();
        assert_eq!(offsets.len(), FIELDS.len());
        for (field, offset) in FIELDS.iter().zip(offsets) {
            assert!(offset != UNKNOWN || !field.required, "{field:?}");
        }
    }

    #[test]
    fn a_file_that_is_no_btf_is_an_error_that_names_it() {
        let error = format!("{:#}", parse(Path::new("/proc/self/status")).err().unwrap());
        assert!(error.contains("/proc/self/status"), "{error}");
    }
}
