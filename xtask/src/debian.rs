//! Packages of another Debian suite than this machine's: scripts with the functions of `debian.sh`.

use std::fs;

use anyhow::{Result, ensure};
use xshell::{Shell, cmd};

use crate::{process::quietly, setup::has_apt};

const FUNCTIONS: &str = include_str!("debian.sh");

/// Runs a script with these arguments.
pub(crate) fn run(sh: &Shell, script: &str, arguments: &[&str]) -> Result<()> {
    ensure!(has_apt(), "there is no apt to download packages with");
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, FUNCTIONS.to_owned() + script)?;
    let file = file.path();
    quietly(cmd!(sh, "sh {file} {arguments...}")).map(drop)
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
        let dir = dir.path().to_str().unwrap();
        let script = FUNCTIONS.to_owned()
            + "configure_suite http://mirror.example/debian trixie arm64 \"$1\"
               own_apt apt-config shell a Dir::Etc::SourceList/f b Dir::State::Lists/f c Dir::State::Status/f \\
                   d Dir::State::Extended_States/f e Dir::Cache::Archives/f
               own_apt apt-config shell architecture APT::Architecture
               own_apt apt-config dump APT::Update";
        let output = quietly(cmd!(sh, "sh -c {script} test {dir}")).unwrap();
        let (paths, rest) = output.split_at(output.find("architecture").unwrap());
        assert_eq!(paths.lines().filter(|line| line.contains(&format!("='{dir}/"))).count(), 5, "{output}");
        assert_eq!(rest, "architecture='arm64'\nAPT::Update \"\";\nAPT::Update::Error-Mode \"any\";\n");
    }
}
