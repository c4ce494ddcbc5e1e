//! What real engines have written.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What CRI-O and containerd executed: a command line a line, its words joined by blanks.
const COMMAND_LINES: [&str; 4] = [
    include_str!("../fixtures/argv/containerd-crun128.txt"),
    include_str!("../fixtures/argv/containerd-runc13.txt"),
    include_str!("../fixtures/argv/crio-crun128.txt"),
    include_str!("../fixtures/argv/crio-runc13.txt"),
];

/// Command lines as the kernel keeps them: each word followed by a NUL.
pub(super) fn command_lines() -> Vec<Vec<u8>> {
    let lines = COMMAND_LINES.iter().flat_map(|file| file.lines()).filter(|line| !line.starts_with('#'));
    let mut blocks: Vec<Vec<u8>> = lines.filter_map(|line| Some(block(line.split_once(" | ")?.1))).collect();
    blocks.sort();
    blocks.dedup();
    blocks
}

/// A line without quotes as the kernel keeps it.
pub(super) fn block(line: &str) -> Vec<u8> {
    line.split(' ').flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect()
}

/// The `config.json` of bundles.
pub(super) fn bundles() -> Vec<Vec<u8>> {
    // Of `tracer`, or of its `fuzz`.
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = package.ancestors().map(|dir| dir.join("annotations/tests/fixtures")).find(|dir| dir.is_dir());
    let list = |dir: &Path| -> Vec<PathBuf> {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries
    };
    let engines = list(&dir.expect("the fixtures of bundles"));
    engines.iter().flat_map(|engine| list(engine)).map(|file| fs::read(file).unwrap()).collect()
}
