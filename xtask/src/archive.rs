//! Archives that are the same, byte for byte, when they are made of the same files and commit.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, Header, HeaderMode};
use xshell::{Shell, cmd};

use crate::process::quietly;

/// Name of the image's archive, beside the binary.
pub(crate) const IMAGE_LAYER: &str = "image.tar";

/// The capabilities that `deploy/daemonset.yaml` adds, with their numbers (include/uapi/linux/capability.h).
const CAPABILITIES: [(&str, u32); 4] =
    [("BPF", 39), ("PERFMON", 38), ("SYS_PTRACE", 19), ("DAC_READ_SEARCH", 2)];

/// Time of the last commit in seconds since 1970; that of the first release where there is no repository.
pub(crate) fn commit_time(sh: &Shell) -> u64 {
    const FIRST_RELEASE: u64 = 1_790_000_000;
    let time = quietly(cmd!(sh, "git log -1 --format=%ct"));
    time.ok().and_then(|time| time.trim().parse().ok()).unwrap_or(FIRST_RELEASE)
}

/// Writes a `.tar.gz` with these files at its top, ordered by name.
pub(crate) fn write(archive: &Path, files: &[PathBuf], time: u64) -> Result<()> {
    let output = File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    // Neither a name nor a time is written.
    let mut builder = Builder::new(GzBuilder::new().write(output, Compression::best()));
    let mut files = files.to_vec();
    files.sort_by_key(|file| file.file_name().map(ToOwned::to_owned));
    for file in files {
        let name = file.file_name().with_context(|| format!("{} is not a file", file.display()))?;
        append(&mut builder, &file, name.as_ref(), time)?;
    }
    builder.into_inner()?.finish()?;
    Ok(())
}

/// Writes the only layer of the agent's image: `/tracer` with its capabilities.
///
/// They are an extended attribute of the file (capabilities(7)). To set it on a file takes root, and would give these
/// capabilities to every user of this machine; in an archive it is a record that engines apply when they unpack it.
pub(crate) fn write_image_layer(binary: &Path, layer: &Path, time: u64) -> Result<()> {
    let output = File::create(layer).with_context(|| format!("cannot write {}", layer.display()))?;
    let mut builder = Builder::new(output);
    builder.append_pax_extensions([("SCHILY.xattr.security.capability", &capability_attribute()[..])])?;
    append(&mut builder, binary, Path::new("tracer"), time)?;
    Ok(builder.finish()?)
}

fn append(builder: &mut Builder<impl std::io::Write>, file: &Path, name: &Path, time: u64) -> Result<()> {
    let input = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut header = Header::new_gnu();
    header.set_metadata_in_mode(&input.metadata()?, HeaderMode::Deterministic);
    header.set_mtime(time);
    builder.append_data(&mut header, name, input).with_context(|| format!("cannot pack {}", file.display()))
}

/// The attribute `security.capability` (`vfs_cap_data` in include/uapi/linux/capability.h): permitted, but not
/// effective by itself, so that tracer can report which capability is not allowed.
fn capability_attribute() -> [u8; 20] {
    const REVISION_2: u32 = 0x0200_0000;
    let permitted = CAPABILITIES.iter().fold(0_u64, |set, (_, number)| set | 1 << number);
    #[expect(clippy::cast_possible_truncation, reason = "one half after the other")]
    let (low, high) = (permitted as u32, (permitted >> 32) as u32);
    let mut bytes = [0; 20];
    bytes.copy_from_slice([REVISION_2, low, 0, high, 0].map(u32::to_le_bytes).as_flattened());
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_same_files_make_the_same_archive() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["a", "b"] {
            fs::write(path(name), name).unwrap();
        }
        write(&path("1.tar.gz"), &["b", "a"].map(path), 7).unwrap();
        let old = File::options().write(true).open(path("a")).unwrap();
        old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        write(&path("2.tar.gz"), &["a", "b"].map(path), 7).unwrap();
        assert_eq!(fs::read(path("1.tar.gz")).unwrap(), fs::read(path("2.tar.gz")).unwrap());
    }

    #[test]
    fn the_layer_is_the_binary_with_its_capabilities() {
        let directory = tempfile::tempdir().unwrap();
        let (binary, layer) = (directory.path().join("binary"), directory.path().join("image.tar"));
        fs::write(&binary, "of tracer").unwrap();
        write_image_layer(&binary, &layer, 7).unwrap();
        let mut archive = tar::Archive::new(File::open(layer).unwrap());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap(), Path::new("tracer"));
        assert_eq!((entry.header().uid().unwrap(), entry.header().mtime().unwrap()), (0, 7));
        let extension = entry.pax_extensions().unwrap().unwrap().next().unwrap().unwrap();
        assert_eq!(extension.key().unwrap(), "SCHILY.xattr.security.capability");
        // What `setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search+p` sets.
        let expected = [0, 0, 0, 2, 4, 0, 8, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(extension.value_bytes(), expected);
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
