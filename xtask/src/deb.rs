//! The Debian package, of the static binaries. What is in it stands in `tracer/Cargo.toml`; what of it is generated is put
//! beside the binaries first, where cargo-deb finds it by a path below `target/release`.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    archive,
    dist::{self, Target},
    man,
    pins::STABLE,
    process::{cargo, clean, quietly, root, target_dir},
};

/// Below the directory of the binaries.
const GENERATED: &str = "package";

/// Builds the package for this machine's architecture: its file.
pub(crate) fn run() -> Result<PathBuf> {
    let target = Target::here()?;
    let binaries = dist::for_package(target)?;
    let generated = target_dir().join(target.triple).join("release").join(GENERATED);
    fs::create_dir_all(&generated).with_context(|| format!("making {}", generated.display()))?;
    let pages = generated.join("man");
    man::pages(&binaries, &pages)?;
    compress(fs::read_dir(&pages)?.map(|page| Ok(page?.path())).collect::<Result<Vec<_>>>()?)?;
    man::completions(&binaries, &generated.join("completions"))?;
    write_changelog(&generated)?;

    let mut deb = cargo(STABLE);
    deb.args([
        "deb",
        "--quiet",
        "--package",
        "tracer",
        "--no-build",
        "--no-strip",
        "--target",
        target.triple,
    ]);
    deb.arg("--output").arg(dist::directory().join(""));
    deb.env("SOURCE_DATE_EPOCH", archive::seconds().to_string());
    let said = quietly(&mut deb)?;
    let file = PathBuf::from(said.lines().last().context("cargo-deb did not say what it made")?);
    ensure!(file.is_file(), "cargo-deb made no {}", file.display());
    Ok(file)
}

/// What Debian calls a changelog: that this is the package of a version. What has changed is told by the other one.
fn write_changelog(directory: &Path) -> Result<()> {
    let manifest = fs::read_to_string(root().join("tracer/Cargo.toml"))?;
    let maintainer = maintainer(&manifest).context("tracer/Cargo.toml names no maintainer of the package")?;
    let time = format!("@{}", archive::seconds());
    let date = quietly(clean(OsStr::new("date")).args(["-R", "-u", "-d", &time]))?;
    let file = directory.join("changelog.Debian");
    fs::write(&file, changelog(dist::VERSION, maintainer, date.trim()))?;
    compress([file])
}

/// Compresses the files, as Debian has it, and so that the same are always the same.
fn compress(files: impl IntoIterator<Item = PathBuf>) -> Result<()> {
    quietly(clean(OsStr::new("gzip")).args(["-9", "--no-name", "--force"]).args(files))?;
    Ok(())
}

fn changelog(version: &str, maintainer: &str, date: &str) -> String {
    format!(
        "tracer ({version}-1) unstable; urgency=medium\n\n  * Version {version}: see \
         /usr/share/doc/tracer/changelog.gz.\n\n -- {maintainer}  {date}\n"
    )
}

fn maintainer(manifest: &str) -> Option<&str> {
    manifest.lines().find_map(|line| line.strip_prefix("maintainer = \"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = include_str!("../../tracer/Cargo.toml");

    #[test]
    fn the_changelog_is_as_debian_has_it() {
        let maintainer = maintainer(MANIFEST).unwrap();
        assert!(maintainer.ends_with('>') && maintainer.contains(" <"), "{maintainer}");
        assert_eq!(
            changelog("1.2.3", "A <a@b.c>", "Sat, 21 Nov 2026 19:00:00 +0000"),
            "tracer (1.2.3-1) unstable; urgency=medium\n\n  * Version 1.2.3: see \
             /usr/share/doc/tracer/changelog.gz.\n\n -- A <a@b.c>  Sat, 21 Nov 2026 19:00:00 +0000\n"
        );
    }

    /// By a path that does not begin like this, cargo-deb would not look in the directory that builds go to.
    #[test]
    fn what_is_generated_is_packaged_from_beside_the_binaries() {
        let sources = MANIFEST.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next());
        let sources: Vec<_> = sources.collect();
        let generated = sources.iter().filter(|source| source.contains(GENERATED)).count();
        assert!(generated >= 5, "{sources:?}");
        for source in sources.iter().filter(|source| source.contains("target")) {
            assert!(source.starts_with("target/release/"), "{source}");
        }
        for source in sources.iter().filter(|source| source.starts_with("../")) {
            assert!(root().join("tracer").join(source).is_file(), "{source}");
        }
    }
}
