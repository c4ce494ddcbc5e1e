//! The layer of the agents' image: `/tracer`, with the capabilities that only it has in an agent's container.
//!
//! They are an extended attribute of the file (capabilities(7)). To set one on a file takes root, and would give every user
//! of this machine those capabilities; in an archive it is a record that engines read when they unpack it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

use crate::archive;

/// The archive's name, beside the binary.
pub(crate) const NAME: &str = "image.tar";

/// The file in the image.
const PROGRAM: &str = "tracer";

/// The capabilities that `deploy/daemonset.yaml` adds, with their numbers (include/uapi/linux/capability.h).
const CAPABILITIES: [(&str, u32); 4] =
    [("BPF", 39), ("PERFMON", 38), ("SYS_PTRACE", 19), ("DAC_READ_SEARCH", 2)];

/// Writes the archive of a binary: the same bytes for the same binary and commit.
pub(crate) fn write(binary: &Path, layer: &Path) -> Result<()> {
    let bytes = fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
    let file = fs::File::create(layer).with_context(|| format!("writing {}", layer.display()))?;
    let mut archive = Builder::new(file);
    let capability = capability();
    let mut write = || -> std::io::Result<()> {
        archive.append_pax_extensions([("SCHILY.xattr.security.capability", &capability[..])])?;
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(archive::seconds());
        archive.append_data(&mut header, PROGRAM, &bytes[..])?;
        archive.finish()
    };
    write().with_context(|| format!("writing {}", layer.display()))
}

/// The attribute `security.capability` (include/uapi/linux/capability.h, `vfs_cap_data`): permitted, and not effective by
/// itself, so that tracer can say which one is not allowed where one is not.
fn capability() -> [u8; 20] {
    const REVISION_2: u32 = 0x0200_0000;
    let permitted = CAPABILITIES.iter().fold(0_u64, |set, (_, number)| set | 1 << number);
    #[expect(clippy::cast_possible_truncation, reason = "one half after the other")]
    let (low, high) = (permitted as u32, (permitted >> 32) as u32);
    let words = [REVISION_2, low, 0, high, 0].map(u32::to_le_bytes);
    let mut bytes = [0; 20];
    bytes.copy_from_slice(words.as_flattened());
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_layer_is_the_binary_with_its_capabilities() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("binary"), "of tracer").unwrap();
        write(&path("binary"), &path("1.tar")).unwrap();
        write(&path("binary"), &path("2.tar")).unwrap();
        assert_eq!(fs::read(path("1.tar")).unwrap(), fs::read(path("2.tar")).unwrap());
        let mut archive = tar::Archive::new(fs::File::open(path("1.tar")).unwrap());
        let mut entries = archive.entries().unwrap();
        let mut entry = entries.next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap(), Path::new("tracer"));
        assert_eq!((entry.header().mode().unwrap(), entry.header().uid().unwrap()), (0o755, 0));
        let extensions = entry.pax_extensions().unwrap().unwrap();
        let extensions: Vec<_> = extensions
            .map(|one| one.map(|one| (one.key().unwrap().to_owned(), one.value_bytes().to_owned())).unwrap())
            .collect();
        assert_eq!(extensions, [("SCHILY.xattr.security.capability".to_owned(), capability().to_vec())]);
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "of tracer");
        assert!(entries.next().is_none());
    }

    /// As `setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+p` sets it.
    #[test]
    fn the_attribute_is_what_setcap_sets() {
        let expected = [0, 0, 0, 2, 4, 0, 8, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(capability(), expected);
    }

    #[test]
    fn the_capabilities_are_those_of_the_manifest() {
        let manifest = include_str!("../../deploy/daemonset.yaml");
        let manifest: serde_yaml_ng::Value = serde_yaml_ng::from_str(manifest).unwrap();
        let context = &manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"];
        let added = context["capabilities"]["add"].as_sequence().unwrap().iter();
        let added: Vec<&str> = added.map(|name| name.as_str().unwrap()).collect();
        assert_eq!(added, CAPABILITIES.map(|(name, _)| name));
    }
}
