//! Packages of another Debian suite than this machine's, without touching what apt and dpkg know.
//!
//! apt runs with this machine's settings (a proxy stays in use), but its sources, lists, downloads and its record of
//! installed packages (none) are in a directory of ours. It verifies signatures as always, with Debian's keyring.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use xshell::{Cmd, Shell, cmd};

use crate::{process::quietly, setup::has_apt};

/// Part of the package debian-archive-keyring, which Debian's apt depends on.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite whose lists are in a directory.
#[derive(Debug)]
pub(crate) struct Suite {
    dir: PathBuf,
}

impl Suite {
    /// Downloads the lists of a suite into `dir`, for this architecture (Debian's name) or this machine's.
    pub(crate) fn open(sh: &Shell, name: &str, architecture: Option<&str>, dir: &Path) -> Result<Self> {
        let mirror = mirror(sh)?;
        fs::create_dir_all(dir.join("archives"))?;
        fs::create_dir_all(dir.join("lists"))?;
        // No package is installed there, so that all dependencies are downloaded, too.
        fs::write(dir.join("status"), "")?;
        // For the packages alone: no translations, no icons.
        let source = format!("deb [target=Packages signed-by={KEYRING}] {mirror} {name} main\n");
        fs::write(dir.join("sources.list"), source)?;
        fs::write(dir.join("apt.conf"), settings(dir, architecture))?;
        let suite = Self { dir: dir.to_owned() };
        quietly(suite.apt(sh, "apt-get").arg("update"))?;
        Ok(suite)
    }

    /// Downloads packages, named as for apt-get (`criu`, `criu=4.1*`), and all that they depend on: the files of
    /// these and of those downloaded before.
    pub(crate) fn fetch(&self, sh: &Shell, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let install = ["install", "--download-only", "--no-install-recommends", "--yes"];
        quietly(self.apt(sh, "apt-get").args(install).args(packages))?;
        let files = sh.read_dir(self.dir.join("archives"))?.into_iter();
        Ok(files.filter(|file| file.extension() == Some(OsStr::new("deb"))).collect())
    }

    /// Downloads one package without its dependencies: its file.
    pub(crate) fn download(&self, sh: &Shell, package: &str) -> Result<PathBuf> {
        let dir = self.dir.join(package);
        fs::create_dir_all(&dir)?;
        let _inside = sh.push_dir(&dir);
        quietly(self.apt(sh, "apt-get").args(["download", package]))?;
        sh.read_dir(&dir)?.pop().with_context(|| format!("apt-get downloaded no file of {package}"))
    }

    /// What apt-cache prints for these arguments.
    pub(crate) fn query(&self, sh: &Shell, arguments: &[&str]) -> Result<String> {
        quietly(self.apt(sh, "apt-cache").args(arguments))
    }

    fn apt<'a>(&self, sh: &'a Shell, program: &str) -> Cmd<'a> {
        let settings = self.dir.join("apt.conf");
        cmd!(sh, "{program} --config-file {settings}")
    }
}

/// Unpacks the package's files below `root`, and runs none of its scripts.
pub(crate) fn unpack(sh: &Shell, package: &Path, root: &Path) -> Result<()> {
    quietly(cmd!(sh, "dpkg-deb --extract {package} {root}"))?;
    Ok(())
}

/// The mirror of Debian that this machine's apt uses. It has the other suites, too.
fn mirror(sh: &Shell) -> Result<String> {
    ensure!(has_apt(), "there is no apt to download packages with");
    let filter = ["Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main"];
    let format = "$(REPO_URI)";
    let mirrors = quietly(cmd!(sh, "apt-get indextargets --format {format} {filter...}"))?;
    let first = mirrors.lines().next();
    Ok(first.context("apt has no mirror of Debian (or `apt-get update` never ran)")?.to_owned())
}

/// Where our settings differ from the machine's: everything is in `dir`, no suite is preferred, an update without
/// network fails, and nothing else happens after it.
fn settings(dir: &Path, architecture: Option<&str>) -> String {
    let dir = dir.display();
    let architecture = architecture.map_or_else(String::new, |name| {
        format!("APT::Architecture \"{name}\";\n#clear APT::Architectures;\nAPT::Architectures {{ \"{name}\"; }};\n")
    });
    format!(
        r#"Dir::Etc::SourceList "{dir}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "{dir}";
Dir::State::Lists "{dir}/lists";
Dir::State::Status "{dir}/status";
Dir::Cache "{dir}";
Dir::Cache::Archives "{dir}/archives";
APT::Default-Release "";
#clear APT::Update;
APT::Update::Error-Mode "any";
{architecture}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// apt itself says where it would read and write.
    #[test]
    fn no_file_of_the_machines_apt_is_used() {
        if !has_apt() {
            return;
        }
        let (sh, dir) = (crate::process::shell().unwrap(), tempfile::tempdir().unwrap());
        let suite = Suite { dir: dir.path().to_owned() };
        fs::write(dir.path().join("apt.conf"), settings(dir.path(), Some("arm64"))).unwrap();
        let keys = [
            "Dir::Etc::SourceList/f",
            "Dir::State::Lists/f",
            "Dir::State::Status/f",
            "Dir::State::Extended_States/f",
            "Dir::Cache::Archives/f",
        ];
        let shell = suite.apt(&sh, "apt-config").arg("shell").args(keys.iter().flat_map(|key| ["path", key]));
        let shell = quietly(shell).unwrap();
        assert_eq!(shell.lines().count(), keys.len(), "{shell}");
        let ours = format!("='{}/", dir.path().display());
        assert!(shell.lines().all(|line| line.contains(&ours)), "{shell}");
        let architecture = suite.apt(&sh, "apt-config").args(["shell", "architecture", "APT::Architecture"]);
        assert_eq!(quietly(architecture).unwrap(), "architecture='arm64'\n");
        let hooks = quietly(suite.apt(&sh, "apt-config").args(["dump", "APT::Update"])).unwrap();
        assert_eq!(hooks, "APT::Update \"\";\nAPT::Update::Error-Mode \"any\";\n");
    }
}
