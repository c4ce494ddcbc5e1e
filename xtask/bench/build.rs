//! Builds the programs for comparison, for the benchmark to embed.

use anyhow::Context as _;
use aya_build::{Package, Toolchain};

#[path = "../src/pins.rs"]
#[expect(dead_code, reason = "one of the pins is for here")]
mod pins;

fn main() -> anyhow::Result<()> {
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/ebpf");
    println!("cargo::rerun-if-changed=../src/pins.rs");
    let package = Package { name: "tracer-bench-ebpf", root_dir, ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(pins::NIGHTLY))
        .context("building the BPF object; `cargo xtask bench` installs what that needs")
}
