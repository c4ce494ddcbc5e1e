//! Builds the BPF object from source, for `tracer` to embed.

use std::{env, fs, path::Path};

use anyhow::Context as _;
use aya_build::{Package, Toolchain};
use object::{
    Object as _, ObjectSymbol as _,
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

#[path = "build/call_sites.rs"]
mod call_sites;
#[path = "src/kubectl/image.rs"]
mod image;
#[path = "../xtask/src/pins.rs"]
#[expect(dead_code, reason = "one of the pins is for here")]
mod pins;
#[path = "../tracer-common/src/preemption.rs"]
mod preemption;

fn main() -> anyhow::Result<()> {
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tracer-ebpf");
    // The object depends on these too, which aya-build does not know.
    println!("cargo::rerun-if-changed=../tracer-common");
    println!("cargo::rerun-if-changed=../xtask/src/pins.rs");
    println!("cargo::rerun-if-changed=build/call_sites.rs");
    // The binary tracer does not depend on it, so it is not built again.
    if env::var_os("CARGO_FEATURE_KUBECTL").is_some() {
        check_release_image()?;
    }
    let package = Package { name: "tracer-ebpf", root_dir, ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(pins::NIGHTLY))
        .context("building the BPF object; `cargo xtask build` installs what that needs")?;
    let out = env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?;
    let object = Path::new(&out).join("tracer-ebpf");
    strip_dwarf(&object).with_context(|| format!("removing debug information from {}", object.display()))?;
    list_call_sites(&object, &Path::new(&out).join("call_sites.rs"))
        .with_context(|| format!("looking for calls in {}", object.display()))?;
    list_offsets(&object, &Path::new(&out).join("offsets.rs"))
        .with_context(|| format!("looking for offsets in {}", object.display()))
}

/// Rejects a release image that is not identified by digest.
fn check_release_image() -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed=TRACER_IMAGE");
    if let Ok(image) = env::var("TRACER_IMAGE") {
        image::check(Some(&image)).map_err(anyhow::Error::msg).context("TRACER_IMAGE")?;
        anyhow::ensure!(
            image.contains("@sha256:"),
            "TRACER_IMAGE is {image:?}: expected REGISTRY/NAME@sha256:DIGEST"
        );
    }
    Ok(())
}

/// Writes which fields of the kernel's structures the object needs the offsets of: `tracer_common::offsets` describes the
/// globals' names.
fn list_offsets(object: &Path, list: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(object)?;
    let file = object::File::parse(bytes.as_slice())?;
    let mut fields = Vec::new();
    for symbol in file.symbols() {
        let name = symbol.name()?;
        let field = [("offset__", true), ("offset_if_any__", false)]
            .into_iter()
            .find_map(|(prefix, required)| Some((name.strip_prefix(prefix)?, required)));
        if let Some((path, required)) = field {
            let (structure, member) =
                path.split_once("__").with_context(|| format!("{name} names no field"))?;
            fields.push((name, structure, member.replace("__", "."), required));
        }
    }
    anyhow::ensure!(!fields.is_empty(), "there are none");
    fields.sort();
    fs::write(list, format!("&{fields:?}"))?;
    Ok(())
}

/// Writes where the object calls functions of the kernel that user space puts in.
fn list_call_sites(object: &Path, list: &Path) -> anyhow::Result<()> {
    let numbers = preemption::FUNCTIONS.map(|(number, _)| number);
    let sites = call_sites::call_sites(&fs::read(object)?, &numbers)?;
    anyhow::ensure!(!sites.is_empty(), "there are none");
    fs::write(list, format!("{sites:?}"))?;
    Ok(())
}

/// Removes the DWARF sections: nine tenths of the object, which the loader would parse at every start. What the
/// verifier's log and bpftool show of the source comes from `.BTF` and `.BTF.ext`, which stay.
fn strip_dwarf(path: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(path)?;
    let mut elf = Builder::read(bytes.as_slice())?;
    for section in &mut elf.sections {
        section.delete = section.name.starts_with(b".debug_") || section.name.starts_with(b".rel.debug_");
    }
    elf.delete_orphans();
    // LLVM keeps the sections' names among those of the symbols. The writer wants a table of their own.
    let names = elf.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = SHT_STRTAB;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    fs::write(path, stripped)?;
    Ok(())
}
