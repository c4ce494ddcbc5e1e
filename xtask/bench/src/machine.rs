//! The machine that was measured on: times mean nothing without it.

use std::{fs, path::Path, process::Command};

use harness::need;
use serde::Serialize;

use crate::cpu;

/// What differs from machine to machine.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// Program and what it says of its version.
    pub(crate) versions: Vec<(String, String)>,
    /// Processes that wanted to run, over a minute: before the first measurement, and after the last.
    pub(crate) load_before: String,
    pub(crate) load_after: String,
    /// When the run began.
    pub(crate) started: String,
}

impl Machine {
    /// Looks at it, before anything is measured.
    pub(crate) fn look(tracer: &Path) -> Self {
        let uname = rustix::system::uname();
        let kernel = format!("{} {}", uname.release().to_string_lossy(), uname.machine().to_string_lossy());
        let mut versions = vec![("tracer".to_owned(), version(tracer, &["--version"]))];
        for (name, argument) in [
            ("runc", "--version"),
            ("opensnoop", "--version"),
            ("execsnoop", "--version"),
            ("bpftrace", "--version"),
        ] {
            let found = need::find(name).map_or("missing".into(), |program| version(&program, &[argument]));
            versions.push((name.into(), found));
        }
        Self {
            cpu: cpu_model(&read("/proc/cpuinfo")).unwrap_or("unknown").into(),
            cpus: cpu::count().unwrap_or(1),
            memory_mib: memory(&read("/proc/meminfo")).unwrap_or(0),
            kernel,
            versions,
            load_before: load(),
            load_after: String::new(),
            started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }
    }

    /// Notes how busy the machine is now.
    pub(crate) fn finish(&mut self) {
        self.load_after = load();
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn load() -> String {
    read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned()
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    // arm64 tells no name.
    let line = |name| cpuinfo.lines().find(|line: &&str| line.starts_with(name));
    Some(line("model name").or_else(|| line("CPU part"))?.split_once(':')?.1.trim())
}

fn memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? / 1024)
}

/// The first line that has a digit.
fn version(program: &Path, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return "does not start".into() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines()
        .find(|line| line.contains(|c: char| c.is_ascii_digit()))
        .unwrap_or("unknown")
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n"), Some("Some CPU @ 2 GHz"));
        assert_eq!(cpu_model("processor\t: 0\nCPU part\t: 0xd0c\n"), Some("0xd0c"));
        assert_eq!(cpu_model(""), None);
        assert_eq!(memory("MemTotal:       24576000 kB\nMemFree: 1 kB\n"), Some(24_000));
    }
}
