//! The text of a release.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{dist::VERSION, process::root};

/// `cargo xtask notes`: the section of this version in the changelog, and the image.
pub(crate) fn release(tag: &str, image: Option<&str>) -> Result<String> {
    ensure!(tag == format!("v{VERSION}"), "the tag is {tag}, but the version in Cargo.toml is {VERSION}");
    let changelog = fs::read_to_string(root().join("CHANGELOG.md"))?;
    let notes = section(&changelog, VERSION)
        .with_context(|| format!("CHANGELOG.md has no section `## {VERSION}`: rename `## Unreleased`"))?;
    let image = image
        .map(|image| format!("\n\n### Image\n\n`kubectl tracer deploy` uses this image:\n\n    {image}"));
    Ok(format!("{notes}{}\n", image.unwrap_or_default()))
}

/// What a changelog says of a version. A date may follow in its heading.
fn section(changelog: &str, version: &str) -> Option<String> {
    let heading =
        |line: &str| line.strip_prefix("## ").map(|heading| heading.split(' ').next() == Some(version));
    let mut lines = changelog.lines();
    lines.find(|line| heading(line) == Some(true))?;
    let text: Vec<&str> = lines.take_while(|line| heading(line).is_none()).collect();
    Some(text.join("\n").trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_the_section_of_the_version() {
        let changelog =
            "# Changelog\n\n## Unreleased\n\n- b\n\n## 1.2.3 (2026-11-28)\n\n### Fixed\n\n- a\n\n## 1.2.2\n";
        assert_eq!(section(changelog, "1.2.3").unwrap(), "### Fixed\n\n- a");
        assert_eq!(section(changelog, "1.2"), None);
        assert_eq!(section(changelog, "1.2.2"), None, "it is empty");
    }

    #[test]
    fn tag_of_another_version_is_rejected() {
        let error = release("v0.0.0", None).unwrap_err().to_string();
        assert!(error.starts_with("the tag is v0.0.0, but the version in Cargo.toml is "), "{error}");
    }
}
