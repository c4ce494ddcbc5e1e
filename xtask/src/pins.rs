//! The versions everything is built with: the one place they are written down.
//!
//! `xtask` installs them and `tracer/build.rs` builds the BPF object with [`NIGHTLY`]. There is no
//! `rust-toolchain.toml` on purpose: with it, cargo refuses to start where the toolchain is absent, and
//! so `xtask` could not install it.

/// Builds everything but the BPF object. aya 0.16 needs it.
pub(crate) const STABLE: &str = "1.98.0";
/// Builds the BPF object (`-Z build-std=core`). Its LLVM must not be newer than bpf-linker's.
pub(crate) const NIGHTLY: &str = "nightly-2026-08-05";
/// Links the BPF object.
pub(crate) const BPF_LINKER: &str = "0.13.0";
/// The LLVM major version of [`NIGHTLY`], which bpf-linker is built against.
pub(crate) const LLVM: &str = "22";
/// Checks licences, duplicates and sources of the dependencies (`deny.toml`).
pub(crate) const CARGO_DENY: &str = "0.20.2";
/// Runs the tests (`.config/nextest.toml`).
pub(crate) const CARGO_NEXTEST: &str = "0.9.143";
/// Builds the Debian package.
pub(crate) const CARGO_DEB: &str = "3.8.0";
/// Builds the fuzz targets (`tracer/fuzz`).
pub(crate) const CARGO_FUZZ: &str = "0.13.2";
/// A container runtime that no distribution packages; the tests run it beside runc and crun.
pub(crate) const YOUKI: &str = "0.7.0";
/// Checkpoints and restores containers in the tests, where the machine's own does not work with its kernel.
pub(crate) const CRIU: &str = "4.1.1";
/// The Debian suite that has [`CRIU`].
pub(crate) const CRIU_SUITE: &str = "trixie";
/// Makes clusters of containers. It must be there already.
pub(crate) const KIND: &str = "0.30.0";
/// What their nodes are: the image that the release of [`KIND`] names, which it was tested with.
pub(crate) const KIND_NODE: &str =
    "kindest/node:v1.34.0@sha256:7416a61b42b1662ca6ca89f02028ac133a309a2a30ba309614e8ec94d976dc5a";

/// All of them by name, for shells and CI services.
pub(crate) const ALL: [(&str, &str); 13] = [
    ("STABLE", STABLE),
    ("NIGHTLY", NIGHTLY),
    ("BPF_LINKER", BPF_LINKER),
    ("LLVM", LLVM),
    ("CARGO_DENY", CARGO_DENY),
    ("CARGO_NEXTEST", CARGO_NEXTEST),
    ("CARGO_DEB", CARGO_DEB),
    ("CARGO_FUZZ", CARGO_FUZZ),
    ("YOUKI", YOUKI),
    ("CRIU", CRIU),
    ("CRIU_SUITE", CRIU_SUITE),
    ("KIND", KIND),
    ("KIND_NODE", KIND_NODE),
];
