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

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_yaml_ng::Value;

    use crate::process::root;

    /// The text of each workflow, and what it says.
    fn workflows() -> Vec<(String, Value)> {
        let files = fs::read_dir(root().join(".github/workflows")).unwrap();
        let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
        texts.map(|text| (text.clone(), serde_yaml_ng::from_str(&text).unwrap())).collect()
    }

    fn is_hex(text: &str, digits: usize) -> bool {
        text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    #[test]
    fn workflows_name_actions_and_images_by_digest() {
        for (text, workflow) in workflows() {
            let used: Vec<&str> = text.lines().filter_map(|line| line.split_once("uses: ")).map(|(_, used)| used).collect();
            assert!(!used.is_empty());
            for used in used {
                let named = used.split_once('@').and_then(|(_, version)| version.split_once(" # v"));
                let (commit, release) = named.unwrap_or_else(|| panic!("{used}: no commit, or no release behind it"));
                assert!(is_hex(commit, 40) && release.starts_with(|c: char| c.is_ascii_digit()), "{used}");
            }
            for (name, job) in workflow["jobs"].as_mapping().unwrap() {
                let Some(image) = job["container"].as_str() else { continue };
                let digest = image.split_once("@sha256:").map(|(_, digest)| digest);
                assert!(digest.is_some_and(|digest| is_hex(digest, 64)), "{name:?}: {image}");
            }
        }
    }

    #[test]
    fn no_step_of_a_workflow_finds_credentials_of_the_checkout() {
        for (_, workflow) in workflows() {
            assert_eq!(workflow["permissions"]["contents"], "read");
            for (name, job) in workflow["jobs"].as_mapping().unwrap() {
                let steps = job["steps"].as_sequence().unwrap().iter();
                let is_checkout = |step: &&Value| step["uses"].as_str().is_some_and(|used| used.starts_with("actions/checkout@"));
                for step in steps.filter(is_checkout) {
                    assert_eq!(step["with"]["persist-credentials"], false, "{name:?}");
                }
            }
        }
    }

    #[test]
    fn the_images_of_clusters_are_named_by_digest() {
        assert!(super::KIND_NODE.split_once("@sha256:").is_some_and(|(_, digest)| is_hex(digest, 64)));
    }
}
