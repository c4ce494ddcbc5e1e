//! Builds the BPF object from source, for `tracer` to embed.

use anyhow::Context as _;
use aya_build::{Package, Toolchain};

#[path = "../xtask/src/pins.rs"]
#[expect(dead_code, reason = "one of the pins is for here")]
mod pins;

fn main() -> anyhow::Result<()> {
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tracer-ebpf");
    // The object depends on these too, which aya-build does not know.
    println!("cargo::rerun-if-changed=../tracer-common");
    println!("cargo::rerun-if-changed=../xtask/src/pins.rs");
    let package = Package { name: "tracer-ebpf", root_dir, ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(pins::NIGHTLY))
        .context("building the BPF object; `cargo xtask build` installs what that needs")
}
