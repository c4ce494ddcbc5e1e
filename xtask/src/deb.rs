//! The Debian package, of the static binaries. `tracer/Cargo.toml` lists its content for cargo-deb; generated files are
//! put beside the binaries first, where cargo-deb finds them by paths below `target/release`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use crate::{
    archive,
    dist::{self, Target, VERSION},
    man,
    pins::STABLE,
    process::{quietly, root, target_dir},
    setup::{self, Scope},
};

/// Below the directory of the binaries.
const GENERATED: &str = "package";

/// `cargo xtask deb`: builds the package for this machine's architecture into `target/dist`.
pub(crate) fn run(sh: &Shell) -> Result<()> {
    setup::ensure(sh, Scope::Deb)?;
    let target = Target::here()?;
    let binaries = dist::build_all(sh, target)?;
    let generated = target_dir().join(target.triple).join("release").join(GENERATED);
    let pages = generated.join("man");
    man::pages(sh, &binaries, &pages)?;
    sh.read_dir(&pages)?.iter().try_for_each(|page| archive::compress(page))?;
    man::completions(sh, &binaries, &generated.join("completions"))?;
    let time = archive::commit_time(sh);
    write_changelog(sh, &generated, time)?;

    let (triple, output) = (target.triple, dist::directory().join(""));
    let deb = cmd!(
        sh,
        "rustup run {STABLE} cargo deb --quiet --package tracer --no-build --no-strip --target {triple} --output {output}"
    );
    print!("{}", quietly(deb.env("SOURCE_DATE_EPOCH", time.to_string()))?);
    Ok(())
}

/// What Debian calls a changelog: which version this is. The project's own changelog says what has changed.
fn write_changelog(sh: &Shell, directory: &Path, time: u64) -> Result<()> {
    let manifest = fs::read_to_string(root().join("tracer/Cargo.toml"))?;
    let maintainer = maintainer(&manifest).context("tracer/Cargo.toml names no maintainer of the package")?;
    let time = format!("@{time}");
    let date = quietly(cmd!(sh, "date -R -u -d {time}").env("LC_ALL", "C"))?;
    let text = format!(
        "tracer ({VERSION}-1) unstable; urgency=medium\n\n  * Version {VERSION}: see \
         /usr/share/doc/tracer/changelog.gz.\n\n -- {maintainer}  {date}"
    );
    let file = directory.join("changelog.Debian");
    fs::write(&file, text)?;
    archive::compress(&file)
}

fn maintainer(manifest: &str) -> Option<&str> {
    manifest.lines().find_map(|line| line.strip_prefix("maintainer = \"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// cargo-deb looks in the directory of the target only for paths that begin with `target/release`.
    #[test]
    fn every_source_of_the_package_is_where_it_is_looked_for() {
        let manifest = include_str!("../../tracer/Cargo.toml");
        assert!(maintainer(manifest).unwrap().ends_with('>'));
        let sources = manifest.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next());
        let sources: Vec<_> = sources.collect();
        assert!(sources.iter().filter(|source| source.contains(GENERATED)).count() >= 5, "{sources:?}");
        for source in sources {
            let is_file = source.starts_with("../") && root().join("tracer").join(source).is_file();
            assert!(is_file || source.starts_with("target/release/"), "{source}");
        }
    }
}
