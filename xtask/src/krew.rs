//! The manifest for krew, from its template and the archives in `target/dist`.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    dist::{self, TARGETS, VERSION},
    process::root,
};

/// The template: what stands between @ is filled in.
const TEMPLATE: &str = "deploy/krew/tracer.yaml";

/// The manifest of this version, with the check sums of the archives.
pub(crate) fn manifest() -> Result<String> {
    let template =
        fs::read_to_string(root().join(TEMPLATE)).with_context(|| format!("cannot read {TEMPLATE}"))?;
    let file = dist::directory().join(dist::SUMS);
    let sums = fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}: `cargo xtask dist` writes it", file.display()))?;
    fill_in(&template, VERSION, &sums)
}

/// Fills in the version and the check sums, which are lines as sha256sum writes them. The comment, which says that this
/// is a template, is removed.
fn fill_in(template: &str, version: &str, sums: &str) -> Result<String> {
    let mut manifest: String =
        template.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    manifest = manifest.replace("@VERSION@", version);
    for target in &TARGETS {
        let archive = dist::archive_name("kubectl-tracer", version, target);
        let sum = sums.lines().find_map(|line| line.strip_suffix(&format!("  {archive}")));
        let sum = sum.with_context(|| format!("no check sum of {archive}: `cargo xtask dist` makes it"))?;
        ensure!(sum.len() == 64, "{sum} is not a SHA-256 check sum");
        manifest = manifest.replace(&format!("@SHA256_{}@", target.platform.to_uppercase()), sum);
    }
    if let Some(line) = manifest.lines().find(|line| line.contains('@')) {
        bail!("{TEMPLATE} has a placeholder that is not filled in: {}", line.trim());
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use serde_yaml_ng::Value;

    use super::*;

    const TEMPLATE: &str = include_str!("../../deploy/krew/tracer.yaml");

    #[test]
    fn filled_in_it_is_what_krew_accepts() {
        let sum = |digit: &str, platform| {
            format!("{}  kubectl-tracer-1.2.3-linux-{platform}.tar.gz\n", digit.repeat(64))
        };
        let sums = sum("a", "amd64") + &sum("b", "arm64");
        let manifest = fill_in(TEMPLATE, "1.2.3", &sums).unwrap();
        let spec = &serde_yaml_ng::from_str::<Value>(&manifest).unwrap()["spec"];
        assert!(spec["shortDescription"].as_str().unwrap().len() <= 50, "krew's index refuses more");
        let platforms = spec["platforms"].as_sequence().unwrap();
        assert_eq!(platforms.len(), TARGETS.len());
        for ((platform, target), digit) in platforms.iter().zip(&TARGETS).zip(["a", "b"]) {
            assert_eq!(platform["selector"]["matchLabels"]["arch"], target.platform);
            assert_eq!(platform["sha256"], digit.repeat(64).as_str());
            let archive = dist::archive_name("kubectl-tracer", "1.2.3", target);
            assert!(platform["uri"].as_str().unwrap().ends_with(&format!("/v1.2.3/{archive}")));
            let files = platform["files"].as_sequence().unwrap();
            let files: Vec<_> = files.iter().map(|file| file["from"].as_str().unwrap()).collect();
            assert_eq!(files[0], platform["bin"].as_str().unwrap());
            assert_eq!(files[1..], [&[dist::COMPLETION][..], &dist::LICENCES].concat());
        }
        assert!(fill_in(TEMPLATE, "1.2.4", &sums).is_err(), "no archive of that version");
        assert!(fill_in("a: \"@OTHER@\"", "1.2.3", &sums).is_err());
    }
}
