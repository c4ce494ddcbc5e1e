//! Packages of another Debian suite than the machine's, without touching what apt and dpkg know.
//!
//! apt runs with the machine's settings (a proxy stays in use), but its sources, lists, downloads and its record of
//! installed packages (none) are in a directory of ours. It verifies signatures as ever, with Debian's keyring.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::machine::has_apt;
use crate::process::{clean, quietly};

/// Of the package debian-archive-keyring, which Debian's apt depends on.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A suite whose lists are in a directory.
#[derive(Debug)]
pub(crate) struct Suite {
    dir: PathBuf,
}

impl Suite {
    /// Fetches the lists of the suite of that name from [`mirror`] into `dir`; for that architecture, as Debian names it,
    /// or this machine's.
    pub(crate) fn open(mirror: &str, name: &str, architecture: Option<&str>, dir: &Path) -> Result<Self> {
        let suite = Self { dir: dir.to_owned() };
        fs::create_dir_all(suite.archives())?;
        fs::create_dir_all(dir.join("lists"))?;
        // No package is installed there: what others depend on is fetched, too.
        fs::write(dir.join("status"), "")?;
        fs::write(dir.join("sources.list"), source(mirror, name))?;
        fs::write(suite.settings(), settings(dir, architecture))?;
        quietly(suite.apt_get().arg("update"))?;
        Ok(suite)
    }

    /// Fetches packages, named as apt-get takes them (`criu`, `criu=4.1*`), and all they depend on: the files of
    /// these and of those fetched before.
    pub(crate) fn fetch(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let install = ["install", "--download-only", "--no-install-recommends", "--yes"];
        quietly(self.apt_get().args(install).args(packages))?;
        let mut files = Vec::new();
        for entry in fs::read_dir(self.archives())? {
            let file = entry?.path();
            if file.extension() == Some(OsStr::new("deb")) {
                files.push(file);
            }
        }
        Ok(files)
    }

    /// What apt says of a package: a field a line.
    pub(crate) fn show(&self, package: &str) -> Result<String> {
        quietly(self.apt("apt-cache").args(["show", "--no-all-versions", package]))
    }

    /// The names of the packages that start so, one a line.
    pub(crate) fn names(&self, prefix: &str) -> Result<String> {
        quietly(self.apt("apt-cache").args(["pkgnames", prefix]))
    }

    /// Fetches one package without what it depends on: its file.
    pub(crate) fn download(&self, package: &str) -> Result<PathBuf> {
        let dir = self.dir.join(package);
        fs::create_dir_all(&dir)?;
        quietly(self.apt("apt-get").args(["download", package]).current_dir(&dir))?;
        let file =
            fs::read_dir(&dir)?.next().with_context(|| format!("apt-get left no file of {package}"))?;
        Ok(file?.path())
    }

    fn apt_get(&self) -> Command {
        self.apt("apt-get")
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = clean(OsStr::new(program));
        command.arg("--config-file").arg(self.settings());
        command
    }

    fn settings(&self) -> PathBuf {
        self.dir.join("apt.conf")
    }

    fn archives(&self) -> PathBuf {
        self.dir.join("archives")
    }
}

/// Unpacks the package's files below `root` and runs none of its scripts.
pub(crate) fn unpack(package: &Path, root: &Path) -> Result<()> {
    quietly(clean(OsStr::new("dpkg-deb")).arg("--extract").arg(package).arg(root))?;
    Ok(())
}

/// Where the machine's apt has Debian from, which has the other suites, too.
pub(crate) fn mirror() -> Result<String> {
    ensure!(has_apt(), "there is no apt to fetch packages with");
    let targets = [
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Origin: Debian",
        "Label: Debian",
    ];
    let found = quietly(clean(OsStr::new("apt-get")).args(targets).arg("Component: main"))?;
    let first =
        found.lines().next().context("apt names no mirror of Debian (or `apt-get update` never ran)")?;
    Ok(first.to_owned())
}

/// A line of `sources.list` that is for the packages alone: no translations, no icons.
fn source(mirror: &str, suite: &str) -> String {
    format!("deb [target=Packages signed-by={KEYRING}] {mirror} {suite} main\n")
}

/// What differs from the machine's settings: everything is in `dir`, no suite is preferred, an update
/// without network fails, and nothing else happens after it.
fn settings(dir: &Path, architecture: Option<&str>) -> String {
    let dir = dir.display();
    let architecture = architecture.map_or_else(String::new, |architecture| {
        format!(
            "APT::Architecture \"{architecture}\";\n#clear APT::Architectures;\nAPT::Architectures {{ \"{architecture}\"; }};\n"
        )
    });
    let common = format!(
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
"#
    );
    common + &architecture
}

#[cfg(test)]
mod tests {
    use super::*;

    /// apt itself says where it would read and write.
    #[test]
    fn nothing_of_the_machine_is_used() {
        if !has_apt() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let suite = Suite { dir: dir.path().to_owned() };
        fs::write(suite.settings(), settings(dir.path(), Some("arm64"))).unwrap();
        let mut config = clean(OsStr::new("apt-config"));
        config.arg("--config-file").arg(suite.settings()).arg("shell");
        for (name, key) in [
            ("sources", "Dir::Etc::SourceList/f"),
            ("lists", "Dir::State::Lists/f"),
            ("status", "Dir::State::Status/f"),
            ("extended", "Dir::State::Extended_States/f"),
            ("archives", "Dir::Cache::Archives/f"),
        ] {
            config.args([name, key]);
        }
        let shell = quietly(&mut config).unwrap();
        assert_eq!(shell.lines().count(), 5, "{shell}");
        let ours = format!("='{}/", dir.path().display());
        assert!(shell.lines().all(|line| line.contains(&ours)), "{shell}");

        let architecture = ["shell", "architecture", "APT::Architecture"];
        let mut config = clean(OsStr::new("apt-config"));
        let said = quietly(config.arg("--config-file").arg(suite.settings()).args(architecture));
        assert_eq!(said.unwrap(), "architecture='arm64'\n");

        let hooks = quietly(
            clean(OsStr::new("apt-config"))
                .arg("--config-file")
                .arg(suite.settings())
                .args(["dump", "APT::Update"]),
        );
        assert_eq!(hooks.unwrap(), "APT::Update \"\";\nAPT::Update::Error-Mode \"any\";\n");
    }

    #[test]
    fn source_is_signed_and_for_packages_only() {
        assert_eq!(
            source("http://mirror.example/debian/", "trixie"),
            "deb [target=Packages signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
             http://mirror.example/debian/ trixie main\n"
        );
    }
}
