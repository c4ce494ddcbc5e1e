//! Archives that come out the same, byte for byte, from the same files: in the order of their names, of nobody's, and as
//! old as the last commit.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::process::{clean, quietly, root, succeed};

/// Writes an archive that has these files at its top.
pub(crate) fn write(archive: &Path, files: &[&PathBuf]) -> Result<()> {
    let mut tar = clean(OsStr::new("tar"));
    tar.args(["--format=gnu", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"]);
    tar.arg(format!("--mtime=@{}", seconds()));
    // Without the name and the time that gzip itself would write down.
    tar.arg("--use-compress-program=gzip -9n").arg("--create").arg("--file").arg(archive);
    let mut files = files.to_vec();
    files.sort_by_key(|file| file.file_name());
    for file in files {
        let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else {
            anyhow::bail!("{} is no file", file.display());
        };
        ensure!(file.is_file(), "there is no {}", file.display());
        tar.arg("--directory").arg(directory).arg(name);
    }
    succeed(&mut tar).with_context(|| format!("writing {}", archive.display()))
}

/// The time of the last commit, since 1970. Where there is none, that of the first release.
pub(crate) fn seconds() -> u64 {
    const FIRST_RELEASE: u64 = 1_790_000_000;
    let mut git = clean(OsStr::new("git"));
    let said = quietly(git.args(["log", "-1", "--format=%ct"]).current_dir(root()));
    said.ok().and_then(|time| time.trim().parse().ok()).unwrap_or(FIRST_RELEASE)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn the_same_files_make_the_same_archive() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let make = |archive: &str, order: [&str; 2]| {
            for name in order {
                fs::write(path(name), name).unwrap();
            }
            let files = order.map(path);
            write(&path(archive), &[&files[0], &files[1]]).unwrap();
            fs::read(path(archive)).unwrap()
        };
        let first = make("1.tar.gz", ["b", "a"]);
        // Another time, order, mode and name.
        let old = fs::File::options().write(true).open(path("a")).unwrap();
        old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let second = make("2.tar.gz", ["a", "b"]);
        assert_eq!(first, second);

        let list = Command::new("tar").arg("-tvzf").arg(path("1.tar.gz")).output().unwrap().stdout;
        let list = String::from_utf8(list).unwrap();
        let lines: Vec<_> = list.lines().collect();
        assert_eq!(lines.len(), 2, "{list}");
        for (line, name) in lines.iter().zip(["a", "b"]) {
            assert!(line.starts_with("-rw-r--r-- 0/0") && line.ends_with(&format!(" {name}")), "{list}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = write(&directory.path().join("x.tar.gz"), &[&directory.path().join("gone")]).unwrap_err();
        assert!(error.to_string().ends_with("gone"), "{error}");
    }
}
