//! What the workflows of `.github` run: all of it is named by digest, since a tag can be moved.

use std::fs;

use serde_yaml_ng::Value;

use crate::process::root;

/// The text of each workflow, and what it says.
fn workflows() -> Vec<(String, Value)> {
    let files = fs::read_dir(root().join(".github/workflows")).unwrap();
    let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    texts.map(|text| (text.clone(), serde_yaml_ng::from_str(&text).unwrap())).collect()
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[test]
fn workflows_name_actions_and_images_by_digest() {
    for (text, workflow) in workflows() {
        let used: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("uses: ")).map(|(_, used)| used).collect();
        assert!(!used.is_empty());
        for used in used {
            let named = used.split_once('@').and_then(|(_, version)| version.split_once(" # v"));
            let (commit, release) =
                named.unwrap_or_else(|| panic!("{used}: no commit, or no release behind it"));
            assert!(is_hex(commit, 40) && release.starts_with(|c: char| c.is_ascii_digit()), "{used}");
        }
        for (name, job) in workflow["jobs"].as_mapping().unwrap() {
            let Some(image) = job["container"].as_str() else { continue };
            let digest = image.split_once("@sha256:").map(|(_, digest)| digest);
            assert!(digest.is_some_and(|digest| is_hex(digest, 64)), "{name:?}: {image}");
        }
    }
}

#[test]
fn no_step_of_a_workflow_finds_credentials_of_the_checkout() {
    for (_, workflow) in workflows() {
        assert_eq!(workflow["permissions"]["contents"], "read");
        for (name, job) in workflow["jobs"].as_mapping().unwrap() {
            let steps = job["steps"].as_sequence().unwrap().iter();
            let is_checkout = |step: &&Value| {
                step["uses"].as_str().is_some_and(|used| used.starts_with("actions/checkout@"))
            };
            for step in steps.filter(is_checkout) {
                assert_eq!(step["with"]["persist-credentials"], false, "{name:?}");
            }
        }
    }
}
