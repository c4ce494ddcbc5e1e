//! The layers of `tracer/src`: a module uses modules of lower layers only. So there is no cycle between modules.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::process::root;

/// The modules, from the lowest layer to the highest. `docs/project/architecture.md` says what each is for.
const LAYERS: [&str; 17] = [
    "error",
    "model",
    "sanitize",
    "sys",
    "text_cache",
    "bpf",
    "cri",
    "registry",
    "discovery",
    "kinds",
    "output",
    "frames",
    "pipeline",
    "run",
    "cli",
    "kubectl",
    "testing",
];

/// Fails with every use of a module of the same or a higher layer.
pub(crate) fn check() -> Result<()> {
    let source = root().join("tracer/src");
    let mut problems = Vec::new();
    for file in files(&source)? {
        let path = file.strip_prefix(&source)?;
        let first = path.iter().next().and_then(|first| first.to_str()).unwrap_or_default();
        let module = first.trim_end_matches(".rs");
        let Some(layer) = layer(module) else {
            // The crate's root and its programs.
            ensure!(
                matches!(module, "lib" | "main" | "bin"),
                "{module} is in no layer of xtask/src/layers.rs"
            );
            continue;
        };
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for used in uses(&text).filter(|used| used != module) {
            if self::layer(&used).is_none_or(|used| used >= layer) {
                problems.push(format!("{}: {module} uses {used}", path.display()));
            }
        }
    }
    problems.dedup();
    ensure!(problems.is_empty(), "a lower layer uses a higher one:\n{}", problems.join("\n"));
    Ok(())
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|known| *known == module)
}

/// All Rust files below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The modules after each `crate::`, outside of unit tests.
fn uses(text: &str) -> impl Iterator<Item = String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.split("crate::").skip(1).flat_map(|after| match after.strip_prefix('{') {
        Some(group) => names(group),
        None => vec![name(after)],
    })
}

/// The first names of the paths in a group, up to its closing brace.
fn names(group: &str) -> Vec<String> {
    let (mut found, mut depth, mut begins) = (Vec::new(), 0, true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            _ if begins && depth == 0 && !character.is_whitespace() => {
                found.push(name(&group[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    found
}

fn name(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_paths_and_groups() {
        let text = "use crate::{\n    bpf::{Hook, load},\n    error::chain,\n};\nfn f() { crate::sys::x() }\n\
                    #[cfg(test)]\nmod tests { use crate::run; }";
        assert_eq!(uses(text).collect::<Vec<_>>(), ["bpf", "error", "sys"]);
    }
}
